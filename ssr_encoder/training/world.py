"""Shards of the embedded world, for tests, the guide and first runs.

    python -m ssr_encoder.training.world OUT --samples 2048 [--split train|holdout] [--masks] [--seed 0]

With ``--masks`` every picture shows two subjects, and a sample also has KEY.mask.png (the first one's), and in KEY.json
``query`` (the first one) and ``other_query`` (the second): what ``run.validation`` takes.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..errors import SSRError
from ..extras import need
from ..files import written_beside

# What tarfile would take from the clock and the user.
FIXED = {"user": "", "group": "", "mtime": 0, "encoder": False}


def write_world(
    out: Path, samples: int, per_shard: int = 256, split: str = "train", masks: bool = False, seed: int = 0
) -> None:
    """Write shards; equal arguments give equal bytes.

    Args:
        split: "train", or "holdout" for subjects that the embedded base was never shown.
        masks: two subjects in every picture, with the first one's mask.
    """
    from ..mini.models import weights_dir
    from ..mini.world import captions, load_world, sample_scenes

    writer = need("webdataset", "train").TarWriter
    world = load_world("cpu", weights_dir())
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    for first in range(0, samples, per_shard):
        count = min(per_shard, samples - first)
        kinds = (0.0, 1.0, 0.0) if masks else (0.3, 0.5, 0.2)
        scenes = sample_scenes(world, count, generator, split=split, subjects=kinds, distinct=1.0 if masks else 0.85)
        pictures, visible = world.render(scenes, 128)
        texts = captions(world, scenes, rng)
        path = out / f"{first // per_shard:06d}.tar"
        with written_beside(path) as temporary, open(temporary, "wb") as file, writer(file, **FIXED) as tar:
            for i in range(count):
                names = [world.concepts[c] for c in scenes.concept[i].tolist() if c >= 0]
                sample = {"__key__": f"{first + i:08d}", "png": _png(pictures[i]), "txt": texts[i].encode()}
                meta = {"descriptors": names}
                if masks:
                    sample["mask.png"] = _png(visible[i, :1])
                    meta |= {"query": names[0], "other_query": names[1]}
                tar.write(sample | {"json": json.dumps(meta, sort_keys=True).encode()})


def _png(values: Tensor) -> bytes:
    """(1 or 3, H, W) in [0, 1]."""
    array = (values.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(file, "PNG")
    return file.getvalue()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ssr_encoder.training.world",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--per-shard", type=int, default=256)
    parser.add_argument("--split", choices=("train", "holdout"), default="train")
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    write_world(args.out, args.samples, args.per_shard, args.split, args.masks, args.seed)


if __name__ == "__main__":
    try:
        main()
    except SSRError as error:
        raise SystemExit(f"error: {error}") from None
