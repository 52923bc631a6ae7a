"""Small shards for tests: pictures that are unlike one another, and ways to spoil or repeat them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ssr_encoder.curation import Sample, list_shards, read_shard, write_shard


def picture(number: int, size: int = 72) -> Image.Image:
    """Coloured blotches; another number, another picture."""
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def sample(number: int, caption: str = "", key: str | None = None, **meta) -> Sample:
    return Sample(key or f"{number:06}", encoded(picture(number)), "png", caption, meta)


def write_folder(folder: Path, shards: list[list[Sample]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, samples in enumerate(shards):
        write_shard(folder / f"{number:06}.tar", samples)
    return folder


def read_folder(folder: Path) -> dict[str, Sample]:
    samples = [sample for path in list_shards(folder) for sample in read_shard(path)]
    assert len({sample.key for sample in samples}) == len(samples)
    return {sample.key: sample for sample in samples}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
