"""Two sets of pictures against each other: FID and KID, through torchmetrics.

Inception's weights are downloaded by torch-fidelity; any backbone can take its place, and the number is then named
after it: distances in different feature spaces cannot be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import SSRError, first_line
from ...extras import need
from ..backbones import Backbone
from .case import versions

INCEPTION = "inception"


def fid(
    real: Iterable[Image.Image],
    made: Iterable[Image.Image],
    features: Backbone | str = INCEPTION,
    device: str | torch.device = "cpu",
) -> dict:
    """Frechet distance of two sets of pictures (Heusel et al. 2017); lower is better, 0 is the least.

    Args:
        features: "inception" (2048 features of torch-fidelity's Inception v3), or a backbone.

    Returns:
        {"value", "n": [real, made], "definition", "backbone", "preprocessing", "versions"}.

    Raises:
        SSRError: fewer than two pictures in a set, or the weights are not there.
    """
    kind = need("torchmetrics.image.fid", "bench").FrechetInceptionDistance
    metric, about = _metric(kind, features, device)
    counts = _fill(metric, real, made, features, device)
    value = max(float(metric.compute()), 0.0)
    return {"value": value, "n": counts, "definition": "Frechet distance of Gaussians", **about}


def kid(
    real: Iterable[Image.Image],
    made: Iterable[Image.Image],
    features: Backbone | str = INCEPTION,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict:
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018); can be below 0.

    Sets of at most ``subset_size`` pictures are compared whole, once; larger ones by ``subsets`` random subsets.

    Returns:
        As :func:`fid`, and "std" over the subsets.
    """
    kind = need("torchmetrics.image.kid", "bench").KernelInceptionDistance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps the features
        metric, about = _metric(kind, features, device)
    counts = _fill(metric, real, made, features, device)
    whole = min(counts) <= subset_size and counts[0] == counts[1]
    metric.subset_size = min(*counts, subset_size)
    metric.subsets = 1 if whole else subsets
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value, std = metric.compute()
    std = 0.0 if whole else float(std)
    definition = f"unbiased MMD, cubic kernel, {metric.subsets} subsets of {metric.subset_size}, seed {seed}"
    return {"value": float(value), "std": std, "n": counts, "definition": definition, **about}


class _Features(nn.Module):
    """torchmetrics hands over uint8 (1, 3, H, W)."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.num_features = len(backbone.features(Image.new("RGB", (64, 64), backbone.fill)))

    def forward(self, pixels: Tensor) -> Tensor:
        pictures = [Image.fromarray(row.permute(1, 2, 0).cpu().numpy()) for row in pixels]
        return torch.stack([self.backbone.features(picture) for picture in pictures]).to(pixels.device)


def _metric(kind, features: Backbone | str, device):
    packages = ("torch", "torchmetrics")
    if isinstance(features, Backbone):
        about = features.describe()
        about["versions"] = {**about["versions"], **versions(*packages)}
        return kind(feature=_Features(features)).to(device), about
    if features != INCEPTION:
        raise SSRError(f'features={features!r} is neither a backbone nor "inception"')
    need("torch_fidelity", "bench")
    try:
        metric = kind(feature=2048).to(device)
    except (OSError, RuntimeError) as error:
        raise SSRError(
            f"Inception's weights could not be downloaded ({first_line(error, 80)}); give another backbone"
        ) from None
    about = {"backbone": "inception-v3-compat of torch-fidelity, 2048 features", "preprocessing": "bilinear to 299 px"}
    return metric, about | {"versions": versions(*packages, "torch-fidelity")}


def _fill(metric, real, made, features, device) -> list[int]:
    counts = []
    for pictures, is_real in ((real, True), (made, False)):
        n = 0
        for picture in pictures:  # one at a time: as everywhere here
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None]
            metric.update(pixels.to(device), real=is_real)
            n += 1
        counts.append(n)
    if min(counts) < 2:
        raise SSRError(f"a distance between sets needs at least two pictures in each, not {counts}")
    return counts
