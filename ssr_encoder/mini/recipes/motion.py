"""Stage ``motion``: a stock ``MotionAdapter`` for the embedded model, the UNet and the subject encoder frozen.

AnimateDiff's training (Guo et al. 2023, section 4.2): the frames of a clip have the same timestep, and only temporal
attention learns. Most clips have noise in common that goes along with their subjects (shared_noise.py says why). Each
motion module's last layer starts at zero, so that training starts from the still model, which draws 16 pictures that
know nothing of one another.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, UNetMotionModel
from torch import Tensor

from ...attention import install
from ...losses import denoising_loss, snr_weight
from ...shared_noise import CARRY_KEY, NOISE_KEY, SHARED_NOISE, SMOOTH_KEY, clip_noise, mix_noise
from ...trajectories import trajectory
from ..data import draw, pooled_area
from ..models import MiniConfig, make_motion_adapter
from ..preview import PLACES, first_subjects, parts
from ..world.motion import FRAMES, animate, subject_boxes
from .base import TrainConfig
from .subject import UNetRecipe

FOLDER = "motion_adapter"
SHOWN = 8  # frames of a clip in the sample grid


class MotionRecipe(UNetRecipe):
    """Temporal attention alone. A sample is a clip."""

    name = "motion"
    batch_sizes = {"cpu": 2, "cuda": 16}
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    ring_sizes = {"cpu": 192, "cuda": 2048}
    fresh = {"cpu": 0.25, "cuda": 0.25}  # a clip costs as much as 17 pictures
    at_once = {"cpu": 1, "cuda": 16}
    conditions = (0.6, 0.1, 0.2, 0.1)
    train_base = False
    replicated = False
    noisier = 0.6  # what moves where is decided in the noisy ones
    together = 0.9  # share of the clips whose frames have SHARED_NOISE of their noise in common; others: none
    margins = (0.95, 1.3)  # size of the box whose noise goes along with a subject, by that of its drawing
    # In clips that are made; what is not in common follows from frame to frame there, which is calmer (docs/log.md).
    in_common, smooth = SHARED_NOISE, 0.9
    short = 0.5  # share of the steps that see 8 to 12 frames from anywhere in the clip: cheaper, and other lengths work

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path):
        # A run on the CPU is a thousand steps or two: the usual warm-up would be a good part of it.
        super().__init__(config, dataclasses.replace(train, warmup=min(train.warmup, 50)), device, weights)
        self.chooser, self.rng = torch.Generator().manual_seed(train.seed), random.Random(train.seed)

    def _load(self, weights: Path) -> None:
        """The still model, and the motion UNet made of it before subjects are installed (diffusers cannot after)."""
        super()._load(weights)
        if (weights / FOLDER).is_dir():
            adapter = MotionAdapter.from_pretrained(weights / FOLDER)
        else:
            adapter = make_motion_adapter(self.config)
            for module in motion_modules(adapter):
                torch.nn.init.zeros_(module.proj_out.weight)
                torch.nn.init.zeros_(module.proj_out.bias)
        self.motion = UNetMotionModel.from_unet2d(self.denoiser.unet, adapter).to(self.device)
        # from_unet2d copies: from here on the adapter holds the motion UNet's own modules.
        for name in ("down_blocks", "up_blocks"):
            for block, own in zip(getattr(adapter, name), getattr(self.motion, name), strict=True):
                block.motion_modules = own.motion_modules
        adapter.mid_block.motion_modules = self.motion.mid_block.motion_modules
        self.adapter = adapter

    def prepare(self) -> None:
        install(self.motion, self.subject_config.layers)
        for frozen in (self.denoiser, self.motion):
            frozen.requires_grad_(False)
        self.trained = self.adapter.requires_grad_(True).train()
        super().prepare()

    # -- clips
    @torch.no_grad()
    def encode_clips(self, example, generator: torch.Generator, frames: int = FRAMES) -> dict[str, Tensor]:
        """What the ring keeps of n examples: as for pictures, but latents (n, frames, 4, h, w) and area
        (n, frames, 1, h, w) of a clip that starts from each target."""
        kept = super().encode(example)
        clips = animate(self.sampler, example.target, frames, generator).to(self.device)
        pictures, masks = self.world.render(clips, self.config.image_size)
        with self.autocast():
            latents = torch.cat([self._to_latents(part) for part in (pictures * 2 - 1).split(FRAMES)])
        area = pooled_area(masks.sum(1).clamp(max=1), self.config.latent_size)
        for name, value in (("latents", latents), ("area", area)):
            kept[name] = value.unflatten(0, (-1, frames)).to(kept[name].dtype)
        kept["boxes"] = subject_boxes(self.world, clips).unflatten(0, (-1, frames))  # (n, frames, 3, 4)
        return kept

    @property
    def planning(self) -> dict:
        return {"subjects": (0.6, 0.4, 0.0)}

    def _example(self, n: int, chooser: torch.Generator, rng: random.Random, split: str = "train"):
        return draw(self.world, self.tokenizer, self.config, n, chooser, rng, split, self.sampler, **self.planning)

    def _draw(self) -> dict[str, Tensor]:
        return self.encode_clips(self._next(), self.chooser)

    def _conditions(self, batch: dict[str, Tensor]):
        """As for pictures, one set of conditions and one timestep a clip. Some steps see a part of the frames."""
        if self.rng.random() < self.short:
            count = self.rng.randint(FRAMES // 2, FRAMES * 3 // 4)
            start = self.rng.randint(0, FRAMES - count)
            batch = batch | {name: batch[name][:, start : start + count] for name in ("latents", "area", "boxes")}
        return super()._conditions(batch)

    def _noise(self, batch: dict[str, Tensor]) -> Tensor:
        n, (low, high) = len(batch["latents"]), self.margins
        chosen, margin = (
            torch.rand(shape, device=self.device, generator=self.generator) for shape in ((n, 1, 1, 1, 1), (n, 1, 3, 1))
        )
        chosen, boxes = chosen < self.together, scaled(batch["boxes"], low + (high - low) * margin)
        return mix_noise(batch["latents"].shape, SHARED_NOISE * chosen, self.generator, self.device, boxes=boxes)

    def _noised(self, batch: dict, kept: dict, timesteps: Tensor, generator: torch.Generator) -> dict:
        """A batch of the parent's with other timesteps (n,) and noise."""
        latents = kept["latents"].float()
        noise = mix_noise(latents.shape, SHARED_NOISE, generator, self.device, boxes=kept["boxes"])
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = self.scheduler.get_velocity(latents, noise, timesteps)
        return batch | {"model": batch["model"] | {"noisy": noisy, "timesteps": timesteps}, "target": target}

    # -- the step
    def _loss_of(self, batch: dict):
        with self.autocast():
            noise_pred = self._denoise(**batch["model"])
        loss = self._error(noise_pred, batch)
        return loss, {"denoising": loss.detach()}

    def _error(self, noise_pred: Tensor, batch: dict) -> Tensor:
        frames = noise_pred.shape[1]
        weight = snr_weight(self.alphas, batch["model"]["timesteps"]).repeat_interleave(frames)
        flat = (x.flatten(0, 1) for x in (noise_pred, batch["target"]))
        return denoising_loss(*flat, weight, batch["pixel_weight"].flatten(0, 1))

    def _denoise(self, noisy, timesteps, prompt_embeds, query_embeds, hidden, weights, scale, still=False):
        """Clips (n, frames, 4, h, w) to the prediction of that shape; ``still``: by the UNet without motion modules."""
        with torch.no_grad():
            pack, _, _ = self.denoiser.subject(query_embeds, list(hidden.unbind(2)), weights, scale[:, :, None])
        frames = noisy.shape[1]
        prompt_embeds = prompt_embeds.repeat_interleave(frames, dim=0)
        given = {"added_cond_kwargs": {"image_embeds": [pack[None]]}, "return_dict": False}
        if still:
            each = timesteps.repeat_interleave(frames)
            return self.denoiser.unet(noisy.flatten(0, 1), each, prompt_embeds, **given)[0].unflatten(0, (-1, frames))
        return self.motion(noisy.transpose(1, 2), timesteps, prompt_embeds, **given)[0].transpose(1, 2)

    # -- figures that need no sampling
    @torch.no_grad()
    def evaluate(self, n: int = 0) -> dict[str, float]:
        """On held-out clips with fixed noise, timesteps and conditions: the loss with motion modules and without
        ("still"), and how much consecutive frames of the predicted clip differ, in the noisy half of the timesteps
        (1: as much as the true ones)."""
        n = n or (64 if self.cuda else 8)
        kept = self.encode_clips(
            self._example(n, torch.Generator().manual_seed(7), random.Random(7), "holdout"),
            torch.Generator().manual_seed(8),
        )
        latents = kept["latents"].float()
        timesteps = (torch.arange(n, device=self.device) * 2 + 1) * len(self.alphas) // (2 * n)
        before, self.generator = self.generator, torch.Generator(self.device).manual_seed(7)
        batch = self._noised(super()._conditions(kept), kept, timesteps, self.generator)
        self.generator, model = before, batch["model"]
        alphas = self.alphas[timesteps].float()[:, None, None, None, None]
        noisy_half = timesteps >= len(self.alphas) // 2
        true = _change(latents)[noisy_half]
        figures = {}
        for name, still in (("motion", False), ("still", True)):
            parts = []
            for row in range(n):  # a clip at a time: they are large
                with self.autocast():
                    one = {key: value[row : row + 1] for key, value in model.items()}
                    parts.append(self._denoise(**one, still=still).float())
            noise_pred = torch.cat(parts)
            figures[f"loss_{name}"] = float(self._error(noise_pred, batch))
            predicted = alphas.sqrt() * model["noisy"] - (1 - alphas).sqrt() * noise_pred
            figures[f"change_{name}"] = float((_change(predicted)[noisy_half] / true).mean())
        return figures

    @torch.no_grad()
    def sample_grid(self, clips: int = 0, steps: int = 8, frames: int = FRAMES) -> tuple[Tensor, int]:
        """Each row: reference and 8 frames of a clip, through the stock pipeline."""
        clips = clips or (6 if self.cuda else 2)
        example = self._example(clips, torch.Generator().manual_seed(5), random.Random(5), "holdout")
        kept = super().encode(example)
        pipe = AnimateDiffPipeline(**parts(self), unet=self.motion, motion_adapter=self.adapter, image_encoder=None)
        pipe.set_progress_bar_config(disable=True)
        places = [p for p in PLACES if p in self.world.places] or self.world.places[:3]
        packs, rows = first_subjects(self, kept), []
        size = (self.config.image_size,) * 2
        for i, concept in enumerate(example.target.concept[:, 0].tolist()):
            generator = torch.Generator(self.device).manual_seed(1 + i)
            way = trajectory("walk", frames, torch.Generator().manual_seed(1 + i))[None]
            with self.autocast():
                clip = pipe(
                    f"a {self.world.concepts[concept]} in the {places[i % len(places)]}",
                    num_frames=frames,
                    num_inference_steps=steps,
                    guidance_scale=self.subject_config.guidance_scale,
                    output_type="pt",
                    ip_adapter_image_embeds=[packs[:, i : i + 1]],
                    latents=clip_noise(pipe, self.in_common, frames, size, generator, self.smooth, way),
                    generator=generator,
                ).frames[0]
            at = torch.linspace(0, frames - 1, SHOWN).round().long()
            rows.append(torch.cat([example.references[i, :1] / 2 + 0.5, clip.float()[at]]))
        return torch.cat(rows).clamp(0, 1), SHOWN + 1

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A copy of its own config, which says nothing of the folder that this run started from.
        config = {key: value for key, value in self.adapter.config.items() if key != "_name_or_path"}
        adapter = MotionAdapter.from_config(
            config | {NOISE_KEY: self.in_common, SMOOTH_KEY: self.smooth, CARRY_KEY: True}
        )
        adapter.load_state_dict(self.adapter.state_dict())
        adapter.half().save_pretrained(folder / FOLDER, max_shard_size="15MB")


def motion_modules(adapter: MotionAdapter) -> list:
    """Its temporal transformers, in no order."""
    return [module for name, module in adapter.named_modules() if name.split(".")[-2:-1] == ["motion_modules"]]


def scaled(boxes: Tensor, by: Tensor) -> Tensor:
    """Boxes (..., 4) of other sizes around the same middles."""
    low, high = boxes[..., :2], boxes[..., 2:]
    middle, half = (low + high) / 2, (high - low) / 2 * by
    return torch.cat([middle - half, middle + half], -1)


def _change(clips: Tensor) -> Tensor:
    """Mean absolute difference of consecutive frames of clips (n, frames, ...): (n,)."""
    return (clips[:, 1:] - clips[:, :-1]).abs().flatten(1).mean(1)
