"""What all recipes share: optimiser, averaged weights, schedule, saving and resuming, and the loop.

A recipe owns its models and its loss; the loop yields progress; ``mini.train`` prints it, draws and saves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import SSRError
from ...files import write_json, written_beside
from ..models import MiniConfig


@dataclass
class TrainConfig:
    """One run of one recipe. ``batch_size`` and ``learning_rate`` default to the recipe's own for the device."""

    time_limit: float = 60.0  # seconds of training; the last quarter of it decays the learning rate
    batch_size: int = 0  # 0: the recipe's
    learning_rate: float = 0.0  # 0: the recipe's
    decay: float = 0.25  # share of the time limit in which the learning rate falls to nothing
    warmup: int = 200  # steps
    ema_decay: float = 0.999
    seed: int = 0
    compile: bool = True  # on CUDA only
    graph: bool = True  # on CUDA only: a bfloat16 copy learns, in one CUDA graph (stages unet, ssr)
    streams: int = 1  # parts of a batch that learn side by side, each in a thread of its own (CPU; stages unet, ssr)
    bfloat16: bool = False  # on the CPU too (CUDA always): twice as fast with AVX512-BF16 or AMX, slower without
    max_steps: int = 0  # 0: until the time limit
    workers: int = 0  # processes that decide what is drawn while the device works (unet and on)


@dataclass
class Progress:
    """Where a run is: totals over all resumed runs, and the mean of each figure since the last report."""

    steps: int
    samples: int
    seconds: float
    figures: dict[str, float]
    finished: bool = False


