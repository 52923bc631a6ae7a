"""The training objective's terms against their formulas."""

import pytest
import torch

from ssr_encoder import denoising_loss, embedding_consistency_loss, snr_weight


def test_denoising_loss():
    pred, target = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    each = ((pred - target) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(denoising_loss(pred, target), each.mean())
    weight = torch.tensor([0.0, 2.0, 0.5])
    torch.testing.assert_close(denoising_loss(pred, target, weight), (each * weight).mean())
    pixels = torch.zeros(3, 1, 8, 8)
    pixels[..., :4] = 1
    torch.testing.assert_close(
        denoising_loss(pred, target, pixel_weight=pixels), ((pred - target)[..., :4] ** 2).mean() / 2
    )
    assert denoising_loss(pred.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_embedding_consistency_loss():
    query = torch.randn(2, 5, 6)
    scales = torch.stack([query * 3, -query], dim=1)  # cosine 1 and -1
    torch.testing.assert_close(embedding_consistency_loss(scales, query), torch.tensor(1.0))
    scales = torch.randn(2, 3, 5, 6)
    each = torch.zeros(2)
    for b in range(2):
        for k in range(3):
            for t in range(5):
                u, v = scales[b, k, t], query[b, t]
                each[b] += (1 - u @ v / (u.norm() * v.norm())) / 15
    torch.testing.assert_close(embedding_consistency_loss(scales, query), each.mean())
    torch.testing.assert_close(embedding_consistency_loss(scales, query, torch.tensor([0.0, 1.0])), each[1])
    assert embedding_consistency_loss(scales, query, torch.zeros(2)) == 0  # no row has a text: no division by zero


def test_snr_weight():
    alphas = torch.tensor([0.99, 0.9, 0.5, 0.1, 0.001])
    weight = snr_weight(alphas, torch.arange(5), limit=6.0)
    snr = alphas / (1 - alphas)
    torch.testing.assert_close(weight, torch.clamp(snr + 1, max=6) / (snr + 1))
    assert weight[-1] == 1 and weight[0] == pytest.approx(0.06, rel=1e-3)
