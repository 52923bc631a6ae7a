"""What the frozen encoders make of samples, and what chance drops of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .bases import Base


@dataclass
class Blank:
    """Features of nothing: the empty text (1, L, D), pooled too on SDXL, and the zero picture (1, K, P, D)."""

    text: Tensor
    hidden: Tensor
    pooled: Tensor | None = None

    def to(self, device: torch.device) -> Blank:
        return Blank(*(None if x is None else x.to(device) for x in (self.text, self.hidden, self.pooled)))


@dataclass
class Features:
    """A micro-batch of n samples, encoded.

    Attributes:
        positions: in the stream; they key the random numbers.
        weight: (n,) 1, or 0 of a sample that could not be used.
        asked: (n,) 1, or 0 where the subject is the unconditional one: it has no query to be consistent with.
        mean, std: (n, C, h, w) of the VAE's posterior.
        hidden: (n, K, P, image_dim).
        prompt, query: (n, L, query_dim).
        pooled, time_ids: SDXL's, (n, pooled) and (n, 6), or None.
    """

    positions: list[int]
    weight: Tensor
    asked: Tensor
    mean: Tensor
    std: Tensor
    hidden: Tensor
    prompt: Tensor
    query: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None


@torch.no_grad()
def make_blank(base: Base) -> Blank:
    text, pooled = base.encode_texts([""])
    size = base.views.vision_size
    return Blank(text, base.encode_references(torch.zeros(1, 3, size, size, device=base.device)), pooled)


@torch.no_grad()
def encode(base: Base, items: list[dict], blank: Blank) -> Features:
    """Items of :class:`data.Pictures` to features. A text that occurs more than once is encoded once."""
    device = base.device
    mean, std = base.encode_targets(torch.stack([item["target"] for item in items]).to(device))
    hidden = base.encode_references(torch.stack([item["reference"] for item in items]).to(device))
    texts = list(dict.fromkeys(text for item in items for text in (item["prompt"], item["query"])))
    embeds, pooled = base.encode_texts(texts)
    prompt = torch.tensor([texts.index(item["prompt"]) for item in items], device=device)
    query = torch.tensor([texts.index(item["query"]) for item in items], device=device)
    return _finish(
        base, items, blank, mean, std, hidden, embeds[prompt], embeds[query], None if pooled is None else pooled[prompt]
    )


@torch.no_grad()
def gather(base: Base, items: list[dict], blank: Blank) -> Features:
    """Items of :class:`cache.Cached` to features."""
    names = ("mean", "std", "hidden", "prompt", "query", *(["pooled"] if base.sdxl else []))
    stacked = {name: torch.stack([item[name] for item in items]).to(base.device).float() for name in names}
    return _finish(base, items, blank, **stacked)


def _finish(base: Base, items: list[dict], blank: Blank, mean, std, hidden, prompt, query, pooled=None) -> Features:
    """Put in what chance has dropped."""
    flag = lambda name: torch.tensor([item[name] for item in items], device=mean.device)  # noqa: E731
    no_prompt, no_subject = flag("no_prompt"), flag("no_subject")
    empty = torch.zeros_like(blank.text) if base.zero_text else blank.text
    prompt = torch.where(no_prompt[:, None, None], empty.to(prompt.dtype), prompt)
    query = torch.where(no_subject[:, None, None], blank.text.to(query.dtype), query)
    hidden = torch.where(no_subject[:, None, None, None], blank.hidden.to(hidden.dtype), hidden)
    time_ids = None
    if base.sdxl:
        empty = torch.zeros_like(blank.pooled) if base.zero_text else blank.pooled
        pooled = torch.where(no_prompt[:, None], empty.to(pooled.dtype), pooled)
        time_ids = torch.stack([item["time_ids"] for item in items]).to(mean.device)
    weight = flag("weight").float()
    positions = [item["position"] for item in items]
    return Features(positions, weight, (~no_subject).float(), mean, std, hidden, prompt, query, pooled, time_ids)
