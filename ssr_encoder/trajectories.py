"""Ways that subjects go in clips: for every frame a box.

The embedded motion adapter was trained on noise that goes along with its subjects (shared_noise.py), and so puts a
subject where a piece of noise goes. A trajectory says where that is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import SSRError

MOTIONS = ("walk", "cross", "bounce", "still")
ANY_MOTION = "any"  # one of them but "still", for each subject
_SIDES = (0.36, 0.52)  # of a box, as a fraction of the picture's; of several subjects, smaller
_SPILL = 0.02  # part of the picture by which a box may leave it


def trajectory(motion: str, frames: int, generator: torch.Generator, subjects: int = 1) -> Tensor:
    """A random way of one subject: boxes (frames, 4), x0, y0, x1, y1 as fractions of the picture, of one size.

    Args:
        motion: "walk" goes a quarter to two fifths of the picture to one side, "cross" about a half, "bounce" hops in
            one place, "still" stays.
        generator: on the CPU; decides where, how far and how large.
        subjects: how many share the picture: more are smaller.

    Raises:
        SSRError: there is no such motion.
    """
    if motion not in MOTIONS:
        raise SSRError(f"there is no motion {motion!r}; give one of {', '.join((*MOTIONS, ANY_MOTION))}")

    def rand(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    u = torch.linspace(0, 1, frames)
    side = rand(*_SIDES) * (1.0 if subjects == 1 else 0.8)
    to_the_left, phase, cycles = rand(0, 1) < 0.5, rand(0, 1), rand(1.0, 2.0)
    far = {"walk": rand(0.25, 0.40), "cross": rand(0.40, 0.55)}.get(motion, 0.0)
    far = min(far, 1 - side + 2 * _SPILL)  # the way that a large box has
    x = (-far if to_the_left else far) * (u - 0.5)
    hop = (math.pi * (cycles * u + phase)).sin().abs()
    y = -hop * {"bounce": rand(0.15, 0.28), "still": 0.0}.get(motion, 0.015)
    middle = []
    for offset, drawn in ((x, rand(0, 1)), (y, rand(0, 1) ** 0.7)):  # a little more often on the ground
        least, most = side / 2 - _SPILL - float(offset.min()), 1 - side / 2 + _SPILL - float(offset.max())
        middle.append(offset + (least + (most - least) * drawn))
    x, y = middle
    return torch.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], 1)


def random_trajectories(subjects: int, frames: int, generator: torch.Generator, motion: str = ANY_MOTION) -> Tensor:
    """Ways of several subjects, (subjects, frames, 4): all of one motion, or by default each of its own.

    Raises:
        SSRError: there is no such motion.
    """
    ways = []
    for _ in range(subjects):
        drawn = MOTIONS[int(torch.randint(len(MOTIONS) - 1, (), generator=generator))]
        ways.append(trajectory(drawn if motion == ANY_MOTION else motion, frames, generator, subjects))
    return torch.stack(ways)


def check_trajectories(trajectories: Tensor, frames: int) -> Tensor:
    """Trajectories of k subjects as float32 (k, frames, 4), from a tensor of that shape or a list of (frames, 4).

    Raises:
        SSRError: another shape or number of frames, or boxes without an inside.
    """
    try:
        boxes = torch.stack([torch.as_tensor(t, dtype=torch.float32) for t in trajectories])
    except (TypeError, ValueError, RuntimeError):
        raise SSRError("trajectories are boxes (frames, 4), one such tensor for each subject") from None
    if boxes.ndim != 3 or boxes.shape[1:] != (frames, 4):
        raise SSRError(f"trajectories have the shape {tuple(boxes.shape)}; give (subjects, {frames}, 4): a box a frame")
    if not (boxes.isfinite().all() and (boxes[..., 2:] > boxes[..., :2]).all()):
        raise SSRError("a box of a trajectory has no inside; give x0 < x1 and y0 < y1, as fractions of the picture")
    return boxes
