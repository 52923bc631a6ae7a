"""The paper's method up to the subject tokens: token-to-patch aligner and detail-preserving subject encoder.

Nothing here knows a base model: sizes come from :class:`SubjectConfig`. Shapes in this file: ``B`` pictures,
``L`` query tokens, ``P`` image tokens (class token first), ``K`` scales, ``H`` heads.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .errors import SSRError


@dataclass
class SubjectConfig:
    """Sizes of a subject encoder and the base model that it belongs to. The defaults are Stable Diffusion 1.5's."""

    query_dim: int = 768  # width of the text encoder's last hidden state, and of the UNet's cross-attention
    image_dim: int = 1024  # width of the vision encoder's hidden states
    heads: int = 8  # heads of the aligner
    head_dim: int = 64  # width of one head
    hidden_layers: list[int] = field(default_factory=lambda: [4, 8, 12, 16, 20, 24])  # K scales; the last gives keys
    layers: dict[str, int] = field(default_factory=dict)  # UNet cross-attention name -> its inner width
    base_model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # pipeline folder or hub id; "." = beside this
    image_encoder: str = "openai/clip-vit-large-patch14"  # CLIPVisionModel folder or hub id
    image_mean: list[float] = field(default_factory=lambda: [0.48145466, 0.4578275, 0.40821073])  # of the encoder
    image_std: list[float] = field(default_factory=lambda: [0.26862954, 0.26130258, 0.27577711])
    subject_scale: float = 0.65  # default lambda at inference
    several_scale: float | None = None  # the same of each of several subjects, who share a softmax; None: subject_scale
    guidance_scale: float = 5.0  # default at inference
    subject_guidance: float = 0.0  # default at inference with guidance: extra weight of what the subjects change
    subject_guidance_until: float = 0.3  # the part of the denoising with it, from 0 (noise) to 1 (picture)
    region_query: str = ""  # the text that goes with a mask, box or point given without one
    point_radius: float = 0.1  # a point query selects a disc of this radius, as a fraction of the longer side

    @classmethod
    def from_dict(cls, values: dict) -> SubjectConfig:
        """Build a config; a key that is not a field is an :class:`SSRError`, never ignored."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(k for k in values if k not in known and not k.startswith("_"))
        if unknown:
            raise SSRError(
                f"unknown key {', '.join(unknown)} in the subject encoder's config; known: {', '.join(sorted(known))}"
            )
        wrong = [name for name, value in values.items() if name in known and not _fits(name, value)]
        if wrong:
            value = str(values[wrong[0]])[:60]
            raise SSRError(f"{wrong[0]} is {value!r} in the subject encoder's config; fetch the file again")
        return cls(**{k: v for k, v in values.items() if k in known})

    def default_scale(self, subjects: int = 1) -> float:
        """lambda of each of so many subjects, where it is not said."""
        return self.subject_scale if subjects < 2 or self.several_scale is None else self.several_scale

    def to_dict(self) -> dict:
        """The fields as plain values, ready for JSON."""
        return dataclasses.asdict(self)


def _fits(name: str, value) -> bool:
    """Whether a config value read from a file can be meant."""

    def number(value, whole: bool = False, least: float = -math.inf) -> bool:
        kind = int if whole else (int, float)
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and value >= least

    if name in ("query_dim", "image_dim", "heads", "head_dim"):
        return number(value, whole=True, least=1)
    if name == "layers":
        return isinstance(value, dict) and all(number(width, whole=True, least=1) for width in value.values())
    if name == "hidden_layers":
        return isinstance(value, list) and bool(value) and all(number(i, whole=True, least=0) for i in value)
    if name in ("image_mean", "image_std"):
        return isinstance(value, list) and len(value) == 3 and all(number(v) for v in value)
    if name == "several_scale" and value is None:
        return True
    if name in (
        "subject_scale",
        "several_scale",
        "guidance_scale",
        "subject_guidance",
        "subject_guidance_until",
        "point_radius",
    ):
        return number(value, least=0)
    return isinstance(value, str)


class TokenToPatchAligner(nn.Module):
    """Select the queried subject's patches and carry their detail at K scales (paper, sections 3.2 and 3.3).

    One attention map ``A = softmax(Q K^T / sqrt(head_dim))`` between query tokens and the patches of the last scale
    is computed once; scale ``k`` then contributes ``S_k = (A . (hidden_states[k] W_v^k)) W_o^k``.
    """

    def __init__(self, query_dim: int, image_dim: int, heads: int, head_dim: int, num_scales: int):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        inner = heads * head_dim
        self.to_q = nn.Linear(query_dim, inner, bias=False)
        self.to_k = nn.Linear(image_dim, inner, bias=False)
        self.to_v = nn.ModuleList(nn.Linear(image_dim, inner, bias=False) for _ in range(num_scales))
        self.to_out = nn.ModuleList(nn.Linear(inner, query_dim, bias=False) for _ in range(num_scales))
        self.norm = nn.LayerNorm(query_dim)

    @classmethod
    def from_config(cls, config: SubjectConfig) -> TokenToPatchAligner:
        return cls(config.query_dim, config.image_dim, config.heads, config.head_dim, len(config.hidden_layers))

    def attention(self, query_embeds: Tensor, patches: Tensor, patch_weights: Tensor | None = None) -> Tensor:
        """The selection ``A``, (B, H, L, P), rows summing to one.

        Args:
            query_embeds: (B, L, query_dim), the text encoder's last hidden state of the query.
            patches: (B, P, image_dim), the vision encoder's hidden state of the last scale.
            patch_weights: (B, P) in [0, 1]: how much each patch may be read. Attention is multiplied by it and
                renormalised, so a patch of weight 0 gets exactly none. Every row needs a positive weight.
        """
        query = self._split(self.to_q(query_embeds))
        key = self._split(self.to_k(_readable(patches, patch_weights)))
        scores = (query * self.head_dim**-0.5) @ key.transpose(-1, -2)
        if patch_weights is not None:
            # log 0 = -inf: no weight at all
            scores = scores + patch_weights.float().log().to(scores.dtype)[:, None, None, :]
        return scores.softmax(dim=-1)

    def forward(
        self, query_embeds: Tensor, hidden_states: list[Tensor], patch_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode one subject a row.

        Args:
            query_embeds: (B, L, query_dim).
            hidden_states: K tensors (B, P, image_dim), the chosen hidden states of the vision encoder.
            patch_weights: (B, P) or None, see :meth:`attention`.

        Returns:
            subject_tokens (B, K*L, query_dim), scale-major, after the LayerNorm; scale_embeds (B, K, L, query_dim),
            the same before it, for the embedding consistency loss; attention (B, H, L, P).
        """
        attention = self.attention(query_embeds, hidden_states[-1], patch_weights)
        scales = []
        for hidden, to_v, to_out in zip(hidden_states, self.to_v, self.to_out, strict=True):
            read = attention @ self._split(to_v(_readable(hidden, patch_weights)))
            scales.append(to_out(read.transpose(1, 2).flatten(2)))
        scale_embeds = torch.stack(scales, dim=1)
        return self.norm(scale_embeds.flatten(1, 2)), scale_embeds, attention

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)  # (B, N, H*d) -> (B, H, N, d)


def _readable(patches: Tensor, patch_weights: Tensor | None) -> Tensor:
    """Patches of weight 0 as zeros: no attention times infinity would still not be a number."""
    return patches if patch_weights is None else patches.where((patch_weights > 0)[..., None], 0)
