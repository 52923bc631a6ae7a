"""Tiny shards, and configs that train the tiny Stable Diffusion of tests/conftest.py on them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssr_encoder.training import Trainer, TrainingConfig

SUBJECTS = ("cat", "dog", "fox")


def picture_bytes(seed: int, size=(72, 64)) -> bytes:
    """A PNG: smooth colours of its own for every seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, samples: list[dict[str, bytes]]) -> None:
    """Samples as ``{"key": ..., "png": ..., "txt": ..., "json": ...}``."""
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for extension, data in sample.items():
                if extension != "key":
                    info = tarfile.TarInfo(f"{sample['key']}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def make_sample(number: int) -> dict:
    subject = SUBJECTS[number % 3]
    caption = f"a red {subject} in the snow".encode()
    return {
        "key": f"{number:05d}",
        "png": picture_bytes(number),
        "txt": caption,
        "json": json.dumps({"descriptors": [subject, f"red {subject}"]}).encode(),
    }


def make_shards(folder: Path, counts=(5, 7, 4)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for i, count in enumerate(counts):
        write_tar(folder / f"{i:06d}.tar", [make_sample(number + j) for j in range(count)])
        number += count
    return folder


def tiny_config(folder: Path, shards: Path, out: Path, *overrides: str) -> TrainingConfig:
    """Eight steps of batches of four on the tiny base."""
    config = {
        "base": {"model": str(folder), "image_encoder": str(folder / "image_encoder"), "hidden_layers": [1, 3]},
        "data": {"shards": str(shards), "resolution": 64, "prompt_drop": 0.3, "subject_drop": 0.1,
                 "descriptor_query": 0.5, "window": 2, "workers": 0, "crops": 2},
        "optim": {"batch_size": 4, "micro_batch": 4, "steps": 8, "learning_rate": 1e-3, "ema_decay": 0.9},
        "run": {"out": str(out), "log_with": [], "log_every": 4, "save_every": 4},
    }  # fmt: skip
    config["base"] |= {"heads": 3, "head_dim": 8}
    for word in overrides:
        key, _, value = word.partition("=")
        section, name = key.split(".")
        config.setdefault(section, {})[name] = json.loads(value)
    return TrainingConfig.from_dict(config)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything that a trainer would save."""
    return {name: value.detach().clone() for name, value in trainer.learned.tensors().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines_of(path) -> list[dict]:
    """The entries of a file of JSON lines."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
