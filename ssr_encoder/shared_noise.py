"""Noise that the frames of a clip have a part of in common.

A picture's noise decides much of what a diffusion model draws: frames of unrelated noise begin as unrelated pictures,
which temporal attention has to bring together. "Mixed noise" (Ge et al. 2023, "Preserve Your Own Correlation", section
4.1) gives all of them one part of it. Their "progressive noise" (section 4.2) makes each frame's from that of the one
before, so that frames are as far apart in noise as they are in time; here it is the part that is not in common.

What is in common stands still, and a model that has to move a subject across it makes it leap. So the noise under a
subject goes along with it (as warped noise does in Chang et al. 2024 and Burgert et al. 2025, here by whole latents):
where noise moves, a subject is, and it is there in every frame. A motion adapter has to be trained with such noise; its
config says what to make clips with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SHARED_NOISE = 0.9  # of the noise's variance, when the embedded model is trained (in the paper alpha = 1 or 2: .5, .8)
NOISE_KEY = "_shared_noise"  # in the config of a motion adapter trained so; diffusers carries private keys along
SMOOTH_KEY = "_smooth_noise"
CARRY_KEY = "_carried_noise"  # whether the noise under subjects was carried along with them


def mix_noise(
    shape: Sequence[int],
    share: float | torch.Tensor,
    generator: torch.Generator,
    device="cpu",
    smooth: float = 0.0,
    boxes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Noise of unit variance for clips, of whose variance ``share`` (0 to 1) is common to the frames of a clip.

    Frames i and j correlate by share + (1 - share) * smooth ** abs(i - j), each place with itself or, in boxes, with
    where the box was.

    Args:
        shape: (clips, frames, channels, height, width).
        share: one for all clips, or (clips, 1, 1, 1, 1).
        generator: of the device.
        smooth: how far the part that is not common follows that of the frame before, 0 to 1.
        boxes: (clips, frames, subjects, 4), see :func:`carry_noise`; the common part goes along with them.
    """
    clips, frames, *rest = shape
    common = torch.randn(clips, 1, *rest, generator=generator, device=device)
    own = torch.randn(*shape, generator=generator, device=device)
    fresh = (1 - smooth**2) ** 0.5
    for i in range(1, frames):
        own[:, i] = smooth * own[:, i - 1] + fresh * own[:, i]
    if boxes is not None:
        carried = torch.randn(clips, boxes.shape[2], *rest, generator=generator, device=device)
        common = carry_noise(common[:, 0], carried, boxes)
    return share**0.5 * common + (1 - share) ** 0.5 * own


def carry_noise(still: torch.Tensor, carried: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Noise of clips (clips, frames, channels, height, width) that stands still but for some boxes, which take theirs
    along. Every frame by itself is independent noise, if ``still`` and ``carried`` are.

    Args:
        still: (clips, channels, height, width).
        carried: (clips, subjects, channels, height, width), what is in the boxes; of several the last is on top.
        boxes: (clips, frames, subjects, 4): x0, y0, x1, y1 as fractions of the picture. A box keeps the size that it
            has at most and moves by whole latents with its middle; one of no size is not there.
    """
    frames, (height, width) = boxes.shape[1], still.shape[-2:]
    scale = torch.tensor([width, height], device=boxes.device)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 * scale  # (clips, frames, subjects, 2), in latents
    half = ((boxes[..., 2:] - boxes[..., :2]) / 2 * scale).amax(1)  # (clips, subjects, 2)
    moved = (middle - middle[:, :1]).round()
    at = middle[:, :1] + moved
    x, y = torch.arange(width, device=boxes.device) + 0.5, torch.arange(height, device=boxes.device) + 0.5
    across = (x - at[..., :1]).abs() < half[:, None, :, :1]  # (clips, frames, subjects, width)
    down = (y - at[..., 1:]).abs() < half[:, None, :, 1:]
    inside = down[..., :, None] & across[..., None, :]
    moved = moved.long()
    rows = (torch.arange(height, device=boxes.device) - moved[..., 1:]) % height  # whence each row of a frame comes
    columns = (torch.arange(width, device=boxes.device) - moved[..., :1]) % width
    clip = torch.arange(len(boxes), device=boxes.device)[:, None, None, None]
    noise = still[:, None].expand(-1, frames, -1, -1, -1)
    for subject in range(boxes.shape[2]):
        own = carried[clip, subject, :, rows[:, :, subject, :, None], columns[:, :, subject, None]]
        noise = torch.where(inside[:, :, subject, None], own.movedim(-1, 2), noise)
    return noise


def clip_noise(
    pipe,
    share: float,
    num_frames: int,
    size: tuple[int, int],
    generator: torch.Generator,
    smooth: float = 0.0,
    trajectories: torch.Tensor | None = None,
) -> torch.Tensor:
    """Latents (1, channels, frames, height, width) for the slot of that name of a stock video pipeline.

    Args:
        share: as in :func:`mix_noise`, like ``smooth``.
        size: (height, width) of the frames in pixels.
        generator: of any device.
        trajectories: (subjects, frames, 4), boxes that take their noise along (trajectories.py).
    """
    height, width = (side // pipe.vae_scale_factor for side in size)
    shape = (1, num_frames, pipe.unet.config.in_channels, height, width)
    boxes = None if trajectories is None else trajectories.transpose(0, 1)[None].to(generator.device)
    noise = mix_noise(shape, share, generator, generator.device, smooth, boxes)
    return noise.transpose(1, 2).to(pipe.unet.device, pipe.unet.dtype)
