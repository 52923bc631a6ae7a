"""What the embedded world's oracle sees, as metrics: the judgements of ``ssr proof``, and what a prompt asks for beside
its subject, a hat or another thing.

A colour that a prompt asks for is judged by ``identity``: its truth is the drawing in that colour.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from ...errors import SSRError
from ...loading import fingerprint
from ..remembered import Remembered, digest
from .case import Case, CaseMetric, as_tensor, versions

if TYPE_CHECKING:
    from ...mini.judge import Judge, Verdict
    from ...mini.oracle import Oracle

ABOUT = {
    "shown": "1 if the oracle sees the subject's concept",
    "identity": "1 if the nearest prototype of the concept is the subject's drawing and colour",
    "likeness": "cosine to the prototype of the subject's drawing and colour",
    "other": "1 if the oracle sees another concept of the reference",
    "place": "1 if the oracle sees the place of the prompt",
}
ASKED = {
    "hat": "1 if the oracle sees the subject, and a hat on it, where the prompt asks for one",
    "companion": "1 if the oracle sees the other thing that the prompt puts beside the subject",
}
# Of the subjects that can wear a hat the oracle saw 12 % with one; from this logit on a hat is likelier than not where
# both are as frequent.
HAT = math.log(0.12 / 0.88)
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
            return self.judge(_pixels(case.image)[0], asked)

        return self._kept((digest(case.image), json.dumps(truth, sort_keys=True)), judge)


class OracleMetric(CaseMetric):
    """One judgement of :class:`ssr_encoder.mini.judge.Verdict`; None for cases without truth."""

    def __init__(self, name: str, verdicts: Verdicts):
        self.name, self.verdicts = name, verdicts
        self.direction = "lower" if name == "other" else "higher"

    def describe(self) -> dict:
        return _about(ABOUT[self.name], self.verdicts.judge.oracle)

    def score(self, case: Case) -> float | None:
        if case.truth is None or (self.name == "place" and case.truth.get("place") is None):
            return None
        return getattr(self.verdicts(case), self.name)


class AskedMetric(CaseMetric):
    """A hat or another thing, of :data:`ASKED`; None for cases without truth, and where the prompt asks for none.

    On drawn scenes of held-out subjects, alone as here, the oracle sees 98.5 % of the hats (480 scenes), and hats on
    1.0 % of the bare heads (480; all of them of one drawing of a panda); beside others 89 % and 3 % (240 each).
    """

    def __init__(self, name: str, oracle: Oracle):
        self.name, self.oracle = name, oracle

    def describe(self) -> dict:
        return _about(ASKED[self.name], self.oracle)

    @torch.inference_mode()
    def score(self, case: Case) -> float | None:
        asked = (case.truth or {}).get(self.name)
        if asked is None or asked is False:
            return None
        from ...mini.oracle import PRESENT, shown

        answers = self.oracle(_pixels(case.image).to(next(self.oracle.parameters()).device) * 2 - 1)
        concept = case.truth["concept"] if self.name == "hat" else asked
        seen = bool(shown(answers["concept"])[0, concept] > PRESENT)
        return float(seen and (self.name != "hat" or hat_logit(answers, concept) > HAT))


def hat_logit(answers: dict[str, Tensor], concept: int) -> float:
    """Of a hat on the subject of a concept in one picture: the mean over its cells, as the oracle was trained."""
    weight = answers["concept"].softmax(1)[0, concept + 1]
    return float((answers["hat"][0, 0] * weight).sum() / weight.sum().clamp(min=1e-4))


def _about(definition: str, oracle: Oracle) -> dict:
    return {
        "definition": definition,
        "backbone": "the oracle of the embedded world",
        "weights_sha256": fingerprint(oracle),
        "preprocessing": "RGB in [-1, 1], 128 x 128",
        "versions": versions("torch"),
    }


def _pixels(picture: Image.Image) -> Tensor:
    """(1, 3, 128, 128) in [0, 1]."""
    if picture.size != (128, 128):
        raise SSRError(f"the oracle judges pictures of 128 x 128, not {picture.size}; resize them")
    return as_tensor(picture)
