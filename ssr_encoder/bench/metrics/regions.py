"""Where a subject is in a picture, by name: a detector and a segmenter, or the embedded world's oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image

from ...errors import SSRError
from ...loading import fingerprint
from ..backbones import Backbone, loaded
from ..remembered import Remembered, digest
from .case import Case, CaseMetric, as_tensor, versions

if TYPE_CHECKING:
    from ...mini.oracle import Oracle

DETECTOR = "google/owlv2-base-patch16-ensemble"
SEGMENTER = "facebook/sam-vit-base"
KEPT = 512  # regions remembered: those of references come again and again
MARGIN = 0.1  # of the subject's longer side, left around it


class Regions(Protocol):
    def describe(self) -> dict: ...

    def __call__(self, picture: Image.Image, name: str) -> np.ndarray | None:
        """Bool (H, W) of the best ``name`` in the picture, or None if there is none."""
        ...


class _Kept:
    def __init__(self):
        self._kept = Remembered(KEPT)

    def __call__(self, picture: Image.Image, name: str) -> np.ndarray | None:
        def find():
            with torch.inference_mode():
                return self._find(picture, name)

        return self._kept((digest(picture), name), find)

    def _find(self, picture: Image.Image, name: str) -> np.ndarray | None:
        raise NotImplementedError


class RegionMetric(CaseMetric):
    """A metric of a backbone that looks at regions; subclasses say their ``definition``."""

    definition: str

    def __init__(self, backbone: Backbone, regions: Regions, name: str = ""):
        self.backbone, self.regions, self.name = backbone, regions, name or self.name

    def describe(self) -> dict:
        return {"definition": self.definition} | self.backbone.describe() | self.regions.describe()


class OracleRegions(_Kept):
    """The cells that the embedded world's oracle gives to a concept, if it sees the concept at all."""

    def __init__(self, oracle: Oracle, concepts: Sequence[str]):
        super().__init__()
        self.oracle, self.device = oracle, next(oracle.parameters()).device
        self.concepts = list(concepts)

    def describe(self) -> dict:
        about = "the oracle's cells of the concept (probability above 0.5 of 16 x 16), where it counts as shown"
        return {"regions": about, "regions_sha256": fingerprint(self.oracle)}

    def _find(self, picture, name):
        from ...mini.oracle import PRESENT, shown

        if name not in self.concepts:
            raise SSRError(f"the embedded world has no {name!r}; name one of its concepts")
        concept = self.concepts.index(name)
        logits = self.oracle(as_tensor(_square(picture)).to(self.device) * 2 - 1)["concept"]
        if shown(logits)[0, concept] <= PRESENT:
            return None
        cells = (logits.softmax(1)[0, concept + 1] > 0.5).cpu().numpy()
        return np.asarray(Image.fromarray(cells).resize(picture.size, Image.Resampling.NEAREST))


class GroundedRegions(_Kept):
    """A zero-shot detector's best box for a name, and SAM's mask in it.

    Args:
        detector: folder or hub id of an OWL-ViT (v2) or Grounding DINO.
        segmenter: folder or hub id of a SAM.
        threshold: of the box's score, under which there is none.
    """

    def __init__(
        self,
        detector: str = DETECTOR,
        segmenter: str = SEGMENTER,
        device: str | torch.device = "cpu",
        threshold: float = 0.2,
    ):
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor, SamModel, SamProcessor

        super().__init__()
        self.device, self.threshold = torch.device(device), threshold
        self.names = [name.rstrip("/").rpartition("/")[2] for name in (detector, segmenter)]
        self.reader = loaded(AutoProcessor, detector, backend="pil")
        self.detector = loaded(AutoModelForZeroShotObjectDetection, detector, dtype=torch.float32)
        self.cutter = loaded(SamProcessor, segmenter, backend="pil")
        self.segmenter = loaded(SamModel, segmenter, dtype=torch.float32)
        for model in (self.detector, self.segmenter):
            model.to(self.device).eval().requires_grad_(False)

    def describe(self) -> dict:
        about = f"best box of {self.names[0]} above {self.threshold:g}, mask of {self.names[1]} in it"
        weights = [fingerprint(self.detector), fingerprint(self.segmenter)]
        return {"regions": about, "regions_sha256": weights, "regions_versions": versions("transformers")}

    @torch.inference_mode()
    def box(self, picture: Image.Image, name: str) -> list[float] | None:
        """The best box (x0, y0, x1, y1) in pixels, inside the picture."""
        picture = picture.convert("RGB")
        sentence = self.detector.config.model_type == "grounding-dino"  # it reads "cat.", OWL a list of phrases
        text = f"{name.lower()}." if sentence else [[f"a photo of a {name}"]]
        inputs = self.reader(text=text, images=picture, return_tensors="pt").to(self.device)
        ids = {"input_ids": inputs["input_ids"]} if sentence else {}
        found = self.reader.post_process_grounded_object_detection(
            self.detector(**inputs), threshold=self.threshold, target_sizes=[(picture.height, picture.width)], **ids
        )[0]
        if not len(found["scores"]):
            return None
        x0, y0, x1, y1 = found["boxes"][found["scores"].argmax()].tolist()
        x0, x1 = (min(max(x, 0.0), float(picture.width)) for x in (x0, x1))
        y0, y1 = (min(max(y, 0.0), float(picture.height)) for y in (y0, y1))
        return [x0, y0, x1, y1] if x1 - x0 >= 1 and y1 - y0 >= 1 else None

    def _find(self, picture, name):
        box = self.box(picture, name)
        if box is None:
            return None
        inputs = self.cutter(images=picture.convert("RGB"), input_boxes=[[box]], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        inputs = {key: value.float().to(self.device) for key, value in inputs.items()}
        masks = self.segmenter(**inputs, multimask_output=False).pred_masks.cpu()
        region = self.cutter.image_processor.post_process_masks(masks, *sizes)[0][0, 0].numpy().astype(bool)
        return region if region.any() else None


def reference_region(case: Case, regions: Regions) -> np.ndarray | None:
    """The subject in the reference: the case's mask where it has one, else what ``regions`` finds."""
    if case.mask is None:
        return regions(case.reference, case.class_name)
    region = np.asarray(case.mask) > 0.5
    if region.shape != case.reference.size[::-1]:
        raise SSRError(f"the mask has {region.shape} pixels, its reference {case.reference.size[::-1]}; make them one")
    return region if region.any() else None


def cut_out(picture: Image.Image, region: np.ndarray, fill: tuple[int, int, int]) -> Image.Image:
    """The region alone on ``fill``, cut to a square around it with a margin of a tenth.

    So where the subject stands in its picture, and how large, does not count.
    """
    pixels = np.where(region[..., None], np.asarray(picture.convert("RGB")), np.uint8(fill))
    rows, columns = region.any(1).nonzero()[0], region.any(0).nonzero()[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left)
    side += 2 * round(MARGIN * side)
    square = Image.new("RGB", (side, side), fill)
    part = Image.fromarray(pixels[top:bottom, left:right].astype(np.uint8))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def _square(picture: Image.Image) -> Image.Image:
    """128 x 128, what the oracle was trained on."""
    return picture if picture.size == (128, 128) else picture.resize((128, 128), Image.Resampling.BICUBIC)
