"""Which samples are fit: every image decoded; corrupt, small, flagged and duplicate ones dropped, each with its reason.

Two passes over the data. The first decodes and hashes every image (:class:`HashStep`, into OUT/hashes). Then
duplicates are decided once over all shards: of near images the first by shard and key stays. The second pass writes
what stays. Decisions are kept in OUT/decisions.jsonl, for a person to read and for the second pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .hashes import NEAR, HashStep, duplicates, read_hashes
from .keyfile import DropStep, write_decisions
from .shards import list_shards
from .steps import ShardReport, run_step

DECISIONS = "decisions.jsonl"
HASHES = "hashes"

Start = Callable[..., Callable[[], None]]  # as the command line's progress


def quiet(description: str, total: int | None = None) -> Callable[[], None]:
    """Progress for nobody."""
    return lambda: None


def check(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    min_side: int = 64,
    max_unsafe: float = 0.5,
    max_watermark: float = 0.5,
    distance: int = NEAR,
    start: Start = quiet,
    **engine,
) -> Iterator[ShardReport]:
    """Check ``source`` into ``out``; yields the reports of the second pass.

    Args:
        min_side: pixels of the shorter side; smaller images are dropped.
        max_unsafe, max_watermark: largest ``punsafe`` and ``pwatermark`` of LAION's metadata. 0.5 for watermarks is
            what Stable Diffusion's aesthetic data used (its model card).
        distance: bits of the perceptual hash in which duplicates may differ, 0 to 4.
        start: called with a description, and the number of shards, as each pass begins; what it returns is called
            after each shard.
        engine: passed on to :func:`run_step`.

    Raises:
        SSRError: as :func:`run_step`; also a key that is in two shards.
    """
    out = Path(out)
    shards, reports = len(list_shards(source)), []
    advance = start("decoding and hashing", shards)
    for report in run_step(HashStep(min_side, max_unsafe, max_watermark), source, out / HASHES, **engine):
        reports.append(report)
        advance()
    start("finding duplicates")
    write_decisions(out / DECISIONS, _decisions(reports, out / HASHES, distance))
    advance = start("writing", shards)
    for report in run_step(DropStep("check", out / DECISIONS), source, out, **engine):
        advance()
        yield report


def _decisions(reports: list[ShardReport], folder: Path, distance: int) -> Iterator[dict]:
    """One for each sample that is dropped; duplicates also say of what."""
    for report in sorted(reports, key=lambda report: report.shard):
        for key, reason in report.dropped_keys:
            yield {"key": key, "reason": reason}
    if not any(report.kept for report in reports):
        return
    hashes = read_hashes(folder)
    for index, kept in duplicates(hashes.phash, distance).items():
        yield {"key": hashes.keys[index].decode(), "reason": "duplicate", "of": hashes.keys[kept].decode()}
