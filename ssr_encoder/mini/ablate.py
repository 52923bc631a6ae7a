"""Supplement F on the embedded model: tau, the weight of L_reg in training, and lambda, the scale in generating.

Every value sees the same cases and the same noise; for tau also the same number of training steps, examples and noise.
Figures are those of ``ssr proof``: *selectivity* is the share of pictures in which nothing else of the reference
appears, *identity* the share with the right identity, *text alignment* the share with the place of the prompt.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..encoder import SSREncoder
from ..errors import SSRError
from ..files import write_json
from ..model import SubjectModel
from .judge import Judge, load_oracle
from .models import MiniConfig, weights_dir
from .proof import Case, make_cases, make_pictures, summarise
from .recipes.base import TrainConfig
from .recipes.subject import SSRRecipe
from .world import load_world

VALUES = {"lambda": (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0), "tau": (0.0, 0.001, 0.01, 0.1, 1.0)}
LINES = ("text", "twin")


@dataclass
class Point:
    """What one value of the parameter gave.

    Attributes:
        figures: line -> metric -> value, low, high, n, as :func:`proof.summarise` makes them.
        signals: of training (tau only): held-out losses and the attention mass inside the asked-for mask.
        pictures: (m, 3, H, W) in [0, 1], the first cases of the first line.
    """

    value: float
    figures: dict[str, dict]
    signals: dict[str, float]
    pictures: Tensor


class Measure:
    """The cases of an ablation, and the judge; called with an encoder for each value.

    Args:
        n: cases a line.
        steps: denoising steps.
        keep: how many pictures of the first line a point keeps.
    """

    def __init__(
        self, n: int, steps: int, seed: int, lines: tuple[str, ...] = LINES, keep: int = 6, device: str = "cpu"
    ):
        world = load_world("cpu", weights_dir())
        self.cases: dict[str, list[Case]] = {line: make_cases(world, line, n, seed) for line in lines}
        self.steps, self.seed, self.keep = steps, seed, keep
        self.judge = Judge(load_oracle(torch.device(device)), load_world(device, weights_dir()))

    def __call__(
        self, ssr: SSREncoder, value: float, signals: dict | None = None, on_step: Callable[[], None] = lambda: None
    ) -> Point:
        figures, kept = {}, []
        for line, cases in self.cases.items():
            subjects = [[ssr.encode(r, **q) for r, q in zip(c.references, c.queries, strict=True)] for c in cases]
            pictures = make_pictures(ssr, cases, subjects, self.steps, self.seed, on_step=on_step)
            verdicts = [self.judge(picture, case) for picture, case in zip(pictures, cases, strict=True)]
            figures[line] = summarise(verdicts, len(cases[0].concepts))
            if not kept:
                kept = [v.picture for v in verdicts[: self.keep]]
        return Point(value, figures, signals or {}, torch.stack(kept))


def ablate_lambda(
    ssr: SSREncoder, values, measure: Measure, on_step: Callable[[], None] = lambda: None
) -> Iterator[Point]:
    """Generate with each subject scale (supplement F, Fig. 4b). The encoder's own scale is as before afterwards."""
    before = ssr.model.config
    try:
        for value in values:
            ssr.model.config = dataclasses.replace(before, subject_scale=value, several_scale=value)
            yield measure(ssr, value, on_step=on_step)
    finally:
        ssr.model.config = before


def ablate_tau(
    values,
    folder: Path,
    measure: Measure,
    *,
    train_steps: int = 300,
    scratch: bool = False,
    train: TrainConfig | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_step: Callable[[], None] = lambda: None,
    on_training: Callable[[float, int], None] = lambda value, steps: None,
) -> Iterator[Point]:
    """Train the subject encoder with each tau, everything else equal (supplement F, Fig. 4a), then generate with it.

    Args:
        folder: a run goes to ``folder/tau-VALUE``; one that is there already, with as many steps, is not repeated.
        train_steps: optimiser steps a run.
        scratch: start from random weights (the paper) instead of the shipped ones.
        train: batch size, learning rate, seed; its limits are set here.
        dtype: in which the pictures are made.

    Raises:
        SSRError: a folder holds a run of other settings.
    """
    train = dataclasses.replace(train or TrainConfig(), max_steps=train_steps, time_limit=1e9, decay=0.0, warmup=20)
    for value in values:
        where = folder / f"tau-{value:g}"
        signals = _trained(where, value, train, scratch, device, on_training)
        ssr = SSREncoder.from_pretrained(
            where, base=weights_dir(), image_encoder=weights_dir() / "image_encoder", device=device, dtype=dtype
        )
        yield measure(ssr, value, signals, on_step)


def _trained(where: Path, tau: float, train: TrainConfig, scratch: bool, device: str, on_training) -> dict[str, float]:
    settings = {"tau": tau, "scratch": scratch} | dataclasses.asdict(train)
    done = where / "ablation.json"
    if done.exists():
        found = json.loads(done.read_text())
        if found["settings"] != settings:
            raise SSRError(f"{where} holds a run with other settings; give another --output, or delete it")
        return found["signals"]
    torch.manual_seed(train.seed)
    recipe = _Ablated(MiniConfig(), train, torch.device(device), weights_dir(), scratch)
    recipe.tau = tau
    for progress in recipe.run(report_every=2.0):
        on_training(tau, progress.steps)
    with recipe.averaged():
        signals = recipe.evaluate()
    recipe.save(where)
    (where / f"{recipe.name}.state.pt").unlink()  # nothing goes on from it
    write_json(done, {"settings": settings, "signals": signals})  # it says that the run is whole
    return signals


class _Ablated(SSRRecipe):
    def __init__(self, config, train, device, weights, scratch: bool):
        self._scratch = scratch
        super().__init__(config, train, device, weights)

    def _load(self, weights: Path) -> None:
        super()._load(weights)
        if self._scratch:
            self.denoiser.subject.load_state_dict(SubjectModel(self.subject_config).state_dict())


def record(points: list[Point], parameter: str, **settings) -> dict:
    """Everything but the pictures, as JSON values."""
    return {
        "format": "ssr-ablation-1",
        "parameter": parameter,
        **settings,
        "points": [{"value": p.value, "figures": p.figures, "signals": p.signals} for p in points],
    }
