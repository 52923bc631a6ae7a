"""Small shards, a step that changes and drops, and processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

from ssr_encoder.curation import Outcome, Sample, write_shard


class Mark:
    """Drops every third sample and marks the others; ``pause`` seconds a batch. Leaves a line a setup in ``log``."""

    name = "mark"

    def __init__(self, mark: str = "x", pause: float = 0.0, log: Path | None = None):
        self.mark, self.pause, self.log = mark, pause, log

    def parameters(self) -> dict:
        return {"mark": self.mark}

    def setup(self) -> None:
        if self.log:
            with open(self.log, "a") as stream:
                stream.write("setup\n")

    def __call__(self, samples: list[Sample]) -> Outcome:
        time.sleep(self.pause)
        outcome = Outcome([])
        for sample in samples:
            if int(sample.key) % 3 == 0:
                outcome.dropped.append((sample.key, "third" if int(sample.key) % 2 else "sixth"))
            else:
                sample.meta["mark"] = self.mark
                outcome.samples.append(sample)
        return outcome


def make_shards(folder: Path, shards: int = 3, samples: int = 7) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        keys = (f"{number:03d}{k:03d}" for k in range(samples))
        write_shard(
            folder / f"{number:06d}.tar", (Sample(key, key.encode() * 9, "png", f"né {key}", {"n": 1}) for key in keys)
        )
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed_again_and_again(work, kills: int, seconds: float) -> int:
    """Runs ``work()`` in child processes, each SIGKILLed at a random moment within ``seconds``; how many were."""
    rng, killed = random.Random(0), 0
    for _ in range(kills):
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(rng.uniform(0.0, seconds))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.join()
    return killed
