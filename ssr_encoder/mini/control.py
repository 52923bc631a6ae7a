"""Maps for the embedded ControlNet: white silhouettes of the subjects, or white edges of the whole picture, on black.

One ControlNet takes both kinds, since a map shows which kind it is.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import SSRError
from ..images import open_mask, open_picture

KINDS = ("layout", "edges")
SIZE = 128  # pixels, the longer side of a map that is made of a user's picture: the embedded model's own
_FAINT = 0.03  # gradient of [0, 1] pixels below which a picture's strongest edges stay grey
_LOW, _HIGH = 0.15, 0.5  # of the picture's strong edges: below is black, above is white


def layout_map(masks: Tensor) -> Tensor:
    """Visible coverage (n, slots, H, W) in [0, 1] -> silhouettes (n, 3, H, W) in [0, 1], all slots in one."""
    return masks.sum(1, keepdim=True).clamp(0, 1).expand(-1, 3, -1, -1)


def edge_map(pictures: Tensor) -> Tensor:
    """Edges (n, 3, H, W) in [0, 1] of pictures (n, 3, H, W) in [0, 1], a pixel or two wide.

    Smoothing, gradient and thinning are those of Canny (1986), the gradient of a pixel being its steepest channel's;
    instead of his tracing along the edge, an edge is as white as it is strong beside the picture's strong ones.
    """
    n, _, height, width = pictures.shape
    offsets = torch.arange(-2, 3, device=pictures.device, dtype=pictures.dtype)
    bell = torch.exp(-(offsets**2) / 2)
    bell = (bell[:, None] * bell) / bell.sum() ** 2
    smooth = F.conv2d(F.pad(pictures.flatten(0, 1)[:, None], (2, 2, 2, 2), "replicate"), bell[None, None])
    slope = smooth.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8  # Sobel
    gradient = F.conv2d(F.pad(smooth, (1, 1, 1, 1), "replicate"), torch.stack([slope, slope.t()])[:, None])
    gradient = gradient.view(n, 3, 2, height, width)
    steepest = gradient.norm(dim=2).argmax(1)[:, None, None].expand(-1, 1, 2, -1, -1)
    gradient = gradient.gather(1, steepest)[:, 0]
    strength = gradient.norm(dim=1)  # (n, H, W)
    strong = torch.quantile(strength.flatten(1), 0.98, dim=1).clamp(min=_FAINT)
    edges = _thinned(strength, *gradient.unbind(1)) / strong[:, None, None]
    return ((edges - _LOW) / (_HIGH - _LOW)).clamp(0, 1)[:, None].expand(-1, 3, -1, -1)


def _thinned(strength: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Zero where a neighbour along the gradient (x, y) is stronger; all (n, H, W)."""
    height, width = strength.shape[-2:]
    padded = F.pad(strength, (1, 1, 1, 1))

    def neighbour(down: int, right: int) -> Tensor:
        return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    flat = y.abs() < 0.4142 * x.abs()  # tan(22.5 degrees)
    steep = x.abs() < 0.4142 * y.abs()
    falling = x * y > 0
    keep = torch.zeros_like(flat)
    directions = {
        (0, 1): flat,
        (1, 0): steep,
        (1, 1): falling & ~flat & ~steep,
        (-1, 1): ~falling & ~flat & ~steep,
    }
    for (down, right), here in directions.items():
        largest = (strength >= neighbour(down, right)) & (strength > neighbour(-down, -right))
        keep |= here & largest
    return strength * keep


def control_map(picture, kind: str = "edges", size: int = SIZE) -> Image.Image:
    """The map of a user's picture, scaled so that its longer side is ``size`` pixels.

    Args:
        picture: anything :func:`open_picture` takes; for "layout" a mask, the subjects white
            (transparent is outside).
        kind: "edges" or "layout".

    Raises:
        SSRError: not a picture, an empty mask, or another kind.
    """
    if kind not in KINDS:
        raise SSRError(f"{str(kind)[:40]!r} is not a kind of map; give one of {', '.join(KINDS)}")
    picture = open_picture(picture, "control picture", ground="black" if kind == "layout" else "white")
    scale = size / max(picture.size)
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
    if kind == "layout":
        values = torch.from_numpy(open_mask(small, small.size)).expand(1, 3, -1, -1)
    else:
        values = edge_map(torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255)
    return Image.fromarray((values[0] * 255).round().byte().permute(1, 2, 0).contiguous().numpy())
