"""``ssr proof``: what the shipped weights can do, on identities that no training stage has seen.

Each case is a scene with the asked-for subject and one or two others, and a prompt that puts the subject into a new
place. The pictures are made as a user makes them (``encode``, the stock pipeline) and judged by the oracle, whose own
accuracy on real scenes is printed beside. Every line stands beside the same prompts and noise without a subject.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..encoder import SSREncoder
from ..images import picture_grid
from .judge import Judge, Verdict, load_oracle
from .models import weights_dir
from .proof_pictures import make_pictures
from .world import Scenes, World, boxes, load_world, query_texts, random_identities, sample_scenes
from .world.captions import PHRASES, article

# How a subject is asked for; "twin" is a box around one of two subjects of the same class. Two subjects of two pictures
# are "composed" by a word each, and, in the same cases, "boxed" by a word and a box each.
PAIRS = ("composed", "boxed")
LINES = ("text", "mask", "box", "point", "twin", *PAIRS)
METRICS = ("shown", "identity", "other", "place")
# Two of one class: the subject is nearer to the asked-for identity than to its twin's.
TWIN_METRICS = (*METRICS, "told_apart")


@dataclass
class Case:
    """One picture to make and to judge; lists have an entry a subject (two when composed)."""

    prompt: str
    place: int
    concepts: list[int]
    identities: list[tuple[int, int]]  # style, colour
    others: list[int]  # concepts that must not appear
    references: list[Image.Image]
    queries: list[dict]  # arguments of SSREncoder.encode
    new_drawing: bool
    twin: tuple[int, int] | None = None  # identity of the other one of the same class


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, successes / n
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))


def make_cases(world: World, line: str, n: int, seed: int) -> list[Case]:
    """n cases of a line. Text, mask, box and point ask for the same subjects in the same pictures, as do both of PAIRS.

    Give a world on the CPU: the same seed then makes the same cases on every machine.
    """
    generator = torch.Generator(world.device).manual_seed(seed + (0 if _group(line) == "single" else 1000))
    rng = random.Random(seed)
    places = torch.randint(0, len(world.places) - 1, (n,), generator=generator, device=world.device).tolist()
    firsts = [random_identities(world, n, generator, "holdout")]
    if line in PAIRS:
        # Two of one class are told apart by "twin"; here the prompt must be able to name both.
        second = random_identities(world, n, generator, "holdout")
        while (same := second[0] == firsts[0][0]).any():
            again = random_identities(world, n, generator, "holdout")
            second = tuple(torch.where(same, new, old) for new, old in zip(again, second, strict=True))
        firsts.append(second)
    drawn = [_references(world, n, generator, first, line) for first in firsts]
    cases = []
    for i in range(n):
        case = Case("", places[i], [], [], [], [], [], False)
        others: set[int] = set()
        for first, (scenes, pictures, masks) in zip(firsts, drawn, strict=True):
            concept, style, colour = (int(x[i]) for x in first)
            case.concepts.append(concept)
            case.identities.append((style, colour))
            case.references.append(picture_grid(pictures[i : i + 1], 1))
            case.queries.append(_query(world, line, concept, masks[i], rng))
            case.new_drawing |= bool(world.new_drawing[concept, style])
            others.update(c for c in scenes.concept[i].tolist() if c >= 0)
            if line == "twin":
                case.twin = (int(scenes.style[i, 1]), int(scenes.colour[i, 1]))
        case.others = sorted(others - set(case.concepts))
        named = " and ".join(article(world.concepts[c]) for c in case.concepts)
        case.prompt = f"{named} {PHRASES[world.places[places[i]]]}"
        cases.append(case)
    return cases


def _references(world: World, n: int, generator: torch.Generator, first, line: str):
    """Scenes with the subject in slot 0 and one or two others; of another class, except for twins."""
    second = None
    if line == "twin":
        colours = world.available.shape[2]
        identity = world.available.flatten(1)[first[0]].float()
        identity.scatter_(1, (first[1] * colours + first[2])[:, None], 0.0)
        pick = torch.multinomial(identity, 1, generator=generator)[:, 0]
        second = (first[0], pick // colours, pick % colours)
    scenes: Scenes = sample_scenes(
        world, n, generator, split="any", subjects=(0.0, 0.6, 0.4), first=first, second=second, distinct=1.0
    )
    pictures, masks = world.render(scenes, 128)
    return scenes, pictures, masks[:, 0]


def _query(world: World, line: str, concept: int, mask: Tensor, rng: random.Random) -> dict:
    size = mask.shape[-1]
    asked = {}
    if line in ("text", *PAIRS):
        asked["query"] = query_texts(world, torch.tensor([concept]), torch.tensor([0]), rng)[0]
    if line in ("box", "twin", "boxed"):
        asked["box"] = (boxes(mask[None, None])[0, 0] * size).tolist()
    if asked:
        return asked
    if line == "mask":
        return {"mask": (mask > 0.5).cpu().numpy()}
    inside = (mask >= min(0.9, float(mask.max()))).nonzero().float()
    centre = inside.mean(0)
    y, x = inside[(inside - centre).norm(dim=1).argmin()].tolist()  # the covered pixel nearest to the middle
    return {"point": (x + 0.5, y + 0.5)}


def summarise(verdicts: list[Verdict], subjects: int = 1) -> dict:
    """Metric -> value, 95 % interval and n, the number of subjects or pictures that it is a share of.

    "told_apart" is there if any picture has a twin, "all_right" (every subject has the right identity) if pictures have
    several subjects; "other" counts pictures whose reference shows another class.
    """
    summary = {}
    for metric in TWIN_METRICS:
        values = [getattr(v, metric) for v in verdicts if getattr(v, metric) is not None]
        if metric not in METRICS and not values:
            continue
        each = subjects if metric in ("shown", "identity") else 1
        low, high = wilson(sum(values) * each, len(values) * each)
        value = sum(values) / len(values) if values else 0.0
        summary[metric] = {"value": value, "low": low, "high": high, "n": len(values) * each}
    if subjects > 1 and verdicts:
        right = sum(v.identity == 1 for v in verdicts)
        low, high = wilson(right, len(verdicts))
        summary["all_right"] = {"value": right / len(verdicts), "low": low, "high": high, "n": len(verdicts)}
    return summary


def by_concept(world: World, cases: list[Case], verdicts: list[Verdict]) -> dict[str, dict]:
    """What was asked for -> :func:`summarise` of its pictures; empty for cases of several subjects."""
    groups: dict[str, list[Verdict]] = {}
    for case, verdict in zip(cases, verdicts, strict=True):
        if len(case.concepts) == 1:
            groups.setdefault(world.concepts[case.concepts[0]], []).append(verdict)
    return {name: summarise(groups[name]) for name in sorted(groups)}


def chance(world: World, cases: list[Case]) -> float:
    """Identity by guessing among the identities of the concept."""
    sizes = world.available.flatten(1).sum(1).tolist()
    return sum(1 / sizes[c] for case in cases for c in case.concepts) / sum(len(case.concepts) for case in cases)


def prove(
    ssr: SSREncoder,
    n: int = 300,
    steps: int = 20,
    seed: int = 0,
    lines: tuple[str, ...] = LINES,
    batch: int = 16,
    on_step: Callable[[], None] = lambda: None,
    guidance_scale: float | None = None,
    scale_0: bool = True,
) -> Iterator[dict]:
    """Run the proof; yields one result a line: its figures, the same at scale 0, and the cases with their verdicts.

    Identities are held out; "new drawings" among them are counted apart as well. ``on_step`` is called
    :func:`count_steps` times. Without ``scale_0`` the pictures at scale 0, half of the work of a single line, are left
    out: their figures then count nothing (``n`` is 0).

    Raises:
        SSRError: the oracle's weights are not there.
    """
    world = load_world("cpu", weights_dir())
    own = world if ssr.device.type == "cpu" else load_world(ssr.device, weights_dir())
    judge = Judge(load_oracle(ssr.device), own)
    without: dict[str, list[Verdict]] = {}
    for line in lines:
        begin = time.monotonic()
        cases = make_cases(world, line, n, seed)
        subjects = [[ssr.encode(r, **q) for r, q in zip(c.references, c.queries, strict=True)] for c in cases]
        pictures = make_pictures(ssr, cases, subjects, steps, seed, batch, on_step, guidance_scale=guidance_scale)
        verdicts = [judge(p, c) for p, c in zip(pictures, cases, strict=True)]
        if not scale_0:
            without[_group(line)] = []
        elif _group(line) not in without:  # the same prompts and noise: once for text, mask, box and point
            plain = make_pictures(ssr, cases, None, steps, seed, batch, on_step, guidance_scale=guidance_scale)
            without[_group(line)] = [judge(p, c) for p, c in zip(plain, cases, strict=True)]
        count = len(cases[0].concepts)
        fresh = [v for v, c in zip(verdicts, cases, strict=True) if c.new_drawing]
        yield {
            "line": line,
            "figures": summarise(verdicts, count),
            "scale_0": summarise(without[_group(line)], count),
            "new_drawings": summarise(fresh, count),
            "by_concept": by_concept(world, cases, verdicts),
            "chance_identity": chance(world, cases),
            "seconds": time.monotonic() - begin,
            "cases": cases,
            "verdicts": verdicts,
            "without": without[_group(line)],
            "subjects": subjects,
        }


def count_steps(n: int, steps: int, lines: tuple[str, ...], batch: int, scale_0: bool = True) -> int:
    """Denoising steps of all batches of a proof."""
    return -(-n // batch) * steps * (len(lines) + scale_0 * len({_group(line) for line in lines}))


def _group(line: str) -> str:
    """Lines of a group have the same cases but for the query."""
    return "pairs" if line in PAIRS else "twin" if line == "twin" else "single"
