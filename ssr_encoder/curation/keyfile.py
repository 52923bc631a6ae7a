"""Decisions about samples, made once over a whole folder and applied by a step: a file with a line for each key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..files import written_beside
from .shards import Sample
from .steps import Outcome


def write_decisions(path: Path, decisions: Iterable[dict]) -> None:
    """JSON lines, each with at least "key" and "reason"."""
    with written_beside(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(decision) + "\n" for decision in decisions)


def read_decisions(path: Path) -> dict[str, str]:
    """Key -> reason."""
    with open(path, encoding="utf-8") as lines:
        return {decision["key"]: decision["reason"] for decision in map(json.loads, lines)}


class DropStep:
    """Drops the samples that a file of decisions lists; with ``invert``, the others.

    Args:
        name: of the step, as its reports give it.
        path: the file; its content is a parameter, so that new decisions make old shards stale.
        invert: the reason to give for samples that are not listed; then listed ones stay.
    """

    def __init__(self, name: str, path: Path, invert: str | None = None):
        self.name, self.path, self.invert = name, Path(path).resolve(), invert
        self.sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.reasons: dict[str, str] = {}

    def parameters(self) -> dict:
        return {"decisions_sha256": self.sha256, "invert": self.invert}

    def setup(self) -> None:
        self.reasons = read_decisions(self.path)

    def __call__(self, samples: list[Sample]) -> Outcome:
        outcome = Outcome([], [])
        for sample in samples:
            reason = self.reasons.get(sample.key)
            if self.invert is not None:
                reason = None if reason else self.invert
            if reason:
                outcome.dropped.append((sample.key, reason))
            else:
                outcome.samples.append(sample)
        return outcome
