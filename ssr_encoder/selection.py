"""From a query (mask, box, point) to patch weights: what the aligner may read, and how much of it.

Weights are (B, 1 + rows*columns), class token first. Without a region every patch counts 1; with one, a patch counts
the share of its area inside, and the class token, which has seen the whole picture, counts 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
