"""Stage ``clip``: text and vision encoder together, contrastively, with helper heads on the patches.

Captions alone pull features away from identity (two red cats of different drawings share a caption), so every patch
also learns to say which concept, drawing style and colour it shows. The helper heads are thrown away.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPVisionModel

from ...files import written_beside
from ..models import MiniConfig, make_image_encoder, make_text_encoder, make_tokenizer, tokenize
from ..world import World, caption_words, captions, sample_scenes
from .base import Recipe, TrainConfig


class CLIPModels(nn.Module):
    """Both encoders, their projections and the helper heads."""

    def __init__(self, config: MiniConfig, tokenizer, world: World):
        super().__init__()
        self.text_encoder = make_text_encoder(config, tokenizer)
        self.image_encoder = make_image_encoder(config)
        self.text_projection = nn.Linear(config.text_width, config.text_width, bias=False)
        self.visual_projection = nn.Linear(config.vision_width, config.text_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))  # log of 1 / 0.07, as in CLIP
        sizes = {"concept": len(world.concepts) + 1, "style": len(world.styles), "colour": len(world.colours)}
        self.helpers = nn.ModuleDict({k: nn.Linear(config.vision_width, n) for k, n in sizes.items()})

    def forward(self, pictures: Tensor, ids: Tensor):
        seen = self.image_encoder(pictures)
        patches = self.image_encoder.post_layernorm(seen.last_hidden_state[:, 1:])
        text = self.text_encoder(ids).pooler_output
        return (
            F.normalize(self.visual_projection(seen.pooler_output).float(), dim=-1),
            F.normalize(self.text_projection(text).float(), dim=-1),
            {name: head(patches) for name, head in self.helpers.items()},
        )


class CLIPRecipe(Recipe):
    """InfoNCE over a batch plus patch classification."""

    name = "clip"
    batch_sizes = {"cpu": 32, "cuda": 768}
    learning_rates = {"cpu": 1e-3, "cuda": 1.5e-3}
    weight_decay = 0.05
    helper_weight = 1.0

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path | None = None):
        super().__init__(config, train, device)
        self.world = World.load(device)
        self.tokenizer = make_tokenizer(caption_words(self.world), config.text_length)
        self.trained = CLIPModels(config, self.tokenizer, self.world).to(device)
        if weights is not None and (weights / "text_encoder").exists():
            self._load(weights)
        self.rng = random.Random(train.seed)
        self._forward = self.compiled(self.trained)
        self.fixed = self._batch(256, torch.Generator(device).manual_seed(7), random.Random(7), "holdout")
        self.prepare()

    def _load(self, weights: Path) -> None:
        models = self.trained
        models.text_encoder.load_state_dict(CLIPTextModel.from_pretrained(weights / "text_encoder").state_dict())
        models.image_encoder.load_state_dict(CLIPVisionModel.from_pretrained(weights / "image_encoder").state_dict())
        models.load_state_dict(load_file(weights / "clip_heads.safetensors"), strict=False)

    def _batch(self, n: int, generator: torch.Generator, rng: random.Random, split: str):
        scenes = sample_scenes(self.world, n, generator, split=split, subjects=(0.4, 0.4, 0.2))
        pictures, masks = self.world.render(scenes, self.config.image_size)
        ids = tokenize(self.tokenizer, captions(self.world, scenes, rng)).to(self.device)
        return pictures * 2 - 1, ids, patch_labels(self.world, scenes, masks, self.config.grid)

    def loss(self):
        pictures, ids, labels = self._batch(self.batch_size, self.generator, self.rng, "train")
        with self.autocast():
            image, text, helpers = self._forward(pictures, ids)
        logits = image @ text.t() * self.trained.logit_scale.clamp(max=4.6).exp()
        target = torch.arange(len(logits), device=self.device)
        # Two scenes with the very same caption are not each other's negatives.
        same = (ids[:, None] == ids[None]).all(-1) & ~torch.eye(len(ids), dtype=torch.bool, device=self.device)
        logits = logits.masked_fill(same, -1e4)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        helper, accuracy = 0.0, {}
        for name, scores in helpers.items():
            scores, label = scores.flatten(0, 1).float(), labels[name].flatten()
            helper = helper + F.cross_entropy(scores, label, ignore_index=-1)
            right = (scores.argmax(-1) == label) & (label >= 0)
            accuracy[name] = right.sum() / (label >= 0).sum().clamp(min=1)
        return contrast + self.helper_weight * helper, {"contrast": contrast, **accuracy}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        pictures, ids, labels = self.fixed
        image, text, helpers = self.trained(pictures, ids)
        target = torch.arange(len(ids), device=self.device)
        best = (image @ text.t()).argmax(1)
        found = (ids[best] == ids[target]).all(-1).float().mean()  # the same caption twice counts as found
        figures = {"image_to_text_top1_of_256": float(found)}
        best = (text @ image.t()).argmax(1)
        figures["text_to_image_top1_of_256"] = float((ids[best] == ids[target]).all(-1).float().mean())
        for name, scores in helpers.items():
            label = labels[name]
            wanted = (label > 0) if name == "concept" else (label >= 0)  # subject patches, not background
            figures[f"patch_{name}"] = float((scores.argmax(-1) == label)[wanted].float().mean())
        return figures

    def export(self, folder: Path) -> None:
        half = {k: v.detach().half().contiguous() for k, v in self.trained.state_dict().items()}
        heads = {k: v for k, v in half.items() if not k.startswith(("text_encoder.", "image_encoder."))}
        with written_beside(folder / "clip_heads.safetensors") as path:
            save_file(heads, path)
        for name in ("text_encoder", "image_encoder"):
            module = getattr(self.trained, name)
            copy = type(module)(module.config)
            copy.load_state_dict(module.state_dict())
            copy.half().save_pretrained(folder / name)
        self.tokenizer.save_pretrained(folder / "tokenizer")


def patch_labels(world: World, scenes, masks: Tensor, grid: int) -> dict[str, Tensor]:
    """What each patch shows: (B, grid*grid) labels; concept 0 is background; -1 = mixed patch or no subject."""
    coverage = F.adaptive_avg_pool2d(masks, grid).flatten(2)  # (B, slots, patches)
    best, slot = coverage.max(dim=1)
    sure, empty = best > 0.6, coverage.sum(1) < 0.05
    labels = {}
    for name, value, shift in (
        ("concept", scenes.concept, 1),
        ("style", scenes.style, 0),
        ("colour", scenes.colour, 0),
    ):
        label = value.gather(1, slot) + shift
        label = torch.where(sure, label, -1)
        labels[name] = torch.where(empty, 0, label) if name == "concept" else label
    return labels
