"""Balanced re-sampling: fewer samples of subjects that are everywhere, all samples of those that are rare.

The paper finds that a subject does better the more of it there was in training (section H) and worse where it was
rare (section L). Each sample is kept with a probability

    share t:  p = min(1, sqrt(t / f)),  f the share of captions that name the deciding descriptor
    cap N:    p = min(1, N / count),    count their number

of one deciding descriptor. Usually that is the rarest of the caption, as in the repeat-factor sampling of LVIS (Gupta
et al. 2019, section 4), so that nothing rare is lost; or the commonest, so that no descriptor stays above the cap (in
expectation), at the price of rare ones beside it.

The draw is a hash of the image's content and the seed: the same samples on every run and engine.
"""

from __future__ import annotations

import hashlib
import math
import os

from ..errors import SSRError
from .describe import descriptors_of
from .shards import Sample
from .steps import Outcome
from .table2 import read_frequencies

REASON = "too frequent"


class BalanceStep:
    """Keeps or drops each described sample.

    Args:
        counted: what :func:`describe.count` gave for these shards, or the path of its JSON file.
        share: ``t``: descriptors of a larger share of captions are thinned.
        cap: ``N``, instead of ``share``.
        decides: "rarest" or "commonest".
    """

    name = "balance"

    def __init__(
        self,
        counted: dict | str | os.PathLike,
        share: float | None = None,
        cap: int | None = None,
        decides: str = "rarest",
        seed: int = 0,
    ):
        if (share is None) == (cap is None):
            raise SSRError("give either a share or a cap of frequent descriptors, not both")
        if share is not None and not 0 < share <= 1:
            raise SSRError(f"share {share} of captions is not between 0 and 1; usually 0.001 to 0.05")
        if cap is not None and cap < 1:
            raise SSRError(f"cap {cap} is less than one caption; give the number of captions to come down to")
        if decides not in ("rarest", "commonest"):
            raise SSRError(f"{decides!r} cannot decide; give rarest or commonest")
        counted = counted if isinstance(counted, dict) else read_frequencies(counted)
        self.share, self.cap, self.decides, self.seed = share, cap, decides, seed
        self.captions, self.frequencies = counted["captions"], counted["frequencies"]

    def parameters(self) -> dict:
        content = repr((self.captions, sorted(self.frequencies.items()))).encode()
        frequencies = hashlib.sha256(content).hexdigest()
        names = ("share", "cap", "decides", "seed")
        return {name: getattr(self, name) for name in names} | {"frequencies_sha256": frequencies}

    def setup(self) -> None:
        pass

    def __call__(self, samples: list[Sample]) -> Outcome:
        outcome = Outcome([], [])
        for sample in samples:
            if draw(sample.image, self.seed) < self.probability(descriptors_of(sample)):
                outcome.samples.append(sample)
            else:
                outcome.dropped.append((sample.key, REASON))
        return outcome

    def probability(self, descriptors: list[str]) -> float:
        """Of being kept, in (0, 1]; 1 for a caption without descriptors, or if the deciding one was not counted."""
        counts = [self.frequencies.get(word, 0) for word in descriptors]
        deciding = (min if self.decides == "rarest" else max)(counts, default=0)
        if not deciding:
            return 1.0
        if self.cap is not None:
            return min(1.0, self.cap / deciding)
        return min(1.0, math.sqrt(self.share * self.captions / deciding))


def draw(image: bytes, seed: int) -> float:
    """A number in [0, 1) that the content of an image and the seed decide."""
    digest = hashlib.sha256(f"{seed}:".encode() + hashlib.sha256(image).digest()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
