"""Stages ``unet`` and ``ssr``: the base model with its subject branch, then the subject encoder alone.

``unet`` learns to draw from text and from subjects together: on this small world selection and identity then appear
within minutes, while a subject branch added to a finished but weak base learned neither (docs/log.md). ``ssr`` is
the paper's training: everything else frozen, ``L = L_LDM + tau * L_reg``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from ...attention import install
from ...checkpoint import save_model
from ...losses import denoising_loss, embedding_consistency_loss, snr_weight
from ...model import SubjectModel
from ..data import Plans, Ring, draw, picture, pooled_area, random_queries
from ..models import MODEL_INDEX, MiniConfig, make_scheduler, make_subject_config, make_unet, tokenize
from ..preview import preview
from ..world import load_world
from .base import Recipe, TrainConfig, learn_only
from .channels_last import lay_out
from .replica import Replica
from .signals import selection_signals
from .streams import Streams


class _Denoiser(nn.Module):
    def __init__(self, unet: UNet2DConditionModel, subject: SubjectModel):
        super().__init__()
        self.unet, self.subject = unet, subject


class UNetRecipe(Recipe):
    """Text and subject together, from random weights."""

    name = "unet"
    batch_sizes = {"cpu": 16, "cuda": 512}
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    ring_sizes = {"cpu": 1536, "cuda": 16384}
    fresh = {"cpu": 0.0625, "cuda": 0.0625}  # drawn anew for each example that is learned from
    at_once = {"cpu": 1, "cuda": 512}  # examples drawn together: a GPU wants few large ones
    tau = 0.01  # weight of L_reg (supplement F)
    subject_pixels = 5.0  # how much more the latents under subjects weigh
    # What a sample is conditioned on: text and subject, subject alone, text alone, nothing.
    conditions = (0.57, 0.13, 0.2, 0.1)
    # Timesteps are 1000 * u ** noisier. Below 1 noisy ones come more often: the identity shows in the error of those
    # alone. But pictures begun from a drawn scene lose the identity between 750 and 300 and the concept below 450
    # (docs/log.md): after two sessions of 0.5, even ones lowered the error in the noisy half too.
    noisier = 1.0
    subjects = (0.2, 0.7, 0.1)  # how many of the targets show one, two, three of them
    second = 0.9  # share of the examples of two subjects whose second one has a reference too, not only its word
    reference_is_target = 0.0
    same_way: float | None = None  # share of references that look the same way as their targets; None: by chance
    # Subjects in nameless colours: in the named ones alone, 85 % of the trained identities came out right and 76 % of
    # the held-out ones, mostly in a drawing that training had shown in that colour (docs/log.md).
    tones = 0.3
    # What came out wrong most with 1.6 million samples (misses of concept and identity in 100 pictures: 38 to 43; of
    # the others 0 to 24). After two million more it was the cat alone.
    favour = dict.fromkeys(("balloon", "bus", "cat", "mushroom", "umbrella"), 2.0)
    turned = 1.0  # how many times more often than another a nameless colour is a turned hue
    only = ""  # which parameters learn: a regular expression that their names begin with
    train_base = True
    replicated = True  # on a GPU a copy in bfloat16 learns, its step recorded as one graph

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path):
        super().__init__(config, train, device)
        self.world = load_world(device, weights)
        self.sampler = load_world("cpu", weights) if self.cuda else self.world
        self.tokenizer = CLIPTokenizer.from_pretrained(weights / "tokenizer")
        self.vae = self._frozen(AutoencoderKL.from_pretrained(weights / "vae"))
        self.text_encoder = self._frozen(CLIPTextModel.from_pretrained(weights / "text_encoder"))
        self.image_encoder = self._frozen(CLIPVisionModel.from_pretrained(weights / "image_encoder"))
        self.denoiser = self._make_denoiser()
        self.subject_config = self.denoiser.subject.config
        self._load(weights)
        self.trained = self.denoiser if self.train_base else self.denoiser.subject
        self.denoiser.unet.requires_grad_(self.train_base)
        learn_only(self.trained, self.only)
        if self.cuda:
            self.denoiser.unet.to(memory_format=torch.channels_last)
        scheduler = DDPMScheduler.from_config(make_scheduler().config)
        self.scheduler, self.alphas = scheduler, scheduler.alphas_cumprod.to(device)
        self.ring = Ring(self.ring_sizes["cuda" if self.cuda else "cpu"])
        self.due, self._plans = 0.0, None
        self.streams = Streams(train.streams)
        self.replica = self._make_replica() if train.graph and self.cuda and self.replicated else None
        if not self.replica:
            self.compile_blocks(self.denoiser.unet)
        with torch.no_grad():
            self.blank_query = self.text_encoder(self._ids([""])).last_hidden_state  # (1, L, D)
            size = config.image_size
            self.blank_image = self._see(torch.zeros(1, 3, size, size, device=device))  # (1, K, P, D)
        self.prepare()

    def _make_denoiser(self) -> _Denoiser:
        unet = make_unet(self.config)
        subject = SubjectModel(make_subject_config(self.config, unet))
        install(unet, subject.config.layers)
        return _Denoiser(unet, subject).to(self.device)

    def _make_replica(self) -> Replica:
        copy = self._make_denoiser()
        lay_out(copy.unet, self.cuda and self.train_config.compile)
        return Replica(copy, self.denoiser)

    def _frozen(self, module: nn.Module) -> nn.Module:
        return module.float().to(self.device).eval().requires_grad_(False)

    def _load(self, weights: Path) -> None:
        if (weights / "unet").exists():
            self.denoiser.unet.load_state_dict(UNet2DConditionModel.from_pretrained(weights / "unet").state_dict())
        if (weights / "model.safetensors").exists():
            self.denoiser.subject.load_state_dict(load_file(weights / "model.safetensors"))

    def _ids(self, texts: list[str]) -> Tensor:
        return tokenize(self.tokenizer, texts).to(self.device)

    # -- frozen encoders
    def _see(self, pictures: Tensor) -> Tensor:
        """(m, 3, size, size) in [-1, 1] -> hidden states (m, K, P, D)."""
        hidden = self.image_encoder(pictures, output_hidden_states=True).hidden_states
        return torch.stack([hidden[i] for i in self.config.hidden_layers], 1)

    def _to_latents(self, pictures: Tensor) -> Tensor:
        return self.vae.encode(pictures).latent_dist.mean

    @torch.no_grad()
    def encode(self, example) -> dict[str, Tensor]:
        """What the ring keeps of an example."""
        half = torch.bfloat16 if self.cuda else torch.float32
        with self.autocast():
            hidden = self._see(example.references.flatten(0, 1)).unflatten(0, (-1, 2))
            latents = self._to_latents(example.pictures)
        return {
            "latents": latents.to(half),
            "area": pooled_area(example.subject_area, self.config.latent_size).to(half),
            "caption_ids": example.caption_ids,
            "hidden": hidden.to(half),
            "masks": (example.reference_masks * 255).to(torch.uint8),
            "query_ids": example.query_ids,
            "enough": example.text_is_enough,
            "two": example.two,
        }

    @property
    def planning(self) -> dict:
        """Options of :func:`~ssr_encoder.mini.data.plan` for the examples that are learned from."""
        names = ("subjects", "reference_is_target", "same_way", "tones", "turned", "favour")
        return {name: getattr(self, name) for name in names}

    def _draw(self) -> dict[str, Tensor]:
        return self.encode(self._next())

    def _next(self):
        """The next ``at_once`` examples, planned here or by ``workers`` processes while the device works."""
        if self._plans is None:
            at_once, workers = self.at_once["cuda" if self.cuda else "cpu"], self.train_config.workers
            plans = Plans(self.sampler, self.tokenizer, at_once, self.train_config.seed, **self.planning)
            self._plans = iter(DataLoader(plans, batch_size=None, num_workers=workers))
        return picture(self.world, self.config, next(self._plans))

    # -- the step
    def loss(self):
        return self._loss_of(self._batch())

    def backward(self):
        if self.replica:
            return self.replica.backward(self._loss_of, self._batch())
        if self.train_config.streams == 1:
            return super().backward()
        return self.streams.backward(self._loss_of, self._batch(), self.batch_size, self.parameters_list)

    def _batch(self) -> dict:
        batch = self._examples(self.batch_size)
        with torch.no_grad():
            return self._conditions(batch)

    def _examples(self, n: int, learned_from: int = 1) -> dict[str, Tensor]:
        """n from the ring, each to be learned from so many times."""
        kind = "cuda" if self.cuda else "cpu"
        at_once = self.at_once[kind]
        if not self.ring.filled:
            for _ in range(max(2, self.ring.capacity // (8 * at_once))):  # an eighth full, then it grows
                self.ring.put(self._draw())
        self.due += n * learned_from * self.fresh[kind]
        while self.due >= at_once:
            self.ring.put(self._draw())
            self.due -= at_once
        return self.ring.take(n, self.generator)

    def _loss_of(self, batch: dict, replica: _Denoiser | None = None):
        if replica:  # bfloat16 throughout
            given = {k: v.bfloat16() if v.is_floating_point() else v for k, v in batch["model"].items()}
            noise_pred, scale_embeds, _ = self._denoise(**given, denoiser=replica)
        else:
            with self.autocast():
                noise_pred, scale_embeds, _ = self._denoise(**batch["model"])
        weight = snr_weight(self.alphas, batch["model"]["timesteps"])
        loss = denoising_loss(noise_pred, batch["target"], weight, batch["pixel_weight"])
        regularisation = embedding_consistency_loss(
            scale_embeds, batch["model"]["query_embeds"].flatten(0, 1), batch["asked"].flatten().float()
        )
        figures = {"denoising": loss.detach(), "reg": regularisation.detach()}
        return loss + self.tau * regularisation, figures

    def _conditions(self, batch: dict[str, Tensor]):
        n, device = len(batch["latents"]), self.device
        chance = torch.rand(n, device=device, generator=self.generator)
        both, subject, text, _ = self.conditions
        has_subject = chance < both + subject
        has_text = (chance < both) | ((chance >= both + subject) & (chance < both + subject + text))
        masks = batch["masks"].flatten(0, 1).float() / 255
        weights, with_text = random_queries(
            masks, batch["enough"].flatten(), self.config.grid, self.subject_config.point_radius, self.generator
        )
        second = batch["two"] & (torch.rand(n, device=device, generator=self.generator) < self.second)
        scale = torch.stack([has_subject, has_subject & second], 1).float()
        # A dropped subject is, half of the time, the unconditional one of guidance: empty query, zero picture.
        blank = ~has_subject & (torch.rand(n, device=device, generator=self.generator) < 0.5)
        scale[:, 0] = torch.where(blank, 1.0, scale[:, 0])
        hidden = torch.where(
            blank[:, None, None, None, None], self.blank_image[:, None].to(batch["hidden"].dtype), batch["hidden"]
        )
        weights = weights.unflatten(0, (n, 2))
        weights = torch.where(blank[:, None, None], torch.ones_like(weights), weights)
        asked = with_text.unflatten(0, (n, 2)) & ~blank[:, None]
        with self.autocast():
            texts = torch.cat([batch["query_ids"].flatten(0, 1), batch["caption_ids"]])
            embeds = self.text_encoder(texts).last_hidden_state
        query_embeds, prompt_embeds = embeds[: 2 * n].unflatten(0, (n, 2)), embeds[2 * n :]
        query_embeds = torch.where(
            asked[:, :, None, None], query_embeds, self.blank_query[:, None].to(query_embeds.dtype)
        )
        prompt_embeds = torch.where(has_text[:, None, None], prompt_embeds, self.blank_query.to(prompt_embeds.dtype))
        model = {
            "prompt_embeds": prompt_embeds,
            "query_embeds": query_embeds,
            "hidden": hidden,
            "weights": weights,
            "scale": scale,
        }
        latents = batch["latents"].float()
        timesteps = self._timesteps(n)
        noise = self._noise(batch)
        model |= {"noisy": self.scheduler.add_noise(latents, noise, timesteps), "timesteps": timesteps}
        return {
            "model": model,
            "target": self.scheduler.get_velocity(latents, noise, timesteps),
            "asked": asked & (scale > 0),
            "pixel_weight": 1 + (self.subject_pixels - 1) * batch["area"].float(),
        }

    def _noise(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.randn(batch["latents"].shape, device=self.device, generator=self.generator)

    def _timesteps(self, n: int) -> Tensor:
        """(n,), one from each n-th of the distribution, in random order: batches differ less than by free draws."""
        order = torch.randperm(n, device=self.device, generator=self.generator)
        u = (order + torch.rand(n, device=self.device, generator=self.generator)) / n
        return (len(self.alphas) * u**self.noisier).long().clamp_max(len(self.alphas) - 1)

    def _denoise(self, noisy, timesteps, prompt_embeds, query_embeds, hidden, weights, scale, denoiser=None):
        denoiser = denoiser or self.denoiser
        pack, scale_embeds, attention = denoiser.subject(
            query_embeds, list(hidden.unbind(2)), weights, scale[:, :, None]
        )
        noise_pred = denoiser.unet(
            noisy, timesteps, prompt_embeds, added_cond_kwargs={"image_embeds": [pack[None]]}, return_dict=False
        )[0]
        return noise_pred, scale_embeds, attention

    # -- figures that need no sampling
    def held_out(self, n: int, **scenes):
        """n fixed examples of held-out identities."""
        generator, rng = torch.Generator().manual_seed(7), random.Random(7)
        world, tokenizer = self.world, self.tokenizer
        return draw(world, tokenizer, self.config, n, generator, rng, "holdout", sampler=self.sampler, **scenes)

    def evaluate(self, n: int = 0) -> dict[str, float]:
        return selection_signals(self, n or (512 if self.cuda else 48))

    @torch.no_grad()
    def sample_grid(self):
        """Rows: reference, then the subject in two new scenes; and text alone."""
        return preview(self)

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self.train_base:
            unet = make_unet(self.config)
            unet.load_state_dict(self.denoiser.unet.state_dict())
            unet.half().save_pretrained(folder / "unet", max_shard_size="15MB")
            make_scheduler().save_pretrained(folder / "scheduler")
            (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=1) + "\n")
        save_model(self.denoiser.subject, folder, torch.float16)


class SSRRecipe(UNetRecipe):
    """The paper's stage: base frozen, subject encoder trained."""

    name = "ssr"
    learning_rates = {"cpu": 5e-4, "cuda": 6e-4}
    conditions = (0.6, 0.3, 0.0, 0.1)  # text alone would teach the subject branch nothing
    train_base = False
