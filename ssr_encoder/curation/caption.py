"""Recaptioning: captions that describe the picture, in place of what stood beside it on the web.

The paper recaptions with BLIP-2 (supplement, section H). Anything that turns pictures into texts will do: a
:class:`Captioner`. The embedded world has a small one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import SSRError, first_line
from .pictures import BadPicture, decode
from .shards import Sample
from .steps import Outcome

if TYPE_CHECKING:
    from PIL.Image import Image

MINI = "mini"
BLIP2 = "Salesforce/blip2-opt-2.7b"


class Captioner(Protocol):
    """Pictures (RGB, any sizes) to texts, one each, in order; an empty text where it has nothing to say."""

    def __call__(self, images: list[Image]) -> list[str]: ...


class BLIP2Captioner:
    """BLIP-2 of transformers, any language model behind it.

    Args:
        model: a folder or a hub id.
        device, dtype: "cpu", "cuda", ...; "float32", "bfloat16", "float16". None: a GPU in float16 if there is one.
        prompt: what the caption begins with ("a photo of"); BLIP-2 was trained without.
        max_new_tokens: length of a caption.

    Raises:
        SSRError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str = BLIP2,
        device: str | None = None,
        dtype: str | None = None,
        prompt: str | None = None,
        max_new_tokens: int = 40,
    ):
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        self.device, self.dtype = _place(device, dtype)
        self.prompt, self.max_new_tokens = prompt, max_new_tokens
        try:
            self.processor = Blip2Processor.from_pretrained(model)
            self.model = Blip2ForConditionalGeneration.from_pretrained(model, dtype=self.dtype)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            reason = first_line(error)
            raise SSRError(f"captioner {model} cannot be loaded ({reason}); give a BLIP-2 folder or hub id") from None
        self.model.to(self.device).eval()
        self._inference = torch.inference_mode

    def __call__(self, images: list[Image]) -> list[str]:
        text = [self.prompt] * len(images) if self.prompt else None
        inputs = self.processor(images=images, text=text, return_tensors="pt").to(self.device, self.dtype)
        with self._inference():
            ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.max_new_tokens)
        return [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]


class SmallCaptioner:
    """The captioner of the embedded world, for pictures of it; see ``mini/weights/README.md`` for what it can.

    Args:
        weights: a folder with captioner/, image_encoder/ and tokenizer/; None: the shipped one.
    """

    def __init__(self, weights=None, device: str | None = None, dtype: str | None = None):
        from pathlib import Path

        from transformers import CLIPTokenizer, CLIPVisionModel, GPT2LMHeadModel

        from ..loading import load_part
        from ..mini.models import weights_dir

        folder = str(Path(weights) if weights else weights_dir())
        self.device, self.dtype = _place(device, dtype or "float32")
        self.tokenizer = load_part(CLIPTokenizer, folder, "tokenizer")
        self.image_encoder = load_part(CLIPVisionModel, folder, "image_encoder", self.dtype).to(self.device).eval()
        self.captioner = load_part(GPT2LMHeadModel, folder, "captioner", self.dtype).to(self.device).eval()

    def __call__(self, images: list[Image]) -> list[str]:
        import torch

        from ..images import to_pixels
        from ..mini.captioner import look, write

        size = self.image_encoder.config.image_size
        half = [0.5, 0.5, 0.5]
        pixels = torch.cat([to_pixels(image, size, half, half) for image in images]).to(self.device, self.dtype)
        with torch.inference_mode():
            return write(self.captioner, self.tokenizer, look(self.image_encoder, pixels))


class CaptionStep:
    """Writes new captions; the old one stays in ``original_caption`` of the meta, whatever is run how often.

    Args:
        model: "mini", or a BLIP-2 folder or hub id.
        device, dtype: as of :class:`BLIP2Captioner`.
        captioner: another way to make the captioner, called once a worker; ``model`` is then its name for reports.
    """

    name = "caption"

    def __init__(self, model: str = BLIP2, device=None, dtype=None, prompt: str | None = None, captioner=None):
        if prompt and model == MINI:
            raise SSRError('the captioner "mini" takes no prompt; leave it out')
        self.model, self.device, self.dtype, self.prompt = str(model), device, dtype, prompt
        self.make = captioner
        self.captioner: Captioner | None = None

    def parameters(self) -> dict:
        return {"model": self.model, "prompt": self.prompt, "dtype": self.dtype}

    def setup(self) -> None:
        if self.make:
            self.captioner = self.make()
        elif self.model == MINI:
            self.captioner = SmallCaptioner(device=self.device, dtype=self.dtype)
        else:
            self.captioner = BLIP2Captioner(self.model, self.device, self.dtype, self.prompt)

    def __call__(self, samples: list[Sample]) -> Outcome:
        outcome, images, seen = Outcome([], []), [], []
        for sample in samples:
            try:
                images.append(decode(sample.image))
                seen.append(sample)
            except BadPicture as reason:
                outcome.dropped.append((sample.key, str(reason)))
        for sample, text in zip(seen, self.captioner(images) if images else [], strict=True):
            if not text:
                outcome.dropped.append((sample.key, "no caption"))
                continue
            sample.meta.setdefault("original_caption", sample.caption)
            sample.meta["captioner"] = self.model
            sample.caption = text
            outcome.samples.append(sample)
        return outcome

    def __getstate__(self) -> dict:
        return {**vars(self), "captioner": None}  # each worker loads its own


def _place(device: str | None, dtype: str | None):
    import torch

    from ..loading import best_device

    device = torch.device(device) if device else best_device()
    dtype = getattr(torch, dtype) if dtype else torch.float16 if device.type == "cuda" else torch.float32
    return device, dtype
