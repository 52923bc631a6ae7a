"""Stage ``dino``: a vision encoder that learns from pictures alone, by self-distillation (DINO, Caron et al. 2021).

A student sees crops of a picture, large and small, and must say what its slowly following teacher says of the large
ones. What is said are shares of ``prototypes``; centring and a low temperature keep the teacher from saying the same
of everything (equations 1 to 4 and algorithm 1 of the paper). The architecture is DINOv2's, at the size of the
embedded CLIP vision encoder, so that the two compare; no caption, mask or label is read.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from ..models import MiniConfig
from ..world import load_world, sample_scenes
from .base import Recipe, TrainConfig


def make_dino(config: MiniConfig) -> Dinov2Model:
    """A DINOv2 of the embedded vision encoder's width, depth, heads, patches and picture size."""
    return Dinov2Model(
        Dinov2Config(
            hidden_size=config.vision_width,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=config.heads,
            mlp_ratio=4,
            image_size=config.image_size,
            patch_size=config.patch_size,
        )
    )


class DINOHead(nn.Module):
    """Class token (B, width) to logits (B, prototypes): an MLP, unit length, and cosines to unit prototypes."""

    def __init__(self, width: int, prototypes: int, bottleneck: int = 64):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * width), nn.GELU(),
            nn.Linear(2 * width, bottleneck),
        )  # fmt: skip
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.prototypes, dim=-1))


class _Net(nn.Module):
    """Backbone and head: pictures (B, 3, side, side) to logits."""

    def __init__(self, config: MiniConfig, prototypes: int):
        super().__init__()
        self.backbone = make_dino(config)
        self.head = DINOHead(config.vision_width, prototypes)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.backbone(pictures).last_hidden_state[:, 0])


class DINOModels(nn.Module):
    """The student, the teacher that follows it, and the centre of the teacher's answers."""

    def __init__(self, config: MiniConfig, prototypes: int):
        super().__init__()
        self.student = _Net(config, prototypes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(prototypes))


class DINORecipe(Recipe):
    """Cross-entropy between the teacher's answer to one large crop and the student's to every other crop."""

    name = "dino"
    batch_sizes = {"cpu": 16, "cuda": 256}
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    weight_decay = 0.04
    prototypes = 256
    student_temperature, teacher_temperature = 0.1, 0.04
    centre_momentum = 0.9
    teacher_momentum = {"cpu": 0.99, "cuda": 0.996}  # short runs cannot wait for the paper's 0.996
    large_sides = {"cpu": 0.5, "cuda": 1.0}  # of large crops, by the encoder's picture; two CPU cores have 5 minutes
    small_side = 0.25
    small_crops = {"cpu": 3, "cuda": 6}
    large_area, small_area = (0.35, 1.0), (0.08, 0.35)  # shares of the picture that a crop shows

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path | None = None):
        super().__init__(config, train, device)
        self.world = load_world(device, weights)
        self.trained = DINOModels(config, self.prototypes).to(device)
        self.random_figures: dict[str, float] = {}
        self.beginning = copy.deepcopy(self.trained.teacher.backbone).eval()  # what evaluate() compares with
        if weights is not None and (weights / "dino").exists():
            found = Dinov2Model.from_pretrained(weights / "dino").state_dict()
            self.trained.student.backbone.load_state_dict(found)
            self.trained.teacher.backbone.load_state_dict(found)
        self._student, self._teacher = self.compiled(self.trained.student), self.compiled(self.trained.teacher)
        self.kind = "cuda" if self.cuda else "cpu"
        self.prepare()

    def _side(self, share: float) -> int:
        patch = self.config.patch_size
        return max(2, round(share * self.config.grid)) * patch

    def loss(self):
        scenes = sample_scenes(self.world, self.batch_size, self.generator, split="train", subjects=(0.6, 0.3, 0.1))
        pictures = self.world.render(scenes, self.config.image_size)[0]
        side = self._side(self.large_sides[self.kind])
        large = torch.cat([random_views(pictures, side, self.large_area, self.generator) for _ in range(2)])
        number = self.small_crops[self.kind]
        side = self._side(self.small_side)
        small = [random_views(pictures, side, self.small_area, self.generator) for _ in range(number)]
        with self.autocast():
            with torch.no_grad():
                said = self._teacher(large).float()
            answers = [*self._student(large).float().chunk(2), *self._student(torch.cat(small)).float().chunk(number)]
        loss, figures = distillation(
            answers, said.chunk(2), self.trained.centre, self.student_temperature, self.teacher_temperature
        )
        # eq. 4: the centre follows the mean of the teacher's answers
        self.trained.centre.lerp_(said.mean(0), 1 - self.centre_momentum)
        return loss, figures

    def _step(self, *where) -> None:
        super()._step(*where)
        with torch.no_grad():
            share = 1 - self.teacher_momentum[self.kind]
            pairs = zip(self.trained.teacher.parameters(), self.trained.student.parameters(), strict=True)
            for follower, leader in pairs:
                follower.lerp_(leader, share)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Shares of held-out scenes of one subject whose concept, and place, the nearest training scenes tell (see
        :func:`neighbours`), with the same of the random weights that the run began with."""
        bank, asked = (2048, 1024) if self.cuda else (288, 240)
        generator = torch.Generator(self.device).manual_seed(7)
        sets = [
            sample_scenes(self.world, n, generator, split=split, subjects=(1.0, 0.0, 0.0))
            for n, split in ((bank, "train"), (asked, "holdout"))
        ]
        pictures = [self.world.render(scenes, self.config.image_size)[0] * 2 - 1 for scenes in sets]
        figures = self.random_figures.copy()
        for name, backbone in (("_random", self.beginning), ("", self.trained.teacher.backbone)):
            if name and figures:
                continue
            known, new = (
                torch.cat([backbone(part).last_hidden_state[:, 0].float() for part in x.split(64)]) for x in pictures
            )
            for kind in ("concept", "place"):
                labels = [getattr(s, kind) if kind == "place" else getattr(s, kind)[:, 0] for s in sets]
                guess = neighbours(known, labels[0], new)
                figures[f"knn_{kind}{name}"] = float((guess == labels[1]).float().mean())
            self.random_figures = self.random_figures or figures.copy()
        return figures

    def export(self, folder: Path) -> None:
        """The teacher's backbone, as the paper evaluates it."""
        backbone = make_dino(self.config)
        backbone.load_state_dict(self.trained.teacher.backbone.state_dict())
        backbone.half().save_pretrained(folder / "dino")


