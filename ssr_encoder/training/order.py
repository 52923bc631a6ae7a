"""Which sample is when: a pure function of the seed, so that a run can stop anywhere and go on as if it had not.

Samples are numbered by their *position* in one endless stream: epoch e holds positions [e*N, (e+1)*N). In an epoch
the shards are permuted, then the samples within each window of consecutive shards. A step takes the next
``batch_size`` positions, and every rank a contiguous part of them: nothing depends on the number of ranks, on loader
processes, or on what ran before. Everything random about a sample is drawn from a generator keyed by its position.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import SSRError


class Place(NamedTuple):
    """Where a sample is: the epoch, the shard's number and the sample's number in it."""

    epoch: int
    shard: int
    index: int


def keyed(*numbers: int) -> np.random.Generator:
    """A generator of its own for these numbers (seed, position, purpose, ...): Philox, keyed through SeedSequence."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(numbers)))


class Order:
    """The stream of samples over shards of ``counts`` samples.

    Args:
        counts: samples in each shard.
        seed: of the run.
        window: shards whose samples are shuffled together.
    """

    def __init__(self, counts: list[int], seed: int, window: int):
        self.counts = np.asarray(counts, dtype=np.int64)
        self.total = int(self.counts.sum())
        self.seed, self.window = seed, window
        if not self.total:
            raise SSRError("the shards hold no samples; check data.shards")
        # Of the few windows that the ranks' loaders are in: an object's own cache, so that it is freed with it.
        self._shards = lru_cache(4)(self._permuted_shards)
        self._samples = lru_cache(4)(self._permuted_samples)

    def __getitem__(self, position: int) -> Place:
        """The place of a position >= 0 of the endless stream."""
        epoch, rest = divmod(position, self.total)
        _, starts = self._shards(epoch)
        number = int(np.searchsorted(starts, rest, side="right")) - 1
        shard, index = self._samples(epoch, number)[rest - starts[number]]
        return Place(epoch, int(shard), int(index))

    def _permuted_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's shards in order, and the position within the epoch at which each window begins."""
        shards = _permutation(len(self.counts), self.seed, epoch, 0)
        sizes = np.add.reduceat(self.counts[shards], np.arange(0, len(shards), self.window))
        return shards, np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def _permuted_samples(self, epoch: int, number: int) -> np.ndarray:
        """(shard, index) of every sample of a window in order, (n, 2)."""
        shards = self._shards(epoch)[0][number * self.window : (number + 1) * self.window]
        pairs = [np.stack([np.full(self.counts[s], s), np.arange(self.counts[s])], 1) for s in shards]
        pairs = np.concatenate(pairs)
        return pairs[_permutation(len(pairs), self.seed, epoch, 1 + number)]


def part(start: int, size: int, rank: int, ranks: int) -> range:
    """The positions of rank ``rank`` among ``ranks`` in a step that takes [start, start + size)."""
    return range(start + size * rank // ranks, start + size * (rank + 1) // ranks)


def pieces(count: int, least: int, micro_batch: int) -> list[slice]:
    """``count`` samples of a rank as micro-batches of nearly equal size; their number depends only on ``least``, the
    smallest count of any rank, so that all ranks take as many."""
    number = max(1, -(-least // micro_batch))
    return [slice(count * i // number, count * (i + 1) // number) for i in range(number)]


def _permutation(n: int, *numbers: int) -> np.ndarray:
    # The raw stream of a bit generator is the same in every version of numpy; that of permutation() need not be.
    raw = np.random.Philox(np.random.SeedSequence(numbers)).random_raw(n)
    return np.argsort(raw, kind="stable")
