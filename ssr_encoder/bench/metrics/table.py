"""The metrics by name, with the backbones that they share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

from ...errors import SSRError
from ..backbones import MINI, Backbone, load_backbone
from .case import Metric
from .exclusive import ExclusiveImage, ExclusiveText
from .masked import MaSC, MaSCPrompt, MaskedSimilarity
from .oracle import ABOUT, ASKED, AskedMetric, OracleMetric, Verdicts
from .pixels import LPIPS, PSNR, SSIM
from .regions import DETECTOR, SEGMENTER, GroundedRegions, OracleRegions, Regions
from .similarity import ImageSimilarity, TextSimilarity
from .zero_shot import MINI_TEMPLATES, ZeroShotTop1, imagenet_classes, imagenet_templates

Suite = Literal["mini", "real"]

BACKBONES: dict[str, dict[str, str]] = {
    "mini": {"clip": MINI, "masc": MINI},
    "real": {
        "clip": "openai/clip-vit-base-patch32",
        "dino": "facebook/dino-vits16",
        "dinov2": "facebook/dinov2-base",
        "masc": "google/siglip2-so400m-patch16-naflex",
        "detector": DETECTOR,
        "segmenter": SEGMENTER,
    },
}
ROLES = ("clip", "dino", "dinov2", "masc", "lpips_alex", "lpips_vgg", "detector", "segmenter")
DEFAULT = {
    "mini": ["clip_t", "clip_i", "masked_clip_i", "masc_cp", "exclusive_clip", "exclusive_clip_i", *ABOUT],
    "real": ["clip_t", "clip_i", "dino", "dinov2", "masked_clip_i", "masked_dino", "exclusive_clip"],
}


def default_metrics(suite: Suite) -> list[str]:
    """The names of what a benchmark of a suite is scored by if nothing is named."""
    return list(DEFAULT[_checked(suite)])


def metric_names() -> list[str]:
    """Every name that :func:`load_metrics` takes."""
    return list(_MAKERS)


def load_metrics(
    names: list[str], *, suite: Suite, device: str = "cpu", backbones: dict[str, str] | None = None
) -> list[Metric]:
    """Metrics by name; those with the same backbone share it and what it remembers.

    Args:
        suite: "mini" takes the embedded encoders and the oracle, "real" public ones.
        backbones: role (``ROLES``) -> backbone instead of the suite's; see :func:`ssr_encoder.bench.backbones.
            load_backbone`. The LPIPS roles take a file of torchvision's weights, or "random".

    Raises:
        SSRError: an unknown name, suite or role, or a backbone that cannot be loaded.
    """
    parts = _Parts(_checked(suite), device, dict(backbones or {}))
    unknown = [name for name in names if name not in _MAKERS]
    if unknown:
        raise SSRError(f"no metric {unknown[0]!r}; use some of {', '.join(_MAKERS)}")
    return [_MAKERS[name](parts) for name in names]


class _Parts:
    """What metrics are made of, each loaded when first needed."""

    def __init__(self, suite: Suite, device: str, chosen: dict[str, str]):
        for role in chosen:
            if role not in ROLES:
                raise SSRError(f"no backbone {role!r} to choose; use some of {', '.join(ROLES)}")
        self.suite, self.device, self.chosen = suite, device, BACKBONES[suite] | chosen
        self._loaded: dict[str, Backbone] = {}

    def backbone(self, role: str) -> Backbone:
        if role not in self.chosen:
            raise SSRError(f'the suite {self.suite} has no {role}; give one: backbones={{"{role}": FOLDER}}')
        name = self.chosen[role]
        if name not in self._loaded:
            self._loaded[name] = load_backbone(name, self.device)
        return self._loaded[name]

    @cached_property
    def regions(self) -> Regions:
        if "detector" not in self.chosen:
            return OracleRegions(self.oracle, self.world.concepts)
        segmenter = self.chosen.get("segmenter", SEGMENTER)
        return GroundedRegions(self.chosen["detector"], segmenter, self.device)

    @cached_property
    def world(self):
        from ...mini.models import weights_dir
        from ...mini.world import load_world

        return load_world(self.device, weights_dir())

    @cached_property
    def oracle(self):
        from ...mini.judge import load_oracle

        return load_oracle(self.device)

    @cached_property
    def verdicts(self) -> Verdicts:
        from ...mini.judge import Judge

        return Verdicts(Judge(self.oracle, self.world))

    def lpips(self, net: Literal["alex", "vgg"]) -> LPIPS:
        return LPIPS(net, self.chosen.get(f"lpips_{net}"), self.device)

    def exclusive_text(self) -> ExclusiveText:
        return ExclusiveText(self.backbone("clip"), "{}" if self.suite == "mini" else "a photo of {}")

    def zero_shot(self) -> ZeroShotTop1:
        clip = self.backbone("clip")
        if self.suite == "real":
            return ZeroShotTop1(clip, imagenet_classes(), imagenet_templates(), "CLIP's for ImageNet")
        drawn = self.world.available.flatten(1).any(1).tolist()
        names = [name for name, here in zip(self.world.concepts, drawn, strict=True) if here]
        return ZeroShotTop1(clip, names, MINI_TEMPLATES, "the embedded world's")


_MAKERS: dict[str, Callable[[_Parts], Metric]] = {
    "psnr": lambda parts: PSNR(),
    "ssim": lambda parts: SSIM(),
    "lpips_alex": lambda parts: parts.lpips("alex"),
    "lpips_vgg": lambda parts: parts.lpips("vgg"),
    "clip_t": lambda parts: TextSimilarity(parts.backbone("clip")),
    "clip_i": lambda parts: ImageSimilarity(parts.backbone("clip"), "clip_i"),
    "dino": lambda parts: ImageSimilarity(parts.backbone("dino"), "dino"),
    "dinov2": lambda parts: ImageSimilarity(parts.backbone("dinov2"), "dinov2"),
    "masked_clip_i": lambda parts: MaskedSimilarity(parts.backbone("clip"), parts.regions, "masked_clip_i"),
    "masked_dino": lambda parts: MaskedSimilarity(parts.backbone("dino"), parts.regions, "masked_dino"),
    "masc_cp": lambda parts: MaSC(parts.backbone("masc"), parts.regions),
    "masc_pf": lambda parts: MaSCPrompt(parts.backbone("masc"), parts.regions),
    "exclusive_clip": lambda parts: parts.exclusive_text(),
    "exclusive_clip_i": lambda parts: ExclusiveImage(parts.backbone("clip"), parts.regions),
    "zero_shot_top1": lambda parts: parts.zero_shot(),
    **{name: lambda parts, name=name: OracleMetric(name, parts.verdicts) for name in ABOUT},
    **{name: lambda parts, name=name: AskedMetric(name, parts.oracle) for name in ASKED},
}


def _checked(suite: str) -> Suite:
    if suite not in DEFAULT:
        raise SSRError(f"no suite {suite!r} of metrics; use one of {', '.join(DEFAULT)}")
    return suite
