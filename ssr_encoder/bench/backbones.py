"""The networks behind the metrics: pictures and texts to vectors, by name.

Pictures go through a network one at a time. In a batch the last digits of a vector depend on how many others sit
beside it, and two processes would not give the numbers of one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..errors import SSRError
from ..extras import need
from ..loading import fingerprint
from .remembered import Remembered, digest

KEPT = {"features": 4096, "text": 4096, "patches": 64}  # remembered: references and prompts come again and again
MINI = "mini"


class Backbone:
    """A frozen network in float32; what it gives is on the CPU.

    Attributes:
        name: what it was asked for by, without a folder's path.
        fill: RGB in [0, 255] of the preprocessing's mean, which the network takes for nothing.
    """

    packages = ("torch", "transformers")

    def __init__(self, name: str, model: nn.Module, device: str | torch.device, mean, preprocessing: str):
        self.name, self.device, self.preprocessing = name, torch.device(device), preprocessing
        self.model = model.float().to(self.device).eval().requires_grad_(False)
        self.fill = tuple(round(255 * m) for m in mean)
        self._kept = {kind: Remembered(most) for kind, most in KEPT.items()}
        self._weights = ""

    def describe(self) -> dict:
        """Name, sha256 of the weights, preprocessing and library versions; JSON."""
        if not self._weights:
            self._weights = fingerprint(self.model)
        versions = {package: version(package) for package in self.packages}
        about = {"backbone": self.name, "weights_sha256": self._weights, "preprocessing": self.preprocessing}
        return about | {"versions": versions}

    def features(self, picture: Image.Image) -> Tensor:
        """The picture's vector (D,) as the network gives it."""
        return self._once("features", digest(picture), lambda: self._features(picture)[0])

    def image(self, picture: Image.Image) -> Tensor:
        """The picture's vector (D,), of unit length."""
        return F.normalize(self.features(picture), dim=0)

    def patches(self, picture: Image.Image) -> Tensor:
        """Vectors (rows, columns, D) of unit length, one a patch of the picture as the network sees it."""
        return F.normalize(self._once("patches", digest(picture), lambda: self._patches(picture)), dim=-1)

    def text(self, text: str) -> Tensor:
        """The text's vector (D,), of unit length."""
        return F.normalize(self._once("text", text, lambda: self._text(text)[0]), dim=0)

    def _once(self, kind: str, key: str, make: Callable[[], Tensor]) -> Tensor:
        def made():
            with torch.inference_mode():
                return make().float().cpu()

        return self._kept[kind](key, made)

    def _features(self, picture: Image.Image) -> Tensor:
        raise NotImplementedError

    def _patches(self, picture: Image.Image) -> Tensor:
        raise SSRError(f"{self.name} gives no patches here; use a vision model of transformers")

    def _text(self, text: str) -> Tensor:
        raise SSRError(f"{self.name} reads no text; use a CLIP model")


class MiniBackbone(Backbone):
    """The embedded world's CLIP, 128 px; texts of more than 20 tokens are cut."""

    def __init__(self, device: str | torch.device = "cpu"):
        from ..curation.congruence import MiniCLIP

        clip = MiniCLIP(str(device))
        parts = nn.ModuleDict({"text_encoder": clip.text_encoder, "image_encoder": clip.image_encoder})
        for kind in ("text", "visual"):
            weight = getattr(clip, f"{kind}_projection")
            parts[kind] = nn.Linear(*weight.T.shape, bias=False)
            parts[kind].weight.data = weight
        self.size, self.tokenizer = clip.image_encoder.config.image_size, clip.tokenizer
        how = f"padded to a square, bicubic to {self.size} px, mean 0.5, std 0.5"
        super().__init__(MINI, parts, device, [0.5] * 3, how)

    def _seen(self, picture: Image.Image):
        from ..images import to_pixels

        return self.model["image_encoder"](to_pixels(picture, self.size, [0.5] * 3, [0.5] * 3).to(self.device))

    def _features(self, picture):
        return self.model["visual"](self._seen(picture).pooler_output)

    def _patches(self, picture):
        patches = self.model["image_encoder"].post_layernorm(self._seen(picture).last_hidden_state[0, 1:])
        side = round(len(patches) ** 0.5)
        return patches.unflatten(0, (side, side))

    def _text(self, text):
        from ..mini.models import tokenize

        return self.model["text"](self.model["text_encoder"](tokenize(self.tokenizer, [text]).to(self.device))[1])


