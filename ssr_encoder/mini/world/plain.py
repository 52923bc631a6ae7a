"""Plain backdrops: soft gradients of one hue, computed and not shipped. Scenes turn their hue at random."""

import torch

# saturation, lightness at the top, lightness at the bottom, strength of a soft light in the middle
# fmt: off
_LOOKS = [(0.45, 0.92, 0.80, 0.04), (0.60, 0.80, 0.66, 0.06), (0.55, 0.62, 0.48, 0.08), (0.30, 0.97, 0.88, 0.02),
          (0.0, 0.97, 0.88, 0.0), (0.50, 0.70, 0.70, 0.0), (0.35, 0.42, 0.30, 0.10), (0.0, 0.72, 0.56, 0.08)]
# fmt: on


def plain_backdrops(count: int, side: int) -> torch.Tensor:
    """`count` gradients, uint8 (count, 3, side, side), of hues spread around the circle."""
    ramp = torch.linspace(0, 1, side)
    distance = ((ramp[:, None] - 0.5) ** 2 + (ramp[None] - 0.5) ** 2).sqrt()
    pictures = []
    for k in range(count):
        saturation, top, bottom, light = _LOOKS[k % len(_LOOKS)]
        level = (top + (bottom - top) * ramp[:, None] + light * (1 - 2 * distance)).clamp(0, 1)
        hue = (k * 0.618) % 1
        wave = torch.tensor([0.0, -1 / 3, 1 / 3]) + hue
        colour = (torch.cos(2 * torch.pi * wave) * 0.5)[:, None, None]  # of mean zero: lightness stays
        room = torch.minimum(level, 1 - level) * 2
        pictures.append((level + colour * saturation * room).clamp(0, 1))
    return (torch.stack(pictures) * 255).round().byte()
