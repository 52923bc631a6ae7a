"""Running a step over a folder of shards: in this process, in several, or on Ray; resumable, with a report a shard."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import SSRError
from .reports import ShardReport, once, plain, run_jobs, separate, sha256
from .shards import Sample, list_shards, read_shard, write_shard


@dataclass
class Outcome:
    """What a step made of a batch: every key that came in is either kept or dropped with a reason."""

    samples: list[Sample]
    dropped: list[tuple[str, str]] = field(default_factory=list)


class Step(Protocol):
    """From batch to batch. Instances can be pickled and are cheap to make; models are loaded in ``setup``."""

    name: str

    def parameters(self) -> dict:
        """JSON values; when they change, what was written with the old ones is stale."""

    def setup(self) -> None:
        """Called once a worker, before its first batch."""

    def __call__(self, samples: list[Sample]) -> Outcome:
        """Samples that are kept, changed or not, and the others' keys."""


def run_step(
    step: Step,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    engine: str = "local",
    address: str | None = None,
    workers: int = 1,
    batch_size: int = 64,
    strict: bool = False,
) -> Iterator[ShardReport]:
    """Runs ``step`` over every shard of ``source`` into a shard of the same name in ``out``, yielding their reports.

    ``out/report.json`` holds the totals once the iterator is exhausted. One run at a time may write to ``out``.

    Args:
        engine: "local" (this process, or ``workers`` processes) or "ray" (``workers`` actors of Ray Data).
        address: of a Ray cluster that sees the same folders; a local one is started without it.
        batch_size: samples a call of the step.
        strict: a bad shard ends the run instead of being listed.

    Raises:
        SSRError: the folders do not fit, a step fails, a worker dies, a bad shard with ``strict``.
    """
    shards = list_shards(source)
    work = StepWork(step, separate(source, out), batch_size)
    names = [shard.name for shard in shards]
    yield from run_jobs(work, shards, names, work.out, engine=engine, address=address, workers=workers, strict=strict)


class StepWork:
    """A step in one process: from a shard's path to its report."""

    def __init__(self, step: Step, out: Path, batch_size: int):
        self.step, self.out, self.batch_size = step, out, batch_size
        self.step_name, self.parameters = step.name, plain(step.parameters())
        self.ready = False

    def __call__(self, shard: Path) -> ShardReport:
        report = ShardReport(shard.name, self.step_name, self.parameters)
        target = self.out / shard.name
        return once(report, target, lambda: sha256(shard), lambda: write_shard(target, self._samples(shard, report)))

    def _samples(self, shard: Path, report: ShardReport) -> Iterator[Sample]:
        """The step's output for a shard; counts into ``report``."""
        for batch in _batches(read_shard(shard), self.batch_size):
            came = Counter(sample.key for sample in batch)
            try:
                if not self.ready:
                    self.step.setup()
                    self.ready = True
                outcome = self.step(batch)
            except OSError as error:  # not of writing the shard, as the caller would say
                raise SSRError(f"{self.step_name} failed on {shard}: {error}; mend it and run again") from None
            if came != Counter([sample.key for sample in outcome.samples] + [key for key, _ in outcome.dropped]):
                raise RuntimeError(f"step {self.step_name} lost, added or doubled samples of {shard}")
            report.kept += len(outcome.samples)
            for key, reason in outcome.dropped:
                report.drop(key, reason)
            yield from outcome.samples


def _batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    batch = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
