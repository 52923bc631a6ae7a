"""The four figures of Table 1, on held-out pairs.

PS and PSNR compare a picture with its reconstruction. CLIP-T and ZS ask what fine-tuning did to the *encoder*: the
cosine of pictures and their texts, and zero-shot top-1; they do not see the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bench.metrics import class_embeddings
from ..extras import need
from .config import StudyConfig
from .encoders import StudyEncoder
from .pairs import Pairs

# name -> (heading, whether more is better)
COLUMNS = {"ps": ("PS", False), "psnr": ("PSNR", True), "clip_t": ("CLIP-T", True), "zero_shot": ("ZS", True)}


class OracleDistance:
    """LPIPS's form on the features of the embedded oracle (its four resolutions and depths): squared difference of
    features of unit length over channels, mean over places, sum over layers (Zhang et al. 2018, eq. 1, without the
    learned weights, which need judgements of people). Not comparable with LPIPS."""

    name = "PS (oracle features, not LPIPS)"
    LAYERS = (1, 3, 5, 9)  # of the stem: after its residual blocks at 1/2, 1/4, 1/8, and the last one

    def __init__(self, device: torch.device):
        from ..mini.judge import load_oracle

        self.stem = load_oracle(device).stem

    @torch.no_grad()
    def __call__(self, pictures: Tensor, others: Tensor) -> Tensor:
        """(B, 3, 128, 128) twice, in [0, 1], to (B,)."""
        a, b = pictures * 2 - 1, others * 2 - 1
        total = torch.zeros(len(a), device=a.device)
        for number, layer in enumerate(self.stem[: max(self.LAYERS) + 1]):
            a, b = layer(a), layer(b)
            if number in self.LAYERS:
                total += (_unit(a) - _unit(b)).square().sum(1).mean((1, 2))
        return total


class LPIPSDistance:
    """LPIPS v0.1 (Zhang et al. 2018) by the library, "PS" of Table 1."""

    def __init__(self, net: str, device: torch.device):
        from ..bench.metrics import LPIPS

        self.name = f"PS (LPIPS, {net})"
        self.model = LPIPS(net, device=device).model

    @torch.no_grad()
    def __call__(self, pictures: Tensor, others: Tensor) -> Tensor:
        return self.model(pictures, others, normalize=True).flatten()


def perceptual(config: StudyConfig, device: torch.device):
    """The distance of the config's scale."""
    return OracleDistance(device) if config.scale == "mini" else LPIPSDistance(config.lpips, device)


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of pictures in [0, 1]."""
    function = need("torchmetrics.functional.image", "bench").peak_signal_noise_ratio
    return torch.stack([function(a, b, data_range=1.0) for a, b in zip(pictures, others, strict=True)])


@torch.no_grad()
def quality(reconstruct: Callable[[Tensor], Tensor], distance, batches: Iterable) -> dict[str, float]:
    """Mean PS and PSNR over pictures.

    Args:
        reconstruct: pictures in [0, 1] to pictures in [0, 1].
        batches: of (pictures, texts).
    """
    found: dict[str, list[Tensor]] = {"ps": [], "psnr": []}
    for pictures, _ in batches:
        made = reconstruct(pictures)
        found["ps"].append(distance(made, pictures))
        found["psnr"].append(psnr(made, pictures))
    return {name: float(torch.cat(values).double().mean()) for name, values in found.items()}


@torch.no_grad()
def alignment(encoder: StudyEncoder, pairs: Pairs, batch: int) -> dict[str, float]:
    """Mean cosine of held-out pictures and their own texts, and zero-shot top-1 in [0, 1]; nothing of an encoder that
    reads no text."""
    if not encoder.reads_text:
        return {}

    def embed(pictures: Tensor) -> Tensor:
        return encoder.features(pictures, [encoder.depth])[1]

    cosines = [(embed(pictures) * encoder.text_embeds(texts)).sum(1) for pictures, texts in pairs.test(batch)]
    found = {"clip_t": float(torch.cat(cosines).double().mean())}
    if pairs.names:
        table = class_embeddings(lambda text: encoder.text_embeds([text])[0], pairs.names, pairs.templates)
        right = [(embed(pictures) @ table.t()).argmax(1).cpu() == labels for pictures, labels in pairs.labelled(batch)]
        found["zero_shot"] = float(torch.cat(right).double().mean())
    return found


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1, eps=1e-6)
