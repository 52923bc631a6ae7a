"""Selectivity: what was made for subject A, against the other subjects of the reference. Lower is better.

The worst of the others counts, not their mean: one leaked subject is a failure, however many did not leak.
"""

from __future__ import annotations

from ..backbones import Backbone
from .case import Case, CaseMetric
from .regions import RegionMetric, cut_out


class ExclusiveText(CaseMetric):
    """The result against the name of each other subject; None where the reference shows nothing else."""

    direction = "lower"

    def __init__(self, backbone: Backbone, template: str = "a photo of {}", name: str = "exclusive_clip"):
        self.backbone, self.template, self.name = backbone, template, name

    def describe(self) -> dict:
        about = f"largest raw cosine of the result and {self.template!r}, with an article, over the other subjects"
        return {"definition": about} | self.backbone.describe()

    def score(self, case: Case) -> float | None:
        if not case.others:
            return None
        from ...mini.world.captions import article

        seen = self.backbone.image(case.image)
        texts = [self.template.format(article(other)) for other in case.others]
        return max(float(seen @ self.backbone.text(text)) for text in texts)


class ExclusiveImage(RegionMetric):
    """The whole result against each other subject cut out of the reference; None where none is found there.

    The result is not cut: what leaked may be anywhere in it.
    """

    name = "exclusive_clip_i"
    direction = "lower"
    definition = "largest raw cosine of the result and each other subject cut out of the reference"

    def score(self, case: Case) -> float | None:
        seen, scores = self.backbone.image(case.image), []
        for other in case.others:
            region = self.regions(case.reference, other)
            if region is not None:
                alone = cut_out(case.reference, region, self.backbone.fill)
                scores.append(float(seen @ self.backbone.image(alone)))
        return max(scores) if scores else None
