"""Candidates for the multi-subject bench, by the rule of the supplement's section H.

A test image is a candidate if its caption has at least two subject descriptors, caption and image are congruent (CLIP
score), and its aesthetic score is high enough. Then a person ticks the final images on a page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import SSRError
from ..files import write_json, written_beside
from .congruence import MINI, Congruence, least_of, load_congruence
from .describe import descriptors_of
from .pictures import BadPicture, decode
from .shards import BadShard, Sample, list_shards, read_shard
from .steps import Outcome

FORMAT = "ssr-multi-subject-bench-1"
PAPER = "SSR-Encoder (CVPR 2024), supplement, section H"
BENCH_SIZE = 100


class CandidateStep:
    """Keeps described samples that follow the rule; adds ``clip_score`` to their meta.

    Args:
        clip: "mini", or a CLIPModel's folder or hub id.
        min_clip: smallest score; None: the model's usual one.
        min_aesthetic: smallest ``aesthetic`` of the meta (the score's name can be given); None asks for none.
        min_subjects: descriptors that a caption must have.
        ignored: descriptors that do not count, places for instance: the paper's table has "snow" and "street".
    """

    name = "bench-candidates"

    def __init__(
        self,
        clip: str = MINI,
        min_clip: float | None = None,
        min_aesthetic: float | None = 6.0,
        aesthetic: str = "aesthetic",
        min_subjects: int = 2,
        ignored: tuple[str, ...] = (),
        device: str | None = None,
    ):
        self.clip, self.device = str(clip), device
        self.min_clip = least_of(self.clip) if min_clip is None else min_clip
        self.min_aesthetic, self.aesthetic, self.min_subjects = min_aesthetic, aesthetic, min_subjects
        self.ignored = sorted(set(ignored))
        self.congruence: Congruence | None = None

    def parameters(self) -> dict:
        names = ("clip", "min_clip", "min_aesthetic", "aesthetic", "min_subjects", "ignored")
        return {name: getattr(self, name) for name in names}

    def setup(self) -> None:
        self.congruence = load_congruence(self.clip, self.device)

    def __call__(self, samples: list[Sample]) -> Outcome:
        outcome, images, hopeful = Outcome([], []), [], []
        for sample in samples:
            reason = self._cheap_reason(sample)
            if not reason:
                try:
                    images.append(decode(sample.image))
                    hopeful.append(sample)
                except BadPicture as bad:
                    reason = str(bad)
            if reason:
                outcome.dropped.append((sample.key, reason))
        scores = self.congruence(images, [sample.caption for sample in hopeful]) if images else []
        for sample, score in zip(hopeful, scores, strict=True):
            if score >= self.min_clip:
                sample.meta["clip_score"] = round(score, 4)
                outcome.samples.append(sample)
            else:
                outcome.dropped.append((sample.key, "caption and image not congruent"))
        return outcome

    def _cheap_reason(self, sample: Sample) -> str | None:
        if len(set(descriptors_of(sample)).difference(self.ignored)) < self.min_subjects:
            return f"fewer than {self.min_subjects} subjects"
        if self.min_aesthetic is None:
            return None
        value = sample.meta.get(self.aesthetic)
        if not isinstance(value, (int, float)):
            return "no aesthetic score"
        return "low aesthetic score" if value < self.min_aesthetic else None

    def __getstate__(self) -> dict:
        return {**vars(self), "congruence": None}  # each worker loads its own


def best_candidates(folder: str | os.PathLike, limit: int) -> list[Sample]:
    """The ``limit`` samples of a folder of candidates with the highest CLIP scores, highest first."""
    best: list[Sample] = []
    for sample in _all(folder):
        best.append(sample)
        if len(best) >= 4 * limit:
            best = _ranked(best)[:limit]
    return _ranked(best)[:limit]


def write_bench(folder: str | os.PathLike, keys: list[str], out: str | os.PathLike, rule: dict) -> int:
    """Writes the ticked candidates as a bench: images as they are, and bench.json. Returns how many.

    Raises:
        SSRError: a key that is no candidate.
    """
    wanted, out = dict.fromkeys(keys), Path(out)
    found = {sample.key: sample for sample in _all(folder) if sample.key in wanted}
    missing = [key for key in wanted if key not in found]
    if missing:
        raise SSRError(f"ticked sample {missing[0]} is not among the candidates in {folder}; tick on its own page")
    (out / "images").mkdir(parents=True, exist_ok=True)
    items = []
    for key in wanted:
        sample = found[key]
        name = f"images/{key}.{sample.extension}"
        with written_beside(out / name) as temporary:
            temporary.write_bytes(sample.image)
        items.append(
            {
                "key": key,
                "image": name,
                "caption": sample.caption,
                "subjects": sample.meta["descriptors"],
                "clip_score": sample.meta["clip_score"],
                "url": sample.meta.get("url"),
            }
        )
    bench = {"format": FORMAT, "paper": PAPER, "rule": rule, "n": len(items), "items": items}
    write_json(out / "bench.json", bench)
    return len(items)


def read_ticked(path: str | os.PathLike) -> list[str]:
    """Keys from the file that the review page gives.

    Raises:
        SSRError: not such a file, or nothing or too much ticked.
    """
    try:
        keys = json.loads(Path(path).read_text(encoding="utf-8"))["keys"]
        good = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    except OSError as error:
        raise SSRError(f"cannot read {path} ({error.strerror}); give the file that the review page saved") from None
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise SSRError(f"{path} is not a list of ticked samples; give the file that the review page saved")
    if not 0 < len(set(keys)) <= BENCH_SIZE:
        raise SSRError(f"{path} has {len(set(keys))} ticked samples; tick 1 to {BENCH_SIZE}")
    return list(dict.fromkeys(keys))


def _all(folder) -> Iterable[Sample]:
    for path in list_shards(folder):
        try:
            yield from read_shard(path)
        except BadShard:
            continue


def _ranked(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: (-sample.meta["clip_score"], sample.key))
