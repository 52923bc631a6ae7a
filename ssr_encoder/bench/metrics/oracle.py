"""What the embedded world's oracle sees: the judgements of ``ssr proof``, as metrics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ...errors import SSRError
from ..backbones import Remembered, digest, fingerprint
from .case import Case, CaseMetric, as_tensor, versions

if TYPE_CHECKING:
    from ...mini.proof import Judge, Verdict

ABOUT = {
    "shown": "1 if the oracle sees the subject's concept",
    "identity": "1 if the nearest prototype of the concept is the subject's drawing and colour",
    "likeness": "cosine to the prototype of the subject's drawing and colour",
    "other": "1 if the oracle sees another concept of the reference",
    "place": "1 if the oracle sees the place of the prompt",
}
KEPT = 512  # verdicts remembered: every metric here reads the same one


class Verdicts:
    """Judges each picture once, for all five metrics."""

    def __init__(self, judge: Judge):
        self.judge = judge
        self._kept = Remembered(KEPT)

    def __call__(self, case: Case) -> Verdict:
        from ...mini.proof import Case as ProofCase

        truth = case.truth

        def judge() -> Verdict:
            asked = ProofCase(
                prompt=case.prompt,
                place=-1 if truth.get("place") is None else truth["place"],
                concepts=[truth["concept"]],
                identities=[(truth["style"], truth["colour"])],
                others=[c for c in truth.get("others", ()) if c != truth["concept"]],
                references=[],
                queries=[],
                new_drawing=False,
            )
            if case.image.size != (128, 128):
                raise SSRError(f"the oracle judges pictures of 128 x 128, not {case.image.size}; resize them")
            return self.judge(as_tensor(case.image)[0], asked)

        return self._kept((digest(case.image), json.dumps(truth, sort_keys=True)), judge)


class OracleMetric(CaseMetric):
    """One judgement of :class:`ssr_encoder.mini.proof.Verdict`; None for cases without truth."""

    def __init__(self, name: str, verdicts: Verdicts):
        self.name, self.verdicts = name, verdicts
        self.direction = "lower" if name == "other" else "higher"

    def describe(self) -> dict:
        return {
            "definition": ABOUT[self.name],
            "backbone": "the oracle of the embedded world",
            "weights_sha256": fingerprint(self.verdicts.judge.oracle),
            "preprocessing": "RGB in [-1, 1], 128 x 128",
            "versions": versions("torch"),
        }

    def score(self, case: Case) -> float | None:
        if case.truth is None or (self.name == "place" and case.truth.get("place") is None):
            return None
        return getattr(self.verdicts(case), self.name)
