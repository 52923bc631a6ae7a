"""Stage ``vae``: the autoencoder, 128 px pictures to 4 x 32 x 32 latents."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import MiniConfig, make_vae
from ..world import World, sample_scenes
from .base import Recipe, TrainConfig


class VAERecipe(Recipe):
    """L1 and squared error of pixels and of their differences, with a very small KL term.

    Squared error is what PSNR counts; the error of neighbouring pixels' differences keeps faces and edges sharp.
    At export the latents are normalised channel by channel, inside the weights: ``scaling_factor`` is 1.
    """

    name = "vae"
    batch_sizes = {"cpu": 8, "cuda": 64}
    learning_rates = {"cpu": 1e-3, "cuda": 1e-3}
    weight_decay = 0.0
    crop = 64  # pixels, on the CPU: local detail does not need whole pictures

    def __init__(self, config: MiniConfig, train: TrainConfig, device: torch.device, weights: Path | None = None):
        super().__init__(config, train, device)
        self.world = World.load(device)
        self.trained = make_vae(config).to(device)
        if weights is not None and (weights / "vae").exists():
            self.trained.load_state_dict(type(self.trained).from_pretrained(weights / "vae").state_dict())
        if self.cuda:
            self.trained.to(memory_format=torch.channels_last)
        self._loss = self.compiled(self._reconstruction_loss)
        held_out = torch.Generator(device).manual_seed(7)
        self.fixed = self._pictures(64, held_out, "holdout")
        self.prepare()

    def _pictures(self, n: int, generator: torch.Generator, split: str) -> Tensor:
        scenes = sample_scenes(self.world, n, generator, split=split)
        return self.world.render(scenes, self.config.image_size)[0] * 2 - 1

    def _reconstruction_loss(self, pictures: Tensor, noise: Tensor):
        with self.autocast():
            posterior = self.trained.encode(pictures).latent_dist
            latents = posterior.mean + noise * posterior.std
            decoded = self.trained.decode(latents).sample.float()
        squared = F.mse_loss(decoded, pictures)
        loss = F.l1_loss(decoded, pictures) + 2 * squared
        for dim in (2, 3):
            loss = loss + F.l1_loss(decoded.diff(dim=dim), pictures.diff(dim=dim))
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        return loss + 1e-4 * kl, squared, kl

    def loss(self):
        pictures = self._pictures(self.batch_size, self.generator, "train")
        if not self.cuda:
            x, y = torch.randint(0, self.config.image_size - self.crop + 1, (2,), generator=self.generator).tolist()
            pictures = pictures[:, :, y : y + self.crop, x : x + self.crop]
        size = pictures.shape[-1] // 2 ** (len(self.config.vae_channels) - 1)
        noise = torch.randn(
            len(pictures), self.config.latent_channels, size, size, device=self.device, generator=self.generator
        )
        if self.cuda:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        loss, squared, kl = self._loss(pictures, noise)
        return loss, {"psnr": psnr(squared), "kl": kl}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        errors = [F.mse_loss(self._reconstruct(part), part) for part in self.fixed.split(16)]
        return {"psnr_held_out": float(psnr(torch.stack(errors).mean()))}

    @torch.no_grad()
    def sample_grid(self) -> Tensor:
        pictures = self.fixed[:16]
        return torch.stack([pictures, self._reconstruct(pictures)], 1).flatten(0, 1) / 2 + 0.5, 8

    def _reconstruct(self, pictures: Tensor) -> Tensor:
        return self.trained.decode(self.trained.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        vae = make_vae(self.config).to(self.device)
        vae.load_state_dict(self.trained.state_dict())
        generator = torch.Generator(self.device).manual_seed(11)
        latents = torch.cat([vae.encode(self._pictures(64, generator, "train")).latent_dist.mean for _ in range(4)])
        normalise_latents(vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
        vae.half().save_pretrained(folder / "vae", max_shard_size="15MB")


def psnr(squared_error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return 10 * torch.log10(4 / squared_error)


def normalise_latents(vae, mean: Tensor, std: Tensor) -> None:
    """Give latents zero mean and unit variance by channel, inside the 1 x 1 convolutions around them: reconstruction
    stays the same and ``scaling_factor`` stays 1."""
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # log-variance
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= std[None, :, None, None]
