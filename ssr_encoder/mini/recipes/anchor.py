"""Learning one thing without losing others: elsewhere the target is what the model said before.

Trained on a little of what it does badly, an annealed model forgets (docs/log.md: concept 97.4 to 94.8 % for one
drawing's sake): every step is a noisy one everywhere. With its own earlier prediction for a target there is neither
noise nor anything to learn but to stay as it is (Li & Hoiem 2016, "Learning without Forgetting").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import Example, pooled_area
from ..world import World


class Anchor:
    """The model at the start of the run, and where its prediction is the target."""

    def __init__(self, start: nn.Module, world: World, learn: tuple[str, ...]):
        self.start = start.eval().requires_grad_(False)
        self.concepts = torch.tensor([world.concepts.index(name) for name in learn])

    def areas(self, example: Example, size: int) -> Tensor:
        """What subjects that are to be learned cover of each example's latents: (n, 2, size, size), by references."""
        learned = torch.isin(example.target.concept[:, : example.areas.shape[1]], self.concepts)
        return (
            pooled_area(example.areas.flatten(0, 1), size).unflatten(0, learned.shape)[:, :, 0]
            * (learned.to(example.areas)[:, :, None, None])
        )

    @torch.no_grad()
    def target(self, predict, model: dict[str, Tensor], target: Tensor, areas: Tensor, given: Tensor) -> Tensor:
        """``target`` (n, C, h, w) where a subject with a reference (``given``, (n, 2)) is to be learned, else what the
        model said at the start; ``predict`` as a recipe's ``_denoise``, ``model`` its arguments."""
        own = (areas * given[:, :, None, None]).sum(1, keepdim=True).clamp(max=1)
        return torch.lerp(predict(**model, denoiser=self.start)[0].float(), target, own.float())
