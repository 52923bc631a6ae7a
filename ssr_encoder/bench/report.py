"""Runs of one benchmark side by side: which may be compared, their means with intervals, and paired tests."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from functools import cached_property

from ..errors import SSRError
from .results import Run
from .statistics import Clusters, Difference, Estimate, difference, estimate, holm

FORMAT = "ssr-bench-report-1"
ALPHA = 0.05


@dataclass
class Report:
    """Runs that may be compared (:func:`compare` checks it), with what the tables show.

    Attributes:
        labels: a name for each run, all different.
        metrics: name -> {"direction", "backbone", ...}, of all runs together.
        against: index of the run that the others are compared with, or None for all pairs.
    """

    runs: list[Run]
    labels: list[str]
    metrics: dict[str, dict]
    against: int | None = None

    @cached_property
    def estimates(self) -> list[dict[str, Estimate]]:
        """For each run: metric -> estimate; a metric that it was not scored by is not there."""
        return [{m: estimate(clusters(run, m)) for m in self.metrics if m in run.metrics} for run in self.runs]

    @cached_property
    def scored(self) -> list[str]:
        """The metrics that some picture has a score by: the others apply to nothing here."""
        return [m for m in self.metrics if any(e[m].subjects for e in self.estimates if m in e)]

    @cached_property
    def pairs(self) -> dict[str, dict[tuple[int, int], tuple[Difference, float]]]:
        """metric -> (i, j) with i < j -> run i minus run j, and its p-value after Holm's correction over all pairs."""
        return {m: self._compared(m, itertools.combinations(range(len(self.runs)), 2)) for m in self.metrics}

    @cached_property
    def comparisons(self) -> dict[str, dict[tuple[int, int], tuple[Difference, float]]]:
        """What is shown: all pairs, or each other run minus the one that they are held ``against``."""
        if self.against is None:
            return self.pairs
        others = [(i, self.against) for i in range(len(self.runs)) if i != self.against]
        return {m: self._compared(m, others) for m in self.metrics}

    def _compared(self, metric: str, pairs) -> dict[tuple[int, int], tuple[Difference, float]]:
        pairs = [pair for pair in pairs if all(metric in self.runs[i].metrics for i in pair)]
        found = [difference(*(clusters(self.runs[i], metric) for i in pair)) for pair in pairs]
        return dict(zip(pairs, zip(found, holm(d.p for d in found), strict=True), strict=True))

    def best(self, metric: str) -> int | None:
        """The run that is better than each other one by the paired test, all pairs corrected; None if there is none."""
        for i in range(len(self.runs)):
            ours = {pair: found for pair, found in self.pairs[metric].items() if i in pair}
            if len(ours) == len(self.runs) - 1 > 0 and all(
                self._better(metric, pair[0] == i, *found) for pair, found in ours.items()
            ):
                return i
        return None

    def _better(self, metric: str, first: bool, found: Difference, p: float) -> bool:
        ahead = found.mean > 0 if self.metrics[metric]["direction"] == "higher" else found.mean < 0
        return found.mean != 0 and ahead == first and p < ALPHA


def compare(runs: list[Run], against: str | None = None) -> Report:
    """Puts runs side by side.

    Args:
        against: a method, label or folder: the run that the others are compared with.

    Raises:
        SSRError: runs of different benchmarks, with a metric that was measured in two ways, without scores, or twice
            the same run; or ``against`` names none or several.
    """
    for run in runs:
        if not any(run.scores.values()):
            raise SSRError(f"the run in {run.folder} has no scores; score it with `ssr bench run` and metrics")
    check_together(runs)
    report = Report(runs, labels(runs), _same_metrics(runs))
    if not report.scored:
        raise SSRError(f"no picture in {runs[0].folder} has a score by any metric; score it by others (--metrics)")
    if against is not None:
        report.against = _named(against, report)
    return report


def check_together(runs: list[Run]) -> None:
    """Refuses runs of different benchmarks, and the same run twice."""
    first = runs[0]
    hashes: dict[str, Run] = {}
    for run in runs:
        for name in ("benchmark", "version", "digest"):
            there, here = first.meta[name], run.meta[name]
            if there != here:
                raise SSRError(
                    f"{first.folder} and {run.folder} are of different benchmarks ({name} {_short(there)} and "
                    f"{_short(here)}); report them apart, or run one of them again"
                )
        other = hashes.setdefault(run.meta["hash"], run)
        if other is not run:
            raise SSRError(f"{other.folder} and {run.folder} are the same run; give it once")


