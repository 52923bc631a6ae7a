"""What is done and what is not: a report beside every file that a step writes, and their totals.

A file is done when its report, renamed into place after it, matches the input's hash, the step's name and parameters,
and the file's size. Everything else is made again, so a killed run continues when it is run again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import SSRError
from ..files import file_sha256, write_json
from .engines import engine as find_engine


class BadShard(SSRError):
    """An input file that cannot be read whole; a step counts it, lists it and goes on."""


@dataclass
class ShardReport:
    """What happened to one file; written as ``NAME.report.json`` beside ``NAME.tar`` (or ``NAME.parquet``).

    Attributes:
        shard: the file's name.
        input_sha256: of the file read.
        output_bytes: size of the file written; None if there is none.
        kept, dropped: counts; dropped by reason.
        dropped_keys: (key, reason) pairs, in order.
        error: why the input could not be read, or None.
        skipped: it was done already, by an earlier run (not stored).
    """

    shard: str
    step: str
    parameters: dict
    input_sha256: str = ""
    output_bytes: int | None = None
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_keys: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None
    skipped: bool = False

    def drop(self, key: str, reason: str) -> None:
        self.dropped_keys.append((key, reason))
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def forget(self) -> None:
        """Back to nothing counted."""
        self.kept, self.dropped, self.dropped_keys = 0, {}, []


def once(report: ShardReport, target: Path, fingerprint: Callable[[], str], make: Callable[[], None]) -> ShardReport:
    """Makes ``target`` unless an earlier run has: gives the report as ``make`` has filled it, or the earlier one.

    ``fingerprint()`` is a hash of the input; ``make()`` writes ``target`` whole or raises. Either may raise BadShard.
    """
    path = target.with_name(f"{target.stem}.report.json")
    try:
        report.input_sha256 = fingerprint()
        if done := _find(path, report, target):
            return done
        path.unlink(missing_ok=True)  # from here until the end nothing vouches for the target
        make()
        report.output_bytes = target.stat().st_size
    except BadShard as error:
        report.forget()
        report.error = str(error)
        path.unlink(missing_ok=True)
        target.unlink(missing_ok=True)  # of an earlier, readable input of this name
    write_json(path, {key: value for key, value in asdict(report).items() if key != "skipped"}, sort_keys=True)
    return report


def run_jobs(
    work: Callable,
    jobs: list,
    names: list[str],
    out: Path,
    *,
    engine: str = "local",
    address: str | None = None,
    workers: int = 1,
    strict: bool = False,
) -> Iterator[ShardReport]:
    """Reports of ``work(job)`` for every job; ``names`` are the files that they write to ``out``, ``work.step_name``
    and ``work.parameters`` what the totals in ``out/report.json`` say. See `run_step` for the rest.
    """
    start = find_engine(engine)
    if workers < 1:
        raise SSRError(f"{workers} workers cannot work; use 1 or more")
    _prepare(out, names)
    reports = []
    for report in start(work, jobs, workers, address):
        if strict and report.error:
            raise SSRError(report.error)
        reports.append(report)
        yield report
    _sweep(out, names)  # Ray replaces a killed worker and goes on
    write_json(out / "report.json", totals(work.step_name, work.parameters, reports), sort_keys=True)


def totals(step: str, parameters: dict, reports: list[ShardReport]) -> dict:
    """The report of a folder: JSON values, the same whatever the order of work."""
    reports = sorted(reports, key=lambda report: report.shard)
    dropped = Counter()
    for report in reports:
        dropped.update(report.dropped)
    kept = sum(report.kept for report in reports)
    return {
        "step": step,
        "parameters": parameters,
        "shards": len(reports),
        "samples": kept + sum(dropped.values()),
        "kept": kept,
        "dropped": dict(sorted(dropped.items())),
        "bad_shards": [{"shard": report.shard, "reason": report.error} for report in reports if report.error],
    }


def sha256(path: Path) -> str:
    """Hash of a file's bytes.

    Raises:
        BadShard: it cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise BadShard(f"bad shard {path} ({error.strerror or error}); make it again or remove it") from None


def plain(value):
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))


def parsed(text: str) -> ShardReport:
    """A report from its JSON.

    Raises:
        ValueError, TypeError: it is not one.
    """
    report = ShardReport(**json.loads(text))
    report.dropped_keys = [tuple(pair) for pair in report.dropped_keys]
    return report


def _find(path: Path, expected: ShardReport, target: Path) -> ShardReport | None:
    """The report of an earlier run, if it is of this very work and the output is still there whole."""
    try:
        report = parsed(path.read_text(encoding="utf-8"))
        size = target.stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    same = ("shard", "step", "parameters", "input_sha256")
    if report.error or report.output_bytes != size or any(getattr(report, k) != getattr(expected, k) for k in same):
        return None
    report.skipped = True
    return report


def _prepare(out: Path, names: list[str]) -> None:
    """The output folder, without what a killed run left half-written."""
    if out.exists() and not out.is_dir():
        raise SSRError(f"{out} is not a folder; choose another place for the output")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SSRError(f"cannot make the folder {out} ({error.strerror or error}); choose another place") from None
    suffix = Path(names[0]).suffix
    foreign = sorted(
        path.name for path in out.glob(f"*{suffix}") if path.name not in set(names) and path.name[0] != "."
    )
    if foreign:
        raise SSRError(f"{out} has {foreign[0]}, which is not of this input; remove it or choose an empty folder")
    _sweep(out, names)
    (out / "report.json").unlink(missing_ok=True)  # it comes back when everything is done


def _sweep(out: Path, names: list[str]) -> None:
    """Removes what killed workers left half-written."""
    stems = {Path(name).stem for name in names} | {"report"}
    for path in out.glob(".*"):
        if any(path.name.startswith(f".{stem}.") for stem in stems):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def separate(source: str | os.PathLike, out: str | os.PathLike) -> Path:
    """``out`` as a path.

    Raises:
        SSRError: it is where ``source`` is read.
    """
    if Path(out).resolve() == Path(source).resolve():
        raise SSRError(f"{out} is both read and written; choose another folder for the output")
    return Path(out)
