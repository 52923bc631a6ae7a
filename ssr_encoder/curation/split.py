"""Holding samples out for testing, by the content of their images, so that near images are all on one side.

Clusters of near-duplicates (connected, see :func:`hashes.clusters`) are ordered by a hash of their images' content and
the seed, and taken whole until N samples are held out. So neither file names nor the order of shards decide, each image
is as likely to be taken as any other, and adding data later moves few samples.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import SSRError
from .check import Start, quiet
from .hashes import NEAR, Hashes, HashStep, clusters, read_hashes
from .keyfile import DropStep, write_decisions
from .shards import list_shards
from .steps import ShardReport, run_step

HELD_OUT = "held_out.jsonl"
HASHES = "hashes"


def split(
    source: str | os.PathLike,
    out: str | os.PathLike,
    n: int = 5000,
    *,
    seed: int = 0,
    distance: int = NEAR,
    start: Start = quiet,
    **engine,
) -> Iterator[tuple[str, ShardReport]]:
    """Split ``source`` into ``out/train`` and ``out/test``; yields ("train" or "test", report).

    Args:
        n: samples to hold out (the paper: 5,000 of 10 million, supplement section H).
        start, engine: as of :func:`check.check`. Images that cannot be decoded stay in ``train``: check first.

    Raises:
        SSRError: as :func:`run_step`; fewer than ``n`` samples, or clusters with which ``n`` cannot be reached.
    """
    out = Path(out)
    shards = len(list_shards(source))
    advance = start("hashing", shards)
    for _ in run_step(HashStep(), source, out / HASHES, **engine):
        advance()
    start("finding near-duplicates")
    chosen = hold_out(read_hashes(out / HASHES), n, seed, distance)
    write_decisions(out / HELD_OUT, ({"key": key, "reason": "held out"} for key in chosen))
    for side, invert in (("train", None), ("test", "for training")):
        advance = start(f"writing {side}", shards)
        for report in run_step(DropStep("split", out / HELD_OUT, invert), source, out / side, **engine):
            advance()
            yield side, report


def hold_out(hashes: Hashes, n: int, seed: int = 0, distance: int = NEAR) -> list[str]:
    """Keys of ``n`` samples, whole clusters only, sorted."""
    if not 0 < n < len(hashes):
        raise SSRError(f"cannot hold out {n} of {len(hashes)} samples; give a number from 1 to {len(hashes) - 1}")
    cluster = clusters(hashes.phash, distance)
    sizes = np.bincount(cluster)
    salt = f"{seed}:".encode()
    # The smallest digest speaks for a cluster, and is hashed once more: the smallest of many random ranks would be
    # small, and large clusters would be held out too often.
    speaker = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    digests = np.frombuffer(hashes.sha256.tobytes(), ">u8").reshape(-1, 4)[:, 0]
    np.minimum.at(speaker, cluster, digests.astype(np.uint64))
    ranks = [hashlib.blake2b(salt + int(digest).to_bytes(8, "big")).digest() for digest in speaker]
    taken, left = [], n
    for number in sorted(range(len(sizes)), key=ranks.__getitem__):
        if sizes[number] <= left:
            taken.append(number)
            left -= int(sizes[number])
            if not left:
                break
    if left:
        raise SSRError(
            f"only {n - left} of {n} samples can be held out without tearing near-duplicates apart; run "
            "`ssr data check` first, or give another number"
        )
    return sorted(key.decode() for key in hashes.keys[np.isin(cluster, taken)])
