"""What tells, without sampling, whether a denoising recipe learns selection and identity."""

from __future__ import annotations

import torch
from torch import Tensor

from ...selection import patch_weights


@torch.no_grad()
def selection_signals(recipe, n: int) -> dict[str, float]:
    """Denoising loss on n fixed held-out targets, noise and timesteps, under right and wrong conditions; and, under the
    right ones, inside the subjects in the noisier half of the timesteps, where concept and identity are decided."""
    generator = torch.Generator(recipe.device).manual_seed(7)
    example = recipe.held_out(n, subjects=(1.0, 0.0, 0.0))
    kept = recipe.encode(example)
    other = kept["hidden"].roll(1, 0)  # another identity (and mostly another concept)
    noise = torch.randn(kept["latents"].shape, device=recipe.device, generator=generator)
    timesteps = torch.arange(n, device=recipe.device) * len(recipe.alphas) // n
    latents = kept["latents"].float()
    embeds = lambda ids: recipe.text_encoder(ids).last_hidden_state  # noqa: E731
    prompt, query = embeds(kept["caption_ids"]), embeds(kept["query_ids"].flatten(0, 1)).unflatten(0, (n, 2))
    wrong_query = embeds(example.other_ids)[:, None].expand_as(query)
    ones = torch.ones(n, 2, 1 + recipe.config.grid**2, device=recipe.device)
    mask = _weights_of(kept["masks"], recipe.config.grid)
    first = torch.tensor([1.0, 0.0], device=recipe.device).expand(n, 2)
    blank = recipe.blank_query.expand_as(prompt)
    cases = {
        "right": (prompt, query, kept["hidden"], ones, first),
        "mask": (prompt, recipe.blank_query[:, None].expand_as(query), kept["hidden"], mask, first),
        "wrong_query": (prompt, wrong_query, kept["hidden"], ones, first),
        "wrong_identity": (prompt, query, other, ones, first),
        "no_subject": (prompt, query, kept["hidden"], ones, first * 0),
        "subject_only": (blank, query, kept["hidden"], ones, first),
        "nothing": (blank, query, kept["hidden"], ones, first * 0),
    }
    noisy = recipe.scheduler.add_noise(latents, noise, timesteps)
    target = recipe.scheduler.get_velocity(latents, noise, timesteps)
    figures = {}
    has_rival = (example.other_ids != recipe._ids([""])).any(1)
    for name, case in cases.items():
        predicted, attention = [], []
        for part in torch.arange(n, device=recipe.device).split(128):
            inputs = [x[part] for x in (noisy, timesteps, *case)]
            inputs[4] = inputs[4].float()
            with recipe.autocast():
                noise_pred, _, seen = recipe._denoise(*inputs)
            predicted.append(noise_pred.float())
            attention.append(seen.float().mean(dim=(1, 2)).unflatten(0, (-1, 2))[:, 0])
        error = ((torch.cat(predicted) - target) ** 2).mean(dim=1, keepdim=True)
        everywhere, error = error, error.mean(dim=(1, 2, 3))
        use = has_rival if name in ("right", "wrong_query") else torch.ones_like(has_rival)
        figures[f"loss_{name}"] = float(error[use].mean() if name == "wrong_query" else error.mean())
        if name == "right":
            subject = (kept["area"] > 0.5)[n // 2 :]
            figures["loss_inside_noisy"] = float(everywhere[n // 2 :][subject].mean())
            figures["loss_right_where_rival"] = float(error[has_rival].mean())
            inside = (mask[:, 0] > 0.5).float()
            mass = (torch.cat(attention) * inside).sum(1)
            figures["attention_in_mask"] = float(mass.mean())
            figures["area_of_mask"] = float(inside.mean())
    return figures


def _weights_of(masks: Tensor, grid: int) -> Tensor:
    """uint8 masks (n, 2, H, W) to patch weights (n, 2, 1 + grid*grid)."""
    return patch_weights(masks.flatten(0, 1).float() / 255, grid).unflatten(0, (-1, 2))
