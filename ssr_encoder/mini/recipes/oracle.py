"""Stage ``oracle``: the judge of :mod:`ssr_encoder.mini.oracle`, on real scenes of the training split only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...files import written_beside
from ..models import MiniConfig
from ..oracle import GRID, Oracle, identity_embedding, shown
from ..world import World, sample_scenes
from .base import Recipe, TrainConfig


class _OracleWithProxies(nn.Module):
    """The oracle and one learned direction for each identity of the world, thrown away after training."""

    def __init__(self, world: World):
        super().__init__()
        self.oracle = Oracle(len(world.concepts), len(world.places))
        self.proxies = nn.Parameter(torch.randn(world.available.numel(), self.oracle.sizes["embed_dim"]) * 0.1)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        return self.oracle(pictures)


class OracleRecipe(Recipe):
    """Cell-wise concept, place, hat, and identity as classification against the proxies by cosine."""

    name = "oracle"
    batch_sizes = {"cpu": 16, "cuda": 256}
    learning_rates = {"cpu": 1e-3, "cuda": 1.5e-3}
    weight_decay = 0.02

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path | None = None):
        super().__init__(config, train, device)
        self.world = World.load(device)
        self.trained = _OracleWithProxies(self.world).to(device)
        if weights is not None and (weights / "oracle.safetensors").exists():
            self.trained.oracle.load_state_dict(Oracle.load(weights / "oracle.safetensors", device).state_dict())
        if self.cuda:
            self.trained.to(memory_format=torch.channels_last)
        self._forward = self.compiled(self.trained)
        # Proxies of identities that no scene shows would only push embeddings away from unseen identities.
        unseen = ~self.world.available.to(device) | self.world.holdout.to(device)
        self.unseen = unseen.flatten()
        self.prepare()

    def _scenes(self, n: int, generator: torch.Generator, split: str, subjects=(0.5, 0.35, 0.15)):
        scenes = sample_scenes(self.world, n, generator, split=split, subjects=subjects)
        pictures, masks = self.world.render(scenes, self.config.image_size)
        return scenes, pictures * 2 - 1, masks

    def _weather(self, pictures: Tensor) -> Tensor:
        """What generated pictures suffer from: blur and speckle, in different strength from picture to picture."""
        n, device = len(pictures), self.device
        strength = torch.rand(n, 1, 1, 1, device=device, generator=self.generator)
        small = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2, mode="bilinear")
        blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
        kind = torch.rand(n, 1, 1, 1, device=device, generator=self.generator)
        soft = torch.where(kind < 0.3, small, torch.where(kind < 0.6, blurred, pictures))
        noise = torch.randn(pictures.shape, device=device, generator=self.generator)
        return torch.lerp(pictures, soft, strength) + 0.08 * strength * noise

    def loss(self):
        scenes, pictures, masks = self._scenes(self.batch_size, self.generator, "train")
        with self.autocast():
            answers = self._forward(self._weather(pictures))
        answers = {k: v.float() for k, v in answers.items()}
        coverage = F.adaptive_avg_pool2d(masks, GRID)
        background = (1 - coverage.sum(1, keepdim=True)).clamp(min=0)
        # Soft labels: the share of each cell that each concept covers.
        shares = torch.zeros_like(answers["concept"])
        index = (scenes.concept.clamp(min=-1) + 1)[:, :, None, None].expand_as(coverage)
        shares.scatter_add_(1, index, coverage * (scenes.concept >= 0)[:, :, None, None])
        shares[:, :1] += background
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-6)
        concept = -(shares * answers["concept"].log_softmax(1)).sum(1)
        concept = (concept * (1 + 2 * (1 - background[:, 0]))).mean()
        place = F.cross_entropy(answers["place"], scenes.place)
        # Identity: one subject of each scene (slot 0), pooled over its true cells.
        weight = coverage[:, :1]
        pooled = (answers["identity"] * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-4)
        cosine = F.normalize(pooled, dim=-1) @ F.normalize(self.trained.proxies, dim=-1).t()
        styles, colours = self.world.available.shape[1:]
        label = (scenes.concept[:, 0] * styles + scenes.style[:, 0]) * colours + scenes.colour[:, 0]
        own = F.one_hot(label, cosine.shape[1])
        logits = (16 * (cosine - 0.15 * own)).masked_fill(self.unseen[None], -1e4)
        identity = F.cross_entropy(logits, label)
        hat = F.binary_cross_entropy_with_logits(
            (answers["hat"] * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp(min=1e-4), scenes.hat[:, 0].float()
        )
        return concept + 0.3 * place + 0.3 * identity + 0.1 * hat, {
            "concept_loss": concept,
            "place": (answers["place"].argmax(1) == scenes.place).float().mean(),
            "identity": (logits.argmax(1) == label).float().mean(),
        }

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Accuracy on real scenes of held-out identities, as ``ssr proof`` will use it."""
        n, views = (512, 6) if self.cuda else (24, 2)  # the CPU's figure is a rough one
        generator = torch.Generator(self.device).manual_seed(7)

        def table(concept: int) -> Tensor:
            return prototypes(self.trained.oracle, self.world, concept, generator, views)

        return accuracy(self.trained.oracle, self.world, n, generator, table)

    def export(self, folder: Path) -> None:
        with written_beside(folder / "oracle.safetensors") as path:
            self.trained.oracle.save(path)


