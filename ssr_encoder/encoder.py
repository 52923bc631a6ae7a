"""``SSREncoder``: a reference picture and a query in, a :class:`Subject` out, and the way into any stock pipeline."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from . import attention
from .aligner import SubjectConfig
from .checkpoint import load_model, save_model
from .conditioning import conditioning
from .errors import SSRError
from .images import Frame, open_picture, to_pixels
from .loading import beside, best_device, load_part, load_single_file, resolve
from .model import SubjectModel
from .pipeline import generate
from .selection import patch_weights, region_query, small_size
from .subject import Subject


class SSREncoder:
    """Encodes one subject of a picture, and generates it anywhere (SSR-Encoder, CVPR 2024).

    Args:
        model: the trained parts.
        text_encoder, tokenizer: the base model's, for queries.
        image_encoder: the CLIP vision model whose hidden states ``model.config.hidden_layers`` names.
        base: where the base pipeline is (folder or hub id), loaded when first needed.
    """

    generate = generate
    conditioning = conditioning

    def __init__(self, model: SubjectModel, text_encoder, tokenizer, image_encoder, base: str | None = None):
        self.model = model.eval().requires_grad_(False)
        self.text_encoder, self.tokenizer = text_encoder.eval(), tokenizer
        self.image_encoder = image_encoder.eval()
        self.base = base
        self.fingerprint = model.fingerprint()
        self._pipe = None
        self._unconditional: Tensor | None = None
        self._check_encoders()

    @property
    def config(self) -> SubjectConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike = "mini",
        *,
        base: str | os.PathLike | DiffusionPipeline | None = None,
        image_encoder: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
    ) -> SSREncoder:
        """Load an encoder.

        Args:
            name: "mini" (ships with the package), a folder written by :meth:`save_pretrained`, a folder with the
                two released files, or a hub id.
            base: the base pipeline: a folder, a hub id, a single-file checkpoint, or a loaded pipeline.
                Default: what the encoder's config names.
            image_encoder: folder or hub id of the CLIP vision model. Default: the config's.
            device: default: CUDA, else MPS, else CPU, whichever is there.
            revision: of the hub repository.

        Raises:
            SSRError: nothing there, damaged, or parts that do not belong together.
        """
        folder = resolve(name, revision)
        model = load_model(folder)
        # Parts beside the weights go by their full path from here on: the config may be saved elsewhere.
        full = {name: beside(folder, getattr(model.config, name)) for name in ("base_model", "image_encoder")}
        model.config = dataclasses.replace(model.config, **full)
        pipe = base if isinstance(base, DiffusionPipeline) else None
        where = None if pipe else str(base) if base else model.config.base_model
        if pipe is None and str(where).endswith((".safetensors", ".ckpt")):
            pipe = load_single_file(where, dtype)
        if pipe is not None:
            text_encoder, tokenizer = pipe.text_encoder, pipe.tokenizer
        else:
            text_encoder = load_part(CLIPTextModel, where, "text_encoder", dtype)
            tokenizer = load_part(CLIPTokenizer, where, "tokenizer")
        vision = str(image_encoder) if image_encoder else model.config.image_encoder
        encoder = cls(model, text_encoder, tokenizer, load_part(CLIPVisionModel, vision, None, dtype), base=where)
        encoder._pipe = pipe
        return encoder.to(device or best_device(), dtype)

    def save_pretrained(
        self, folder: str | os.PathLike, *, push_to_hub: bool = False, repo_id: str | None = None, **hub
    ) -> None:
        """Write ``config.json`` and ``model.safetensors``; with ``push_to_hub`` also upload them to ``repo_id``.

        Base model and vision encoder are named in the config, not copied: parts that lie beside this encoder's own
        weights are named by their full path.
        """
        save_model(self.model, folder)
        if push_to_hub:
            self.push_to_hub(repo_id or Path(folder).name, folder=folder, **hub)

    def push_to_hub(
        self, repo_id: str, *, folder: str | os.PathLike | None = None, private: bool = False, **hub
    ) -> str:
        """Upload the encoder to a hub repository (created if missing); returns the commit's address.

        Raises:
            SSRError: base model or image encoder are folders of this machine, where nobody else would find them.
        """
        import tempfile

        from huggingface_hub import HfApi

        for name in ("base_model", "image_encoder"):
            if Path(where := getattr(self.config, name)).is_absolute():  # one with "." is beside the weights
                raise SSRError(f"{name} is {where}, a place on this machine; set ssr.config.{name} to a hub id first")
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            if folder is None:
                folder = temporary
                save_model(self.model, folder)
            return api.upload_folder(
                repo_id=repo_id, folder_path=folder, allow_patterns=["config.json", "*.safetensors", "*.md"], **hub
            )

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> SSREncoder:
        """Move everything, the pipeline included."""
        for module in (self.model, self.text_encoder, self.image_encoder):
            module.to(device=device, dtype=dtype)
        if self._pipe is not None:
            self._pipe.to(device, dtype)
        self._unconditional = None
        return self

    # -- encoding
    def encode(
        self,
        reference_image,
        query: str | None = None,
        *,
        mask=None,
        box: Iterable[float] | None = None,
        point: Iterable[float] | None = None,
    ) -> Subject:
        """Encode one subject of a picture.

        Args:
            reference_image: path, PIL image, array or tensor of any aspect ratio (see :func:`images.open_picture`).
            query: what to take, in words ("cat", "the red cup"). Alone, or with one of the next three.
            mask: white on the subject, of the picture's size.
            box: x0, y0, x1, y1 in pixels of the picture.
            point: x, y in pixels of the picture, on the subject: a disc of ``config.point_radius`` around it is read.

        Returns:
            the subject; patches outside a mask, box or point's disc have no influence on its tokens through the
            aligner (the vision encoder itself has seen the whole picture).

        Raises:
            SSRError: bad picture, no query at all, more than one region, an empty mask, a box or point outside.
        """
        picture = open_picture(reference_image)
        given = [n for n, v in (("mask", mask), ("box", box), ("point", point)) if v is not None]
        if len(given) > 1:
            raise SSRError(f"{' and '.join(given)} were given; give one of them, with or without a text query")
        text = self._check_query(query, bool(given))
        region = region_query(picture.size, mask, box, point, self.config.point_radius)
        with torch.no_grad():
            tokens, weights = self._tokens(picture, text, region)
        unconditional = self.unconditional_tokens().float().cpu()
        return Subject(
            tokens.float().cpu(), unconditional, weights.float().cpu(), picture.size, query or "", self.fingerprint
        )

    @torch.no_grad()
    def unconditional_tokens(self) -> Tensor:
        """Subject tokens (K*L, D) of the empty query on an all-zero picture, the negative branch of guidance."""
        if self._unconditional is None:
            size = self.image_encoder.config.image_size
            pixels = torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype)
            self._unconditional = self.model.aligner(self._query_embeds(""), self._hidden_states(pixels))[0][0]
        return self._unconditional

    def _tokens(self, picture, text: str, region: Tensor | None) -> tuple[Tensor, Tensor]:
        config, frame = self.config, Frame(*picture.size)
        pixels = to_pixels(picture, self.image_encoder.config.image_size, config.image_mean, config.image_std)
        hidden = self._hidden_states(pixels.to(self.device, self.dtype))
        grid = int((hidden[0].shape[1] - 1) ** 0.5)
        weights = None
        if region is not None:
            weights = patch_weights(frame.pad(region)[None], grid)
        elif frame.width != frame.height:  # the padding is not part of the picture; the class token stays
            weights = patch_weights(frame.pad(torch.ones(small_size(frame)))[None], grid)
            weights[:, 0] = 1
        if weights is not None:
            weights = weights.to(self.device)
        embeds = self._query_embeds(text)
        tokens, _, seen = self.model.aligner(embeds, hidden, weights)
        seen = seen[0].float().mean(0)[self._words(text)].mean(0)[1:]
        return tokens[0], seen.unflatten(0, (grid, grid))

    def _check_query(self, query: str | None, has_region: bool) -> str:
        if query is not None and not isinstance(query, str):
            raise SSRError(f'the query is a {type(query).__name__}; give words, e.g. "cat"')
        if query is None or not query.strip():
            if not has_region:
                raise SSRError('the query is empty; name the subject (e.g. "cat"), or give a mask, box or point')
            return self.config.region_query
        tokens = self.tokenizer(query, truncation=False, verbose=False).input_ids
        if len(tokens) > self.tokenizer.model_max_length:
            raise SSRError(
                f"the query has {len(query.split())} words, {len(tokens)} tokens; this model reads "
                f"{self.tokenizer.model_max_length}: name the subject in a word or two"
            )
        return query

    def _query_embeds(self, text: str) -> Tensor:
        ids = self.tokenizer(
            text, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        embeds = self.text_encoder(ids.to(self.text_encoder.device)).last_hidden_state
        return embeds.to(self.device, self.dtype)

    def _words(self, text: str) -> slice:
        """Positions of the query's own tokens; of all, if it has none."""
        count = len(self.tokenizer(text, truncation=True, max_length=self.tokenizer.model_max_length).input_ids) - 2
        return slice(1, 1 + count) if count > 0 else slice(None)

    def _hidden_states(self, pixels: Tensor) -> list[Tensor]:
        hidden = self.image_encoder(pixels, output_hidden_states=True).hidden_states
        return [hidden[i].to(self.dtype) for i in self.config.hidden_layers]

    def _check_encoders(self) -> None:
        config = self.config
        for what, found, expected in (
            ("text encoder", self.text_encoder.config.hidden_size, config.query_dim),
            ("image encoder", self.image_encoder.config.hidden_size, config.image_dim),
        ):
            if found != expected:
                raise SSRError(
                    f"the {what} is {found} wide, this subject encoder was trained with {expected}; give its own"
                )
        if max(config.hidden_layers) > self.image_encoder.config.num_hidden_layers:
            raise SSRError("the image encoder has too few layers for this subject encoder; give its own")

    # -- into pipelines
    @property
    def pipe(self):
        """The base text-to-image pipeline with the encoder installed, loaded at first use."""
        if self._pipe is None:
            if self.base is None:
                raise SSRError("this encoder has no base model; pass pipe=, or base= to from_pretrained")
            pipe = load_part(
                StableDiffusionPipeline,
                self.base,
                None,
                self.dtype,
                safety_checker=None,
                requires_safety_checker=False,
                text_encoder=self.text_encoder,
                tokenizer=self.tokenizer,
            )
            self._pipe = pipe.to(self.device)
        if not attention.is_installed(self._pipe.unet):
            self.install(self._pipe)
        return self._pipe

    def install(self, pipe):
        """Install subject cross-attention into a stock pipeline (or a UNet) and return it.

        Prompts go on working as before; give subjects with ``pipe(..., **encoder.conditioning([subject]))`` or
        through :meth:`generate`. Install last: after loading LoRA or building ControlNets is fine, IP-Adapters must go.
        """
        attention.install(getattr(pipe, "unet", pipe), self.config.layers)
        return pipe

    def remove(self, pipe):
        """Undo :meth:`install` exactly and return the pipeline."""
        attention.remove(getattr(pipe, "unet", pipe))
        return pipe
