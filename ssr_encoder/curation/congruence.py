"""Whether a caption says what its picture shows: CLIP's cosine, from the embedded CLIP or any of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import SSRError, first_line

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

MINI = "mini"


class Congruence(Protocol):
    """RGB pictures and as many texts to one score each; larger is more congruent, and scores under ``least`` are not.

    Attributes:
        least: the score to ask for if the user names none.
    """

    least: float

    def __call__(self, images: list[Image], texts: list[str]) -> list[float]: ...


class MiniCLIP:
    """The embedded world's CLIP; texts of more than 20 tokens are cut."""

    least = 0.6  # of 300 scenes with their own captions 99 % are above, with a neighbour's caption 1 % (0.57 at most)

    def __init__(self, device: str | None = None, folder: Path | None = None):
        import torch
        from safetensors.torch import load_file
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

        from ..loading import best_device, load_part
        from ..mini.models import weights_dir

        folder = folder or weights_dir()
        self.device = torch.device(device) if device else best_device()
        self.tokenizer = load_part(CLIPTokenizer, str(folder), "tokenizer")
        self.text_encoder = load_part(CLIPTextModel, str(folder), "text_encoder", torch.float32).to(self.device).eval()
        image_encoder = load_part(CLIPVisionModel, str(folder), "image_encoder", torch.float32)
        self.image_encoder = image_encoder.to(self.device).eval()
        heads = load_file(folder / "clip_heads.safetensors", device=str(self.device))
        self.text_projection = heads["text_projection.weight"].float()
        self.visual_projection = heads["visual_projection.weight"].float()
        self.logit_scale = heads["logit_scale"].float()

    def __call__(self, images: list[Image], texts: list[str]) -> list[float]:
        import torch

        from ..images import to_pixels
        from ..mini.models import tokenize

        size, half = self.image_encoder.config.image_size, [0.5, 0.5, 0.5]
        pixels = torch.cat([to_pixels(image, size, half, half) for image in images]).to(self.device)
        with torch.inference_mode():
            seen = self.image_encoder(pixels).pooler_output @ self.visual_projection.T
            read = self.text_encoder(tokenize(self.tokenizer, texts).to(self.device)).pooler_output
            return torch.cosine_similarity(seen, read @ self.text_projection.T).tolist()


class HubCLIP:
    """A CLIPModel of transformers: a folder or a hub id, as openai/clip-vit-base-patch32."""

    least = 0.28  # below it LAION-5B dropped English pairs, by ViT-B/32 (Schuhmann et al. 2022, section 3.2)

    def __init__(self, model: str, device: str | None = None):
        import torch
        from transformers import CLIPModel, CLIPProcessor

        from ..loading import best_device

        self.device = torch.device(device) if device else best_device()
        try:
            self.processor = CLIPProcessor.from_pretrained(model)
            self.model = CLIPModel.from_pretrained(model, dtype=torch.float32).to(self.device).eval()
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            reason = first_line(error)
            raise SSRError(f"CLIP model {model} cannot be loaded ({reason}); give a folder or a hub id") from None

    def __call__(self, images: list[Image], texts: list[str]) -> list[float]:
        import torch

        inputs = self.processor(text=texts, images=images, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            answer = self.model(**inputs.to(self.device))
        return torch.cosine_similarity(answer.image_embeds, answer.text_embeds).tolist()


def load_congruence(model: str = MINI, device: str | None = None) -> Congruence:
    """By name: "mini", or a CLIPModel's folder or hub id."""
    return MiniCLIP(device) if model == MINI else HubCLIP(model, device)


def least_of(model: str) -> float:
    """The usual threshold of a model, without loading it."""
    return (MiniCLIP if model == MINI else HubCLIP).least
