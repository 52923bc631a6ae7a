"""The frozen parts of a base model behind three calls: texts, references and targets to features.

Stable Diffusion 1.5 and what is made from it, SDXL (two text encoders, their penultimate hidden states side by side,
2048 wide, for prompts and queries alike; SDXL report, section 2.1), and the embedded model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModel

from ..aligner import SubjectConfig
from ..attention import install, subject_layers
from ..checkpoint import load_model
from ..errors import SSRError, first_line
from ..loading import load_part, load_single_file, resolve
from ..model import SubjectModel
from .config import BaseConfig
from .data import Views


class Base:
    """Frozen UNet (with the subject slot installed), noise schedule and, unless only cached features are read, the
    encoders.

    Attributes:
        unet, vae, image_encoder: in eval mode, without gradients. The VAE is always float32: SDXL's overflows.
        texts: (tokenizer, text encoder) pairs: one, or SDXL's two.
        alphas: (T,) alphas_cumprod of the schedule.
        velocity: whether the UNet predicts v; otherwise the noise.
        zero_text: whether a dropped prompt is zeros (SDXL's pipelines do so), not the empty text's embedding.
        config: of the subject encoder that belongs to this base.
    """

    def __init__(self, unet, vae, texts, image_encoder, scheduler, config: SubjectConfig, sdxl=False, zero_text=False):
        self.unet, self.vae, self.texts, self.image_encoder = unet, vae, texts, image_encoder
        self.config, self.sdxl, self.zero_text = config, sdxl, zero_text
        self.scheduler = DDPMScheduler.from_config(scheduler.config)
        self.alphas = self.scheduler.alphas_cumprod.float()
        kind = self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise SSRError(
                f"base.model predicts {kind!r}; bases that predict epsilon or v_prediction can be trained on"
            )
        self.velocity = kind == "v_prediction"
        for module in self.modules():
            module.eval().requires_grad_(False)
        self.vae.float()
        self.views = Views(image_encoder.config.image_size, config.image_mean, config.image_std)
        self.scaling = (getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor)
        install(unet, config.layers)

    def modules(self) -> list[nn.Module]:
        return [self.unet, *self.encoders()]

    def encoders(self) -> list[nn.Module]:
        return [m for m in (self.vae, self.image_encoder, *(encoder for _, encoder in self.texts)) if m is not None]

    def drop_encoders(self) -> None:
        """Free the encoders: what they make is cached."""
        self.vae = self.image_encoder = None
        self.texts = []

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def to(self, device: torch.device) -> Base:
        for module in self.modules():
            module.to(device)
        self.alphas = self.alphas.to(device)
        return self

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Texts to (n, L, query_dim) and, on SDXL, the pooled embedding (n, pooled)."""
        found, pooled = [], None
        for tokenizer, encoder in self.texts:
            length = tokenizer.model_max_length
            ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            output = encoder(ids.input_ids.to(encoder.device), output_hidden_states=self.sdxl)
            found.append(output.hidden_states[-2] if self.sdxl else output.last_hidden_state)
            pooled = output.text_embeds if self.sdxl and hasattr(output, "text_embeds") else pooled
        return torch.cat(found, -1), pooled

    @torch.no_grad()
    def encode_references(self, reference: Tensor) -> Tensor:
        """Normalised pictures (n, 3, v, v) to the K hidden states (n, K, P, image_dim)."""
        hidden = self.image_encoder(reference.to(self.image_encoder.dtype), output_hidden_states=True).hidden_states
        return torch.stack([hidden[i] for i in self.config.hidden_layers], 1)

    @torch.no_grad()
    def encode_targets(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, 3, size, size) in [-1, 1] to mean and standard deviation of the posterior, before scaling."""
        posterior = self.vae.encode(target.float()).latent_dist
        return posterior.mean, posterior.std

    def scale(self, latents: Tensor) -> Tensor:
        """Latents of the VAE as the UNet takes them."""
        shift, factor = self.scaling
        return (latents - shift) * factor

    def encoders_fingerprint(self) -> str:
        """16 hexadecimal digits of the encoders' sizes and of a part of every weight: what cached features are of."""
        digest = hashlib.sha256()
        for module in self.encoders():
            for name, value in module.state_dict().items():
                head = value.flatten()[:64].detach().cpu()
                digest.update(f"{name} {tuple(value.shape)} {head.tolist()}".encode())
        return digest.hexdigest()[:16]


def load_base(config: BaseConfig) -> Base:
    """The base that a config names.

    Raises:
        SSRError: nothing there, parts missing, or a kind that cannot be trained on.
    """
    dtype = getattr(torch, config.dtype)
    where = str(resolve("mini")) if config.model == "mini" else config.model
    single = where.endswith((".safetensors", ".ckpt"))
    index = {} if single else _index(where)
    sdxl = config.kind == "sdxl" or config.kind == "auto" and "XL" in index.get("_class_name", "")
    if single:
        pipe = _single_sdxl(where, dtype) if sdxl else load_single_file(where, dtype)
        unet, vae, scheduler = pipe.unet, pipe.vae, pipe.scheduler
        texts = [(pipe.tokenizer, pipe.text_encoder)]
        texts += [(pipe.tokenizer_2, pipe.text_encoder_2)] if sdxl else []
    else:
        unet = load_part(UNet2DConditionModel, where, "unet", dtype)
        vae = load_part(AutoencoderKL, where, "vae", torch.float32)
        scheduler = load_part(DDPMScheduler, where, "scheduler")
        texts = [
            (load_part(CLIPTokenizer, where, f"tokenizer{n}"), load_part(kind, where, f"text_encoder{n}", dtype))
            for n, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection))[: 2 if sdxl else 1]
        ]
    vision = config.image_encoder or f"{where}/image_encoder"
    image_encoder = load_part(CLIPVisionModel, vision, None, dtype)
    subject = _subject_config(config, where, vision, unet, image_encoder)
    zero = sdxl and bool(index.get("force_zeros_for_empty_prompt", True))
    return Base(unet, vae, texts, image_encoder, scheduler, subject, sdxl, zero)


