"""Noise that the frames of a clip have a part of in common.

A picture's noise decides much of what a diffusion model draws: frames of unrelated noise begin as unrelated pictures,
which temporal attention has to bring together. "Mixed noise" (Ge et al. 2023, "Preserve Your Own Correlation", section
4.1) gives all of them one part of it. Their "progressive noise" (section 4.2) makes each frame's from that of the one
before, so that frames are as far apart in noise as they are in time; here it is the part that is not in common. A
motion adapter has to be trained with noise in common; its config says what to make clips with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SHARED_NOISE = 0.75  # of the noise's variance, when the embedded model is trained (in the paper alpha = 1 or 2: .5, .8)
NOISE_KEY = "_shared_noise"  # in the config of a motion adapter trained so; diffusers carries private keys along
SMOOTH_KEY = "_smooth_noise"


def mix_noise(
    shape: Sequence[int],
    share: float | torch.Tensor,
    generator: torch.Generator,
    device="cpu",
    smooth: float = 0.0,
) -> torch.Tensor:
    """Noise of unit variance for clips, of whose variance ``share`` (0 to 1) is common to the frames of a clip.

    Frames i and j correlate by share + (1 - share) * smooth ** abs(i - j).

    Args:
        shape: (clips, frames, channels, height, width).
        share: one for all clips, or (clips, 1, 1, 1, 1).
        generator: of the device.
        smooth: how far the part that is not common follows that of the frame before, 0 to 1.
    """
    clips, frames, *rest = shape
    common = torch.randn(clips, 1, *rest, generator=generator, device=device)
    own = torch.randn(*shape, generator=generator, device=device)
    fresh = (1 - smooth**2) ** 0.5
    for i in range(1, frames):
        own[:, i] = smooth * own[:, i - 1] + fresh * own[:, i]
    return share**0.5 * common + (1 - share) ** 0.5 * own


def clip_noise(
    pipe, share: float, num_frames: int, size: tuple[int, int], generator: torch.Generator, smooth: float = 0.0
) -> torch.Tensor:
    """Latents (1, channels, frames, height, width) for the slot of that name of a stock video pipeline.

    Args:
        share: as in :func:`mix_noise`, like ``smooth``.
        size: (height, width) of the frames in pixels.
        generator: of any device.
    """
    height, width = (side // pipe.vae_scale_factor for side in size)
    shape = (1, num_frames, pipe.unet.config.in_channels, height, width)
    noise = mix_noise(shape, share, generator, generator.device, smooth)
    return noise.transpose(1, 2).to(pipe.unet.device, pipe.unet.dtype)
