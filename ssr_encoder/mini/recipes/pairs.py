"""Examples in pairs: one scene twice, with the subject in two drawings, under the same noise and timestep.

What a subject looks like is a small part of a denoising error: where it is, how it stands and what the noise hides make
up most. The two errors of a pair share that part; what they do not share is what the subject tokens failed to tell.
(This project's own; not in the paper.)
"""

from __future__ import annotations

import torch
from torch import Tensor


def pair_loss(noise_pred: Tensor, target: Tensor, weight: Tensor, pixel_weight: Tensor) -> Tensor:
    """A quarter of the mean squared difference of the errors of rows (0, 1), (2, 3), ...

    A pair's mean squared error is a quarter of the square of its errors' sum plus a quarter of that of their
    difference; this is the second part, to be given more weight. The noise drops out of it.

    Args:
        noise_pred, target: (2n, C, h, w).
        weight: (2n,), the same for both of a pair.
        pixel_weight: (2n, 1, h, w); the larger one of a pair counts.
    """
    error = noise_pred.float() - target.float()
    apart = (error[0::2] - error[1::2]) ** 2 * torch.maximum(pixel_weight[0::2], pixel_weight[1::2])
    return (apart.mean(dim=(1, 2, 3)) * weight[0::2]).mean() / 4


def drawn_once(draw, n: int, each: int) -> Tensor:
    """``draw(n // each)``, every row ``each`` times in a row: what the ``each`` of a pair share."""
    return draw(n // each).repeat_interleave(each, 0)


def part_of(batch, rows: Tensor):
    """Some rows of every tensor in a dictionary of them, which may hold dictionaries."""
    return {key: part_of(value, rows) if isinstance(value, dict) else value[rows] for key, value in batch.items()}
