"""A picture in 8 steps without guidance: a distilled LoRA and its scheduler in the encoder's pipeline, for a while.

The embedded model's LoRA is trained by ``mini/recipes/few_step.py``. Any LoRA of the base model that was distilled for
DDIM with trailing timesteps and no guidance fits here; LCM-LoRAs want a scheduler of their own and do not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .errors import SSRError
from .extras import need
from .files import may_be_hub_id

if TYPE_CHECKING:
    from .encoder import SSREncoder

FEW_STEPS = 8
FOLDER, FILE = "few_step", "pytorch_lora_weights.safetensors"


@contextlib.contextmanager
def few_steps(ssr: SSREncoder, lora: str | os.PathLike | None = None) -> Iterator[dict]:
    """Within the context ``ssr.pipe``, and what is built of it there, draws in few steps; after it all is as before.

    ``with few_steps(ssr) as settings: ssr.generate(prompt, subject, **settings)``: about an eighth of the arithmetic
    of 30 steps with guidance. Other LoRAs in the pipeline stay active, as strong as they are then. Video pipelines
    cannot be built within it.

    Args:
        lora: a folder, a file or a hub id; default the base model's own (``few_step/`` beside it).

    Yields:
        ``num_inference_steps`` and ``guidance_scale`` for :meth:`SSREncoder.generate`.

    Raises:
        SSRError: peft is not installed, the base has no LoRA of its own, or the LoRA cannot be loaded or fits another
            UNet.
    """
    need("peft", "lora")
    where = _place(ssr, None if lora is None else str(lora))
    pipe = ssr.pipe
    others, scales, scheduler = _active(pipe), _scales(pipe), pipe.scheduler
    merged: list[tuple] = []
    try:
        try:
            pipe.load_lora_weights(where, adapter_name=FOLDER, use_safetensors=True)
            if FOLDER not in pipe.get_active_adapters():
                raise ValueError("nothing in it is for this UNet")
        except Exception as error:  # diffusers lets through what the file, the hub and peft raise
            reason = " ".join(str(error).split())[:120]
            raise SSRError(f"cannot use the LoRA {where} ({reason}); give one that was made for this base") from None
        pipe.set_adapters([*others, FOLDER])
        _put_back(scales)
        pipe.scheduler = few_step_scheduler(scheduler)
        _merge(pipe.unet, merged)
        yield {"num_inference_steps": FEW_STEPS, "guidance_scale": 1.0}
    finally:
        pipe.scheduler = scheduler
        _take_apart(merged)
        if others:
            pipe.delete_adapters(FOLDER)
            pipe.set_adapters(others)
            _put_back(scales)
        elif hasattr(pipe.unet, "peft_config"):
            pipe.unload_lora_weights()


def _active(pipe) -> list[str]:
    return pipe.get_active_adapters() if any(pipe.get_list_adapters().values()) else []


def _scales(pipe) -> list[tuple[dict, dict]]:
    """How strongly each LoRA acts in each layer, as peft keeps it, and a copy: ``set_adapters`` makes every one 1."""
    layers = [layer for part in (pipe.unet, pipe.text_encoder) for layer in part.modules()]
    return [
        (layer.scaling, dict(layer.scaling)) for layer in layers if isinstance(getattr(layer, "scaling", None), dict)
    ]


def _put_back(scales: list[tuple[dict, dict]]) -> None:
    for scaling, before in scales:
        scaling.update(before)


def _merge(unet, merged: list[tuple]) -> None:
    """Add the active LoRAs to the weights of the layers that the few-step LoRA is for: beside them, their own small
    products take a third of the time on a CPU. ``merged`` gets copies of the weights for :func:`_take_apart`."""
    for layer in unet.modules():
        if FOLDER in getattr(layer, "lora_A", ()):
            merged.append((layer, layer.get_base_layer().weight.detach().clone()))
            layer.merge()


@torch.no_grad()
def _take_apart(merged: list[tuple]) -> None:
    """Exactly as before: peft would subtract what it added, which rounds."""
    for layer, weight in merged:
        layer.merged_adapters.clear()
        layer.get_base_layer().weight.copy_(weight)


def few_step_scheduler(scheduler):
    """A ``DDIMScheduler`` with another scheduler's noise levels, for pictures in few steps."""
    from diffusers import DDIMScheduler

    settings = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}
    return DDIMScheduler.from_config(scheduler.config, **settings)


def check_lora(lora: str | None) -> None:
    """Refuse a path to a LoRA that is not there; costs nothing, hub ids are not looked up.

    Raises:
        SSRError: names the path.
    """
    if lora is not None and not os.path.exists(lora) and not may_be_hub_id(lora):
        raise SSRError(f"LoRA {lora!r} is not there; give a folder, a file or a hub id like name/model")


def _place(ssr: SSREncoder, lora: str | None) -> str:
    check_lora(lora)
    own = Path(ssr.base or "") / FOLDER
    if lora is None and not (ssr.base and (own / FILE).is_file()):
        raise SSRError(
            f"base model {ssr.base or 'given'} has no few-step LoRA of its own ({FOLDER}/); give one with "
            "--few-step-lora (in Python: lora=)"
        )
    return str(own) if lora is None else lora
