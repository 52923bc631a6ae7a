"""The image encoders that are compared, behind one small interface: pictures in, patch features of any layer out.

``P`` is the number of patches; class tokens are left out of the features, as a decoder of pictures has no place for
them. Layers are counted from 1, the output of the first one, to ``depth``.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..aligner import SubjectConfig
from ..bench.backbones import short
from ..errors import SSRError, first_line
from ..extras import need
from ..loading import load_part
from .config import StudyConfig

OPEN_CLIP, DINOV2 = "ViT-L-14/laion2b_s32b_b82k", "facebook/dinov2-large"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # DINOv2's


class StudyEncoder(nn.Module):
    """A backbone.

    Attributes:
        name: for reports.
        size: pixels a side of its pictures.
        grid: patches a side.
        width, depth: of a token, and the number of layers.
        last_layer: the module that setting C trains.
        reads_text: whether :meth:`text_embeds` and ``logit_scale`` are there.
    """

    reads_text = False

    def __init__(self, name: str, size: int, patch: int, width: int, depth: int, mean, std):
        super().__init__()
        if size % patch:
            raise SSRError(f"{name} has patches of {patch} pixels, which do not divide pictures of {size}")
        self.name, self.size, self.grid, self.width, self.depth = name, size, size // patch, width, depth
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def last_layer(self) -> nn.Module:
        raise NotImplementedError

    def features(self, pictures: Tensor, layers: list[int]) -> tuple[list[Tensor], Tensor | None]:
        """Features and, of encoders that read text, embeddings.

        Args:
            pictures: (B, 3, size, size) in [0, 1].
            layers: from 1 to depth.

        Returns:
            one (B, P, width) a layer, in their order, and (B, D) of unit length or None.
        """
        wrong = [layer for layer in layers if not 1 <= layer <= self.depth]
        if wrong:
            raise SSRError(f"{self.name} has layers 1 to {self.depth}, not {wrong[0]}; change hidden_layers")
        return self._features((pictures - self.mean) / self.std, layers)

    def _features(self, pixels: Tensor, layers: list[int]) -> tuple[list[Tensor], Tensor | None]:
        raise NotImplementedError

    def text_embeds(self, texts: list[str]) -> Tensor:
        """(n, D) of unit length."""
        raise NotImplementedError


class TransformersCLIP(StudyEncoder):
    """Setting A, C, D of the embedded scale: transformers' CLIP towers with their projections.

    Args:
        vision, text: CLIPVisionModel and CLIPTextModel.
        visual_projection, text_projection: (D, width) each.
        logit_scale: the logarithm of it, a scalar.
    """

    reads_text = True

    def __init__(self, name, vision, text, tokenizer, visual_projection, text_projection, logit_scale, mean, std):
        config = vision.config
        super().__init__(
            name, config.image_size, config.patch_size, config.hidden_size, config.num_hidden_layers, mean, std
        )
        self.vision, self.text, self.tokenizer = vision, text, tokenizer
        self.visual_projection = nn.Parameter(visual_projection)
        self.text_projection = nn.Parameter(text_projection)
        self.logit_scale = nn.Parameter(logit_scale)

    @property
    def last_layer(self) -> nn.Module:
        return self.vision.encoder.layers[-1]

    def _features(self, pixels, layers):
        seen = self.vision(pixels, output_hidden_states=True)
        embeds = F.normalize(F.linear(seen.pooler_output, self.visual_projection), dim=-1)
        return [seen.hidden_states[layer][:, 1:] for layer in layers], embeds

    def text_embeds(self, texts):
        from ..mini.models import tokenize

        ids = tokenize(self.tokenizer, texts).to(self.mean.device)
        return F.normalize(F.linear(self.text(ids).pooler_output, self.text_projection), dim=-1)


class OpenCLIP(StudyEncoder):
    """Setting A, C, D at full scale: an open_clip model with a ViT.

    Args:
        model: ``open_clip.create_model(...)``.
        tokenizer: ``open_clip.get_tokenizer(...)``.
    """

    reads_text = True

    def __init__(self, name: str, model, tokenizer):
        visual = model.visual
        width, depth = visual.conv1.out_channels, len(visual.transformer.resblocks)
        config = SubjectConfig()  # OpenAI's mean and std, where the model does not say its own
        seen = {"mean": config.image_mean, "std": config.image_std} | getattr(visual, "preprocess_cfg", {})
        super().__init__(name, visual.image_size[0], visual.patch_size[0], width, depth, seen["mean"], seen["std"])
        self.model, self.tokenizer = model, tokenizer

    @property
    def last_layer(self) -> nn.Module:
        return self.model.visual.transformer.resblocks[-1]

    @property
    def logit_scale(self) -> Tensor:
        return self.model.logit_scale

    def _features(self, pixels, layers):
        seen = self.model.visual.forward_intermediates(
            pixels, indices=sorted({layer - 1 for layer in layers}), output_fmt="NLC"
        )
        found = dict(zip(sorted(set(layers)), seen["image_intermediates"], strict=True))
        return [found[layer] for layer in layers], F.normalize(seen["image_features"], dim=-1)

    def text_embeds(self, texts):
        return self.model.encode_text(self.tokenizer(texts).to(self.mean.device), normalize=True)


class DINO(StudyEncoder):
    """Setting B: transformers' Dinov2Model, at any size that its patches divide."""

    def __init__(self, name: str, model, size: int, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        config = model.config
        super().__init__(name, size, config.patch_size, config.hidden_size, config.num_hidden_layers, mean, std)
        self.model = model

    @property
    def last_layer(self) -> nn.Module:
        return self.model.encoder.layer[-1]

    def _features(self, pixels, layers):
        seen = self.model(pixels, output_hidden_states=True)
        return [seen.hidden_states[layer][:, 1:] for layer in layers], None


def load_encoder(config: StudyConfig, kind: str) -> StudyEncoder:
    """The study's "clip" or "dino", float32, in eval mode, without gradients.

    Raises:
        SSRError: it is not there or cannot be fetched; the line says what makes it.
    """
    found = _load_mini(config, kind) if config.scale == "mini" else _load_paper(config, kind)
    return found.float().eval().requires_grad_(False)


def scales(config: StudyConfig, depth: int) -> list[int]:
    """The layers of setting D: the config's, or those of the subject encoder of this scale."""
    if config.hidden_layers:
        return config.hidden_layers
    if config.scale == "paper":
        return SubjectConfig().hidden_layers
    from ..checkpoint import load_model

    layers = load_model(_mini_folder(config)).config.hidden_layers
    return [layer for layer in layers if layer <= depth]


def _mini_folder(config: StudyConfig) -> Path:
    from ..mini.models import weights_dir

    return Path(config.clip) if config.clip else weights_dir()


def _load_mini(config: StudyConfig, kind: str) -> StudyEncoder:
    from transformers import Dinov2Model

    from ..curation.congruence import MiniCLIP

    folder, half = _mini_folder(config), (0.5, 0.5, 0.5)
    if kind == "dino":
        where = Path(config.dino) if config.dino else folder / "dino"
        if not (where / "config.json").is_file():
            raise SSRError(
                f"setting B needs a DINO in {where}; make one with `python -m ssr_encoder.mini.train dino "
                "--time-limit 5m --out DIR` and give dino=DIR/dino"
            )
        model = load_part(Dinov2Model, str(where), None, torch.float32)
        return DINO("DINO of the embedded world", model, model.config.image_size, half, half)
    heads = folder / "clip_heads.safetensors"
    if not heads.is_file():
        raise SSRError(f"{folder} has no clip_heads.safetensors; give clip= a folder of the embedded model's weights")
    clip = MiniCLIP("cpu", folder)
    return TransformersCLIP(
        "CLIP of the embedded world",
        clip.image_encoder,
        clip.text_encoder,
        clip.tokenizer,
        clip.visual_projection,
        clip.text_projection,
        clip.logit_scale,
        half,
        half,
    )


def _load_paper(config: StudyConfig, kind: str) -> StudyEncoder:
    if kind == "dino":
        from transformers import Dinov2Model

        where = config.dino or DINOV2
        return DINO(f"DINOv2 {short(where)}", load_part(Dinov2Model, where, None, torch.float32), 224)
    open_clip = need("open_clip", "bench")
    where = config.clip or OPEN_CLIP
    name, _, pretrained = where.partition("/")
    try:
        model = open_clip.create_model(name, pretrained=pretrained)
        return OpenCLIP(f"OpenCLIP {name}/{Path(pretrained).name}", model, open_clip.get_tokenizer(name))
    except Exception as error:  # the hub client and open_clip raise many kinds
        reason = first_line(error)
        raise SSRError(f"cannot load {where} through open_clip ({reason}); check clip=NAME/PRETRAINED") from None
