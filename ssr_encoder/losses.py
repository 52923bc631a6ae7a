"""The two terms of the training objective ``L = L_LDM + tau * L_reg`` (paper, section 3.5; supplement A and F)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def denoising_loss(
    noise_pred: Tensor, target: Tensor, weight: Tensor | None = None, pixel_weight: Tensor | None = None
) -> Tensor:
    """``L_LDM``: mean squared error, supplement equation (2).

    Args:
        noise_pred, target: (B, C, h, w); the target is the noise, or the velocity for v-prediction.
        weight: (B,) or None, a weight for each sample (a function of its timestep).
        pixel_weight: (B, 1, h, w) or None, a weight for each latent pixel.

    Returns:
        scalar; with weights, the mean of weight * squared error (weights are not renormalised).
    """
    error = (noise_pred.float() - target.float()) ** 2
    if pixel_weight is not None:
        error = error * pixel_weight
    error = error.mean(dim=(1, 2, 3))
    return (error if weight is None else error * weight).mean()


def embedding_consistency_loss(scale_embeds: Tensor, query_embeds: Tensor, weight: Tensor | None = None) -> Tensor:
    """``L_reg``: mean over scales and tokens of ``1 - cos(S_k token, query token)``.

    Args:
        scale_embeds: (B, K, L, D), the aligner's tokens before the LayerNorm.
        query_embeds: (B, L, D), the query's text embedding.
        weight: (B,) or None: 0 for rows whose query has no text.
    """
    distance = 1 - F.cosine_similarity(scale_embeds.float(), query_embeds.float()[:, None], dim=-1)
    distance = distance.mean(dim=(1, 2))
    return distance.mean() if weight is None else (distance * weight).sum() / weight.sum().clamp(min=1)


def snr_weight(alphas_cumprod: Tensor, timesteps: Tensor, limit: float = 6.0) -> Tensor:
    """Weight of v-prediction samples: ``min(SNR + 1, limit) / (SNR + 1)``, (B,).

    The velocity form of min-SNR weighting (Hang et al. 2023) shifted by one, so that the noisiest steps, in which
    layout and colour form, keep weight 1.
    """
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr_plus_one = 1 / (1 - alphas).clamp(min=1e-6)  # SNR = a / (1 - a)
    return torch.clamp(snr_plus_one, max=limit) / snr_plus_one
