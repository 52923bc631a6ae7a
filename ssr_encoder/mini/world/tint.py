"""Recolouring of drawings: a duotone through a dark, a middle and a light stop of one hue, by luminance."""

import torch

# name -> dark, middle and light stop (RGB). The dark stops are nearly black in every tint, so that eyes stay eyes.
COLOURS = {
    "as drawn": None,
    "red": ((0.22, 0.0, 0.02), (0.86, 0.10, 0.12), (1.0, 0.72, 0.66)),
    "yellow": ((0.30, 0.17, 0.0), (0.98, 0.79, 0.05), (1.0, 0.97, 0.70)),
    "green": ((0.0, 0.16, 0.05), (0.13, 0.66, 0.22), (0.76, 0.97, 0.66)),
    "blue": ((0.01, 0.05, 0.26), (0.12, 0.40, 0.93), (0.72, 0.89, 1.0)),
    "purple": ((0.13, 0.01, 0.24), (0.56, 0.20, 0.80), (0.91, 0.76, 1.0)),
    "white": ((0.34, 0.36, 0.40), (0.87, 0.88, 0.91), (1.0, 1.0, 1.0)),
    "black": ((0.02, 0.02, 0.03), (0.15, 0.15, 0.17), (0.60, 0.61, 0.65)),
}
_STOPS = torch.tensor([stops or ((0, 0, 0),) * 3 for stops in COLOURS.values()], dtype=torch.float32)


def tint(texture: torch.Tensor, colour: torch.Tensor, luminance: torch.Tensor) -> torch.Tensor:
    """Recolours premultiplied RGBA textures.

    Args:
        texture: (n, 4, h, w) in [0, 1].
        colour: (n,) long, index into COLOURS; 0 leaves the texture as it is.
        luminance: (n, 2) the dark and light end of each drawing's own luminance, stretched to the whole duotone.

    The map is homogeneous in (luminance, alpha), so it is exact on premultiplied pixels.
    """
    rgb, alpha = texture[:, :3], texture[:, 3:]
    luma = 0.299 * rgb[:, 0:1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:3]
    dark_end, light_end = luminance[:, :1, None, None], luminance[:, 1:, None, None]
    level = ((luma - dark_end * alpha) / (light_end - dark_end)).clamp_min(0).minimum(alpha)
    low = level.minimum(alpha * 0.5)
    dark, middle, light = (s[:, :, None, None] for s in _STOPS.to(texture.device)[colour].unbind(1))
    painted = dark * alpha + (middle - dark) * (2 * low) + (light - middle) * (2 * (level - low))
    return torch.cat([torch.where((colour > 0)[:, None, None, None], painted, rgb), alpha], 1)
