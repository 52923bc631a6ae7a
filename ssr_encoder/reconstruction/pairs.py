"""Pictures with their texts, to train and to test on: the embedded world, or shards of the user's.

Which pairs make which batch is a function of the seed and the batch's number alone, so that a run stops anywhere and
goes on as if it had not, and the settings of one seed see the same pictures.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import SSRError
from ..images import open_picture
from .config import StudyConfig


class Pairs(Protocol):
    """Pictures are (n, 3, size, size) in [0, 1].

    Attributes:
        names, templates: of the zero-shot classes; names are empty where there are no labelled pictures.
    """

    names: list[str]
    templates: list

    def describe(self) -> dict:
        """JSON: what determines every picture."""

    def batch(self, seed: int, number: int, n: int) -> tuple[Tensor, list[str]]:
        """Batch ``number`` of the training pairs."""

    def test(self, n: int) -> Iterator[tuple[Tensor, list[str]]]:
        """The held-out pairs, in batches of n, always the same."""

    def labelled(self, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures of one class each and its index among ``names``, in batches of n, always the same."""


class WorldPairs:
    """Scenes and captions of the embedded world: training identities to train on, held-out ones to test on; scenes of
    one held-out subject for zero-shot recognition among the world's concepts."""

    TRAIN, TEST, LABELLED = range(3)  # purposes of random numbers

    def __init__(self, config: StudyConfig, size: int, device: torch.device):
        from ..bench.metrics.zero_shot import MINI_TEMPLATES
        from ..mini.models import weights_dir
        from ..mini.world import load_world

        self.config, self.size, self.device = config, size, device
        # What is in the scenes is drawn on the CPU: captions need the numbers, and the same seed is the same scenes.
        folder = Path(config.clip) if config.clip else weights_dir()
        self.world = load_world("cpu", folder)
        self.painter = self.world if device.type == "cpu" else load_world(device, folder)
        shown = self.world.available.flatten(1).any(1).nonzero()[:, 0].tolist()
        self.names = [self.world.concepts[c] for c in shown]
        self._class = {concept: i for i, concept in enumerate(shown)}
        self.templates = list(MINI_TEMPLATES)

    def describe(self) -> dict:
        from ..mini.world.atlas import VERSION

        world = {"world": VERSION, "classes": self.names, "size": self.size}
        return world | {"templates": self.templates}

    def batch(self, seed, number, n):
        scenes, random_words = self._scenes(n, (self.TRAIN, seed, number), "train", (0.35, 0.45, 0.2))
        return self._drawn(scenes, random_words)

    def test(self, n):
        for start in range(0, self.config.test_pictures, n):
            count = min(n, self.config.test_pictures - start)
            yield self._drawn(*self._scenes(count, (self.TEST, start), "holdout", (0.35, 0.45, 0.2)))

    def labelled(self, n):
        for start in range(0, self.config.zero_shot_pictures, n):
            count = min(n, self.config.zero_shot_pictures - start)
            scenes, _ = self._scenes(count, (self.LABELLED, start), "holdout", (1.0, 0.0, 0.0))
            labels = torch.tensor([self._class[c] for c in scenes.concept[:, 0].tolist()])
            yield self._render(scenes), labels

    def _scenes(self, n: int, key: tuple[int, ...], split: str, subjects):
        from ..mini.world import sample_scenes

        # torch's CPU generator reads 32 bits of its seed, so the key is mixed into them.
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        return sample_scenes(self.world, n, generator, split=split, subjects=subjects), random.Random(seed)

    def _drawn(self, scenes, random_words) -> tuple[Tensor, list[str]]:
        from ..mini.world import captions

        return self._render(scenes), captions(self.world, scenes, random_words)

    def _render(self, scenes) -> Tensor:
        return self.painter.render(scenes.to(self.device), self.size)[0]


