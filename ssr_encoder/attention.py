"""Subject cross-attention in diffusers' own slot: one weight-free processor, ``install`` and ``remove``.

The stock UNets hand a processor the pair ``(prompt_embeds, image_embeds)`` when ``encoder_hid_dim_type`` is
``"ip_image_proj"``, and the stock pipelines carry ``ip_adapter_image_embeds`` there, doubled for guidance. What we
send through that slot is not the subject tokens but the packed *keys and values* that every layer makes of them
(packing.py): they are constant, so they are computed once a generation and no step repeats it, and the processor
stays a pure function of its inputs (nothing to cache, nothing for ``torch.compile`` to break on).

With guidance the negative rows hold the same unconditional tokens once a subject. Where it is known that the first
half of a batch is negative, two packs can be sent, and the negative half then reads its tokens once: attention over N
copies equals attention over one, with the scale ``sum_i s_i^2 / sum_i s_i``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import SSRError
from .packing import OFF, SubjectRows

NUM_TRAIN_TIMESTEPS = 1000  # of Stable Diffusion 1.5 and of everything made from it


class SubjectProjection(nn.Module):
    """Stands in ``unet.encoder_hid_proj``: passes packs on as they are, with the progress of the denoising.
    Holds no parameters, so a UNet saved while installed has the same weights as before."""

    def __init__(self, widths: list[int]):
        super().__init__()
        total, num_layers = 2 * sum(widths), len(widths)
        self.widths = widths
        self.columns = (total, total + num_layers, total + num_layers + 2)  # what a pack for this UNet may have

    def forward(self, image_embeds: list[Tensor]) -> list[SubjectRows]:
        if not image_embeds:
            return []
        *packs, progress, latents = image_embeds
        if len(packs) not in (1, 2) or any(pack.ndim != 4 for pack in packs):
            raise SSRError(
                "this UNet expects the subjects' pack in ip_adapter_image_embeds; make it with conditioning(subjects)"
            )
        rows = []
        for pack in packs:
            if pack.shape[-1] not in self.columns:
                raise SSRError(
                    f"the subjects' pack has {pack.shape[-1]} columns, this UNet needs {self.columns[0]}; make it with "
                    "conditioning(subjects) of the encoder that is installed"
                )
            if len(pack) * pack.shape[1] > latents and pack.shape[1] > 1:
                # Pipelines copy rows once a prompt; where prompts have rows of their own that is surplus. What is not
                # is one negative and one positive row, or without guidance (as many latents as prompts) one.
                pack = pack[:: len(pack) - 1] if latents >= 2 * pack.shape[1] else pack[:1]
            pack = pack.flatten(0, 1)
            if len(packs) == 2:  # the first pack is for the negative rows, the second for the positive ones
                pack = pack.chunk(2)[len(rows)]
            rows.append(SubjectRows(pack, progress, self.widths))
        return rows


def _provide(unet: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Forward pre-hook of the UNet: no subjects is a valid call, and what stands in its slot needs to know how far
    along it is and how many latents there are."""
    timestep = args[1] if len(args) > 1 else kwargs["timestep"]
    if not torch.is_tensor(timestep):
        timestep = torch.tensor(timestep)
    added = dict(kwargs.get("added_cond_kwargs") or {})
    packs = [pack for pack in added.get("image_embeds") or [] if pack is not None]
    progress = 1 - timestep.flatten()[0].float() / NUM_TRAIN_TIMESTEPS
    sample = args[0] if args else kwargs["sample"]
    latents = len(sample) * (sample.shape[2] if sample.ndim == 5 else 1)  # a video's frames count each
    added["image_embeds"] = [*packs, progress, latents] if packs else []
    return args, {**kwargs, "added_cond_kwargs": added}


