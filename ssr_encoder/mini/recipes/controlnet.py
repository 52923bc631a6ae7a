"""Stage ``controlnet``: a stock ControlNet beside the finished UNet, for layout maps and edge maps of the world."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from torch import Tensor

from ...losses import denoising_loss, snr_weight
from ..control import edge_map, layout_map
from ..models import make_controlnet
from ..preview import first_subjects, parts
from .streams import part_of
from .subject import UNetRecipe


class ControlNetRecipe(UNetRecipe):
    """The ControlNet learns alone; UNet and subject encoder are frozen, but take part: it sees the prompt only, the
    UNet the prompt and the subjects."""

    name = "controlnet"
    batch_sizes = {"cpu": 16, "cuda": 256}
    learning_rates = {"cpu": 5e-4, "cuda": 5e-4}
    conditions = (0.6, 0.05, 0.25, 0.1)
    # What map a sample comes with: layout, edges; the others get a black one. Layouts are learned sooner: after 358
    # steps with 0.5 and 0.4 they were followed (IoU 0.81 in 8 pictures), edges hardly (0.37).
    maps = (0.35, 0.55)
    # What a map says is settled while the picture is still mostly noise: after 358 even steps the layout had lowered
    # the error by 0.32 at timestep 980, by 0.04 at 550, by 0.001 at 100.
    noisier = 1 / 3
    train_base = False
    replicated = False

    def prepare(self) -> None:
        self.denoiser.requires_grad_(False)
        self.trained = make_controlnet(self.config).to(self.device)
        start_from(self.trained, self.denoiser.unet)
        if (self.weights / "controlnet").exists():
            self.trained.load_state_dict(ControlNetModel.from_pretrained(self.weights / "controlnet").state_dict())
        if self.cuda:
            self.trained.to(memory_format=torch.channels_last)
        super().prepare()

    def _load(self, weights: Path) -> None:
        self.weights = weights
        super()._load(weights)

    # -- the step
    def encode(self, example) -> dict[str, Tensor]:
        """As the UNet's, with both maps of the target, uint8 (n, H, W)."""
        maps = {"layout": layout_map(example.subject_area[:, None]), "edges": edge_map(example.pictures / 2 + 0.5)}
        return super().encode(example) | {k: (v[:, 0] * 255).round().to(torch.uint8) for k, v in maps.items()}

    def _conditions(self, batch: dict[str, Tensor]) -> dict:
        made = super()._conditions(batch)
        layout, edges = self.maps
        chance = torch.rand(len(batch["latents"]), 1, 1, device=self.device, generator=self.generator)
        drawn = torch.where(chance < layout, batch["layout"], batch["edges"])
        made["model"]["control"] = _map(drawn * (chance < layout + edges))
        return made

    def _loss_of(self, batch: dict):
        with self.autocast():
            noise_pred = self._denoise(**batch["model"])[0]
        weight = snr_weight(self.alphas, batch["model"]["timesteps"])
        return denoising_loss(noise_pred, batch["target"], weight, batch["pixel_weight"]), {}

    def _denoise(self, noisy, timesteps, prompt_embeds, query_embeds, hidden, weights, scale, control=None):
        """Without ``control`` (n, 3, H, W) in [0, 1] there is no ControlNet."""
        down = mid = None
        if control is not None:
            down, mid = self.trained(noisy, timesteps, prompt_embeds, control, return_dict=False)
        pack, scale_embeds, attention = self.denoiser.subject(
            query_embeds, list(hidden.unbind(2)), weights, scale[:, :, None]
        )
        noise_pred = self.denoiser.unet(
            noisy,
            timesteps,
            prompt_embeds,
            added_cond_kwargs={"image_embeds": [pack[None]]},
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        return noise_pred, scale_embeds, attention

    # -- figures that need no sampling
    @torch.no_grad()
    def evaluate(self, n: int = 0) -> dict[str, float]:
        """The loss on fixed held-out targets, noise, timesteps and conditions: with the target's own map, with that of
        another target, and without a ControlNet."""
        n = n or (512 if self.cuda else 48)
        kept = self.encode(self.held_out(n))
        generator, self.generator = self.generator, torch.Generator(self.device).manual_seed(7)
        batch = self._conditions(kept)
        self.generator = generator
        right = {kind: _map(kept[kind]) for kind in ("layout", "edges")}
        cases = right | {f"wrong_{kind}": maps.roll(1, 0) for kind, maps in right.items()} | {"no_control": None}
        del batch["model"]["control"]
        figures = {}
        for name, control in cases.items():
            case = {**batch, "model": batch["model"] | ({} if control is None else {"control": control})}
            parts = torch.arange(n, device=self.device).split(128 if self.cuda else 16)
            total = sum(float(self._loss_of(part_of(case, rows))[0]) * len(rows) for rows in parts)
            figures[f"loss_{name}"] = total / n
        return figures

    @torch.no_grad()
    def sample_grid(self) -> tuple[Tensor, int]:
        """Rows: reference; the target's layout and a picture with the subject; the same by its edges; no map."""
        rows, steps = (12, 20) if self.cuda else (2, 8)
        example = self.held_out(rows)
        kept = self.encode(example)
        pipe = StableDiffusionControlNetPipeline(
            **parts(self),
            unet=self.denoiser.unet,
            controlnet=self.trained,
            safety_checker=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        columns = [example.references[:, 0] / 2 + 0.5]
        prompts = [f"a {self.world.concepts[c]} in the snow" for c in example.target.concept[:, 0].tolist()]
        with self.autocast():
            pack = first_subjects(self, kept)
            for kind in ("layout", "edges", None):
                control = torch.zeros_like(columns[0]) if kind is None else _map(kept[kind])
                pictures = pipe(
                    prompts,
                    control,
                    num_inference_steps=steps,
                    guidance_scale=3.0,
                    output_type="pt",
                    ip_adapter_image_embeds=[pack],
                    generator=torch.Generator(self.device).manual_seed(1),
                ).images
                columns += [control, pictures.float()]
        return torch.stack(columns, 1).flatten(0, 1).clamp(0, 1), len(columns)

    def export(self, folder: Path) -> None:
        controlnet = make_controlnet(self.config)
        controlnet.load_state_dict(self.trained.state_dict())
        controlnet.half().save_pretrained(folder / "controlnet", max_shard_size="15MB")


def start_from(controlnet: ControlNetModel, unet) -> None:
    """Give a ControlNet the encoder's weights of a UNet, as Zhang et al. 2023 start it; the subject encoder may be
    installed in it, unlike for diffusers' ``from_unet``."""
    own = controlnet.state_dict()
    controlnet.load_state_dict({k: v for k, v in unet.state_dict().items() if k in own}, strict=False)


def _map(values: Tensor) -> Tensor:
    """uint8 (n, H, W) to (n, 3, H, W) in [0, 1]."""
    return (values.float() / 255)[:, None].expand(-1, 3, -1, -1)
