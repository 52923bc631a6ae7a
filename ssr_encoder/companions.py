"""A ControlNet and a motion adapter beside the encoder: identity from the subject, layout from a map, and motion.

Both are stock diffusers models made for the base model, and so are the pipelines built here: they share the parts of
``ssr.pipe``, and the subject encoder is installed in them. What they return goes into ``ssr.generate(..., pipe=...)``.
A ControlNet sees only the text, as it was trained; the motion modules attend over frames and see neither.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SSRError, first_line
from .files import may_be_hub_id

if TYPE_CHECKING:
    from PIL.Image import Image

    from .encoder import SSREncoder
    from .subject import Subject

# Folder beside the base model -> what it is called, and how another one is given.
COMPANIONS = {
    "controlnet": ("ControlNet", "--controlnet (in Python: controlnet=)"),
    "motion_adapter": ("motion adapter", "--motion-adapter (in Python: motion_adapter=)"),
}


def own_companion(ssr: SSREncoder, name: str) -> Path | None:
    """The folder ``name`` (a key of :data:`COMPANIONS`) beside the base model, if it has such a companion."""
    folder = Path(ssr.base or "") / name
    return folder if ssr.base and (folder / "config.json").is_file() else None


def check_place(name: str, where: str | None) -> None:
    """Refuse a path to a companion that is not there; costs nothing, hub ids are not looked up.

    Raises:
        SSRError: names the path.
    """
    if where is not None and not os.path.isdir(where) and not may_be_hub_id(where):
        what, option = COMPANIONS[name]
        raise SSRError(f"{what} {where!r} is not a folder; give a folder or a hub id like name/model with {option}")


def control_pipeline(ssr: SSREncoder, controlnet=None):
    """A stock ``StableDiffusionControlNetPipeline`` on the encoder's base model.

    Args:
        controlnet: a loaded ``ControlNetModel``, a folder, a hub id, or None for the base model's own.

    Returns:
        the pipeline, for ``ssr.generate(..., pipe=pipe, image=fit_map(picture, pipe),
        controlnet_conditioning_scale=1.0)``.

    Raises:
        SSRError: there is none, it cannot be loaded, or it is made for a UNet of other sizes.
    """
    from diffusers import StableDiffusionControlNetPipeline

    loaded = _controlnet(ssr, controlnet)
    return StableDiffusionControlNetPipeline(
        **_shared(ssr), controlnet=loaded, safety_checker=None, requires_safety_checker=False
    )


def video_pipeline(ssr: SSREncoder, motion_adapter=None):
    """A stock ``AnimateDiffPipeline`` on the encoder's base model; its UNet is a copy with the motion modules in it.

    Args:
        motion_adapter: a loaded ``MotionAdapter``, a folder, a hub id, or None for the base model's own.

    Returns:
        the pipeline, for ``ssr.generate(..., pipe=pipe, num_frames=16)``.

    Raises:
        SSRError: as :func:`control_pipeline`.
    """
    from diffusers import AnimateDiffPipeline

    return AnimateDiffPipeline(**_shared(ssr, moving=_motion_adapter(ssr, motion_adapter)))


def controlled_video_pipeline(ssr: SSREncoder, motion_adapter=None, controlnet=None):
    """A stock ``AnimateDiffControlNetPipeline``: both of the above, with a map for every frame.

    Returns:
        the pipeline, for ``ssr.generate(..., pipe=pipe, num_frames=16, conditioning_frames=[fit_map(...)] * 16)``.

    Raises:
        SSRError: as :func:`control_pipeline`.
    """
    from diffusers import AnimateDiffControlNetPipeline

    loaded = _controlnet(ssr, controlnet)
    return AnimateDiffControlNetPipeline(**_shared(ssr, moving=_motion_adapter(ssr, motion_adapter)), controlnet=loaded)


def fit_map(picture, pipe) -> Image:
    """A map as the pipeline takes it: any picture (a path, PIL, array or tensor) as RGB of the size of its output, with
    black added where the shape differs. Nothing is detected in it: draw edges or silhouettes in white on black.

    Raises:
        SSRError: as :func:`images.open_picture`.
    """
    from PIL import ImageOps

    from .images import open_picture

    sample = pipe.unet.config.sample_size
    height, width = sample if isinstance(sample, (list, tuple)) else (sample, sample)
    size = (width * pipe.vae_scale_factor, height * pipe.vae_scale_factor)
    return ImageOps.pad(open_picture(picture, "control map", ground="black"), size, color="black")


def check_frames(pipe, frames: int) -> None:
    """Refuse more frames than the pipeline's motion adapter has positions for.

    Raises:
        SSRError: names both numbers.
    """
    longest = pipe.motion_adapter.config.motion_max_seq_length
    if not 2 <= frames <= longest:
        raise SSRError(f"{frames} frames were asked for, this motion adapter makes 2 to {longest}; ask for fewer")


def subjects_by_frame(ssr: SSREncoder, frames: Sequence[Sequence[Subject]], *, guidance: bool = True) -> dict:
    """Keyword arguments for a video that put other subjects into every frame: references that change over the clip.

    Args:
        frames: for each frame its subjects, as many in each; ``with_(scale=...)`` fades one into another.
        guidance: as for :meth:`SSREncoder.conditioning`.

    Returns:
        for ``ssr.generate(prompt, pipe=video_pipeline(ssr), num_frames=len(frames), **these)``.

    Raises:
        SSRError: no frames, frames with different numbers of subjects, or as :meth:`SSREncoder.conditioning`.
    """
    import torch

    from .subject import subject_scales

    every = [subject for subjects in frames for subject in subjects]
    if not every or len({len(subjects) for subjects in frames}) > 1:
        raise SSRError("every frame needs as many subjects as the others, at least one; leave one out by its scale 0")
    ssr.conditioning([subject.with_(scale=0) for subject in every])  # refuses those of another encoder
    if any(subject.region is not None or subject.steps != (0.0, 1.0) for subject in every):
        raise SSRError("regions and steps do not go with subjects that change over the frames; leave them out")

    def rows(values: list) -> torch.Tensor:
        return torch.stack(values).unflatten(0, (len(frames), -1))

    scales = [scale for subjects in frames for scale in subject_scales(ssr.config, subjects)]
    factors = [[subject.layer_factor(name) for name in ssr.config.layers] for subject in every]
    tokens = rows([subject.tokens for subject in every])
    table = rows([scale * torch.tensor(row) for scale, row in zip(scales, factors, strict=True)])
    if guidance:
        tokens = torch.cat([rows([subject.unconditional_tokens for subject in every]), tokens])
        table = table.repeat(2, 1, 1)
    with torch.no_grad():
        pack = ssr.model.key_values(tokens.to(ssr.device, ssr.dtype), table.to(ssr.device))
    # A row a frame, as a motion UNet orders its batch: a still picture's prompts with subjects of their own, in time.
    return {"ip_adapter_image_embeds": [pack.unflatten(0, (-1, len(frames)))]}


def _controlnet(ssr: SSREncoder, controlnet):
    from diffusers import ControlNetModel

    model, name = _load(ssr, ControlNetModel, "controlnet", controlnet)
    unet = _unet(ssr)
    keys = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
    _check_fit("controlnet", name, *({key: config[key] for key in keys} for config in (model.config, unet.config)))
    return model


def _motion_adapter(ssr: SSREncoder, motion_adapter):
    """The UNet of the base model with motion modules in it, and the adapter that they are of."""
    from diffusers import MotionAdapter, UNetMotionModel

    adapter, name = _load(ssr, MotionAdapter, "motion_adapter", motion_adapter)
    unet, config = _unet(ssr), adapter.config
    found = {"block_out_channels": config.block_out_channels, "layers_per_block": config.motion_layers_per_block}
    _check_fit("motion_adapter", name, found, {key: unet.config[key] for key in found})
    pipe = ssr.pipe
    ssr.remove(pipe)  # from_unet2d copies only a UNet whose slot is empty
    try:
        with _quiet():
            motion = UNetMotionModel.from_unet2d(unet, adapter).to(ssr.device).eval()
    except (RuntimeError, ValueError) as error:
        what, option = COMPANIONS["motion_adapter"]
        raise SSRError(
            f"{what} {name} cannot be joined with this base model ({first_line(error)}); fuse a LoRA first, or check "
            f"{option}"
        ) from None
    finally:
        ssr.install(pipe)
    return ssr.install(motion), adapter


def _shared(ssr: SSREncoder, moving: tuple | None = None) -> dict:
    """What a pipeline takes over from ``ssr.pipe``; with ``moving``, its UNet and motion adapter instead of the UNet.

    Not ``from_pipe``: that casts every part to float32.
    """
    pipe = ssr.pipe
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    if moving is not None:
        parts["unet"], parts["motion_adapter"] = moving
    # A scheduler keeps the state of a run: each pipeline has its own.
    parts["scheduler"] = type(pipe.scheduler).from_config(pipe.scheduler.config)
    return parts | {"feature_extractor": None, "image_encoder": None}


def _unet(ssr: SSREncoder):
    if hasattr(ssr.pipe, "text_encoder_2"):
        raise SSRError("the base model is Stable Diffusion XL; these pipelines need a 1.5 base, give one with base=")
    return getattr(ssr.pipe.unet, "_orig_mod", ssr.pipe.unet)  # a compiled UNet's own


def _load(ssr: SSREncoder, kind, name: str, where):
    """The model on the encoder's device, and its name for messages."""
    from .loading import DAMAGED, load_whole

    what, option = COMPANIONS[name]
    if isinstance(where, kind):
        return where.to(ssr.device, ssr.dtype), f"of {type(where).__name__}"
    if where is None:
        where = own_companion(ssr, name)
        if where is None:
            raise SSRError(
                f"base model {ssr.base or 'given'} has no {what} of its own ({name}/); give one with {option}"
            )
    where = str(where)
    check_place(name, where)
    try:
        stored = kind.load_config(where).get("_class_name")
        if stored != kind.__name__:
            raise ValueError(f"it is a {stored}, not a {kind.__name__}")
        model = load_whole(kind, where, dtype=ssr.dtype, use_safetensors=True)
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:120]
        raise SSRError(f"cannot load the {what} {where} ({reason}); check {option}") from None
    return model.to(ssr.device).eval(), where


@contextlib.contextmanager
def _quiet():
    """Without what diffusers warns of: it would be said at every loading, and there is nothing to do about it."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_fit(name: str, where: str, found: dict, expected: dict) -> None:
    """Sizes of a companion beside the base UNet's."""

    def plain(value):
        return list(value) if isinstance(value, (list, tuple)) else value

    wrong = [key for key in found if plain(found[key]) != plain(expected[key])]
    if wrong:
        what, option = COMPANIONS[name]
        theirs = ", ".join(f"{key} {plain(found[key])}" for key in wrong)
        ours = ", ".join(f"{key} {plain(expected[key])}" for key in wrong)
        raise SSRError(
            f"{what} {where} is made for another UNet: it has {theirs}, the base model {ours}; "
            f"give one made for this base with {option}"
        )