class SubjectAttnProcessor:
    """Text attention as in diffusers, plus subject attention over the layer's part of the pack."""

    def __init__(self, index: int):
        self.index = index

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, ip_adapter_masks=None
    ):
        rows = []
        if isinstance(encoder_hidden_states, tuple):
            encoder_hidden_states, rows = encoder_hidden_states
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        if encoder_hidden_states is None:
            encoder_hidden_states = hidden_states
        elif attn.norm_cross:
            encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
        batch, length, _ = encoder_hidden_states.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, length, batch)
            attention_mask = attention_mask.view(batch, attn.heads, -1, attention_mask.shape[-1])

        query = attn.to_q(hidden_states)
        key, value = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        out = self._attend(attn, query, key, value, attention_mask)
        if len(rows) == 1:
            out = out + self._subjects(attn, query, rows[0], ip_adapter_masks)
        elif rows:  # the negative half of the batch reads the first pack, the positive half the second
            halves = zip(query.chunk(2), rows, strict=True)
            out = out + torch.cat([self._subjects(attn, half, given, None) for half, given in halves])

        out = attn.to_out[1](attn.to_out[0](out))
        if len(shape) == 4:
            out = out.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def _subjects(self, attn, query: Tensor, rows: SubjectRows, regions: list[Tensor] | None) -> Tensor:
        """Subject attention; query (B, Q, width), B a multiple of the pack's rows -> (B, Q, width)."""
        num_rows, tokens, _ = rows.shape
        if query.shape[0] % num_rows:
            raise SSRError(f"{query.shape[0]} latents do not divide among the {num_rows} rows of the subjects' pack")
        key, value = rows.key_value(self.index)
        # The images and frames of one row share its keys: they become more queries, not copies of the keys.
        folded = query.reshape(num_rows, -1, query.shape[-1])
        bias, window = rows.log_scale(self.index), rows.window()
        if bias is not None:
            bias = bias[:, None, None]  # (R, 1, 1, N*T)
        if window is not None:
            active = (window[0] <= rows.progress) & (rows.progress < window[1])  # (R, N*T)
            value = value * active[..., None].to(value.dtype)
            bias = bias.where(active[:, None, None], OFF)
        if regions is None:
            bias = None if bias is None else bias.to(query.dtype).expand(num_rows, 1, -1, -1)
            return self._attend(attn, folded, key, value, bias).reshape(query.shape)
        inside = region_weights(regions, query.shape[1], query).repeat(folded.shape[1] // query.shape[1], 1)  # (gQ, N)
        subjects = inside.shape[1]
        limit = inside.clamp(min=1e-6).log().where(inside > 0, OFF)
        limit = limit.repeat_interleave(tokens // subjects, dim=1)[None, None]
        bias = (limit if bias is None else bias + limit).to(query.dtype).expand(num_rows, 1, -1, -1)
        # The factor varies by query here and cannot sit in the values: each subject's share is read apart.
        owner = torch.arange(tokens, device=query.device) // (tokens // subjects)
        inside = inside.to(query.dtype)
        out = torch.zeros_like(folded)
        for i in range(subjects):
            own = value * (owner == i)[:, None].to(value.dtype)
            out = out + inside[:, i, None] * self._attend(attn, folded, key, own, bias)
        return out.reshape(query.shape)

    def _attend(self, attn, query, key, value, mask):
        batch, heads, head_dim = query.shape[0], attn.heads, key.shape[-1] // attn.heads
        query, key, value = (x.unflatten(-1, (heads, head_dim)).transpose(1, 2) for x in (query, key, value))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out.transpose(1, 2).reshape(batch, -1, heads * head_dim).to(query.dtype)


def region_weights(regions: Tensor | list[Tensor], num_queries: int, like: Tensor) -> Tensor:
    """Output regions (1, N, height, width) in [0, 1] at a layer's resolution: (num_queries, N).

    The regions have the picture's size. A UNet halves it again and again, rounding up; a layer's own is found so.
    """
    regions = regions[0] if isinstance(regions, (list, tuple)) else regions
    height, width = regions.shape[-2:]
    rows, columns = height, width
    while rows * columns > num_queries:
        rows, columns = -(-rows // 2), -(-columns // 2)
    if rows * columns != num_queries:
        raise SSRError(f"a region of {width} x {height} has another shape than the picture; give it the picture's size")
    small = F.interpolate(regions.to(like.device, torch.float32), (rows, columns), mode="area")
    return small[0].flatten(1).t().clamp(0, 1)


def subject_layers(unet: nn.Module) -> dict[str, int]:
    """Names and inner widths of a UNet's text cross-attentions, in ``attn_processors`` order.

    Motion modules attend over frames, not text: their names contain ``motion_modules``.
    """
    found = {}
    for name in unet.attn_processors:
        name = name.removesuffix(".processor")
        if name.endswith("attn2") and "motion_modules" not in name:
            found[name] = unet.get_submodule(name).inner_dim
    return found


def install(unet: nn.Module, layers: dict[str, int]) -> nn.Module:
    """Put subject cross-attention into a UNet's slot; :func:`remove` undoes it exactly.

    Args:
        unet: a diffusers ``UNet2DConditionModel``, ``UNetMotionModel`` or a compiled one. Weights are not touched.
        layers: name -> inner width of the cross-attentions to use (``SubjectConfig.layers``).

    Raises:
        SSRError: a layer is missing or of another width, or the slot is taken by an IP-Adapter or another encoder.
    """
    unet = getattr(unet, "_orig_mod", unet)
    if not hasattr(unet, "attn_processors") or not hasattr(unet, "encoder_hid_proj"):
        raise SSRError(f"a {type(unet).__name__} has no UNet for subjects; give a Stable Diffusion 1.5 pipeline")
    if is_installed(unet):
        raise SSRError("a subject encoder is already installed in this pipeline; call remove(pipe) first")
    if claimed(unet):
        remove(unet)  # something (attention slicing, xformers) replaced our processors: put them back
    if unet.encoder_hid_proj is not None or unet.config.encoder_hid_dim_type is not None:
        raise SSRError("this UNet's image slot is taken (an IP-Adapter?); call pipe.unload_ip_adapter() first")
    present = subject_layers(unet)
    wrong = [f"{n} ({w} wide, found {present.get(n, 'none')})" for n, w in layers.items() if present.get(n) != w]
    wrong += [f"{n} (unknown to the encoder, found {w})" for n, w in present.items() if n not in layers]
    if wrong:
        raise SSRError(
            f"this encoder is made for another UNet: {len(wrong)} layers do not fit, first "
            f"{'; '.join(wrong[:3])}; use the base model that the encoder was trained on"
        )
    processors = {}
    for index, name in enumerate(layers):
        attn = unet.get_submodule(name)
        processors[name] = attn.processor
        attn.set_processor(SubjectAttnProcessor(index))
    handle = unet.register_forward_pre_hook(_provide, with_kwargs=True)
    unet._ssr_installed = (processors, handle, unet.config.encoder_hid_dim_type)
    unet.encoder_hid_proj = SubjectProjection(list(layers.values()))
    # As diffusers' own IP-Adapters do it: the attribute that forward reads, not the entry that is saved.
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    return unet


def remove(unet: nn.Module) -> nn.Module:
    """Take the subject cross-attention out again; the UNet is as it was before :func:`install`."""
    unet = getattr(unet, "_orig_mod", unet)
    if not claimed(unet):
        raise SSRError("no subject encoder is installed in this pipeline; nothing to remove")
    processors, handle, hid_type = unet._ssr_installed
    handle.remove()
    for name, processor in processors.items():
        unet.get_submodule(name).set_processor(processor)
    del unet.encoder_hid_proj, unet._ssr_installed
    unet.encoder_hid_proj = None
    unet.config.encoder_hid_dim_type = hid_type
    return unet


def is_installed(unet: nn.Module) -> bool:
    """Whether the subject cross-attention is in place, with every processor still ours."""
    unet = getattr(unet, "_orig_mod", unet)
    if not claimed(unet):
        return False
    return all(isinstance(unet.get_submodule(n).processor, SubjectAttnProcessor) for n in unet._ssr_installed[0])


def claimed(unet: nn.Module) -> bool:
    """Whether :func:`install` was called and :func:`remove` not yet, even if processors were replaced since."""
    return getattr(getattr(unet, "_orig_mod", unet), "_ssr_installed", None) is not None