class Recipe(nn.Module):
    """One training stage. Subclasses set ``trained`` (the module whose parameters learn) and write :meth:`loss`,
    :meth:`evaluate`, :meth:`sample_grid` and :meth:`export`."""

    name = ""
    batch_sizes = {"cpu": 16, "cuda": 256}
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    betas = (0.9, 0.99)
    weight_decay = 0.01

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device):
        super().__init__()
        self.config, self.train_config, self.device = config, train, device
        self.cuda = device.type == "cuda"
        self.batch_size = train.batch_size or self.batch_sizes["cuda" if self.cuda else "cpu"]
        self.generator = torch.Generator(device).manual_seed(train.seed)
        self.steps = self.samples = 0
        self.seconds = 0.0

    # -- to be written by each recipe
    trained: nn.Module

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        return {}

    def sample_grid(self):
        return None

    def export(self, folder: Path) -> None:
        raise NotImplementedError

    # -- shared
    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.cuda or self.train_config.bfloat16)

    def compiled(self, function):
        """``torch.compile`` on CUDA; on the CPU the compile time is not earned back in a short run."""
        return torch.compile(function) if self.cuda and self.train_config.compile else function

    def compile_blocks(self, model: nn.Module) -> None:
        """As :meth:`compiled`, for the residual and transformer blocks of ``model``, in place: most of what a compiler
        gains is in them, and a whole UNet with its backward pass takes it minutes."""
        if not self.cuda or not self.train_config.compile:
            return
        torch._dynamo.config.recompile_limit = 64  # blocks share their code, not their sizes
        for block in model.modules():
            if isinstance(block, (ResnetBlock2D, Transformer2DModel)):
                block.compile(dynamic=False)

    def backward(self) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch's loss and figures, with the gradients in place."""
        loss, figures = self.loss()
        loss.backward()
        return loss.detach(), figures

    def prepare(self) -> None:
        lr = self.train_config.learning_rate or self.learning_rates["cuda" if self.cuda else "cpu"]
        self.parameters_list = [p for p in self.trained.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters_list, lr=lr, betas=self.betas, weight_decay=self.weight_decay, fused=True
        )
        self.peak_lr = lr
        self.ema = EMAModel(
            self.parameters_list, decay=self.train_config.ema_decay, use_ema_warmup=True, power=0.75, foreach=self.cuda
        )

    def run(self, report_every: float = 30.0) -> Iterator[Progress]:
        """Train until the time limit; yield about every ``report_every`` seconds and at the end."""
        begin = last = time.monotonic()
        before, first_step = self.seconds, self.steps
        sums: dict[str, Tensor] = {}
        counted = 0
        while True:
            elapsed = time.monotonic() - begin
            done = elapsed >= self.train_config.time_limit
            if self.train_config.max_steps and self.steps - first_step >= self.train_config.max_steps:
                done = True
            if counted and (done or time.monotonic() - last >= report_every):
                figures = {key: float(value) / counted for key, value in sums.items()}
                bad = [key for key, value in figures.items() if not math.isfinite(value)]
                if bad:
                    raise SSRError(f"{self.name}: {', '.join(bad)} is not finite at step {self.steps}; lower the rate")
                figures["lr"] = self.optimizer.param_groups[0]["lr"]
                self.seconds = before + elapsed
                yield Progress(self.steps, self.samples, self.seconds, figures, done)
                sums, counted, last = {}, 0, time.monotonic()
            if done:
                return
            self._step(elapsed / self.train_config.time_limit, self.steps - first_step, sums)
            counted += 1

    def _step(self, fraction: float, run_step: int, sums: dict[str, Tensor]) -> None:
        decay = self.train_config.decay
        level = min(1.0, (run_step + 1) / self.train_config.warmup)
        if decay and fraction > 1 - decay:
            level *= max(0.02, (1 - fraction) / decay)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * level
        with contextlib.nullcontext() if self.cuda else plain_attention():
            loss, figures = self.backward()
        nn.utils.clip_grad_norm_(self.parameters_list, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.parameters_list)
        for key, value in {"loss": loss, **figures}.items():
            sums[key] = sums.get(key, 0) + value.detach()
        self.steps += 1
        self.samples += self.batch_size

    def averaged(self) -> _Averaged:
        """Context in which the trained module has its averaged (EMA) weights."""
        return _Averaged(self)

    def save(self, folder: Path) -> None:
        """Everything needed to go on (``NAME.state.pt``) and the components to ship (``export``), each whole."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "trained": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": [p for p in self.ema.shadow_params],
            "ema_step": self.ema.optimization_step,
            "totals": [self.steps, self.samples, self.seconds],
        }
        with written_beside(folder / f"{self.name}.state.pt") as path:
            torch.save(state, path)
        with self.averaged():
            self.export(folder)
        card = {"recipe": self.name, "steps": self.steps, "samples": self.samples, "seconds": round(self.seconds)}
        card |= {"device": self.device.type, "config": dataclasses.asdict(self.config)}
        write_json(folder / f"{self.name}.json", card)

    def resume(self, folder: Path) -> None:
        """Go on from a folder written by :meth:`save`; without ``state.pt`` (shipped weights) only the totals are
        taken and the optimiser starts anew: recipes load shipped weights themselves."""
        card = folder / f"{self.name}.json"
        if card.exists():
            totals = json.loads(card.read_text())
            self.steps, self.samples, self.seconds = totals["steps"], totals["samples"], totals["seconds"]
        if not (folder / f"{self.name}.state.pt").exists():
            return
        state = torch.load(folder / f"{self.name}.state.pt", map_location=self.device, weights_only=True)
        if [p.shape for p in state["ema"]] != [p.shape for p in self.parameters_list]:
            raise SSRError(
                f"{folder / self.name}.state.pt is of a run in which other parameters learned; give its --only"
            )
        self.trained.load_state_dict(state["trained"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.shadow_params = [p.to(self.device) for p in state["ema"]]
        self.ema.optimization_step = state["ema_step"]
        self.steps, self.samples, self.seconds = state["totals"]


def learn_only(module: nn.Module, pattern: str) -> None:
    """Freeze the parameters of ``module`` whose names the regular expression does not match from their beginning.

    Raises:
        SSRError: no name of a parameter that learned matches.
    """
    learning = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    for name, parameter in learning:
        parameter.requires_grad_(re.match(pattern, name) is not None)
    if not any(parameter.requires_grad for _, parameter in learning):
        raise SSRError(
            f"--only {pattern!r} matches no parameter; names begin as {learning[0][0]!r}, {learning[-1][0]!r}"
        )


class _Averaged:
    def __init__(self, recipe: Recipe):
        self.recipe = recipe

    def __enter__(self):
        # What is evaluated and drawn has other sizes: it would be compiled anew.
        self.stance = torch.compiler.set_stance("force_eager") if self.recipe.cuda else contextlib.nullcontext()
        self.stance.__enter__()
        self.recipe.ema.store(self.recipe.parameters_list)
        self.recipe.ema.copy_to(self.recipe.parameters_list)
        self.recipe.trained.eval()

    def __exit__(self, *error):
        self.stance.__exit__(*error)
        self.recipe.ema.restore(self.recipe.parameters_list)
        self.recipe.trained.train()


@contextlib.contextmanager
def plain_attention():
    """Attention as two matrix products, for training on the CPU, where the fused kernel's backward pass is slower: 3 to
    10 times over 16 to 256 places, 12 % of a whole step of ``unet`` (torch 2.14, bfloat16, one core)."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of the CPU too, despite its name
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
