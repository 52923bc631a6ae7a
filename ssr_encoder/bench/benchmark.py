"""Benchmarks as data: a versioned card (``benchmarks/NAME.yaml``), and the items that a kind makes of it.

A card says name, version, title, paper, citation, kind, suite (which metrics fit: "mini" or "real"), num_images, and
what its kind needs besides; where it has ``metrics``, these are measured beside the suite's. Change anything that
changes items, and the version goes up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ..errors import SSRError
from ..extras import need
from ..files import file_sha256
from ..images import open_mask, open_picture
from .results import digest_of

CARDS = Path(__file__).parent / "benchmarks"
# kind -> the module of this package that makes its items, with items(card, data, world_seed, reference)
KINDS = {
    "dreambench": "dreambench",
    "multi-subject": "multisubject",
    "humans": "slices",
    "rare": "slices",
    "mini-multi-subject": "embedded",
    "mini-dreambench": "embedded",
}
_FIELDS = ("name", "version", "title", "paper", "citation", "kind", "suite", "num_images")


class Reference(Protocol):
    """A reference picture, opened when it is needed."""

    def open(self) -> Image.Image: ...

    def mask(self) -> np.ndarray | None: ...

    def describe(self) -> dict: ...


@dataclass(frozen=True)
class FileReference:
    """A picture in a file, perhaps with its subject's mask in another one."""

    path: Path
    mask_path: Path | None = None

    def open(self) -> Image.Image:
        """RGB."""
        return open_picture(self.path)

    def mask(self) -> np.ndarray | None:
        """(H, W) in [0, 1], or None if there is no file of it."""
        return None if self.mask_path is None else open_mask(self.mask_path, self.open().size)

    def describe(self) -> dict:
        """What is in the files, wherever they lie."""
        mask = None if self.mask_path is None else file_sha256(self.mask_path)
        return {"sha256": file_sha256(self.path), "mask_sha256": mask}


@dataclass(frozen=True)
class Item:
    """One prompt for one subject of one reference.

    Attributes:
        key: unique in the benchmark, [a-z0-9_-]+, a file's name.
        subject: the same for items of the same reference and query: the cluster of the bootstrap; a file's name too.
        query: arguments of ``SSREncoder.encode`` besides the picture.
        class_name: "dog".
        template: "a {} in the jungle"; methods with a word of their own put it in as well ("S* dog").
        others: what else the reference shows, by name, for the exclusive scores.
        truth: embedded world only: concept, style, colour, place (indices; None where the prompt names none), hat,
            others (concepts of the reference), companion (a concept that the prompt adds, or None).
        tags: "live", "object", "human", "two-subjects", "frequency:123", ...
        seed: picture i is made with the generator seed ``seed + i``.
    """

    key: str
    subject: str
    reference: Reference
    query: dict
    class_name: str
    template: str
    others: tuple[str, ...] = ()
    truth: dict | None = None
    tags: tuple[str, ...] = ()
    num_images: int = 1
    seed: int = 0

    @property
    def prompt(self) -> str:
        """The template with the class's name in it."""
        return self.template.replace("{}", self.class_name)

    @property
    def seeds(self) -> list[int]:
        """One a picture."""
        return [self.seed + i for i in range(self.num_images)]

    def mask(self) -> np.ndarray | None:
        """(H, W) in [0, 1] of the subject in the reference, where it is known."""
        return self.reference.mask()


