"""The subject alone: its region in the reference against its region in the result."""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import SSRError
from ..backbones import Backbone
from .case import Case
from .regions import RegionMetric, Regions, cut_out, reference_region

ABSENT = 0.0  # the score of a result without the subject: leaving it out would flatter the method that failed


class MaskedSimilarity(RegionMetric):
    """Cosine of the subject cut out of the result and out of the reference.

    A result in which the subject is not found scores 0; a reference in which it is not found has no score.
    """

    name = "masked_clip_i"
    definition = (
        "raw cosine of the subject's regions, each on the backbone's mean colour and cut to a square around it "
        "(margin 0.1); 0 if the result does not show the subject"
    )

    def score(self, case: Case) -> float | None:
        wanted = reference_region(case, self.regions)
        if wanted is None:
            return None
        shown = self.regions(case.image, case.class_name)
        if shown is None:
            return ABSENT
        embed, fill = self.backbone.image, self.backbone.fill
        return float(embed(cut_out(case.reference, wanted, fill)) @ embed(cut_out(case.image, shown, fill)))


class MaSC(RegionMetric):
    """Concept preservation of MaSC (Bartkowiak et al. 2026, arXiv 2605.22469): every patch of the reference's subject
    takes its best cosine among all patches of the result; the mean over those patches.

    Patches are the last layer's; a patch belongs to the subject if half of it does, or, for a subject smaller than
    that, if any patch does most. The paper's backbone is SigLIP 2 SO400M NaFlex.
    """

    name = "masc_cp"
    definition = "mean over the reference subject's patches of the largest cosine to any patch of the result"

    def score(self, case: Case) -> float | None:
        wanted = reference_region(case, self.regions)
        if wanted is None:
            return None
        reference = self.backbone.patches(case.reference)
        inside = patch_mask(wanted, reference.shape[:2])
        result = self.backbone.patches(case.image).flatten(0, 1)
        return float((reference[inside] @ result.T).amax(1).mean())


class MaSCPrompt(RegionMetric):
    """Prompt following of MaSC: the result without its subject's patches against the prompt without the subject.

    The attention pooler of SigLIP 2 leaves the subject's patches out. Ours, since the paper's code is not published:
    from the prompt goes the class name with its article. A result without the subject is taken whole; one that is
    nothing but the subject has no score.
    """

    name = "masc_pf"
    definition = (
        "raw cosine of the result, pooled by attention outside its subject's patches, and of the prompt without the "
        "class name and its article"
    )

    def __init__(self, backbone: Backbone, regions: Regions):
        super().__init__(backbone, regions)
        if not hasattr(backbone, "background"):
            raise SSRError(f"{self.name} needs a SigLIP 2, not {backbone.name}")

    def score(self, case: Case) -> float | None:
        grid = self.backbone.patches(case.image).shape[:2]
        region = self.regions(case.image, case.class_name)
        subject = torch.zeros(grid, dtype=torch.bool) if region is None else patch_mask(region, grid)
        if subject.all():
            return None
        text = without_subject(case.prompt, case.class_name)
        return float(self.backbone.background(case.image, subject) @ self.backbone.text(text))


def without_subject(prompt: str, class_name: str) -> str:
    """ "a dog in the jungle" -> "in the jungle"."""
    rest = re.sub(rf"\b(?:(?:an?|the)\s+)?{re.escape(class_name)}\b", " ", prompt, flags=re.IGNORECASE)
    return " ".join(rest.split())


def patch_mask(region: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Which patches (rows, columns) a region (H, W) covers by half, or the most covered if none is."""
    share = F.adaptive_avg_pool2d(torch.from_numpy(region.astype(np.float32))[None], tuple(grid))[0]
    return share >= min(0.5, float(share.max()))
