"""Benchmarks on the embedded world: drawn scenes of identities that no training stage has seen, with ground truth.

``mini-multi-subject``: scenes of two or three held-out subjects of different classes; each of them is asked for.
``mini-dreambench``: every held-out identity once, alone in its picture, with DreamBench's kinds of prompts as far as
the world's captions can say them (see :mod:`ssr_encoder.mini.world.captions`): another place, an accessory, another
thing beside, another colour.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from ..images import picture_grid
from ..mini.models import weights_dir
from ..mini.world import Scenes, World, load_world, sample_scenes
from ..mini.world.captions import PHRASES, article
from .benchmark import Item, slug

SIZE = 128  # pixels a side
COUNTS = {1: "one-subject", 2: "two-subjects", 3: "three-subjects"}


@dataclass(frozen=True)
class SceneReference:
    """One drawn scene, and the slot of its subject. Drawn again, on the CPU, wherever it is opened."""

    kind: str
    world_seed: int
    count: int  # scenes drawn together
    number: int
    slot: int = 0

    def open(self) -> Image.Image:
        """RGB, 128 x 128."""
        pictures, _ = _rendered(self.kind, self.world_seed, self.count)
        return picture_grid(pictures[self.number : self.number + 1], 1)

    def mask(self) -> np.ndarray:
        """The visible coverage of the subject, (128, 128) in [0, 1]."""
        _, masks = _rendered(self.kind, self.world_seed, self.count)
        return masks[self.number, self.slot].numpy()

    def describe(self) -> dict:
        """What is in the scene. Not its bytes: the last bit of a drawing may differ between machines."""
        scenes = _scenes(self.kind, self.world_seed, self.count)
        names = ("concept", "style", "colour", "hat", "place")
        content = {name: getattr(scenes, name)[self.number].tolist() for name in names}
        return {"world_seed": self.world_seed, "number": self.number, "slot": self.slot, **content}


@lru_cache(maxsize=1)
def _world() -> World:
    """The part of the world that the shipped models know, on the CPU."""
    return load_world("cpu", weights_dir())


@lru_cache(maxsize=4)
def _scenes(kind: str, world_seed: int, count: int) -> Scenes:
    """The scenes of a kind."""
    world, generator = _world(), torch.Generator().manual_seed(world_seed)
    if kind == "mini-multi-subject":
        return sample_scenes(world, count, generator, split="holdout", subjects=(0, 0.6, 0.4), distinct=1.0, hats=0)
    first = tuple(part[:count] for part in _held_out(world))
    return sample_scenes(world, count, generator, split="any", subjects=(1, 0, 0), first=first, hats=0)


@lru_cache(maxsize=4)
def _rendered(kind: str, world_seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (n, 3, 128, 128) in [0, 1] and the subjects' masks (n, 3, 128, 128) of the scenes of a kind."""
    return _world().render(_scenes(kind, world_seed, count), SIZE)


def _held_out(world: World) -> tuple[torch.Tensor, ...]:
    """Every held-out identity: concepts, styles, colours."""
    return (world.available & world.holdout).nonzero(as_tuple=True)


def items(card: dict, data, world_seed: int, reference: int | None) -> list[Item]:
    """The card's items for a seed of the world."""
    world, kind = _world(), card["kind"]
    count = card["scenes"] if kind == "mini-multi-subject" else len(_held_out(world)[0])
    scenes = _scenes(kind, world_seed, count)
    made = []
    for number in range(count):
        for slot in (s for s in range(scenes.concept.shape[1]) if scenes.concept[number, s] >= 0):
            seen = SceneReference(kind, world_seed, count, number, slot)
            prompts = (
                _places(card, world, scenes, number) if kind == "mini-multi-subject" else _kinds(card, world, seen)
            )
            made += _subject_items(card, world, seen, prompts)
    return made


def _places(card: dict, world: World, scenes: Scenes, number: int) -> list[dict]:
    """The first of the card's places, without the one that the reference shows."""
    own = world.places[scenes.place[number]]
    return [{"place": place} for place in card["places"] if place != own][: card["prompts_per_subject"]]


def _kinds(card: dict, world: World, seen: SceneReference) -> list[dict]:
    """The card's prompts for everything, and for what can or cannot wear a hat."""
    concept = _scenes(seen.kind, seen.world_seed, seen.count).concept[seen.number, seen.slot]
    return [*card["prompts"]["all"], *card["prompts"]["hatted" if world.hatted[concept] else "others"]]


def _subject_items(card: dict, world: World, seen: SceneReference, prompts: list[dict]) -> list[Item]:
    scenes = _scenes(seen.kind, seen.world_seed, seen.count)
    identity = [getattr(scenes, name)[seen.number, seen.slot] for name in ("concept", "style", "colour")]
    concept, style, colour = map(int, identity)
    shown = [c for c in scenes.concept[seen.number].tolist() if c >= 0]
    others = sorted(c for c in shown if c != concept)
    noun = world.concepts[concept]
    subject = slug(f"{seen.number:03d}-{noun}")
    tier = "new-drawing" if world.new_drawing[concept, style] else "recoloured"
    made = []
    for k, prompt in enumerate(prompts):
        key, tint = f"{subject}-{k:02d}", colour
        if "colour" in prompt:
            tint = world.colours.index(prompt["colour"])
            if tint == colour or not world.available[concept, style, tint]:
                continue  # it has that colour already, or nobody could tell
        companion = _companion(world, key, shown) if prompt.get("beside") else None
        truth = {
            "concept": concept,
            "style": style,
            "colour": tint,
            "place": world.places.index(prompt["place"]) if "place" in prompt else None,
            "hat": bool(prompt.get("hat")),
            "others": others,
            "companion": companion,
        }
        sort = "live" if noun in card["live"] else "object"
        made.append(
            Item(
                key=key,
                subject=subject,
                reference=seen,
                query={"query": noun},
                class_name=noun,
                template=_template(world, noun, prompt, companion),
                others=tuple(world.concepts[c] for c in others),
                truth=truth,
                tags=(sort, tier, COUNTS[len(shown)], "+".join(name for name in prompt)),
            )
        )
    return made


def _template(world: World, noun: str, prompt: dict, companion: int | None) -> str:
    """ "a red {} wearing a hat and a mushroom in the snow", as the world's captions have it."""
    phrase = f"{prompt['colour']} {noun}" if "colour" in prompt else noun
    text = article(phrase).removesuffix(noun) + "{}"
    text += " wearing a hat" if prompt.get("hat") else ""
    text += f" and {article(world.concepts[companion])}" if companion is not None else ""
    return f"{text} {PHRASES[prompt['place']]}" if "place" in prompt else text


def _companion(world: World, key: str, shown: list[int]) -> int:
    """A thing that the reference does not show, by hash of the item's key."""
    known = world.available.flatten(1).any(1).nonzero()[:, 0].tolist()
    free = [c for c in known if c not in shown]
    return free[int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % len(free)]
