"""Perceptual hashes of a folder of shards, and which of them are near: for dropping duplicates and for splitting.

Hashes of 64 bits (imagehash.phash: signs of the low DCT frequencies) are near if at most 4 bits differ. Comparing all
pairs of 10 million would take 5e13 comparisons. Instead the 64 bits are cut into 6 bands: 4 differing bits touch at
most 4 of them, so near hashes agree in at least 2 whole bands (pigeonhole). For each of the 15 pairs of bands, hashes
are sorted by the 21 or 22 bits of the two bands, and only those that agree there are compared.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SSRError
from ..extras import need
from .pictures import BadPicture, decode, encode
from .shards import Sample, list_shards, read_shard
from .steps import Outcome

NEAR = 4  # bits of 64
BANDS = 6
THUMBNAIL = 64  # pixels a side


def phash(picture) -> str:
    """16 hexadecimal digits."""
    return str(need("imagehash", "data").phash(picture))


class HashStep:
    """Decodes every image; what is fit comes out as a small thumbnail with ``phash`` and ``sha256`` in its meta.

    Thumbnails instead of the images: the pass over the whole data writes about a kilobyte a sample.

    Args:
        min_side: pixels of the shorter side.
        max_unsafe, max_watermark: largest ``punsafe`` and ``pwatermark`` of a sample's meta; a sample without such
            a figure is not flagged. 1 flags nothing.
    """

    name = "hash"

    def __init__(self, min_side: int = 1, max_unsafe: float = 1.0, max_watermark: float = 1.0):
        self.min_side, self.limits = min_side, {"punsafe": max_unsafe, "pwatermark": max_watermark}

    def parameters(self) -> dict:
        return {"min_side": self.min_side, **self.limits}

    def setup(self) -> None:
        need("imagehash", "data")

    def __call__(self, samples: list[Sample]) -> Outcome:
        outcome = Outcome([], [])
        for sample in samples:
            try:
                outcome.samples.append(self._hashed(sample))
            except BadPicture as reason:
                outcome.dropped.append((sample.key, str(reason)))
        return outcome

    def _hashed(self, sample: Sample) -> Sample:
        for name, reason in (("punsafe", "flagged unsafe"), ("pwatermark", "flagged watermark")):
            value = sample.meta.get(name)
            if isinstance(value, (int, float)) and value > self.limits[name]:
                raise BadPicture(reason)
        picture = decode(sample.image)
        if min(picture.size) < self.min_side:
            raise BadPicture("too small")
        meta = {"phash": phash(picture), "sha256": hashlib.sha256(sample.image).hexdigest()}
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        return Sample(sample.key, encode(picture), "webp", "", meta)


@dataclass
class Hashes:
    """All n samples of a folder of hashes, ordered by shard and then key.

    Attributes:
        shard: (n,) int32, number of the shard. names: the shards' names.
        keys: (n,) bytes.
        phash: (n,) uint64. sha256: (n,) 32 bytes each, of the image files.
    """

    shard: np.ndarray
    names: list[str]
    keys: np.ndarray
    phash: np.ndarray
    sha256: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def read_hashes(folder: str | Path) -> Hashes:
    """What :class:`HashStep` wrote; shards that were bad are not in it.

    Raises:
        SSRError: a key twice (in different shards), or a folder of something else.
    """
    names, shard, keys, hashes, digests = [], [], [], [], []
    for path in list_shards(folder):
        rows = sorted((sample.key, sample.meta) for sample in read_shard(path))
        try:
            hashes += [int(meta["phash"], 16) for _, meta in rows]
            digests += [bytes.fromhex(meta["sha256"]) for _, meta in rows]
        except KeyError:
            raise SSRError(f"{path} holds no hashes; give the folder hashes/ that `ssr data check` wrote") from None
        keys += [key.encode() for key, _ in rows]
        shard += [len(names)] * len(rows)
        names.append(path.name)
    found = Hashes(
        np.array(shard, np.int32),
        names,
        np.array(keys, "S"),
        np.array(hashes, np.uint64),
        np.array(digests, "V32"),
    )
    _check_keys(found)
    return found


def _check_keys(hashes: Hashes) -> None:
    order = np.argsort(hashes.keys, kind="stable")
    same = np.flatnonzero(hashes.keys[order][1:] == hashes.keys[order][:-1])
    if len(same):
        a, b = order[same[0]], order[same[0] + 1]
        raise SSRError(
            f"sample {hashes.keys[a].decode()} is in {hashes.names[hashes.shard[a]]} and in "
            f"{hashes.names[hashes.shard[b]]}; keys must be unique in a folder, rename them"
        )


def near_pairs(hashes: np.ndarray, distance: int = NEAR) -> np.ndarray:
    """All pairs (m, 2) of indices i < j into ``hashes`` (n,) uint64 without repetition that differ in at most
    ``distance`` (0 to 4) bits, sorted by j and then i."""
    if not 0 <= distance <= NEAR:
        raise ValueError(f"distance must be 0 to {NEAR}, not {distance}")
    edges = np.linspace(0, 64, BANDS + 1).round().astype(np.uint64)
    bands = [((np.uint64(1) << (high - low)) - np.uint64(1)) << low for low, high in itertools.pairwise(edges)]
    found = [np.empty((0, 2), np.int64)]
    for first, second in itertools.combinations(bands, 2):
        banded = hashes & (first | second)
        order = np.argsort(banded, kind="stable")
        banded, values = banded[order], hashes[order]
        # Neighbours at growing distance in sorted order, for as long as any agree in both bands.
        start, offset = np.arange(len(order)), 1
        while True:
            start = start[start + offset < len(order)]
            start = start[banded[start] == banded[start + offset]]
            if not len(start):
                break
            near = np.bitwise_count(values[start] ^ values[start + offset]) <= distance
            found.append(np.sort(np.stack([order[start[near]], order[start[near] + offset]], 1), axis=1))
            offset += 1
    pairs = np.unique(np.concatenate(found)[:, ::-1], axis=0)  # a pair may agree in several bands
    return pairs[:, ::-1]


def duplicates(hashes: np.ndarray, distance: int = NEAR) -> dict[int, int]:
    """Of hashes (n,) uint64 in order of preference, which to drop: index -> the earlier kept one that it is near to.

    An image is dropped only for an image that stays: of a chain A near B near C, with A not near C, A and C stay.
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)  # in order of preference again
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    kept_for = np.arange(len(order))
    for i, j in near_pairs(unique[order], distance):  # sorted by j: i is decided before it is asked
        if kept_for[j] == j and kept_for[i] == i:
            kept_for[j] = i
    stays = first[order][kept_for[rank[inverse]]]
    dropped = np.flatnonzero(stays != np.arange(len(hashes)))
    return dict(zip(dropped.tolist(), stays[dropped].tolist(), strict=True))


def clusters(hashes: np.ndarray, distance: int = NEAR) -> np.ndarray:
    """Number of the cluster (n,) of each of hashes (n,): near ones, and those near to near ones, are together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unique, inverse = np.unique(hashes, return_inverse=True)
    pairs = near_pairs(unique, distance)
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (len(unique), len(unique)))
    return connected_components(links, directed=False)[1][inverse]
