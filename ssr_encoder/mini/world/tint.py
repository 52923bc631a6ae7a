"""Recolouring of drawings: a duotone through a dark, a middle and a light stop of one hue, by luminance.

Beside the named colours, of which identities are made, there are nameless *tones*, which only training sees. With seven
colours and a few held-out identities, "this bus is yellow" tells a model which of its drawings it must be, and it stops
looking at the drawing; with hundreds of tones colour says nothing of it. Some tones are *blends*, one colour at one
side of the drawing and another at the other: in them alone training sees a concept in a colour that is held out of it.
"""

import colorsys
import math
import random

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
DUOTONES, TURNS = 240, 48  # tones that are duotones, and those that turn the hue of the drawing's own colours
BLENDS = 112  # tones that are two duotones, one passing into the other across the middle third of the drawing
TONES = DUOTONES + TURNS + BLENDS
APART = 0.3  # distance in RGB from a held-out colour's middle stop below which a tone would be that colour
ENDS_APART = 0.6  # least distance in RGB of a blend's two middle stops


def _duotone(rng: random.Random) -> tuple:
    """A random dark, middle and light stop of one hue, in the manner of COLOURS; one in eight is nearly grey."""
    hue, grey = rng.random(), rng.random() < 0.125
    saturation, value = rng.uniform(0, 0.2) if grey else rng.uniform(0.35, 1), rng.uniform(0.2, 1)
    middle = colorsys.hsv_to_rgb(hue, saturation, value)
    dark = colorsys.hsv_to_rgb(hue, min(1, saturation + 0.3), value * rng.uniform(0.1, 0.4))
    lighter = rng.uniform(0.5, 0.85)
    return dark, middle, tuple(m + (1 - m) * lighter for m in middle)


def _blend(rng: random.Random) -> tuple[tuple, tuple]:
    """Two duotones whose middle stops differ plainly."""
    while True:
        ends = _duotone(rng), _duotone(rng)
        if math.dist(ends[0][1], ends[1][1]) >= ENDS_APART:
            return ends


def _tones() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stops at both ends (colours and tones, 2, 3, 3), the way from one end to the other (colours and tones, 2), zero
    where they are the same, and the turn of the hue (colours and tones,) in turns; the same everywhere."""
    rng, nothing = random.Random(0), ((0, 0, 0),) * 3
    stops = [stops or nothing for stops in COLOURS.values()]
    stops += [_duotone(rng) for _ in range(DUOTONES)] + [nothing] * TURNS
    ends = [(one, one) for one in stops]
    turns = [0.0] * (len(COLOURS) + DUOTONES) + [rng.uniform(1 / 9, 8 / 9) for _ in range(TURNS)] + [0.0] * BLENDS
    ends += [_blend(rng) for _ in range(BLENDS)]
    angles = [rng.uniform(0, 2 * math.pi) for _ in range(BLENDS)]
    ways = [(0.0, 0.0)] * len(stops) + [(math.cos(angle), math.sin(angle)) for angle in angles]
    return torch.tensor(ends, dtype=torch.float32), torch.tensor(ways), torch.tensor(turns)


_STOPS, _WAYS, _TURNS = _tones()


def turned_tones(device) -> torch.Tensor:
    """Which tones turn the hue of the drawing's own colours: BoolTensor (TONES,)."""
    return (_TURNS[len(COLOURS) :] > 0).to(device)


def free_tones(held_out: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Which tones show no held-out colour: BoolTensor (n, TONES).

    Args:
        held_out: BoolTensor (n, colours), colours held out of n concepts.
        means: (n, drawings, 3) mean RGB of each concept's drawings as drawn; NaN where there is none.

    A blend shows a colour if its two ends together do; of its ends one may. A turned hue is judged by what it makes of
    the drawings: their mean colour against the colour's, against their own where "as drawn" is held out.
    """
    middle = _STOPS[:, :, 1].mean(1).to(held_out.device)
    named, nameless = middle.split([len(COLOURS), TONES])
    near = (torch.cdist(nameless, named) < APART).repeat(len(held_out), 1, 1)  # (n, TONES, colours)
    near[..., 0] = False  # no duotone is a drawing in its own colours
    turns = _TURNS[len(COLOURS) :].to(means)
    turn = hue_matrix(turns[turns > 0], torch.ones_like(turns[turns > 0]))
    turned = torch.einsum("tij,ndj->ntdi", turn, means).clamp(0, 1)  # (n, TURNS, drawings, 3)
    apart = (turned[..., None, :] - named).norm(dim=-1)
    apart[..., 0] = (turned - means[:, None]).norm(dim=-1)
    near[:, turns > 0] = (apart < APART).any(2)
    return ~(held_out[:, None] & near).any(-1)


def hue_matrix(hue: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """Rotations of the hue by `hue` turns (n,) that keep luminance, then a gain (n,): (n, 3, 3)."""
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    grey = torch.tensor([0.299, 0.587, 0.114], device=hue.device).expand(3, 3)
    chroma = torch.eye(3, device=hue.device) - grey
    third = math.sqrt(1 / 3)
    cross = torch.tensor([[0, -third, third], [third, 0, -third], [-third, third, 0]], device=hue.device)
    turn = cos[:, None, None] * chroma + sin[:, None, None] * (chroma @ cross @ chroma)
    return (grey + turn) * brightness[:, None, None]


def tint(texture: torch.Tensor, colour: torch.Tensor, luminance: torch.Tensor) -> torch.Tensor:
    """Recolours premultiplied RGBA textures.

    Args:
        texture: (n, 4, h, w) in [0, 1].
        colour: (n,) long, index into COLOURS, or above them a tone; 0 leaves the texture as it is.
        luminance: (n, 2) the dark and light end of each drawing's own luminance, stretched to the whole duotone.

    The map is homogeneous in (luminance, alpha), so it is exact on premultiplied pixels.
    """
    rgb, alpha = texture[:, :3], texture[:, 3:]
    luma = 0.299 * rgb[:, 0:1] + 0.587 * rgb[:, 1:2] + 0.114 * rgb[:, 2:3]
    dark_end, light_end = luminance[:, :1, None, None], luminance[:, 1:, None, None]
    level = ((luma - dark_end * alpha) / (light_end - dark_end)).clamp_min(0).minimum(alpha)
    low = level.minimum(alpha * 0.5)
    ends = _STOPS.to(texture.device)[colour][..., None, None]  # (n, 2, 3, 3, 1, 1)
    dark, middle, light = torch.lerp(ends[:, 0], ends[:, 1], _way(texture, colour)).unbind(1)
    painted = dark * alpha + (middle - dark) * (2 * low) + (light - middle) * (2 * (level - low))
    turns = _TURNS.to(texture.device)[colour]
    turned = (hue_matrix(turns, torch.ones_like(turns)) @ rgb.flatten(2)).view_as(rgb).clamp_min(0).minimum(alpha)
    own = torch.where((turns > 0)[:, None, None, None], turned, rgb)
    duotone = (colour > 0) & (turns == 0)
    return torch.cat([torch.where(duotone[:, None, None, None], painted, own), alpha], 1)


def _way(texture: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """How far every pixel is from a tone's first end to its second: (n, 1, 1, h, w) in [0, 1]."""
    y, x = ((torch.arange(size, device=texture.device) + 0.5) / size * 2 - 1 for size in texture.shape[-2:])
    along = _WAYS.to(texture.device)[colour][..., None, None]
    across = along[:, 0] * x + along[:, 1] * y[:, None]  # (n, h, w) in [-1.5, 1.5]
    return (0.5 + 1.5 * across).clamp(0, 1)[:, None, None]
