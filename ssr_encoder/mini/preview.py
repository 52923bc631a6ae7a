"""A sample grid of the denoising recipes, through the stock pipeline."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from torch import Tensor

from .data import draw
from .models import make_scheduler

PLACES = ("snow", "beach", "night")


@torch.no_grad()
def preview(recipe, rows: int = 0, steps: int = 0, guidance_scale: float = 3.0, scheduler=None) -> tuple[Tensor, int]:
    """Each row: reference, the asked-for subject cut out, the subject in new scenes, and the same prompt with no
    subject. Returns pictures (rows * columns, 3, H, W) in [0, 1] and the number of columns."""
    rows, steps = rows or (12 if recipe.cuda else 2), steps or (20 if recipe.cuda else 8)
    generator, rng = torch.Generator().manual_seed(5), random.Random(5)
    example = draw(
        recipe.world, recipe.tokenizer, recipe.config, rows, generator, rng, "holdout", sampler=recipe.sampler
    )
    kept = recipe.encode(example)
    pipe = StableDiffusionPipeline(
        **parts(recipe), unet=recipe.denoiser.unet, safety_checker=None, requires_safety_checker=False
    )
    pipe.scheduler = scheduler or pipe.scheduler
    pipe.set_progress_bar_config(disable=True)
    places = [p for p in PLACES if p in recipe.world.places] or recipe.world.places[:3]
    columns = [example.references[:, 0] / 2 + 0.5]
    mask = kept["masks"][:, 0].float()[:, None] / 255
    columns.append(columns[0] * mask + 0.5 * (1 - mask))
    with recipe.autocast():
        pack = first_subjects(recipe, kept)
        for place, given in [(p, pack) for p in places] + [(places[0], None)]:
            prompts = [f"a {recipe.world.concepts[c]} in the {place}" for c in example.target.concept[:, 0].tolist()]
            pictures = pipe(
                prompts,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                output_type="pt",
                ip_adapter_image_embeds=None if given is None else [given if guidance_scale > 1 else given[1:]],
                generator=torch.Generator(recipe.device).manual_seed(1),
            ).images
            columns.append(pictures.float())
    columns = [F.interpolate(c, size=columns[0].shape[-2:]) for c in columns]
    return torch.stack(columns, 1).flatten(0, 1).clamp(0, 1), len(columns)


def first_subjects(recipe, kept: dict[str, Tensor]) -> Tensor:
    """The pack (2, n, tokens, F) for guidance of the first subject of n encoded examples, asked for by its word."""
    subject = recipe.denoiser.subject
    query = recipe.text_encoder(kept["query_ids"][:, 0]).last_hidden_state
    tokens = subject.aligner(query, list(kept["hidden"][:, 0].to(query.dtype).unbind(1)))[0]
    blank = subject.aligner(recipe.blank_query, list(recipe.blank_image.unbind(1)))[0].expand_as(tokens)
    return subject.key_values(torch.cat([blank, tokens])[:, None]).unflatten(0, (2, -1))


def parts(recipe) -> dict:
    """What every stock pipeline is made of, but for its UNet."""
    return {
        "vae": recipe.vae,
        "text_encoder": recipe.text_encoder,
        "tokenizer": recipe.tokenizer,
        "scheduler": make_scheduler(),
        "feature_extractor": None,
    }