def distillation(
    answers: list[Tensor], said, centre: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and how varied the teacher's answers are.

    Args:
        answers: the student's logits (B, prototypes) of every crop, the large ones first.
        said: the teacher's of the large crops.
        centre: (prototypes,).

    Returns:
        Mean cross-entropy over all pairs of different crops; ``entropy`` of one answer and ``spread``, the entropy of
        the mean answer, in nats: a collapsed teacher has a spread of 0, or both at log(prototypes).
    """
    targets = [((one - centre) / teacher_temperature).softmax(-1) for one in said]
    losses = [
        -(target * (answer / student_temperature).log_softmax(-1)).sum(-1).mean()
        for i, target in enumerate(targets)
        for j, answer in enumerate(answers)
        if i != j
    ]
    shares = torch.cat(targets)
    mean = shares.mean(0)
    figures = {"entropy": torch.special.entr(shares).sum(-1).mean(), "spread": torch.special.entr(mean).sum()}
    return torch.stack(losses).mean(), figures


def random_views(pictures: Tensor, side: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A random crop of each picture, mirrored half of the time, with other light, contrast and colours.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        side: of the views in pixels.
        area: least and largest share of the picture's area.

    Returns:
        (B, 3, side, side) in [-1, 1].
    """
    n, device = len(pictures), pictures.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, device=device, generator=generator) * (high - low) + low

    half = uniform(*area).sqrt()  # the crop's half side, in the picture's [-1, 1]
    centre = uniform(-1, 1, 2) * (1 - half)[:, None]
    flip = torch.where(uniform(0, 1) < 0.5, -half, half)
    zero = torch.zeros_like(half)
    affine = torch.stack([torch.stack([flip, zero, centre[:, 0]], 1), torch.stack([zero, half, centre[:, 1]], 1)], 1)
    grid = F.affine_grid(affine, (n, 3, side, side), align_corners=False)
    views = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    grey = views.mean(1, keepdim=True)
    saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, 0.0, uniform(0.6, 1.4, 1, 1, 1))
    views = grey + (views - grey) * saturation
    level = views.mean(dim=(1, 2, 3), keepdim=True)
    views = level * uniform(0.7, 1.3, 1, 1, 1) + (views - level) * uniform(0.7, 1.3, 1, 1, 1)
    soft = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    views = torch.lerp(views, soft, uniform(0, 1, 1, 1, 1))
    return views.clamp(0, 1) * 2 - 1


def neighbours(known: Tensor, labels: Tensor, new: Tensor, k: int = 10, temperature: float = 0.07) -> Tensor:
    """The labels (m,) of new features (m, d) by a vote of their k nearest known ones (n, d), weighted by
    exp(cosine / temperature) (Wu et al. 2018, as DINO is evaluated). Features are centred by the known ones' mean."""
    mean = known.mean(0)
    cosine = F.normalize(new - mean, dim=-1) @ F.normalize(known - mean, dim=-1).t()
    near = cosine.topk(min(k, len(known)), dim=1)
    votes = torch.zeros(len(new), int(labels.max()) + 1, device=new.device)
    votes.scatter_add_(1, labels[near.indices], (near.values / temperature).exp())
    return votes.argmax(1)