def make_model(config: BaseConfig, base: Base, seed: int) -> SubjectModel:
    """The part that is trained: random weights, or those of ``base.init`` (whose sizes the base then has)."""
    if config.init:
        model = load_model(resolve(config.init))
        model.config = base.config
        return model.float().train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SubjectModel(base.config).train()


def _subject_config(config: BaseConfig, where: str, vision: str, unet, image_encoder) -> SubjectConfig:
    places = {"base_model": _full(where), "image_encoder": _full(vision)}
    if config.init:
        values = {**load_model(resolve(config.init)).config.to_dict(), **places}
    else:
        values = {
            "query_dim": unet.config.cross_attention_dim,
            "image_dim": image_encoder.config.hidden_size,
            "heads": config.heads,
            "head_dim": config.head_dim,
            "hidden_layers": list(config.hidden_layers),
            "layers": subject_layers(unet),
            **places,
        }
        if config.model == "mini":  # its vision encoder was trained on pictures in [-1, 1]
            values |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "subject_scale": 1.0, "guidance_scale": 3.0}
    made = SubjectConfig.from_dict(values)
    if made.query_dim != unet.config.cross_attention_dim:
        raise SSRError(f"base.init has queries {made.query_dim} wide, base.model {unet.config.cross_attention_dim}")
    if made.image_dim != image_encoder.config.hidden_size:
        raise SSRError(
            f"base.image_encoder is {image_encoder.config.hidden_size} wide, base.init needs {made.image_dim}"
        )
    if max(made.hidden_layers) > image_encoder.config.num_hidden_layers:
        raise SSRError(
            f"base.hidden_layers asks for layer {max(made.hidden_layers)}; the image encoder has "
            f"{image_encoder.config.num_hidden_layers}"
        )
    return made


def _index(where: str) -> dict:
    try:
        return DiffusionPipeline.load_config(where)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise SSRError(f"base.model {where} is no pipeline ({reason}); give a folder, hub id or single file") from None


def _single_sdxl(path: str, dtype: torch.dtype):
    if not Path(path).is_file():
        raise SSRError(f"base checkpoint {path} does not exist; check the path")
    try:
        return StableDiffusionXLPipeline.from_single_file(path, dtype=dtype)
    except Exception as error:  # diffusers lets through what the file, the hub and the parts raise
        reason = first_line(error)
        raise SSRError(f"base checkpoint {path} cannot be loaded ({reason}); give an SDXL file") from None


def _full(where: str) -> str:
    """A local folder by its full path, so that the encoder can be saved elsewhere."""
    return str(Path(where).resolve()) if Path(where).exists() else where
