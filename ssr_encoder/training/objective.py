"""The training objective on a micro-batch: ``L = L_LDM + tau * L_reg`` (paper, section 3.5; supplement A and F)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses import snr_weight
from .bases import Base
from .config import ObjectiveConfig
from .data import NOISE, POSTERIOR, TIMESTEP
from .features import Features
from .order import keyed


@dataclass
class Losses:
    """What a micro-batch of n samples costs.

    Attributes:
        total: scalar, the SUM over good samples: a step divides by their number in the whole batch.
        denoising: (n,) squared error before weighting, of L_LDM.
        regularisation: (n, K), ``1 - cos`` by scale, of L_reg.
        timesteps: (n,).
        attention: (n, H, L, P), the selection.
    """

    total: Tensor
    denoising: Tensor
    regularisation: Tensor
    timesteps: Tensor
    attention: Tensor


def normal(seed: int, positions: list[int], purpose: int, like: Tensor) -> Tensor:
    """Standard normal numbers of the shape of ``like`` (n, ...), each sample's keyed by its position."""
    shape = like.shape[1:]
    rows = [keyed(seed, position, purpose).standard_normal(shape, dtype=np.float32) for position in positions]
    return torch.from_numpy(np.stack(rows)).to(like.device)


def draw_timesteps(seed: int, positions: list[int], count: int, device: torch.device) -> Tensor:
    """Uniform timesteps in [0, count), (n,)."""
    return torch.tensor([int(keyed(seed, p, TIMESTEP).integers(count)) for p in positions], device=device)


def losses(model, base: Base, features: Features, config: ObjectiveConfig, seed: int) -> Losses:
    """Noise the latents, let the frozen UNet with the subject predict, compare.

    Args:
        model: the :class:`SubjectModel`, or accelerate's wrapping of it.
    """
    latents = base.scale(features.mean + features.std * normal(seed, features.positions, POSTERIOR, features.std))
    noise = normal(seed, features.positions, NOISE, latents)
    timesteps = draw_timesteps(seed, features.positions, len(base.alphas), latents.device)
    noise_pred, scale_embeds, attention = denoise(model, base, features, latents, noise, timesteps)
    target = base.scheduler.get_velocity(latents, noise, timesteps) if base.velocity else noise
    denoising = ((noise_pred.float() - target.float()) ** 2).mean(dim=(1, 2, 3))
    distance = 1 - F.cosine_similarity(scale_embeds.float(), features.query.float()[:, None], dim=-1)  # (n, K, L)
    regularisation = distance.mean(2)
    error = denoising * timestep_weight(config, base, timesteps) + config.tau * regularisation.mean(1) * features.asked
    return Losses((error * features.weight).sum(), denoising.detach(), regularisation.detach(), timesteps, attention)


def denoise(model, base: Base, features: Features, latents: Tensor, noise: Tensor, timesteps: Tensor):
    """The UNet's prediction (n, C, h, w), scale embeddings (n, K, L, D) and the selection (n, H, L, P)."""
    dtype = base.unet.dtype
    own = next(model.parameters()).dtype
    hidden = [hidden[:, None].to(own) for hidden in features.hidden.unbind(1)]
    pack, scale_embeds, attention = model(features.query[:, None].to(own), hidden)
    added = {"image_embeds": [pack[None].to(dtype)]}
    if base.sdxl:
        added |= {"text_embeds": features.pooled.to(dtype), "time_ids": features.time_ids}
    noisy = base.scheduler.add_noise(latents, noise, timesteps).to(dtype)
    noise_pred = base.unet(noisy, timesteps, features.prompt.to(dtype), added_cond_kwargs=added, return_dict=False)[0]
    return noise_pred, scale_embeds, attention


def timestep_weight(config: ObjectiveConfig, base: Base, timesteps: Tensor) -> Tensor:
    """Weight of each sample's denoising error, (n,).

    "min_snr" is ``min(SNR, gamma) / SNR`` for a noise prediction and ``/ (SNR + 1)`` for v (Hang et al. 2023,
    "Efficient Diffusion Training via Min-SNR Weighting Strategy", section 3.4); "shifted" is :func:`losses.snr_weight`.
    """
    if config.weighting == "shifted":
        return snr_weight(base.alphas, timesteps, config.snr_limit)
    if config.weighting == "none":
        return torch.ones_like(timesteps, dtype=torch.float32)
    alphas = base.alphas[timesteps]
    snr = alphas / (1 - alphas).clamp(min=1e-8)
    return snr.clamp(max=config.snr_limit) / (snr + base.velocity)
