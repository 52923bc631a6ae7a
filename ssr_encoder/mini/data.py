"""Training examples for the denoising stages: a target scene, its caption, and references of its subjects.

Drawing a scene, encoding it with the VAE and its references with the vision encoder costs as much as a training step,
so examples live in a ring on the device: a share of it is drawn anew at every step, the batch is a random draw from
all of it, and noise, timesteps and the kind of query are new at every use.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..selection import box_masks, patch_weights, point_masks
from .models import MiniConfig, tokenize
from .world import Scenes, World, boxes, captions, query_texts, sample_scenes

SUBJECTS = 2  # references an example can carry


@dataclass
class Plan:
    """What n examples show and say, on the CPU: cheap to make and to send, so that other processes can."""

    target: Scenes
    itself: Tensor  # (n,) bool: the reference is the target
    references: list[Scenes]  # one of n scenes for each reference an example can carry
    caption_ids: Tensor  # (n, length)
    query_ids: Tensor  # (n, 2, length)
    text_is_enough: Tensor  # (n, 2) bool: the text names one thing only in the reference
    other_ids: Tensor  # (n, length): a query for something else in reference 0, or the empty text


@dataclass
class Example:
    """Pictures and texts of n examples, before encoding. References are stacked (n, SUBJECTS, ...)."""

    target: Scenes  # on the CPU
    pictures: Tensor  # (n, 3, size, size) in [-1, 1]
    subject_area: Tensor  # (n, size, size): coverage of all subjects in the target
    caption_ids: Tensor  # (n, length)
    references: Tensor  # (n, 2, 3, size, size) in [-1, 1]
    reference_masks: Tensor  # (n, 2, size, size), the visible coverage of the asked-for subject
    query_ids: Tensor  # (n, 2, length)
    text_is_enough: Tensor  # (n, 2) bool
    other_ids: Tensor  # (n, length)
    two: Tensor  # (n,) bool: the target shows both references' subjects


def plan(
    world: World,
    tokenizer,
    n: int,
    generator: torch.Generator,
    rng: random.Random,
    split: str = "train",
    reference_is_target: float = 0.0,
    subjects: tuple[float, float, float] = (0.3, 0.6, 0.1),
    tones: float = 0.0,
    favour: Mapping[str, float] | None = None,
    same_way: float | None = None,
    turned: float = 1.0,
) -> Plan:
    """Decide what n examples show.

    Args:
        world: on the CPU: captions need the numbers in Python, and reading them back from a GPU would stall it.
        reference_is_target: share of examples whose reference is the target itself (the paper's training); the
            others get another scene with the same identity (and, mostly, a distractor).
        tones: share of the subjects in nameless colours, as for :func:`sample_scenes`.
        favour: concepts, and drawings of them, that are shown more often, as for :func:`sample_scenes`.
        turned: how much more often a nameless colour is a turned hue, as for :func:`sample_scenes`.
        same_way: share of the subjects that look the same way in the reference as in the target; default: by chance.
    """
    target = sample_scenes(
        world, n, generator, split=split, subjects=subjects, tones=tones, favour=favour, turned=turned
    )
    itself = torch.rand(n, generator=generator) < reference_is_target
    references, query_ids, enough = [], [], []
    for slot in range(SUBJECTS):
        # An unused slot repeats the first subject; nothing will read it.
        filled = target.concept[:, slot] >= 0
        identity = (target.concept, target.style, target.colour)
        first = tuple(torch.where(filled, x[:, slot], x[:, 0]) for x in identity)
        facing = None
        if same_way is not None:
            facing = torch.where(filled, target.flip[:, slot], target.flip[:, 0])
            facing = facing ^ (torch.rand(n, generator=generator) >= same_way)
        scenes = sample_scenes(
            world,
            n,
            generator,
            split=split,
            subjects=(0.15, 0.5, 0.35),
            first=first,
            distinct=0.85,
            tones=tones,
            turned=turned,
            facing=facing,
        )
        references.append(scenes)
        use = itself & filled
        rivals = torch.where(use[:, None], target.concept, scenes.concept)
        enough.append((rivals == first[0][:, None]).sum(1) == 1)
        if slot == 0:
            other = torch.where(use, target.concept[:, 1], scenes.concept[:, 1])
        query_ids.append(tokenize(tokenizer, query_texts(world, first[0], first[2], rng)))
    others = [world.concepts[c] if c >= 0 else "" for c in other.tolist()]
    return Plan(
        target=target,
        itself=itself,
        references=references,
        caption_ids=tokenize(tokenizer, captions(world, target, rng)),
        query_ids=torch.stack(query_ids, 1),
        text_is_enough=torch.stack(enough, 1),
        other_ids=tokenize(tokenizer, others),
    )


def picture(world: World, config: MiniConfig, plan: Plan) -> Example:
    """Draw planned examples, on the world's device."""

    def put(value: Tensor) -> Tensor:
        return value.to(world.device, non_blocking=True)

    target = plan.target
    pictures, masks = world.render(target.to(world.device), config.image_size)
    pictures = pictures * 2 - 1
    references, reference_masks = [], []
    for slot, scenes in enumerate(plan.references):
        seen, shown = world.render(scenes.to(world.device), config.image_size)
        here = put(plan.itself & (target.concept[:, slot] >= 0))
        references.append(torch.where(here[:, None, None, None], pictures, seen * 2 - 1))
        reference_masks.append(torch.where(here[:, None, None], masks[:, slot], shown[:, 0]))
    return Example(
        target=target,
        pictures=pictures,
        subject_area=masks.sum(1).clamp(max=1),
        caption_ids=put(plan.caption_ids),
        references=torch.stack(references, 1),
        reference_masks=torch.stack(reference_masks, 1),
        query_ids=put(plan.query_ids),
        text_is_enough=put(plan.text_is_enough),
        other_ids=put(plan.other_ids),
        two=put(target.concept[:, 1] >= 0),
    )


def draw(
    world: World,
    tokenizer,
    config: MiniConfig,
    n: int,
    generator: torch.Generator,
    rng: random.Random,
    split: str = "train",
    sampler: World | None = None,
    **options,
) -> Example:
    """:func:`plan` n examples with its ``options`` and :func:`picture` them.

    Args:
        world: draws the pictures, on its device.
        sampler: the world on the CPU that plans; default: ``world``.
    """
    return picture(world, config, plan(sampler or world, tokenizer, n, generator, rng, split, **options))


class Plans(IterableDataset):
    """Plans without end, each of n examples; a process of a ``DataLoader`` makes its own."""

    def __init__(self, world: World, tokenizer, n: int, seed: int, **options):
        self.world, self.tokenizer, self.n, self.seed, self.options = world, tokenizer, n, seed, options

    def __iter__(self) -> Iterator[Plan]:
        worker = get_worker_info()
        number = worker.id if worker else 0
        generator = torch.Generator().manual_seed(self.seed * 1000 + number)  # of which it reads 32 bits
        rng = random.Random(f"{self.seed} {number}")
        while True:
            yield plan(self.world, self.tokenizer, self.n, generator, rng, **self.options)


def random_queries(
    masks: Tensor, text_is_enough: Tensor, grid: int, point_radius: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A random kind of query for each reference: text, or a mask, box or point with or without a text.

    Args:
        masks: (m, size, size) visible coverage of the asked-for subjects.
        text_is_enough: (m,) bool; where it is False a text alone would be ambiguous and is not used alone.

    Returns:
        patch weights (m, 1 + grid*grid) and with_text (m,) bool.
    """
    m, size, device = len(masks), masks.shape[-1], masks.device
    chance = torch.rand(m, device=device, generator=generator)
    kind = (torch.rand(m, device=device, generator=generator) * 3).long()  # 0 mask, 1 box, 2 point
    region = masks
    box = box_masks(boxes(masks[:, None])[:, 0], size)
    region = torch.where((kind == 1)[:, None, None], box, region)
    # One pixel by these odds, as torch.multinomial draws it; that waits on a GPU for all before it (pytorch #108968).
    odds = masks.flatten(1) ** 4 + 1e-8
    pick = (odds / torch.empty_like(odds).exponential_(generator=generator)).argmax(1)
    points = (torch.stack([pick % size, pick // size], 1) + 0.5) / size
    region = torch.where((kind == 2)[:, None, None], point_masks(points, point_radius, size), region)
    weights = patch_weights(region, grid)
    text_only = (chance < 0.5) & text_is_enough | (weights.sum(1) == 0)
    weights = torch.where(text_only[:, None], torch.ones_like(weights), weights)
    return weights, text_only | (chance < 0.75)


class Ring:
    """A fixed number of encoded examples on the device, the oldest overwritten first."""

    def __init__(self, capacity: int):
        self.capacity, self.filled, self.position = capacity, 0, 0
        self.tensors: dict[str, Tensor] = {}

    def put(self, values: dict[str, Tensor]) -> None:
        n = len(next(iter(values.values())))
        if not self.tensors:
            self.tensors = {
                k: torch.empty(self.capacity, *v.shape[1:], dtype=v.dtype, device=v.device) for k, v in values.items()
            }
        for key, value in values.items():
            index = (torch.arange(n, device=value.device) + self.position) % self.capacity
            self.tensors[key][index] = value
        self.position = (self.position + n) % self.capacity
        self.filled = min(self.capacity, self.filled + n)

    def take(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        index = torch.randint(0, self.filled, (n,), device=generator.device, generator=generator)
        return {key: value[index] for key, value in self.tensors.items()}


def pooled_area(area: Tensor, size: int) -> Tensor:
    """Coverage (n, H, W) at the latents' resolution: (n, 1, size, size)."""
    return F.adaptive_avg_pool2d(area[:, None], size)