class ShardPairs:
    """Pairs of webdataset shards (``ssr data fetch`` writes them), in the seeded order of ``ssr train``; the middle
    square of each picture, bicubic. A sample that cannot be read is replaced by the next one.

    ImageNet's validation pictures lie in one folder a class whose sorted names are in the order of ImageNet's classes
    (n01440764, ...).
    """

    def __init__(self, config: StudyConfig, size: int, device: torch.device):
        from ..training.reader import Reader, list_urls

        if not config.data or not config.test_data:
            raise SSRError("the study at full scale needs data=SHARDS and test_data=SHARDS; see `ssr data --help`")
        self.config, self.size, self.device = config, size, device
        self._fetched = Path(tempfile.gettempdir()) / "ssr-study-shards"
        self._parts = {}
        for name, where in (("train", config.data), ("test", config.test_data)):
            reader = Reader(list_urls(where), self._fetched)
            self._parts[name] = reader, [reader.count(i).count for i in range(len(reader.urls))]
            if not sum(self._parts[name][1]):
                raise SSRError(f"shards {where} hold no samples; give others")
        self.files = _imagenet(Path(config.imagenet)) if config.imagenet else []
        self.names, self.templates = [], []
        if self.files:
            from ..bench.metrics import imagenet_classes, imagenet_templates

            self.names, self.templates = imagenet_classes(), imagenet_templates()
            if len(self.files) != len(self.names):
                raise SSRError(
                    f"{config.imagenet} has {len(self.files)} folders of pictures, ImageNet {len(self.names)} classes"
                )

    def describe(self) -> dict:
        counts = {name: sum(counts) for name, (_, counts) in self._parts.items()}
        return {"pairs": counts, "classes": len(self.names), "labelled": sum(map(len, self.files)), "size": self.size}

    def batch(self, seed, number, n):
        from ..training.order import Order

        reader, counts = self._parts["train"]
        order = Order(counts, seed, 16)
        return self._read(reader, lambda i: order[number * n + i], n, order.total)

    def test(self, n):
        from ..training.order import Order

        reader, counts = self._parts["test"]
        order = Order(counts, 0, 16)
        total = min(self.config.test_pictures, order.total)
        for start in range(0, total, n):
            yield self._read(reader, lambda i, start=start: order[start + i], min(n, total - start), order.total)

    def labelled(self, n):
        most = -(-self.config.zero_shot_pictures // max(1, len(self.files)))  # evenly over the classes
        items = [(path, label) for label, paths in enumerate(self.files) for path in paths[:most]]
        for start in range(0, len(items), n):
            paths, labels = zip(*items[start : start + n], strict=True)
            yield self._stack([open_picture(path) for path in paths]), torch.tensor(labels)

    def _read(self, reader, place: Callable, n: int, total: int) -> tuple[Tensor, list[str]]:
        from ..training.data import open_raw
        from ..training.reader import BadSample

        pictures, texts, number = [], [], 0
        while len(pictures) < n:
            if number >= n + total:
                raise SSRError("the shards of the study hold no readable pairs; check them with `ssr data check`")
            where, number = place(number), number + 1
            try:
                raw = reader.sample(where.shard, where.index)
                pictures.append(open_raw(raw))
                texts.append(raw.caption)
            except BadSample:
                continue
        return self._stack(pictures), texts

    def _stack(self, pictures: list[Image.Image]) -> Tensor:
        fitted = [ImageOps.fit(p, (self.size, self.size), Image.Resampling.BICUBIC) for p in pictures]
        stacked = torch.from_numpy(np.stack([np.asarray(p.convert("RGB")) for p in fitted]))
        return stacked.permute(0, 3, 1, 2).to(self.device).float() / 255


def _imagenet(folder: Path) -> list[list[Path]]:
    if not folder.is_dir():
        raise SSRError(f"imagenet folder {folder} does not exist; give validation pictures in one folder a class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(p for p in path.iterdir() if p.suffix.lower() in (".jpeg", ".jpg", ".png")) for path in classes]
    empty = [path.name for path, found in zip(classes, files, strict=True) if not found]
    if empty or not classes:
        raise SSRError(f"{folder / empty[0] if empty else folder} has no pictures; complete it")
    return files


def load_pairs(config: StudyConfig, size: int, device: torch.device) -> Pairs:
    """The pairs of the config's scale."""
    return (WorldPairs if config.scale == "mini" else ShardPairs)(config, size, device)
