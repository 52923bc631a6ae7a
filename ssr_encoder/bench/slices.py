"""Benchmarks that are cut out of a folder of your own, in DreamBench's layout or the multi-subject bench's.

``humans`` (supplement, section E) keeps the subjects that are people. ``rare`` (section L: "the fidelity will be
slightly worse for some concepts that are uncommon in our training data") tags every item with how many captions of the
training data name its class, ``frequency:N``, for a curve of the scores against N; the folder has ``descriptors.json``
beside the rest, which ``ssr data describe`` wrote for the training data.

There is no ``rare`` on the embedded world: its training draws the concepts about evenly (a few of them twice as often),
too small a range to plot against.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..curation.table2 import read_frequencies
from ..errors import SSRError
from . import dreambench, multisubject
from .benchmark import Item, read_card


def items(card: dict, data: Path, world_seed: int, reference: int | None) -> list[Item]:
    """The folder's items, those of people or with their frequencies.

    Raises:
        SSRError: a folder of neither layout, without people, or without frequencies.
    """
    made = _all_items(data, world_seed, reference)
    return _people(made, data) if card["kind"] == "humans" else _with_frequencies(made, data)


def _all_items(data: Path, world_seed: int, reference: int | None) -> list[Item]:
    if (data / "bench.json").exists():
        return multisubject.items(read_card("multi-subject"), data, world_seed, reference)
    if (data / dreambench.TABLE).exists():
        return dreambench.items(read_card("dreambench"), data, world_seed, reference)
    raise SSRError(
        f"{data} has neither bench.json nor {dreambench.TABLE}; "
        "give a folder in the layout of multi-subject or of dreambench"
    )


def _people(made: list[Item], data: Path) -> list[Item]:
    people = [item for item in made if "human" in item.tags]
    if not people:
        raise SSRError(f"no subject in {data} is a person; use classes such as man, woman, boy, girl, person, face")
    return people


def _with_frequencies(made: list[Item], data: Path) -> list[Item]:
    """Items tagged with the count of their class's last word, as written: "stuffed animal" is found as "animal"."""
    path = data / "descriptors.json"
    if not path.is_file():
        raise SSRError(f"{path} is missing; copy the one that `ssr data describe` wrote for your training data there")
    counts = read_frequencies(path)["frequencies"]
    return [
        dataclasses.replace(item, tags=(*item.tags, f"frequency:{counts.get(item.class_name.split()[-1], 0)}"))
        for item in made
    ]
