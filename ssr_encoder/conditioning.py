"""Subjects as keyword arguments of a stock pipeline's call: their keys and values in diffusers' own slot."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .errors import SSRError
from .subject import Subject, subject_scales


@torch.no_grad()
def conditioning(
    ssr,
    subjects: Iterable[Subject],
    *,
    guidance: bool = True,
    size: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    halves: bool = False,
) -> dict:
    """Keyword arguments for a stock pipeline's call that put these subjects in.

    Args:
        subjects: any number; those at scale 0 are left out.
        guidance: whether the call uses classifier-free guidance (``guidance_scale`` above 1).
        size: (height, width) of the generated picture, needed if a subject has a region.
        dtype: of the pipeline's UNet; default the encoder's.
        halves: the caller knows that the first half of the UNet's batch is negative and the second positive (so
            in every stock pipeline with guidance but the PAG ones). Several subjects are then faster, as the
            negative half reads the unconditional tokens, which are the same for all, once.

    Raises:
        SSRError: a subject was made by another encoder.
    """
    subjects = list(subjects)
    for subject in subjects:
        if subject.fingerprint != ssr.fingerprint:
            raise SSRError(
                f"subject {subject.query!r} was encoded by another model ({subject.fingerprint or 'unknown'}, this "
                f"one is {ssr.fingerprint}); encode it again with this one"
            )
    scales = subject_scales(ssr.config, subjects)
    used, scales = [s for s, x in zip(subjects, scales, strict=True) if x > 0], [x for x in scales if x > 0]
    if not used:
        return {}
    dtype = dtype or ssr.dtype
    tokens = torch.stack([s.tokens for s in used])[None]
    regional = any(s.region is not None for s in used)
    scheduled = any(s.steps != (0.0, 1.0) for s in used)
    halves = halves and guidance and len(used) > 1 and not regional and not scheduled
    if guidance and not halves:
        tokens = torch.cat([torch.stack([s.unconditional_tokens for s in used])[None], tokens])
    table = torch.tensor(
        [[x * s.layer_factor(n) for n in ssr.config.layers] for s, x in zip(used, scales, strict=True)]
    )
    window = torch.tensor([s.steps for s in used]) if scheduled else None
    if window is not None:
        window = torch.where(window >= 1, 1.1, window)  # the last step's progress is 1
    packs = [_pack(ssr, tokens, table, window, dtype)]
    if halves:
        once = ((table**2).sum(0) / table.sum(0).clamp(min=1e-12))[None]
        packs = [_pack(ssr, used[0].unconditional_tokens[None, None], once, None, dtype), *packs]
        packs = [pack.expand(2, -1, -1, -1) for pack in packs]  # the pipeline splits and joins rows
    arguments = {"ip_adapter_image_embeds": packs}
    if regional:
        if size is None:
            raise SSRError("a subject has an output region; say the picture's size=(height, width)")
        regions = torch.stack([s.region_mask(*size) for s in used])[None]
        arguments["cross_attention_kwargs"] = {"ip_adapter_masks": [regions.to(ssr.device)]}
    return arguments


def _pack(ssr, tokens: Tensor, table: Tensor, window: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Keys and values (R, 1, N*T, F) of tokens (R, N, T, D) under scales (N, layers)."""
    scale = float(table[0, 0]) if bool((table == table[0, 0]).all()) else table[None].to(ssr.device)
    return ssr.model.key_values(tokens.to(ssr.device, ssr.dtype), scale, window)[:, None].to(dtype)
