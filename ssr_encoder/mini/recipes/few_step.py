"""Stage ``few_step``: a LoRA with which the base model draws in 8 steps without guidance.

Progressive distillation (Salimans & Ho 2022) in one stage, of a guided teacher (Meng et al. 2023): the student learns
to reach in one DDIM step where the base model with guidance gets by one second-order step, the midpoint form of
DPM-Solver++ (Lu et al. 2022, algorithm 1). That form ends where a DDIM step with the guided prediction of the *middle*
ends, so that prediction is the student's target. Teacher and student are one UNet, without the LoRA and with it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from ...errors import SSRError
from ...extras import need
from ...few_step import FEW_STEPS, FOLDER, few_step_scheduler
from ...losses import denoising_loss, snr_weight
from ..models import make_scheduler
from ..preview import preview
from .streams import part_of
from .subject import UNetRecipe

# Everything that multiplies by a matrix, but the first and last convolution and the timestep's embedding.
TARGETS = r".*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|net\.0\.proj|net\.2|conv1|conv2|conv_shortcut|time_emb_proj)"


class FewStepRecipe(UNetRecipe):
    """The LoRA learns, everything else is frozen."""

    name = "few_step"
    batch_sizes = {"cpu": 8, "cuda": 256}  # the targets hold no noise: small batches tell enough
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    conditions = (0.75, 0.05, 0.2, 0.0)
    train_base = False
    replicated = False
    rank = 32
    noisier = 0.6

    def __init__(self, config, train, device: torch.device, weights: Path):
        # A run on the CPU is some hundred steps: the usual warm-up would be a good part of it.
        super().__init__(config, dataclasses.replace(train, warmup=min(train.warmup, 50)), device, weights)
        self.guidance_scale = self.subject_config.guidance_scale

    def _load(self, weights: Path) -> None:
        self.weights = weights
        super()._load(weights)

    def prepare(self) -> None:
        peft = need("peft", "lora")
        unet = self.denoiser.unet
        self.denoiser.requires_grad_(False)
        unet.add_adapter(peft.LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=TARGETS))
        if (self.weights / FOLDER).is_dir():
            found = StableDiffusionPipeline.lora_state_dict(self.weights / FOLDER, use_safetensors=True)[0]
            own = {key.removeprefix("unet."): value for key, value in found.items()}
            wrong = peft.set_peft_model_state_dict(unet, own).unexpected_keys
            if wrong:
                raise SSRError(f"{self.weights / FOLDER} is a LoRA of another UNet ({wrong[0]}); move it away")
        # The LoRA alone: a state that is resumed leaves the base model as it was loaded.
        self.trained = nn.ParameterList(p for p in unet.parameters() if p.requires_grad)
        super().prepare()

    # -- the step
    def _timesteps(self, n: int) -> Tensor:
        """Where a step of the student begins: the last of each FEW_STEPS-th of the timesteps."""
        length = len(self.alphas) // FEW_STEPS
        return super()._timesteps(n) // length * length + length - 1

    def _conditions(self, batch: dict[str, Tensor]) -> dict:
        made = super()._conditions(batch)
        model = made["model"]
        given = model["query_embeds"], model["hidden"], model["weights"], model["scale"]
        n, scale = len(given[0]), given[-1]
        blank = (
            self.blank_query[:, None].expand_as(given[0]),
            self.blank_image[:, None].to(given[1].dtype).expand_as(given[1]),
            torch.ones_like(given[2]),
            scale,
        )
        prompts = torch.cat([self.blank_query.expand_as(model["prompt_embeds"]), model["prompt_embeds"]])
        with self.autocast():
            packs = torch.cat([self._pack(*blank), self._pack(*given)])
        made["target"] = self._teach(model["noisy"], model["timesteps"], prompts, packs)
        made["model"] = {key: model[key] for key in ("noisy", "timesteps", "prompt_embeds")} | {"pack": packs[n:]}
        return made

    def _pack(self, query_embeds, hidden, weights, scale) -> Tensor:
        return self.denoiser.subject(query_embeds, list(hidden.unbind(2)), weights, scale[:, :, None])[0]

    def _teach(self, noisy: Tensor, timesteps: Tensor, prompts: Tensor, packs: Tensor) -> Tensor:
        """The velocity at ``noisy`` with which a DDIM step ends where the guided base model's step ends. ``prompts``
        and ``packs`` are of 2n rows, the unconditional ones first."""

        def clean(latents, t):
            alpha, sigma = self._levels(t)
            with self.autocast():
                v = self._velocity(latents.repeat(2, 1, 1, 1), t.repeat(2), prompts, packs).float()
            without, given = v.chunk(2)
            return alpha * latents - sigma * (without + self.guidance_scale * (given - without))

        self.denoiser.unet.disable_adapters()
        middle = timesteps - len(self.alphas) // FEW_STEPS // 2
        (alpha, sigma), (alpha_middle, sigma_middle) = self._levels(timesteps), self._levels(middle)
        first = clean(noisy, timesteps)
        halfway = alpha_middle * first + sigma_middle / sigma * (noisy - alpha * first)
        target = (alpha * noisy - clean(halfway, middle)) / sigma
        self.denoiser.unet.enable_adapters()
        return target

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the picture and of the noise there is, (n, 1, 1, 1) each."""
        alphas = self.alphas[timesteps].float()[:, None, None, None]
        return alphas.sqrt(), (1 - alphas).sqrt()

    def _velocity(self, noisy, timesteps, prompt_embeds, pack) -> Tensor:
        return self.denoiser.unet(
            noisy, timesteps, prompt_embeds, added_cond_kwargs={"image_embeds": [pack[None]]}, return_dict=False
        )[0]

    def _loss_of(self, batch: dict):
        with self.autocast():
            noise_pred = self._velocity(**batch["model"])
        weight = snr_weight(self.alphas, batch["model"]["timesteps"])
        return denoising_loss(noise_pred, batch["target"], weight, batch["pixel_weight"]), {}

    # -- figures that need no sampling
    @torch.no_grad()
    def evaluate(self, n: int = 0) -> dict[str, float]:
        """The loss on fixed held-out latents and conditions: of the student, and of the base model without guidance and
        without the LoRA ("untaught")."""
        n = n or (512 if self.cuda else 48)
        kept = self.encode(self.held_out(n))
        generator, self.generator = self.generator, torch.Generator(self.device).manual_seed(7)
        parts = torch.arange(n, device=self.device).split(128 if self.cuda else 16)
        figures = {"loss_student": 0.0, "loss_untaught": 0.0}
        for rows in parts:
            batch = self._conditions(part_of(kept, rows))
            figures["loss_student"] += float(self._loss_of(batch)[0]) * len(rows) / n
            self.denoiser.unet.disable_adapters()
            figures["loss_untaught"] += float(self._loss_of(batch)[0]) * len(rows) / n
            self.denoiser.unet.enable_adapters()
        self.generator = generator
        return figures

    def sample_grid(self) -> tuple[Tensor, int]:
        """As the base model's, in few steps."""
        return preview(self, steps=FEW_STEPS, guidance_scale=1.0, scheduler=few_step_scheduler(make_scheduler()))

    def export(self, folder: Path) -> None:
        peft = need("peft", "lora")
        layers = {k: v.half().contiguous() for k, v in peft.get_peft_model_state_dict(self.denoiser.unet).items()}
        StableDiffusionPipeline.save_lora_weights(folder / FOLDER, unet_lora_layers=layers)
