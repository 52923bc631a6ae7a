"""Stage ``captioner``: the small captioner on the frozen vision encoder."""

from __future__ import annotations

import random
import re
from pathlib import Path

import torch
from transformers import CLIPTokenizer, CLIPVisionModel, GPT2LMHeadModel

from ..captioner import caption_loss, look, make_captioner, write
from ..data import Ring
from ..models import MiniConfig, tokenize, weights_dir
from ..world import captions, load_world, sample_scenes
from ..world.captions import plural
from .base import Recipe, TrainConfig


class CaptionerRecipe(Recipe):
    """Next-token prediction on captions that name every attribute. Encoded scenes live in a ring, as in ``unet``;
    each has three wordings of its caption."""

    name = "captioner"
    batch_sizes = {"cpu": 32, "cuda": 256}
    learning_rates = {"cpu": 2e-3, "cuda": 2e-3}
    fresh = {"cpu": 0.125, "cuda": 1.0}  # part of a batch that is drawn anew
    capacity = {"cpu": 6144, "cuda": 65536}

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path | None = None):
        super().__init__(config, train, device)
        weights = weights or weights_dir()
        self.world = load_world(device, weights)
        self.tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
        self.image_encoder = CLIPVisionModel.from_pretrained(weights / "image_encoder", dtype=torch.float32)
        self.image_encoder.to(device).eval().requires_grad_(False)
        self.trained = make_captioner(config, self.tokenizer).to(device)
        if (weights / "captioner").exists():
            shipped = GPT2LMHeadModel.from_pretrained(weights / "captioner", dtype=torch.float32)
            self.trained.load_state_dict(shipped.state_dict())
        self.rng = random.Random(train.seed)
        self.ring = Ring(self.capacity["cuda" if self.cuda else "cpu"])
        self.prepare()

    def _draw(self, n: int, generator: torch.Generator, rng: random.Random, split: str):
        scenes = sample_scenes(self.world, n, generator, split=split, subjects=(0.45, 0.4, 0.15))
        pictures = self.world.render(scenes, self.config.image_size)[0] * 2 - 1
        with torch.no_grad(), self.autocast():
            seen = look(self.image_encoder, pictures)
        # Three wordings of each: the ring gives a scene out several times.
        texts = [captions(self.world, scenes, rng, drop_attributes=0.0) for _ in range(3)]
        ids = torch.stack([tokenize(self.tokenizer, text) for text in texts], 1).to(self.device)
        return scenes, seen, ids

    def loss(self):
        fresh = max(1, int(self.batch_size * self.fresh["cuda" if self.cuda else "cpu"]))
        for _ in range(1 if self.ring.filled else 8):
            _, seen, ids = self._draw(fresh, self.generator, self.rng, "train")
            self.ring.put({"seen": seen.half(), "ids": ids})
        batch = self.ring.take(self.batch_size, self.generator)
        wording = torch.randint(0, 3, (self.batch_size,), device=self.device, generator=self.generator)
        ids = batch["ids"][torch.arange(self.batch_size, device=self.device), wording]
        with self.autocast():
            return caption_loss(self.trained, batch["seen"].float(), ids), {}

    @torch.no_grad()
    def evaluate(self, n: int = 0) -> dict[str, float]:
        """On fixed scenes of held-out identities: loss, and how often the caption names just what is shown."""
        n = n or (512 if self.cuda else 96)
        generator = torch.Generator(self.device).manual_seed(7)
        scenes, seen, ids = self._draw(n, generator, random.Random(7), "holdout")
        seen = seen.float()
        loss = caption_loss(self.trained, seen, ids[:, 0])
        return {"loss_held_out": float(loss), **naming(self.world, scenes, write(self.trained, self.tokenizer, seen))}

    def export(self, folder: Path) -> None:
        copy = make_captioner(self.config, self.tokenizer)
        copy.load_state_dict(self.trained.state_dict())
        copy.half().save_pretrained(folder / "captioner")


def naming(world, scenes, texts: list[str]) -> dict[str, float]:
    """Shares in [0, 1]: captions that name exactly the concepts shown (and two as two), subjects that are named,
    named subjects that are shown, places that are named rightly of those named."""
    names = {word: k for k, noun in enumerate(world.concepts) for word in (noun, plural(noun))}
    exact = named = shown = both = 0
    placed, right = 0, 0
    for row, place, text in zip(scenes.concept.tolist(), scenes.place.tolist(), texts, strict=True):
        truth = sorted(c for c in row if c >= 0)
        told = told_concepts(names, text)
        exact += told == truth
        shown += len(set(truth))
        named += len(set(told))
        both += len(set(truth) & set(told))
        said = [k for k, name in enumerate(world.places) if re.search(rf"\b{name}\b", text)]
        placed += bool(said)
        right += place in said
    return {
        "exact_subjects": exact / len(texts),
        "subjects_named": both / max(1, shown),
        "named_are_shown": both / max(1, named),
        "named_place_right": right / max(1, placed),
    }


def told_concepts(names: dict[str, int], text: str) -> list[int]:
    """Concept numbers in a caption, sorted; "two cats" count twice. The place in front ("forest, with") is no subject:
    no concept's name is a place's."""
    told, twice = [], False
    for word in re.findall(r"\w+", text):
        if word in names:
            told += [names[word]] * (2 if twice else 1)
            twice = False
        elif word == "two":
            twice = True
    return sorted(told)
