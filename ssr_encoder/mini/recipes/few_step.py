"""Stage ``few_step``: a LoRA with which the base model draws in 8 steps without guidance.

Progressive distillation (Salimans & Ho 2022) in one stage, of a guided teacher (Meng et al. 2023): the student learns
to reach in one DDIM step where the base model with guidance gets by one second-order step, the midpoint form of
DPM-Solver++ (Lu et al. 2022, algorithm 1). That form ends where a DDIM step with the guided prediction of the *middle*
ends, so that prediction is the student's target. Teacher and student are one UNet, without the LoRA and with it.

The student learns in its own rollouts: from noise, step by step to where *it* gets, and at every step what the teacher
would do from there (as in DAgger, Ross et al. 2011, and on-policy distillation, Agarwal et al. 2024). Taught on drawn
scenes with noise it met other pictures when it drew, its own, and did not mend their faults (docs/log.md).
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
from .subject import UNetRecipe

# Everything that multiplies by a matrix, but the first and last convolution and the timestep's embedding.
TARGETS = r".*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|net\.0\.proj|net\.2|conv1|conv2|conv_shortcut|time_emb_proj)"


class FewStepRecipe(UNetRecipe):
    """The LoRA learns, everything else is frozen."""

    name = "few_step"
    batch_sizes = {"cpu": 8, "cuda": 256}  # the targets hold no noise: small batches tell enough
    learning_rates = {"cpu": 5e-4, "cuda": 1e-3}
    conditions = (0.8, 0.05, 0.15, 0.0)
    train_base = False
    replicated = False
    rank = 32

    def __init__(self, config, train, device: torch.device, weights: Path):
        # A run on the CPU is some hundred steps: the usual warm-up would be a good part of it.
        super().__init__(config, dataclasses.replace(train, warmup=min(train.warmup, 50)), device, weights)
        self.guidance_scale = self.subject_config.guidance_scale
        self.rollouts: dict[str, Tensor] | None = None

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
    def _batch(self) -> dict:
        with torch.no_grad():
            if self.rollouts is None:
                self.rollouts = self._start(self._examples(self.batch_size, FEW_STEPS))
                ahead = torch.arange(self.batch_size, device=self.device) % FEW_STEPS
                for stage in range(FEW_STEPS - 1):  # every batch holds all stages
                    self._advance(self.rollouts, ahead > stage)
            else:
                self._advance(self.rollouts)
                if (at_end := self.rollouts["stage"] == FEW_STEPS).any():
                    new = self._start(self._examples(int(at_end.sum()), FEW_STEPS))
                    for name, value in self.rollouts.items():
                        value[at_end] = new[name]
            return self._lessons(self.rollouts)

    def _start(self, examples: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rollouts of n rows: "noisy" latents, "stage", how many steps were gone, and what the pictures are to show,
        "prompts" and "packs", of which [:, 0] are the unconditional ones. Subjects are as strong as in use."""
        model = self._conditions(examples)["model"]
        n, several = len(model["scale"]), (model["scale"] > 0).sum(1, keepdim=True) > 1
        strength = [self.subject_config.default_scale(count) for count in (1, 2)]
        scale = model["scale"] * torch.where(several, strength[1], strength[0])
        blank = (
            self.blank_query[:, None].expand_as(model["query_embeds"]),
            self.blank_image[:, None].to(model["hidden"].dtype).expand_as(model["hidden"]),
            torch.ones_like(model["weights"]),
            scale,
        )
        with self.autocast():
            packs = [self._pack(*blank), self._pack(model["query_embeds"], model["hidden"], model["weights"], scale)]
        prompts = [self.blank_query.expand_as(model["prompt_embeds"]), model["prompt_embeds"]]
        return {
            "noisy": self._noise(examples).float(),
            "stage": torch.zeros(n, dtype=torch.long, device=self.device),
            "prompts": torch.stack([part.float() for part in prompts], 1),
            "packs": torch.stack([part.float() for part in packs], 1),
        }

    def _advance(self, rollouts: dict[str, Tensor], some: Tensor | bool = True) -> None:
        """One DDIM step of the student, of all rollouts or of ``some``, (n,) bool. (All are computed: a compiled UNet
        then sees one size.)"""
        noisy, stage = rollouts["noisy"], rollouts["stage"]
        prompt_embeds, pack = rollouts["prompts"][:, 1], rollouts["packs"][:, 1]
        with self.autocast():
            v = self._velocity(noisy, self._begins(stage), prompt_embeds, pack).float()
        alpha, sigma = self._levels(self._begins(stage))
        next_alpha, next_sigma = self._levels(self._begins(stage + 1))
        ends = next_alpha * (alpha * noisy - sigma * v) + next_sigma * (sigma * noisy + alpha * v)
        some = torch.as_tensor(some, device=self.device).expand_as(stage)
        rollouts["noisy"], rollouts["stage"] = torch.where(some[:, None, None, None], ends, noisy), stage + some

    def _begins(self, stage: Tensor) -> Tensor:
        """The timestep at which a step of the student begins, the last of each FEW_STEPS-th of them; -1 for the end."""
        return len(self.alphas) // FEW_STEPS * (FEW_STEPS - stage) - 1

    def _lessons(self, rollouts: dict[str, Tensor]) -> dict:
        """What the student is to do where it is."""
        noisy, timesteps = rollouts["noisy"], self._begins(rollouts["stage"])
        prompts, packs = (rollouts[name].transpose(0, 1).flatten(0, 1) for name in ("prompts", "packs"))
        mine = {"prompt_embeds": rollouts["prompts"][:, 1].clone(), "pack": rollouts["packs"][:, 1].clone()}
        target = self._teach(noisy, timesteps, prompts, packs)
        return {"model": {"noisy": noisy, "timesteps": timesteps} | mine, "target": target}

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
        """How much of the picture and of the noise there is, (n, 1, 1, 1) each; at -1 the picture alone."""
        alphas = torch.where(timesteps < 0, 1.0, self.alphas[timesteps].float())[:, None, None, None]
        return alphas.sqrt(), (1 - alphas).sqrt()

    def _velocity(self, noisy, timesteps, prompt_embeds, pack) -> Tensor:
        return self.denoiser.unet(
            noisy, timesteps, prompt_embeds, added_cond_kwargs={"image_embeds": [pack[None]]}, return_dict=False
        )[0]

    def _loss_of(self, batch: dict):
        with self.autocast():
            noise_pred = self._velocity(**batch["model"])
        weight = snr_weight(self.alphas, batch["model"]["timesteps"])
        return denoising_loss(noise_pred, batch["target"], weight), {}

    # -- figures that need no sampling
    @torch.no_grad()
    def evaluate(self, n: int = 0) -> dict[str, float]:
        """The loss in the student's rollouts of fixed held-out conditions, n steps of it: of the student, and there of
        the base model without guidance and without the LoRA ("untaught")."""
        n = n or (512 if self.cuda else 48)
        kept = self.encode(self.held_out(-(-n // FEW_STEPS)))
        generator, self.generator = self.generator, torch.Generator(self.device).manual_seed(7)
        rollouts = self._start(kept)
        figures = {"loss_student": 0.0, "loss_untaught": 0.0}
        for _ in range(FEW_STEPS):
            lessons = self._lessons(rollouts)
            figures["loss_student"] += float(self._loss_of(lessons)[0]) / FEW_STEPS
            self.denoiser.unet.disable_adapters()
            figures["loss_untaught"] += float(self._loss_of(lessons)[0]) / FEW_STEPS
            self.denoiser.unet.enable_adapters()
            self._advance(rollouts)
        self.generator = generator
        return figures

    def sample_grid(self) -> tuple[Tensor, int]:
        """As the base model's, in few steps."""
        return preview(self, steps=FEW_STEPS, guidance_scale=1.0, scheduler=few_step_scheduler(make_scheduler()))

    def export(self, folder: Path) -> None:
        peft = need("peft", "lora")
        layers = {k: v.half().contiguous() for k, v in peft.get_peft_model_state_dict(self.denoiser.unet).items()}
        StableDiffusionPipeline.save_lora_weights(folder / FOLDER, unet_lora_layers=layers)
