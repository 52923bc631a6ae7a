"""The judge: a small recogniser of concept, identity and place that shares nothing with the conditioning encoder.

It sees pixels only, is a convolutional net trained apart (recipe ``oracle``), and answers for every cell of a
16 x 16 grid, so that pictures with several subjects can be judged subject by subject. Identities are compared by
nearest prototype among those of a concept, which also serves drawings that it has never seen.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SIDE = 128  # pixels of the pictures that it was trained on
GRID = 16
PRESENT = 0.5  # a concept counts as shown if its best cells' mean probability is above


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(16, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(16, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Oracle(nn.Module):
    """Pictures (B, 3, 128, 128) in [-1, 1] to concept logits (B, C+1, 16, 16) (0 = background), identity embeddings
    (B, D, 16, 16), hat logits (B, 1, 16, 16) and place logits (B, places)."""

    def __init__(self, concepts: int, places: int, widths: tuple[int, ...] = (32, 64, 128, 192), embed_dim: int = 96):
        super().__init__()
        self.sizes = {"concepts": concepts, "places": places, "widths": list(widths), "embed_dim": embed_dim}
        a, b, c, d = widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, a, 5, stride=2, padding=2),
            _Residual(a),
            nn.Conv2d(a, b, 3, stride=2, padding=1),
            _Residual(b),
            nn.Conv2d(b, c, 3, stride=2, padding=1),
            _Residual(c),
            nn.Conv2d(c, d, 1),
            _Residual(d, 2),
            _Residual(d, 4),
            _Residual(d, 2),
            nn.GroupNorm(16, d),
            nn.SiLU(),
        )
        self.concept = nn.Conv2d(d, concepts + 1, 1)
        self.identity = nn.Conv2d(d, embed_dim, 1)
        self.hat = nn.Conv2d(d, 1, 1)
        self.place = nn.Linear(d, places)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.stem(pictures)
        return {
            "concept": self.concept(features),
            "identity": self.identity(features),
            "hat": self.hat(features),
            "place": self.place(features.mean(dim=(2, 3))),
        }

    def save(self, path: Path) -> None:
        save_file(
            {k: v.half().contiguous() for k, v in self.state_dict().items()}, path, {"sizes": json.dumps(self.sizes)}
        )

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Oracle:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            sizes = json.loads(file.metadata()["sizes"])
        oracle = cls(**{**sizes, "widths": tuple(sizes["widths"])})
        oracle.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        return oracle.to(device).eval()


def shown(concept_logits: Tensor, cells: int = 6) -> Tensor:
    """How surely each concept is somewhere in the picture: (B, C+1, 16, 16) logits -> (B, C) in [0, 1], the mean
    probability of its best ``cells`` cells."""
    probability = concept_logits.softmax(dim=1)[:, 1:].flatten(2)
    return probability.topk(cells, dim=2).values.mean(2)


def identity_embedding(answers: dict[str, Tensor], concept: Tensor) -> Tensor:
    """The embedding (B, D), of unit length, of the subject of one concept (B,), averaged over its cells."""
    probability = answers["concept"].softmax(dim=1)
    index = (concept + 1)[:, None, None, None].expand(-1, 1, *probability.shape[2:])
    weight = probability.gather(1, index)
    pooled = (answers["identity"] * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-4)
    return F.normalize(pooled.float(), dim=-1)
