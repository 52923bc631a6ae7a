"""Zero-shot recognition: is the picture nearest to its class, among all classes? (Radford et al. 2021, section 3.1)"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...extras import need
from ..backbones import Backbone
from .case import Case, CaseMetric

# What the embedded CLIP can read: most words of CLIP's own templates would fall apart into letters.
MINI_TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a picture of a {}", "a drawing of a {}")


def imagenet_templates() -> list[Callable[[str], str]]:
    """CLIP's 80 templates for ImageNet, from open_clip."""
    return list(need("open_clip.zero_shot_metadata", "bench").OPENAI_IMAGENET_TEMPLATES)


def imagenet_classes() -> list[str]:
    """The 1000 names of ImageNet's classes that CLIP uses, from open_clip, in ImageNet's order."""
    return list(need("open_clip.zero_shot_metadata", "bench").IMAGENET_CLASSNAMES)


def class_embeddings(read: Callable[[str], Tensor], names: Iterable[str], templates) -> Tensor:
    """(classes, D): of each class the mean of its templates' unit vectors, of unit length.

    Args:
        read: a text to its vector (D,), of unit length.
        templates: functions of the name, or strings with {}.
    """
    filled = [t.format if isinstance(t, str) else t for t in templates]
    rows = [torch.stack([read(template(name)) for template in filled]).mean(0) for name in names]
    return F.normalize(torch.stack(rows), dim=1)


class ZeroShotTop1(CaseMetric):
    """1 if the result is nearest to its class_name among ``names``, else 0; None if that is no class of theirs.

    Of ImageNet's 1000 names two stand twice ("missile", "sunglasses"); either is right.
    """

    def __init__(self, backbone: Backbone, names: Iterable[str], templates, source: str, name: str = "zero_shot_top1"):
        self.backbone, self.name, self.source = backbone, name, source
        self.names, self.templates = list(names), list(templates)
        self._table: Tensor | None = None

    def describe(self) -> dict:
        about = f"top-1 among {len(self.names)} classes by cosine, {len(self.templates)} templates, {self.source}"
        return {"definition": about} | self.backbone.describe()

    @property
    def table(self) -> Tensor:
        """(classes, D), computed when first asked for."""
        if self._table is None:
            self._table = class_embeddings(self.backbone.text, self.names, self.templates)
        return self._table

    def score(self, case: Case) -> float | None:
        if case.class_name not in self.names:
            return None
        best = int((self.table @ self.backbone.image(case.image)).argmax())
        return float(self.names[best] == case.class_name)
