"""Every constant of the study, in one commented place. Unknown keys are refused."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..configs import cast, nearest, parse
from ..errors import SSRError
from ..extras import need

PRESETS = Path(__file__).parent / "presets"

# Supplement, section B.1 and Fig. 1.
SETTINGS = {
    "A": "CLIP, last layer",
    "B": "DINOv2, last layer",
    "C": "CLIP, last layer, fine-tuned",
    "D": "CLIP, multi-scale",
}


@dataclass
class StudyConfig:
    """One study. What does not say otherwise is from section B.2 of the supplement."""

    scale: str = "paper"  # "paper": open_clip, DINOv2 and shards of yours; "mini": the embedded world and its encoders
    batch_size: int = 32  # pairs at a time, which are also one another's negatives in L_clip
    accumulate: int = 4  # batches a step: the paper's four GPUs
    steps: int = 100_000
    learning_rate: float = 3e-4  # peak of the one-cycle schedule
    encoder_rate: float = 0.1  # of it for encoder parameters (C)
    clip_weight: float = 1.0  # of L_clip (C); the paper does not say it
    hidden_layers: list[int] = field(default_factory=list)  # of D; empty: the subject encoder's own K scales
    channels: list[int] = field(default_factory=lambda: [128, 256, 512, 512])  # VAE decoder's; the last is repeated
    layers_per_block: int = 2
    middle_attention: bool = True
    groups: int = 32  # of group normalisation
    test_pictures: int = 10_000
    zero_shot_pictures: int = 50_000  # at most
    test_batch: int = 32
    examples: int = 6  # rows of Fig. 2
    clip: str = ""  # paper: open_clip "NAME/PRETRAINED" (default ViT-L-14/laion2b_s32b_b82k); mini: weights folder
    dino: str = ""  # paper: Dinov2Model folder or hub id (default facebook/dinov2-large); mini: the recipe's "dino"
    lpips: str = "alex"  # network of PS at full scale: alex or vgg
    data: str = ""  # paper: shards to train on, as for `ssr train`
    test_data: str = ""  # paper: shards to test on
    imagenet: str = ""  # paper: folder of ImageNet's validation pictures in one folder a class; "": no zero-shot figure

    def __post_init__(self):
        if self.scale not in ("mini", "paper"):
            raise SSRError(f'scale is {self.scale!r} in the study; give "mini" or "paper"')
        if self.lpips not in ("alex", "vgg"):
            raise SSRError(f'lpips is {self.lpips!r} in the study; give "alex" or "vgg"')
        for name in ("batch_size", "accumulate", "steps", "layers_per_block", "groups", "test_pictures", "test_batch"):
            if getattr(self, name) < 1:
                raise SSRError(f"{name} is {getattr(self, name)} in the study; give at least 1")
        if self.learning_rate <= 0 or self.encoder_rate < 0 or self.clip_weight < 0:
            raise SSRError("learning_rate must be above 0, encoder_rate and clip_weight not below it")
        bad = [width for width in self.channels if width < 1 or width % self.groups]
        if bad or not self.channels:
            raise SSRError(f"channels are {self.channels} in the study; give multiples of groups ({self.groups})")
        if self.scale == "paper" and self.examples > self.test_pictures:
            raise SSRError(f"examples is {self.examples}, more than test_pictures; lower it")

    @classmethod
    def load(cls, preset: str, overrides: Iterable[str] = (), **changes) -> StudyConfig:
        """A preset ("mini", "paper"), then ``key=value`` words, then ``changes`` that are not None.

        Raises:
            SSRError: an unknown preset or key (with the nearest known one), or an impossible value.
        """
        path = PRESETS / f"{preset}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
            raise SSRError(f"preset {preset!r} of the study is unknown; known: {known}")
        values = need("yaml", "bench").safe_load(path.read_text())
        for word in overrides:
            key, equals, text = word.partition("=")
            if not equals:
                raise SSRError(f"override {word!r} is not key=value, e.g. steps=1000")
            values[key] = parse(word, text, "bench")
        values |= {key: value for key, value in changes.items() if value is not None}
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict) -> StudyConfig:
        """From plain values; a whole number may stand for a float."""
        known = typing.get_type_hints(cls)
        for key in values:
            if key not in known:
                raise SSRError(f"unknown key {key} in the study{nearest(key, list(known))}")
        return cls(**{key: cast(key, value, known[key], "the study") for key, value in values.items()})