@dataclass
class Benchmark:
    """A benchmark as loaded: what its card says, and its items, those of a subject next to one another."""

    name: str
    version: int
    title: str
    paper: str
    citation: str
    suite: str
    num_images: int
    items: list[Item]
    metrics: tuple[str, ...] = ()  # of its own, beside the suite's

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects, in the order of the items."""
        return list(dict.fromkeys(item.subject for item in self.items))

    def digest(self) -> str:
        """sha256 of everything about it that a picture or a score can depend on, prompts and reference bytes too."""
        described, references = [], {}
        for item in self.items:
            if item.reference not in references:  # many items have the same: read a file once
                references[item.reference] = item.reference.describe()
            values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
            described.append({**values, "reference": references[item.reference]})
        return digest_of({"name": self.name, "version": self.version, "items": described})


def load_benchmark(
    name: str,
    *,
    data: Path | str | None = None,
    n: int | None = None,
    images: int | None = None,
    seed: int = 0,
    world_seed: int = 0,
    reference: int | None = None,
) -> Benchmark:
    """A benchmark by name, or by the path of a card of your own.

    Args:
        data: the folder that kinds on real pictures read.
        n: keep this many subjects, chosen by hash of their names: the same ones whatever the order, and those of a
            smaller n among them.
        images: pictures an item; default the card's.
        seed: of the noise; each item's own seed comes from it and the item's key.
        world_seed: which scenes of the embedded world.
        reference: which picture of a subject that has several, by name from 0 (kind "dreambench"); default the card's.

    Raises:
        SSRError: no such benchmark, no folder where one is needed, or a folder that is not what the kind reads.
    """
    card = read_card(name)
    module = importlib.import_module(f".{KINDS[card['kind']]}", __package__)
    if card["suite"] == "mini" and data is not None:
        raise SSRError(f"benchmark {card['name']} makes its own scenes and reads no folder; leave --data out")
    if card["suite"] != "mini":
        data = _folder(card, data)
    items = module.items(card, data, world_seed, reference)
    chosen = set(first_by_hash(dict.fromkeys(item.subject for item in items), n))
    count = card["num_images"] if images is None else images
    items = [
        dataclasses.replace(item, num_images=count, seed=seed_of(seed, item.key))
        for item in items
        if item.subject in chosen
    ]
    _check(card["name"], items)
    fields = ("name", "version", "title", "paper", "citation", "suite")
    own = tuple(card.get("metrics", ()))
    return Benchmark(**{field: card[field] for field in fields}, num_images=count, items=items, metrics=own)


def list_cards() -> Iterator[dict]:
    """The cards that the package ships, by name."""
    for path in sorted(CARDS.glob("*.yaml")):
        yield read_card(path.stem)


def read_card(name: str) -> dict:
    """A card by name or path.

    Raises:
        SSRError: there is none, or it is not a card.
    """
    yaml = need("yaml", "bench")
    own = str(name).endswith((".yaml", ".yml"))
    path = Path(name) if own else CARDS / f"{name}.yaml"
    if not own and not re.fullmatch(r"[a-z0-9-]+", str(name)) or not path.is_file():
        names = ", ".join(sorted(card.stem for card in CARDS.glob("*.yaml")))
        raise SSRError(f"no benchmark {str(name)[:80]!r}; give one of {names}, or the path of a card (.yaml)")
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        card = None
    missing = [field for field in _FIELDS if not isinstance(card, dict) or field not in card]
    if missing:
        raise SSRError(f"{path} is no benchmark's card ({missing[0]} is missing); see those that the package ships")
    if card["kind"] not in KINDS:
        raise SSRError(f"{path} has kind {card['kind']!r}; use one of {', '.join(KINDS)}")
    return card


def first_by_hash(names, n: int | None) -> list[str]:
    """n of the names (all, if None or too many), chosen by their hashes."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return ordered if n is None else ordered[:n]


def seed_of(seed: int, key: str) -> int:
    """The seed of an item's first picture."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:4], "big")


def slug(text: str) -> str:
    """A name as part of a file's name: "Stuffed Animal" is "stuffed-animal"."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


def _folder(card: dict, data) -> Path:
    if data is None:
        raise SSRError(f"benchmark {card['name']} reads your copy of its pictures; give its folder (--data FOLDER)")
    if not Path(data).is_dir():
        raise SSRError(f"{data} is not a folder; give the one with the pictures of {card['name']} (--data FOLDER)")
    return Path(data)


def _check(name: str, items: list[Item]) -> None:
    keys = [item.key for item in items]
    bad = [key for key in keys + [item.subject for item in items] if not re.fullmatch(r"[a-z0-9_-]+", key)]
    twice = [key for key in keys if keys.count(key) > 1] if len(set(keys)) < len(keys) else []
    if bad or twice:
        word = f"{bad[0]!r} is no name" if bad else f"{twice[0]!r} is there twice"
        raise SSRError(f"benchmark {name}: {word}; rename the subject (letters, digits, - and _ count)")
