"""Stage ``aligner``: a word finds its subject.

The denoising loss teaches selection only by what it does to pictures: 4 of 100 held-out subjects, asked for by a word,
got less attention than another in their reference (docs/embedded-model.md), and their pictures show the other's looks.
Here the aligner learns from itself: how it looks at the subject when it has the word *and* the mask is the target for
how it looks with the word alone (the divergence of the two attention maps); how it looks within regions is to stay.
Only its queries and keys learn, so the subject tokens go on meaning the same, and no picture is denoised. Not in the
paper.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from ...checkpoint import save_model
from ...model import SubjectModel
from ...selection import patch_weights
from ..data import Ring, random_queries
from ..models import MiniConfig, make_subject_config, make_unet, tokenize
from ..world import load_world, query_texts, sample_scenes
from ..world.scenes import SLOTS
from .base import Recipe, TrainConfig


class AlignerRecipe(Recipe):
    """Queries and keys of the aligner learn, on drawn scenes of one to three subjects, each of which is asked for."""

    name = "aligner"
    batch_sizes = {"cpu": 64, "cuda": 512}  # scenes
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    weight_decay = 0.0
    ring_sizes = {"cpu": 8192, "cuda": 65536}
    fresh = 0.0625  # part of a batch that is drawn anew
    subjects = (0.05, 0.35, 0.6)  # how many of the scenes show one, two, three
    tones = 0.5

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path):
        super().__init__(config, train, device)
        self.world = load_world(device, weights)
        self.tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(weights / "text_encoder", dtype=torch.float32)
        self.image_encoder = CLIPVisionModel.from_pretrained(weights / "image_encoder", dtype=torch.float32)
        for module in (self.text_encoder, self.image_encoder):
            module.to(device).eval().requires_grad_(False)
        self.subject = SubjectModel(make_subject_config(config, make_unet(config))).to(device)
        if (weights / "model.safetensors").exists():
            self.subject.load_state_dict(load_file(weights / "model.safetensors"))
        aligner = self.subject.aligner
        self.teacher = copy.deepcopy(aligner).requires_grad_(False)
        self.trained = nn.ModuleList([aligner.to_q, aligner.to_k])
        self.ring = Ring(self.ring_sizes["cuda" if self.cuda else "cpu"])
        self.rng = random.Random(train.seed)
        with torch.no_grad():
            self.blank = self._embed(tokenize(self.tokenizer, [""]).to(device))  # (1, L, D)
        self.prepare()

    def _embed(self, ids: Tensor) -> Tensor:
        return self.text_encoder(ids).last_hidden_state

    @torch.no_grad()
    def _draw(self, n: int, generator: torch.Generator, rng: random.Random, split: str = "train", tones: float = 0.0):
        """n scenes as the ring keeps them, with a query's words for each slot."""
        scenes = sample_scenes(self.world, n, generator, split=split, subjects=self.subjects, tones=tones)
        pictures, masks = self.world.render(scenes, self.config.image_size)
        with self.autocast():
            seen = self.image_encoder(pictures * 2 - 1, output_hidden_states=True).hidden_states
        slots = scenes.concept.clamp_min(0).unbind(1), scenes.colour.unbind(1)
        texts = [query_texts(self.world, concept, colour, rng) for concept, colour in zip(*slots, strict=True)]
        rivals = (scenes.concept[:, :, None] == scenes.concept[:, None]).sum(2)
        visible = patch_weights(masks.flatten(0, 1), self.config.grid).unflatten(0, (n, SLOTS))
        return {
            "patches": seen[self.config.hidden_layers[-1]].half(),  # (n, P, D)
            "masks": (masks * 255).to(torch.uint8),
            "ids": torch.stack([tokenize(self.tokenizer, text) for text in texts], 1).to(self.device),
            # A text asks for one thing: those of a class are left out when there are two, as is what is hidden.
            "asked": (scenes.concept >= 0) & (rivals == 1) & (visible.amax(2) > 0.5),
        }

    def loss(self):
        fresh = max(1, round(self.batch_size * self.fresh))
        for _ in range(1 if self.ring.filled else 16):
            # Scenes without nameless colours too: beside those, a colour that is held out in any drawing never comes.
            tones = self.rng.choice((0.0, self.tones))
            self.ring.put(self._draw(fresh, self.generator, self.rng, tones=tones))
        batch = self.ring.take(self.batch_size, self.generator)
        scene, slot = batch["asked"].nonzero().unbind(1)
        masks = batch["masks"][scene, slot].float() / 255
        regions, with_text = random_queries(
            masks, torch.zeros_like(scene, dtype=torch.bool), self.config.grid, self.point_radius, self.generator
        )
        patches = batch["patches"][scene].float()
        with torch.no_grad(), self.autocast():
            words = self._embed(batch["ids"][scene, slot])
            asked = torch.where(with_text[:, None, None], words, self.blank.to(words.dtype))
            target = self.teacher.attention(words, patches, patch_weights(masks, self.config.grid))
            kept = self.teacher.attention(asked, patches, regions)
        with self.autocast():
            alone = self.subject.aligner.attention(words, patches)
            within = self.subject.aligner.attention(asked, patches, regions)
        word, region = divergence(target, alone), divergence(kept, within)
        return word + region, {"word": word.detach(), "region": region.detach()}

    @property
    def point_radius(self) -> float:
        return self.subject.config.point_radius

    @torch.no_grad()
    def evaluate(self, n: int = 0) -> dict[str, float]:
        """On fixed scenes of held-out identities, asked for by a word: the share of the attention on the subject, and
        of the subjects that get more of it than any other in the scene."""
        generator = torch.Generator(self.device).manual_seed(7)
        kept = self._draw(n or (2048 if self.cuda else 384), generator, random.Random(7), "holdout")
        scene, slot = kept["asked"].nonzero().unbind(1)
        words = self._embed(kept["ids"][scene, slot])
        attention = self.subject.aligner.attention(words, kept["patches"][scene].float())
        on = _on_slots(attention, kept["masks"], self.config.grid, scene)
        mine = on.gather(1, slot[:, None])[:, 0]
        return {"on_subject": float(mine.mean()), "found": float((mine >= on.amax(1)).float().mean())}

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.subject, folder, torch.float16)


def _on_slots(attention: Tensor, masks: Tensor, grid: int, scene: Tensor) -> Tensor:
    """What part of the attention (m, H, L, P), the mean of heads and tokens, is on each subject of its scene, by the
    masks (n, SLOTS, H, W) of the scenes: (m, SLOTS)."""
    areas = patch_weights(masks.flatten(0, 1).float() / 255, grid).unflatten(0, (-1, SLOTS))
    return torch.einsum("msp,mp->ms", areas[scene], attention.mean((1, 2)))


def divergence(target: Tensor, attention: Tensor) -> Tensor:
    """Kullback-Leibler divergence of attention maps (m, H, L, P) from a target's, mean over all rows (scalar)."""
    target, attention = target.float(), attention.float()
    some = target > 0
    terms = target * (target.clamp_min(1e-12).log() - attention.clamp_min(1e-12).log())
    return terms.where(some, 0).sum(-1).mean()