def _same_metrics(runs: list[Run]) -> dict[str, dict]:
    """The metrics of all runs, each measured in one way."""
    metrics: dict[str, tuple[Run, dict]] = {}
    for run in runs:
        for name, meta in run.metrics.items():
            other, there = metrics.setdefault(name, (run, meta))
            for key in sorted(meta.keys() | there.keys()):
                if meta.get(key) != there.get(key):
                    raise SSRError(
                        f"{name} was measured in two ways in {other.folder} and {run.folder} ({key}: "
                        f"{_short(there.get(key))} and {_short(meta.get(key))}); score one of them again"
                    )
    return {name: meta for name, (_, meta) in metrics.items()}


def _named(against: str, report: Report) -> int:
    names = [
        (run.name, label, str(run.folder), run.folder.name)
        for run, label in zip(report.runs, report.labels, strict=True)
    ]
    found = [i for i, of_run in enumerate(names) if against in of_run]
    if len(found) != 1:
        how = "several runs" if found else "no run"
        raise SSRError(f"--against {against} names {how}; give one of: {', '.join(report.labels)}")
    return found[0]


def clusters(run: Run, metric: str, keys=None) -> Clusters:
    """Scores of a metric: subject -> (item, index of the picture) -> value or None, over all items or ``keys``."""
    found: dict[str, dict] = {}
    for key in run.items if keys is None else keys:
        of_subject = found.setdefault(run.items[key]["subject"], {})
        for i, value in enumerate(run.scores.get(key, {}).get(metric) or []):
            of_subject[key, i] = value
    return found


def labels(runs: list[Run]) -> list[str]:
    """The methods' names; where they are the same, with what tells them apart behind."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return names
    facts = [{"model": run.meta.get("model"), **run.meta["settings"]} for run in runs]
    for fact, run in zip(facts, runs, strict=True):
        fact["fingerprint"] = str(run.meta.get("fingerprint"))[:8]
    found = []
    for name, fact in zip(names, facts, strict=True):
        same = [other for other_name, other in zip(names, facts, strict=True) if other_name == name]
        told = [k for k in fact if any(other.get(k) != fact[k] for other in same)]
        told = [k for k in told if k != "fingerprint"] or told
        found.append(f"{name} ({', '.join(f'{k} {fact[k]}' for k in told)})" if told else name)
    if len(set(found)) < len(found):
        found = [f"{label} in {run.folder}" for label, run in zip(found, runs, strict=True)]
    return found


def missing_scores(report: Report) -> list[str]:
    """In words, for each run and metric: how many pictures have no score; and items that are not made yet."""
    found = []
    for run, label in zip(report.runs, report.labels, strict=True):
        pictures = sum(len(item["images"]) for item in run.items.values())
        unmade = len(run.meta.get("items", run.items)) - len(run.items)
        found += [f"{label}: {unmade} items of the benchmark are not made yet"] if unmade else []
        for m in report.metrics:
            if m not in run.metrics:
                found.append(f"{label}: not measured by {m}")
                continue
            scored = estimate(clusters(run, m)).pictures if run.scores else 0
            if scored < pictures:
                found.append(f"{label}: {pictures - scored} of {pictures} pictures by {m}")
    return found


def record(report: Report) -> dict:
    """The figures as JSON; a figure that there is none of is null."""
    first = report.runs[0].meta
    return {
        "format": FORMAT,
        **{name: first[name] for name in ("benchmark", "version", "digest")},
        "metrics": report.metrics,
        "runs": [
            {
                "label": label,
                **{name: run.meta.get(name) for name in ("method", "model", "fingerprint", "commit", "hash")},
                **{name: run.meta[name] for name in ("settings", "versions")},
                "scores": {m: _plain(vars(e)) for m, e in estimates.items()},
            }
            for run, label, estimates in zip(report.runs, report.labels, report.estimates, strict=True)
        ],
        "comparisons": [
            {
                "metric": m,
                "first": report.labels[i],
                "second": report.labels[j],
                **_plain({**vars(found), "p_holm": corrected}),
            }
            for m, pairs in report.comparisons.items()
            for (i, j), (found, corrected) in pairs.items()
        ],
        "best": {m: None if report.best(m) is None else report.labels[report.best(m)] for m in report.metrics},
        "missing": missing_scores(report),
    }


def _plain(values: dict) -> dict:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def _short(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:12]}..."
