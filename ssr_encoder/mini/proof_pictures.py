"""The pictures of a proof: prompts with subjects of their own, many at once, through a stock pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..encoder import SSREncoder
from ..guidance import subject_guidance
from ..subject import Subject

if TYPE_CHECKING:
    from .proof import Case


@torch.no_grad()
def make_pictures(
    ssr: SSREncoder,
    cases: list[Case],
    subjects: list[list[Subject]] | None,
    steps: int,
    seed: int,
    batch: int = 16,
    on_step: Callable[[], None] = lambda: None,
    pipe=None,
    images: Tensor | None = None,
    guidance_scale: float | None = None,
) -> Iterator[Tensor]:
    """Pictures (3, H, W) in [0, 1] of the cases, in batches of prompts with subjects of their own.

    Args:
        pipe: any stock pipeline that the encoder is installed in; default its own.
        images: (n, 3, H, W), a picture a case that the pipeline starts from, such as a ControlNet's maps.
        guidance_scale: default the encoder's.
    """
    pipe = pipe or ssr.pipe
    guidance_scale = ssr.config.guidance_scale if guidance_scale is None else guidance_scale
    halves = ("unconditional_tokens", "tokens") if guidance_scale > 1 else ("tokens",)
    strength = ssr.config.subject_guidance if guidance_scale > 1 else 0.0
    pipe.set_progress_bar_config(disable=True)

    def after_step(pipe, step, timestep, tensors):
        on_step()
        return tensors

    for start in range(0, len(cases), batch):
        part = cases[start : start + batch]
        embeds = None
        if subjects is not None:
            mine = subjects[start : start + batch]
            rows = [[getattr(s, half) for s in row] for half in halves for row in mine]
            tokens = torch.stack([torch.stack(row) for row in rows]).to(ssr.device, ssr.dtype)
            scale = ssr.config.default_scale(len(mine[0]))
            embeds = [ssr.model.key_values(tokens, scale).unflatten(0, (len(halves), -1))]
        with subject_guidance(pipe.unet, strength, ssr.config.subject_guidance_until):
            pictures = pipe(
                [case.prompt for case in part],
                **({} if images is None else {"image": images[start : start + batch].to(ssr.device)}),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                ip_adapter_image_embeds=embeds,
                generator=[torch.Generator("cpu").manual_seed(seed + start + i) for i in range(len(part))],
                output_type="pt",
                callback_on_step_end=after_step,
            ).images
        yield from pictures.float()
