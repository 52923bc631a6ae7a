"""From a region query (mask, box, point) to patch weights: what the aligner may read, and how much of it.

Weights are (B, 1 + rows*columns), class token first. Without a region every patch counts 1; with one, a patch counts
the share of its area inside, and the class token, which has seen the whole picture, counts 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SSRError
from .images import Frame, open_mask

MIN_COVERAGE = 0.02  # of a patch; less is an edge's anti-aliasing


def patch_weights(masks: Tensor, grid: int) -> Tensor:
    """Masks (B, height, width) in [0, 1], any size, to patch weights (B, 1 + grid*grid).

    A picture in which no patch reaches :data:`MIN_COVERAGE` keeps its best-covered patches, so that a small subject
    can still be asked for; an all-zero mask gives all-zero weights, which callers must refuse.
    """
    coverage = F.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)
    best = coverage.amax(dim=1, keepdim=True)
    coverage = torch.where(coverage >= best.clamp(max=MIN_COVERAGE), coverage, 0.0)
    return F.pad(coverage, (1, 0))


def box_masks(boxes: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Boxes (B, 4), x0 y0 x1 y1 in [0, 1], to masks (B, height, width); a pixel counts if its centre is inside."""
    x, y = _centres(size, boxes)
    x0, y0, x1, y1 = (boxes[:, i, None, None] for i in range(4))
    return ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).float()


def point_masks(points: Tensor, radius: float, size: int | tuple[int, int]) -> Tensor:
    """Points (B, 2), x y in [0, 1], to discs (B, height, width); the radius is a fraction of the longer side. The
    pixel under the point is always in it."""
    x, y = _centres(size, points)
    height, width = (size, size) if isinstance(size, int) else size
    longer = max(height, width)
    dx, dy = x - points[:, 0, None, None], y - points[:, 1, None, None]
    disc = (dx * width) ** 2 + (dy * height) ** 2 <= (radius * longer) ** 2
    under = (dx.abs() * width <= 0.501) & (dy.abs() * height <= 0.501)
    return (disc | under).float()


def _centres(size: int | tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    height, width = (size, size) if isinstance(size, int) else size
    x = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5) / width
    y = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5) / height
    return x[None, None, :], y[None, :, None]


def region_query(size: tuple[int, int], mask=None, box=None, point=None, point_radius: float = 0.0) -> Tensor | None:
    """The region query as a mask (H, W) in [0, 1], or None if none is given.

    Args:
        size: (width, height) of the picture. A mask keeps it; a box or point is drawn at 1024 px a side at most.
        mask: white on the subject.
        box: x0, y0, x1, y1 in pixels; what lies outside the picture is cut off.
        point: x, y in pixels; a disc around it is read.
        point_radius: of that disc, as a share of the picture's side.

    Raises:
        SSRError: an empty mask, a box or point outside the picture, not the right count of numbers.
    """
    width, height = size
    if mask is not None:
        return torch.from_numpy(open_mask(mask, size))
    small = small_size(Frame(width, height))
    if box is not None:
        values = _numbers(box, 4, "box", "x0, y0, x1, y1")
        x0, y0, x1, y1 = values
        if x1 <= x0 or y1 <= y0:
            raise SSRError(f"the box {_listed(values)} is empty; give x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        if min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0):
            raise SSRError(f"the box {_listed(values)} lies outside the picture of {width} x {height} pixels; move it")
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        region = box_masks(torch.tensor([[x0 / width, y0 / height, x1 / width, y1 / height]]), small)[0]
        if not region.any():  # thinner than a pixel of the reduced size: the pixel at its centre stands for it
            centre = torch.tensor([[(x0 + x1) / 2 / width, (y0 + y1) / 2 / height]])
            region = point_masks(centre, 0.0, small)[0]
        return region
    if point is not None:
        x, y = _numbers(point, 2, "point", "x, y")
        if not (0 <= x < width and 0 <= y < height):
            raise SSRError(f"the point {_listed((x, y))} is not on the picture of {width} x {height} pixels; move it")
        return point_masks(torch.tensor([[x / width, y / height]]), point_radius, small)[0]
    return None


def _numbers(values, count: int, what: str, names: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(abs(n) < 1e9 for n in numbers):
        raise SSRError(f"the {what} {values!r} is not {count} numbers; give {names} in pixels")
    return numbers


def _listed(values) -> str:
    return ", ".join(f"{value:g}" for value in values)


def small_size(frame: Frame, limit: int = 1024) -> tuple[int, int]:
    """(height, width) with the frame's shape and at most ``limit`` pixels a side."""
    scale = min(1.0, limit / frame.side)
    return max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
