"""One setting with one seed: what learns, the loss, and one optimiser step (supplement, section B.2)."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SSRError
from ..files import written_beside
from .config import StudyConfig
from .decoder import FeatureDecoder
from .encoders import StudyEncoder, scales
from .pairs import Pairs


class Run:
    """One setting with one seed.

    Attributes:
        encoder: the backbone; a copy of its own in setting C, whose last layer learns.
        decoder: what reads the features.
        optimizer: Adam; group 0 is the decoder, group 1 (in C) the encoder's last layer at a tenth of the rate.
    """

    def __init__(self, config: StudyConfig, setting: str, seed: int, encoder: StudyEncoder, device: torch.device):
        self.config, self.setting, self.seed, self.device, self.step = config, setting, seed, device, 0
        self.layers = scales(config, encoder.depth) if setting == "D" else [encoder.depth]
        self.encoder = copy.deepcopy(encoder) if setting == "C" else encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # drawn on the CPU: the same on every device
            self.decoder = FeatureDecoder(
                encoder.width, len(self.layers), encoder.grid, encoder.size, config.channels,
                config.layers_per_block, config.middle_attention, config.groups,
            )  # fmt: skip
        self.decoder.to(device)
        groups = [{"params": list(self.decoder.parameters()), "lr": config.learning_rate}]
        if setting == "C":
            self.encoder.last_layer.requires_grad_(True)
            rate = config.learning_rate * config.encoder_rate
            groups.append({"params": list(self.encoder.last_layer.parameters()), "lr": rate})
        self.optimizer = torch.optim.Adam(groups)
        peaks = [group["lr"] for group in groups]
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, peaks, total_steps=config.steps)

    def loss(self, pictures: Tensor, texts: list[str]) -> Tensor:
        """L2 between the picture and its reconstruction, both in [-1, 1]; in C also L_clip of these pairs."""
        with torch.set_grad_enabled(self.setting == "C"):
            features, embeds = self.encoder.features(pictures, self.layers)
        loss = F.mse_loss(self.decoder(features), pictures * 2 - 1)
        if self.setting == "C":
            with torch.no_grad():
                words = self.encoder.text_embeds(texts)
            loss = loss + self.config.clip_weight * clip_loss(embeds, words, self.encoder.logit_scale.exp(), texts)
        return loss

    def take_step(self, pairs: Pairs) -> float:
        """One optimiser step over ``accumulate`` batches; returns their mean loss."""
        total, parts = 0.0, self.config.accumulate
        for part in range(parts):
            loss = self.loss(*pairs.batch(self.seed, self.step * parts + part, self.config.batch_size)) / parts
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step < self.config.steps:
            self.schedule.step()
        return total

    @torch.no_grad()
    def reconstruct(self, pictures: Tensor) -> Tensor:
        """(B, 3, size, size) in [0, 1] to the same."""
        return (self.decoder(self.encoder.features(pictures, self.layers)[0]) / 2 + 0.5).clamp(0, 1)

    def trained(self) -> dict[str, Tensor]:
        """Everything that learns, by name."""
        named = {f"decoder.{key}": value for key, value in self.decoder.state_dict().items()}
        if self.setting == "C":
            named |= {f"last_layer.{key}": value for key, value in self.encoder.last_layer.state_dict().items()}
        return named

    def save_state(self, path: Path) -> None:
        state = {"step": self.step, "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        with written_beside(path) as temporary:
            torch.save(state | {"trained": self.trained()}, temporary)

    def load_state(self, path: Path) -> None:
        """Go on from a file of :meth:`save_state`; an unreadable one is an SSRError."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            trained = state["trained"]
            _load(self.decoder, trained, "decoder.")
            if self.setting == "C":
                _load(self.encoder.last_layer, trained, "last_layer.")
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.step = state["step"]
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise SSRError(f"{path} cannot be read ({reason}); remove it to begin this run again") from None


def clip_loss(images: Tensor, words: Tensor, scale: Tensor, texts: list[str]) -> Tensor:
    """CLIP's symmetric contrastive loss on a batch's pairs (Radford et al. 2021, Fig. 3), taken for the "CLIP
    regularisation loss" that the supplement names and does not define. Pairs with the very same text are not each
    other's negatives.

    Args:
        images, words: (B, D) of unit length.
        scale: what cosines are multiplied by.
        texts: (B,).
    """
    logits = images @ words.t() * scale
    number = {text: i for i, text in enumerate(texts)}
    kind = torch.tensor([number[text] for text in texts], device=images.device)
    same = (kind[:, None] == kind[None]) & ~torch.eye(len(kind), dtype=torch.bool, device=images.device)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(logits), device=images.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def _load(module: nn.Module, named: dict[str, Tensor], prefix: str) -> None:
    module.load_state_dict({key.removeprefix(prefix): v for key, v in named.items() if key.startswith(prefix)})
