"""Cosines of whole pictures and texts: CLIP-T, CLIP-I, DINO, DINOv2. Raw: no clamp at 0, no factor of 100 or 2.5."""

from __future__ import annotations

from ..backbones import Backbone
from .case import Case, CaseMetric


class TextSimilarity(CaseMetric):
    """CLIP-T: the result against the full prompt."""

    definition = "raw cosine of the result's and the prompt's embedding"

    def __init__(self, backbone: Backbone, name: str = "clip_t"):
        self.backbone, self.name = backbone, name

    def describe(self) -> dict:
        return {"definition": self.definition} | self.backbone.describe()

    def score(self, case: Case) -> float:
        return float(self.backbone.image(case.image) @ self.backbone.text(case.prompt))


class ImageSimilarity(CaseMetric):
    """CLIP-I, DINO, DINOv2: the result against the whole reference picture."""

    definition = "raw cosine of the result's and the reference's embedding"

    def __init__(self, backbone: Backbone, name: str):
        self.backbone, self.name = backbone, name

    def describe(self) -> dict:
        return {"definition": self.definition} | self.backbone.describe()

    def score(self, case: Case) -> float:
        return float(self.backbone.image(case.image) @ self.backbone.image(case.reference))
