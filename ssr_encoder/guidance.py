"""Subject guidance: in the noisy steps, further away from the same prompt without its subjects.

Classifier-free guidance pushes prompt and subject away from nothing, both with the same weight. What distinguishes
*this* subject from others of its kind is a small part of that difference and gets lost. Here the positive prediction
is moved on along what the subjects alone change,

    e  =  e(prompt, subjects) + strength * (e(prompt, subjects) - e(prompt)),

before the pipeline applies its own guidance to it: guidance with a weight for each condition (Liu et al. 2022;
Brooks et al. 2023, equation 3), of ``guidance_scale`` for the prompt and ``(1 + strength) * guidance_scale`` for the
subjects. The third prediction is made in the noisiest steps only, where the subject is decided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from .attention import NUM_TRAIN_TIMESTEPS


@contextlib.contextmanager
def subject_guidance(unet: nn.Module, strength: float, until: float, *, halves: bool = True) -> Iterator[None]:
    """Within the context a UNet's positive predictions have subject guidance; after it the UNet is as before.

    Args:
        unet: with an encoder installed; predictions without subjects in them are left alone.
        strength: 0 and up; 0 changes nothing.
        until: part of the denoising, from 0 (noise) to 1 (picture), after which predictions are left alone.
        halves: the first half of a batch is negative (classifier-free guidance is on) and is left alone.
    """
    if strength <= 0 or until <= 0:
        yield
        return
    inner = False

    def push(unet, args, kwargs, output):
        nonlocal inner
        timestep = torch.as_tensor(args[1] if len(args) > 1 else kwargs["timestep"])
        if inner or 1 - float(timestep.flatten()[0]) / NUM_TRAIN_TIMESTEPS > until or not _subjects(kwargs):
            return None
        rows = len(args[0] if args else kwargs["sample"])
        given = _positive((args, _without_subjects(kwargs)), rows) if halves else (args, _without_subjects(kwargs))
        inner = True
        try:
            without = unet(*given[0], **given[1])
        finally:
            inner = False
        both = output[0] if isinstance(output, tuple) else output.sample
        kept, pushed = both.chunk(2) if halves else (both[:0], both)
        plain = without[0] if isinstance(without, tuple) else without.sample
        both = torch.cat([kept, pushed + strength * (pushed - plain)])
        return (both, *output[1:]) if isinstance(output, tuple) else type(output)(sample=both)

    handle = unet.register_forward_hook(push, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _subjects(kwargs: dict) -> bool:
    packs = (kwargs.get("added_cond_kwargs") or {}).get("image_embeds") or []
    return any(pack is not None for pack in packs)


def _without_subjects(kwargs: dict) -> dict:
    added = {**(kwargs.get("added_cond_kwargs") or {}), "image_embeds": []}
    more = {k: v for k, v in (kwargs.get("cross_attention_kwargs") or {}).items() if k != "ip_adapter_masks"}
    return {**kwargs, "added_cond_kwargs": added, "cross_attention_kwargs": more or None}


def _positive(value, rows: int):
    """The second half of everything in a call that has a row, or several (a video's frames), for each latent."""
    if torch.is_tensor(value):
        return value.chunk(2)[1] if value.ndim and len(value) % rows == 0 else value
    if isinstance(value, (tuple, list)):
        return type(value)(_positive(v, rows) for v in value)
    if isinstance(value, dict):
        return {k: _positive(v, rows) for k, v in value.items()}
    return value
