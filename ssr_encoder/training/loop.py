"""The training loop: a generator of steps. It computes; whoever iterates logs, saves and validates.

Everything about a step follows from the config and the position in the stream: the samples, their noise, the rate.
So weights, optimiser moments, averaged weights and the position are all there is to save.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType

from ..errors import SSRError
from . import checkpoints
from .bases import Base, load_base, make_model
from .cache import Cache, Cached
from .checkpoints import State
from .config import TrainingConfig, compare
from .data import Pictures, Steps, make_loader
from .features import Features, encode, gather, make_blank
from .figures import Figures, peak_memory
from .learned import Learned
from .objective import losses
from .order import Order, part, pieces
from .reader import Reader, list_urls, load_index

EXPLODED = 20.0  # times the average loss
SKIPS = 50  # steps in a row that fp16's scaler may skip


@dataclass
class Progress:
    """One step done.

    Attributes:
        step, position: steps done, and the next sample's position.
        figures: means since the last report; empty in between.
        bad: (shard, index, reason) of samples of this step that could not be used, of all ranks.
        last: whether this was the last step.
    """

    step: int
    position: int
    figures: dict[str, float] = field(default_factory=dict)
    bad: list[tuple[int, int, str]] = field(default_factory=list)
    last: bool = False


class Trainer:
    """A run: models, data and state, ready to go on from the latest checkpoint in ``config.run.out``.

    Attributes:
        notes: lines about what was found (a damaged checkpoint passed over, a changed setting).

    Raises:
        SSRError: config, data or base cannot be used, or the run in ``run.out`` is another one.
    """

    def __init__(self, config: TrainingConfig, base: Base | None = None):
        run = config.run
        self.config, self.out = config, Path(run.out)
        self.notes: list[str] = []
        _make_deterministic(run.deterministic)
        self.accelerator = Accelerator(mixed_precision=run.precision)
        self._check_distribution()
        self.base = base or load_base(config.base)
        self.order, self.reader, self.index = self._open_data()
        cached = self._open_cache() if config.data.cache else None
        self.blank = (cached.blank() if cached else make_blank(self.base)).to(self.accelerator.device)
        if cached:
            self.base.drop_encoders()
            self.dataset = Cached(cached, self.order, config.data, run.seed)
        else:
            self.dataset = Pictures(self.reader, self.order, config.data, run.seed, self.base.views)
        self.base.to(self.accelerator.device)
        if run.gradient_checkpointing:
            self.base.unet.enable_gradient_checkpointing()
        self.model = make_model(config.base, self.base, run.seed).to(self.accelerator.device)
        self.learned = Learned(self.model, config.optim, self.accelerator.device)
        self.state = State()
        self._resume()
        if run.compile:
            self.base.unet.compile()
        self.wrapped, self._optimizer = self.accelerator.prepare(self.model, self.learned.optimizer)

    # -- setting up
    def _check_distribution(self) -> None:
        kinds = {DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU}
        if self.accelerator.distributed_type not in kinds:
            raise SSRError(
                f"distribution {self.accelerator.distributed_type.value} is not supported; use MULTI_GPU (DDP): what "
                "is trained is small, and the frozen base fits with base.dtype=bfloat16"
            )
        if self.config.optim.batch_size < self.accelerator.num_processes:
            raise SSRError(
                f"optim.batch_size {self.config.optim.batch_size} is less than the {self.accelerator.num_processes} "
                "processes; raise it"
            )

    def _open_data(self):
        data, fetched = self.config.data, self.out / "fetched"
        urls = list_urls(data.shards)
        with self.accelerator.main_process_first():
            index = load_index(urls, self.out / "shards.json", fetched)
        self.notes += [f"bad shard {shard.url}: {shard.damage}" for shard in index if shard.damage]
        order = Order([shard.count for shard in index], self.config.run.seed, data.window)
        return order, Reader(urls, fetched, keep=2 * data.window + 2), index

    def _open_cache(self) -> Cache:
        cache = Cache(self.config.data.cache, self.base, self.reader, self.index, self.config.data)
        cache.check()
        return cache

    # -- state
    def save(self) -> Path | None:
        """Write a checkpoint (the main process does) and return its folder."""
        path = None
        if self.accelerator.is_main_process:
            self.state.config = self.config.to_dict()
            if self.accelerator.scaler is not None:
                self.state.scaler = self.accelerator.scaler.state_dict()
            folder = self.out / "checkpoints"
            path = checkpoints.save(
                folder, self.state, self.learned.tensors(), self.learned.averaged(), self.config.run.keep
            )
        self.accelerator.wait_for_everyone()
        return path

    def _resume(self) -> None:
        found = checkpoints.load_latest(self.out / "checkpoints")
        if found is None:
            return
        self.state, tensors, notes = found
        self.notes += [f"{note}; going on from step {self.state.step}" for note in notes]
        self.notes += compare(self.state.config, self.config.to_dict())
        try:
            self.learned.restore(tensors, self.state.step)
        except ValueError as error:
            raise SSRError(f"the run in {self.out} has another model ({error}); choose another run.out") from None
        if self.accelerator.scaler is not None and self.state.scaler:
            self.accelerator.scaler.load_state_dict(self.state.scaler)

    # -- the loop
    def run(self) -> Iterator[Progress]:
        """Train to ``optim.steps``; yields after every step.

        Raises:
            SSRError: the loss is not a number or has exploded, memory or a loader process has gone, too many samples
                cannot be read. The last checkpoint is intact.
        """
        config, optim = self.config, self.config.optim
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        left = optim.steps - self.state.step
        loader = make_loader(
            self.dataset, Steps(self.state.position, left, optim.batch_size, rank, ranks), config.data.workers
        )
        figures = Figures(self.accelerator, len(self.base.config.hidden_layers), len(self.base.alphas))
        begin, begun_at, average, skipped = time.monotonic(), self.state.step, None, 0
        before = self.state.seconds
        steps = iter(loader)
        while self.state.step < optim.steps:
            items = self._next(steps)
            loss, norm, good, bad = self._step(items, figures)
            self.state.step += 1
            self.state.position += optim.batch_size
            self.state.bad += len(bad)
            self.state.seconds = before + time.monotonic() - begin
            skipped = self._check(loss, norm, average, skipped)
            if good and math.isfinite(loss):
                average = loss if average is None else 0.98 * average + 0.02 * loss
            if self.state.bad > max(optim.batch_size, config.data.max_bad * self.state.position):
                raise SSRError(
                    f"{self.state.bad} of {self.state.position} samples cannot be used, more than data.max_bad; "
                    f"see {self.out / 'bad_samples.jsonl'}"
                )
            last = self.state.step == optim.steps
            report = {}
            if self.state.step % config.run.log_every == 0 or last:
                report = figures.take()
                rate = (self.state.step - begun_at) / (time.monotonic() - begin)
                report |= {
                    "learning_rate": self.rate(self.state.step - 1),
                    "samples_per_second": rate * optim.batch_size,
                    "seconds_left": (optim.steps - self.state.step) / rate,
                    "memory_gb": peak_memory(self.accelerator.device),
                    "bad_samples": self.state.bad,
                    "epoch": self.state.position / self.order.total,
                }
            yield Progress(self.state.step, self.state.position, report, bad, last)

    def _next(self, steps) -> list[dict]:
        try:
            return next(steps)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise SSRError(
                "a loader process died (mostly of memory); lower data.workers and run the same command to go on"
            ) from None

    def _step(self, items: list[dict], figures: Figures) -> tuple[float, float, int, list]:
        """One optimiser step; returns the loss, the gradient norm, the number of good samples and the bad ones."""
        optim, accelerator = self.config.optim, self.accelerator
        ranks = accelerator.num_processes
        least = min(len(part(0, optim.batch_size, r, ranks)) for r in range(ranks))
        mine = [(i["place"].shard, i["place"].index, i["bad"]) for i in items if i["bad"]]
        bad = [entry for found in _gather(mine, accelerator) for entry in found]
        good = optim.batch_size - len(bad)
        cuts = pieces(len(items), least, optim.micro_batch)
        total = torch.zeros((), device=accelerator.device)
        for group in self.learned.optimizer.param_groups:
            group["lr"] = self.rate(self.state.step)
        try:
            for i, piece in enumerate(cuts):
                with accelerator.autocast():
                    features = self.features(items[piece])
                # Gradients of all processes are added up once, with the last micro-batch.
                with accelerator.no_sync(self.wrapped) if i + 1 < len(cuts) else contextlib.nullcontext():
                    with accelerator.autocast():
                        found = losses(self.wrapped, self.base, features, self.config.objective, self.config.run.seed)
                    accelerator.backward(found.total * (ranks / max(1, good)))
                total += found.total.detach()
                figures.add(found, features)
        except torch.OutOfMemoryError:
            raise SSRError(
                f"out of memory with {max(len(items[c]) for c in cuts)} samples at a time; lower optim.micro_batch, "
                "set run.gradient_checkpointing=true, run.precision=bf16, base.dtype=bfloat16, or use data.cache"
            ) from None
        norm = accelerator.clip_grad_norm_(self.learned.parameters, optim.max_grad_norm)
        total = accelerator.reduce(total, "sum") / max(1, good)
        loss, norm = torch.stack([total, norm.float()]).tolist()  # one synchronisation
        usable = good and math.isfinite(loss) and (math.isfinite(norm) or accelerator.scaler is not None)
        if usable:
            self._optimizer.step()
            self.learned.average(self.state.step)
        self._optimizer.zero_grad(set_to_none=True)
        figures.count(loss, norm)
        return loss, norm, good, bad

    def features(self, items: list[dict]) -> Features:
        """Items of the dataset, encoded or gathered."""
        make = gather if isinstance(self.dataset, Cached) else encode
        return make(self.base, items, self.blank)

    def rate(self, step: int) -> float:
        """The learning rate of a step: a warm-up, then constant, then a straight fall if ``optim.decay`` says so."""
        optim = self.config.optim
        level = min(1.0, (step + 1) / optim.warmup) if optim.warmup else 1.0
        if optim.decay:
            level *= min(1.0, (optim.steps - step) / (optim.decay * optim.steps))
        return optim.learning_rate * level

    def _check(self, loss: float, norm: float, average: float | None, skipped: int) -> int:
        last = checkpoints.find(self.out / "checkpoints")
        mend = (
            f"{last[-1].name if last else 'nothing'} is the last checkpoint; lower optim.learning_rate"
            f"{' or use run.precision=bf16' if self.config.run.precision == 'fp16' else ''} and run again"
        )
        if not math.isfinite(loss):
            raise SSRError(f"the loss is not a number at step {self.state.step}; {mend}")
        if not math.isfinite(norm):
            if self.accelerator.scaler is None or skipped + 1 > SKIPS:
                raise SSRError(f"the gradients are not numbers at step {self.state.step}; {mend}")
            return skipped + 1
        if average is not None and loss > EXPLODED * average:
            raise SSRError(f"the loss went from {average:.3g} to {loss:.3g} at step {self.state.step}; {mend}")
        return 0


def _gather(mine: list, accelerator: Accelerator) -> list[list]:
    """Lists of all ranks, in rank order."""
    if accelerator.num_processes == 1:
        return [mine]
    found: list = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(found, mine)
    return found


def _make_deterministic(wanted: bool) -> None:
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads it
    torch.use_deterministic_algorithms(wanted, warn_only=True)