@torch.no_grad()
def prototypes(oracle: Oracle, world: World, concept: int, generator: torch.Generator, views: int = 6) -> Tensor:
    """Mean embedding of every identity of one concept, drawn ``views`` times alone: (styles, colours, D); identities
    that do not exist are zero."""
    device = next(oracle.parameters()).device
    style, colour = world.available[concept].to(device).nonzero(as_tuple=True)
    first = [torch.full_like(style, concept), style, colour]
    first = tuple(x.repeat_interleave(views) for x in first)
    scenes = sample_scenes(world, len(first[0]), generator, split="any", subjects=(1.0, 0.0, 0.0), first=first)
    pictures = world.render(scenes, 128)[0] * 2 - 1
    embedding = torch.cat(
        [
            identity_embedding(oracle(part), label)
            for part, label in zip(pictures.split(64), first[0].split(64), strict=True)
        ]
    )
    table = torch.zeros(*world.available.shape[1:], embedding.shape[1], device=device)
    table[style, colour] = F.normalize(embedding.unflatten(0, (-1, views)).mean(1), dim=-1)
    return table


@torch.no_grad()
def accuracy(
    oracle: Oracle, world: World, n: int, generator: torch.Generator, table: Callable[[int], Tensor]
) -> dict[str, float]:
    """The judge judged, on ``n`` real scenes of held-out identities with one or two subjects.

    Args:
        table: the :func:`prototypes` of a concept.
    """
    device = next(oracle.parameters()).device
    scenes = sample_scenes(world, n, generator, split="holdout", subjects=(0.5, 0.5, 0.0))
    pictures = world.render(scenes, 128)[0] * 2 - 1
    parts = [oracle(part) for part in pictures.split(64)]
    answers = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
    sure = shown(answers["concept"])
    rows = torch.arange(n, device=device)
    true = torch.zeros(n, len(world.concepts) + 1, dtype=torch.bool, device=device)
    true.scatter_(1, scenes.concept + 1, True)  # column 0 collects empty slots
    true = true[:, 1:]
    concept = scenes.concept[:, 0]
    embedding = identity_embedding(answers, concept)
    right = []
    for c in concept.unique().tolist():
        among, mine = table(c), concept == c
        nearest = (embedding[mine] @ among.flatten(0, 1).t()).argmax(1)
        wanted = scenes.style[mine, 0] * among.shape[1] + scenes.colour[mine, 0]
        right.append((nearest == wanted).float())
    return {
        "concept_shown": float((sure[rows, concept] > 0.5).float().mean()),
        "other_concept_shown": float(((sure > 0.5) & ~true).any(1).float().mean()),
        "place": float((answers["place"].argmax(1) == scenes.place).float().mean()),
        "identity": float(torch.cat(right).mean()),
    }