class HubBackbone(Backbone):
    """A vision model of transformers (ViT, DINO, DINOv2): the class token after the last norm."""

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        from transformers import AutoConfig, AutoImageProcessor, AutoModel

        config = loaded(AutoConfig, name)
        extra = {"add_pooling_layer": False} if config.model_type == "vit" else {}  # DINO's weights have no pooler
        self.processor = loaded(AutoImageProcessor, name, backend="pil")
        model = loaded(AutoModel, name, dtype=torch.float32, **extra)
        super().__init__(short(name), model, device, self.processor.image_mean, told(self.processor))

    def _seen(self, picture: Image.Image):
        return self.model(self.processor(images=picture, return_tensors="pt").pixel_values.to(self.device))

    def _features(self, picture):
        return self._seen(picture).last_hidden_state[:, 0]

    def _patches(self, picture):
        pixels = self.processor(images=picture, return_tensors="pt").pixel_values
        rows, columns = (side // self.model.config.patch_size for side in pixels.shape[-2:])
        tokens = self._seen(picture).last_hidden_state[0]  # class, registers, patches
        return tokens[len(tokens) - rows * columns :].unflatten(0, (rows, columns))


class HubCLIPBackbone(Backbone):
    """A CLIP, SigLIP or SigLIP 2 (also NaFlex) of transformers: projected image and text vectors."""

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        self.processor = loaded(AutoImageProcessor, name, backend="pil")
        self.tokenizer = loaded(AutoTokenizer, name)
        model = loaded(AutoModel, name, dtype=torch.float32)
        self.length = getattr(model.config.text_config, "max_position_embeddings", 77)
        super().__init__(short(name), model, device, self.processor.image_mean, told(self.processor))

    def _inputs(self, picture: Image.Image) -> dict[str, Tensor]:
        return dict(self.processor(images=picture, return_tensors="pt").to(self.device))

    def _features(self, picture):
        return self.model.get_image_features(**self._inputs(picture)).pooler_output

    def _patches(self, picture):
        tokens, rows, columns = self._tokens(self._inputs(picture))
        return tokens[0, : rows * columns].unflatten(0, (rows, columns))

    def _tokens(self, inputs: dict[str, Tensor]) -> tuple[Tensor, int, int]:
        """The last layer's patches (1, N, D) after the last norm, of which rows * columns count."""
        if "spatial_shapes" in inputs:  # NaFlex: patches in a row, padded
            rows, columns = inputs["spatial_shapes"][0].tolist()
        else:
            patch = self.model.config.vision_config.patch_size
            rows, columns = (side // patch for side in inputs["pixel_values"].shape[-2:])
        tokens = self.model.vision_model(**inputs).last_hidden_state
        if self.model.config.model_type == "clip":
            tokens = self.model.vision_model.post_layernorm(tokens[:, 1:])
        return tokens, rows, columns

    @torch.inference_mode()
    def background(self, picture: Image.Image, subject: Tensor) -> Tensor:
        """The picture's vector (D,), of unit length, pooled from the patches outside ``subject`` (rows, columns).

        Raises:
            SSRError: the model does not pool by attention under a mask; only SigLIP 2 does.
        """
        if self.model.config.model_type != "siglip2":
            raise SSRError(f"{self.name} cannot pool a part of a picture; use a SigLIP 2 NaFlex")
        inputs = self._inputs(picture)
        tokens, rows, columns = self._tokens(inputs)
        keep = inputs["pixel_attention_mask"].clone()
        keep[0, : rows * columns][subject.flatten().to(self.device)] = 0
        return F.normalize(self.model.vision_model.head(tokens, keep)[0].float().cpu(), dim=0)

    def _text(self, text):
        how = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        ids = self.tokenizer([text], **how).input_ids  # without a mask: SigLIP has learned to read its padding
        return self.model.get_text_features(input_ids=ids.to(self.device)).pooler_output


class OpenCLIPBackbone(Backbone):
    """A model of open_clip by "architecture/weights", as ViT-L-14/openai; the weights may be a file's path."""

    packages = ("torch", "open_clip_torch")

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        open_clip = need("open_clip", "bench")
        architecture, _, weights = name.partition("/")
        try:
            model, _, self.transform = open_clip.create_model_and_transforms(architecture, pretrained=weights)
        except Exception as error:  # unknown weights, no network, a damaged file
            raise _cannot_load(name, error) from None
        self.tokenizer = open_clip.get_tokenizer(architecture)
        how = open_clip.get_model_preprocess_cfg(model)
        told = ", ".join(f"{key} {list(v) if isinstance(v, tuple) else v}" for key, v in sorted(how.items()))
        super().__init__(f"{architecture}/{Path(weights).name}", model, device, how["mean"], f"open_clip: {told}")

    def _features(self, picture):
        return self.model.encode_image(self.transform(picture.convert("RGB"))[None].to(self.device))

    def _text(self, text):
        return self.model.encode_text(self.tokenizer([text]).to(self.device))


def load_backbone(name: str, device: str | torch.device = "cpu") -> Backbone:
    """By name: "mini"; open_clip's "architecture/weights"; a folder or hub id of a transformers model.

    Raises:
        SSRError: it cannot be loaded.
    """
    if name == MINI:
        return MiniBackbone(device)
    if not Path(name).is_dir() and "/" in name and not name.startswith((".", "/")):
        architecture = name.partition("/")[0]
        if "-" in architecture and architecture in need("open_clip", "bench").list_models():
            return OpenCLIPBackbone(name, device)
    from transformers import AutoConfig

    texts = loaded(AutoConfig, name).model_type in ("clip", "siglip", "siglip2")
    return (HubCLIPBackbone if texts else HubBackbone)(name, device)


def loaded(kind, name: str, **extra):
    """``kind.from_pretrained(name)``; a failure is one line."""
    try:
        return kind.from_pretrained(name, **extra)
    except Exception as error:  # the hub client and the readers of the parts raise many kinds
        raise _cannot_load(name, error) from None


def told(processor) -> str:
    """What an image processor of transformers does, in words."""
    sizes = {"size": processor.size, "crop": processor.crop_size if getattr(processor, "do_center_crop", 0) else None}
    for key, size in sizes.items():
        sizes[key] = dict(size) if size else None
    parts = [f"resized to {sizes['size']}" if sizes["size"] else f"at most {_patches(processor)} patches"]
    parts.append(f"resample {Image.Resampling(processor.resample).name.lower()}")
    if sizes["crop"]:
        parts.append(f"centre crop {sizes['crop']}")
    parts.append(f"mean {list(processor.image_mean)}, std {list(processor.image_std)}")
    return f"{type(processor).__name__}: {', '.join(parts)}"


def _patches(processor) -> int | str:
    return getattr(processor, "max_num_patches", "all")


def short(name: str) -> str:
    """A folder's own name, without its path; a hub id as it is."""
    return Path(name).name if Path(name).is_dir() else name


def _cannot_load(name: str, error: Exception) -> SSRError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
    return SSRError(f"backbone {name} cannot be loaded ({reason}); give a folder, a hub id, or check the network")
