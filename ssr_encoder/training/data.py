"""From a position in the stream to what the frozen encoders read: picture, reference, prompt and query.

The reference is the target itself, as in the paper; the query is its caption, or one of its subject descriptors.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import SSRError
from ..images import open_picture, to_pixels
from .config import DataConfig
from .order import Order, keyed, part
from .reader import BadSample, Raw, Reader

# Purposes of a sample's random numbers; each has a generator of its own.
CHOICES, POSTERIOR, NOISE, TIMESTEP, CROP = range(5)


class Choices(NamedTuple):
    """What chance decides about a sample, before it is looked at."""

    flip: bool
    crop: int
    descriptor: float  # below 1: which of the descriptors is the query, as a fraction of their list; 1: the caption
    no_prompt: bool
    no_subject: bool


class Views(NamedTuple):
    """How a vision encoder and a VAE want their pictures."""

    vision_size: int
    mean: list[float]
    std: list[float]


def choose(config: DataConfig, seed: int, position: int) -> Choices:
    """The choices of the sample at a position."""
    flip, crop, kind, which, prompt, subject = keyed(seed, position, CHOICES).random(6)
    return Choices(
        flip=bool(config.flip and flip < 0.5),
        crop=int(crop * config.crops),
        descriptor=float(which) if kind < config.descriptor_query else 1.0,
        no_prompt=bool(prompt < config.prompt_drop),
        no_subject=bool(subject < config.subject_drop),
    )


def query_of(raw: Raw, fraction: float) -> str:
    """The query: the descriptor at ``fraction`` of the list, or the caption."""
    found = descriptors(raw)
    return found[int(fraction * len(found))] if fraction < 1 and found else raw.caption


def descriptors(raw: Raw) -> list[str]:
    """The subject descriptors of a caption, as ``ssr data describe`` wrote them."""
    found = raw.meta.get("descriptors")
    return [text for text in found if isinstance(text, str) and text] if isinstance(found, list) else []


def open_raw(raw: Raw) -> Image.Image:
    """The decoded picture.

    Raises:
        BadSample: it cannot be decoded.
    """
    try:
        return open_picture(Image.open(io.BytesIO(raw.image)), raw.key)
    except (SSRError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadSample(f"{raw.key}: {' '.join(str(error).split())[:100]}") from None


def cut(picture: Image.Image, key: str, crop: int, flip: bool, size: int) -> tuple[Image.Image, Tensor]:
    """A square of ``size`` pixels: the shorter side is scaled to it, crop 0 is the centre, the others are fixed
    places that depend on the key only. Also SDXL's time ids (6,): original height and width, top, left, size, size."""
    scale = size / min(picture.size)
    width, height = (max(size, round(length * scale)) for length in picture.size)
    resized = picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.LANCZOS)
    x, y = (0.5, 0.5) if crop == 0 else keyed(zlib.crc32(key.encode()), crop, CROP).random(2)
    left, top = round((width - size) * x), round((height - size) * y)
    square = resized.crop((left, top, left + size, top + size))
    if flip:
        square, left = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT), width - size - left
    return square, torch.tensor([picture.height, picture.width, top, left, size, size], dtype=torch.float32)


def views_of(square: Image.Image, views: Views) -> dict[str, Tensor]:
    """``target`` (3, size, size) in [-1, 1] for the VAE, ``reference`` (3, v, v) for the vision encoder."""
    target = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1
    return {"target": target, "reference": to_pixels(square, views.vision_size, views.mean, views.std)[0]}


class Pictures(Dataset):
    """Samples by position, for encoding on the fly.

    An item is a dict: ``position``, ``weight`` (1, or 0 of a sample that cannot be used: its tensors are zeros),
    ``bad`` (the reason, or ""), ``place``, ``prompt``, ``query``, ``no_prompt``, ``no_subject``, ``target``,
    ``reference``, ``time_ids``.
    """

    def __init__(self, reader: Reader, order: Order, config: DataConfig, seed: int, views: Views):
        self.reader, self.order, self.config, self.seed, self.views = reader, order, config, seed, views

    def __getitem__(self, position: int) -> dict:
        place, choices = self.order[position], choose(self.config, self.seed, position)
        item = {"position": position, "place": place, "weight": 1.0, "bad": ""}
        item |= {"no_prompt": choices.no_prompt, "no_subject": choices.no_subject}
        try:
            raw = self.reader.sample(place.shard, place.index)
            picture = open_raw(raw)
        except BadSample as error:
            return item | self._nothing() | {"weight": 0.0, "bad": str(error)}
        square, time_ids = cut(picture, raw.key, choices.crop, choices.flip, self.config.resolution)
        item |= {"prompt": raw.caption, "query": query_of(raw, choices.descriptor), "time_ids": time_ids}
        return item | views_of(square, self.views)

    def _nothing(self) -> dict:
        size, vision = self.config.resolution, self.views.vision_size
        blank = {"target": torch.zeros(3, size, size), "reference": torch.zeros(3, vision, vision)}
        return blank | {"prompt": "", "query": "", "time_ids": torch.zeros(6)}


class Steps:
    """Batch sampler: the positions of a rank in each step from ``start`` on, for ``count`` steps."""

    def __init__(self, start: int, count: int, batch_size: int, rank: int, ranks: int):
        self.start, self.count, self.batch_size, self.rank, self.ranks = start, count, batch_size, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.count):
            yield list(part(self.start + step * self.batch_size, self.batch_size, self.rank, self.ranks))

    def __len__(self) -> int:
        return self.count


def make_loader(dataset: Dataset, steps: Steps, workers: int) -> DataLoader:
    """Lists of items, one list a step."""
    return DataLoader(
        dataset,
        batch_sampler=steps,
        num_workers=workers,
        collate_fn=list,
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),  # its own, so that iterating leaves the global one alone
    )
