"""Methods that a benchmark runs: a small protocol, ours, and the prompt alone.

A method of your own is a class somewhere on Python's path, named as "module:Class". It is made with the keyword
arguments of :func:`load_method`, those it has no use for too; take ``**rest``.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from ..encoder import SSREncoder
from ..errors import SSRError
from ..loading import fingerprint
from ..subject import Subject

METHODS = {"ssr": "ssr_encoder.bench.methods:SSR", "text": "ssr_encoder.bench.methods:Text"}
_NEEDED = ("describe", "personalise", "generate")


class Method(Protocol):
    """Personalise on a reference and a query, then generate from prompts."""

    name: str

    def describe(self) -> dict:
        """JSON of all that determines its pictures, without paths: digests of weights, and "settings" (steps, ...).
        A "fingerprint", if there is one, names the model in reports."""
        ...

    def personalise(self, reference_image: Image.Image, query: dict, class_name: str) -> object:
        """Anything; if it has ``heat_map()``, that is a picture (or None) of where in the reference it looked."""
        ...

    def generate(self, subject: object, template: str, seeds: list[int]) -> list[Image.Image]:
        """A picture for each seed; "{}" in the template is where the class's name goes. A picture must not depend on
        the other seeds but for the last bits of its arithmetic."""
        ...


@dataclass
class Personalised:
    """A subject of ours with what it was made from."""

    subject: Subject | None
    reference_image: Image.Image
    class_name: str

    def heat_map(self) -> Image.Image | None:
        """Where the subject was read, or None if none was."""
        return None if self.subject is None else self.subject.heat_map(self.reference_image)


class Text:
    """The base model and the prompt alone: what every score is worth without a subject."""

    name = "text"

    def __init__(
        self,
        model: str = "mini",
        base: str | None = None,
        steps: int = 20,
        guidance_scale: float | None = None,
        subject_scale: float | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ):
        self.encoder = SSREncoder.from_pretrained(model, base=base, device=device, dtype=getattr(torch, dtype))
        self.encoder.pipe.set_progress_bar_config(disable=True)
        config = self.encoder.config
        self.steps, self.dtype = steps, dtype
        self.guidance_scale = config.guidance_scale if guidance_scale is None else guidance_scale
        self.subject_scale = config.subject_scale if subject_scale is None else subject_scale

    def describe(self) -> dict:
        """The base model's weights and scheduler, and the settings."""
        pipe = self.encoder.pipe
        parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
        scheduler = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
        settings = {"steps": self.steps, "guidance_scale": self.guidance_scale, "subject_scale": None}
        return {
            "weights_sha256": {name: fingerprint(part) for name, part in parts.items()},
            "scheduler": {"class": type(pipe.scheduler).__name__, **scheduler},
            "settings": {**settings, "dtype": self.dtype},
        }

    def personalise(self, reference_image: Image.Image, query: dict, class_name: str) -> Personalised:
        """Nothing is taken from the reference."""
        return Personalised(None, reference_image, class_name)

    def generate(self, subject: Personalised, template: str, seeds: list[int]) -> list[Image.Image]:
        prompt = template.replace("{}", subject.class_name)
        subjects = [] if subject.subject is None else [subject.subject]
        settings = {"num_inference_steps": self.steps, "guidance_scale": self.guidance_scale}
        if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
            return self.encoder.generate(prompt, subjects, num_images=len(seeds), seed=seeds[0], **settings)
        return [self.encoder.generate(prompt, subjects, seed=seed, **settings)[0] for seed in seeds]


class SSR(Text):
    """SSR-Encoder."""

    name = "ssr"

    def describe(self) -> dict:
        """As the base's, with the encoder's weights."""
        base = super().describe()
        encoder = self.encoder
        parts = {"subject_model": encoder.model, "image_encoder": encoder.image_encoder}
        config = dataclasses.asdict(encoder.config)
        numbers = {k: v for k, v in config.items() if k not in ("base_model", "image_encoder")}  # which are paths
        return {
            **base,
            "fingerprint": encoder.fingerprint,
            "config": numbers,
            "weights_sha256": base["weights_sha256"] | {name: fingerprint(part) for name, part in parts.items()},
            "settings": {**base["settings"], "subject_scale": self.subject_scale},
        }

    def personalise(self, reference_image: Image.Image, query: dict, class_name: str) -> Personalised:
        """The subject that the query picks out of the reference."""
        subject = self.encoder.encode(reference_image, **query).with_(scale=self.subject_scale)
        return Personalised(subject, reference_image, class_name)


def load_method(name: str, **options) -> Method:
    """A method by its name in METHODS or as "module:Class".

    Args:
        options: model, base, steps, guidance_scale, subject_scale, device, dtype (a name).

    Raises:
        SSRError: there is none, or what there is lacks a part of the protocol; also what the method raises.
    """
    place = METHODS.get(name, name)
    module_name, colon, class_name = place.partition(":")
    if not colon or not module_name or not class_name:
        raise SSRError(f"no method {name[:80]!r}; give one of {', '.join(METHODS)}, or your own as module:Class")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where `ssr` runs, a script's own folder is not
    try:
        made = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise SSRError(f"method {name[:80]} cannot be imported ({error}); check the name and PYTHONPATH") from None
    except AttributeError:
        raise SSRError(f"module {module_name} has no class {class_name}; check the name") from None
    missing = [part for part in _NEEDED if not hasattr(made, part)]
    if missing:
        raise SSRError(f"method {name[:80]} has no {missing[0]}; see ssr_encoder.bench.methods.Method")
    return made(**options)
