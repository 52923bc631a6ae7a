"""One call around any stock pipeline: text-to-image, image-to-image, inpainting, ControlNet, AnimateDiff."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from . import attention
from .errors import SSRError
from .guidance import subject_guidance as guided
from .shared_noise import CARRY_KEY, NOISE_KEY, SMOOTH_KEY, clip_noise
from .subject import Subject
from .trajectories import ANY_MOTION, check_trajectories, random_trajectories

if TYPE_CHECKING:
    from .encoder import SSREncoder

FRAMES = 16  # of a clip unless num_frames says otherwise, as in the stock pipelines
MAX_BATCH = 4  # pictures a call of the pipeline: keys and values are repeated for each


def generate(
    self: SSREncoder,
    prompt: str | Sequence[str],
    subjects: Subject | Sequence[Subject] = (),
    *,
    pipe=None,
    negative_prompt: str | None = None,
    num_inference_steps: int = 30,
    guidance_scale: float | None = None,
    subject_guidance: float | None = None,
    shared_noise: float | None = None,
    smooth_noise: float | None = None,
    trajectories=None,
    num_images: int = 1,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    height: int | None = None,
    width: int | None = None,
    **pipeline_arguments,
) -> list:
    """Generate pictures (or videos) of prompts with subjects in them.

    Args:
        prompt: one, or several.
        subjects: what :meth:`encode` returned, any number; scales, regions and schedules are theirs
            (:meth:`Subject.with_`).
        pipe: any stock diffusers pipeline on this encoder's base model; default the text-to-image one. An encoder
            not yet installed in it is installed for the call and removed again.
        guidance_scale: default the encoder's; 1 turns guidance off.
        subject_guidance: how much further the subjects are pushed than the prompt in the noisy steps, usually 0 to 2
            (guidance.py); default the encoder's with guidance, 0 without.
        shared_noise: of a clip, the share of its frames' noise that is one for all of them, 0 to 1 (shared_noise.py);
            default what the motion adapter's config asks for; AnimateDiff's own ask for none.
        smooth_noise: how far the rest of a frame's noise follows that of the frame before, 0 to 1; default likewise.
        trajectories: of a clip, where subjects go: a motion for all ("walk", "cross", "bounce", "still" or "any"; where
            and how far follows from the seed), or boxes (subjects, frames, 4) as fractions of the picture
            (trajectories.py). Default "any" if the motion adapter was trained to follow and no ControlNet says where
            things are, otherwise none.
        num_images: of each prompt.
        seed: picture i of a prompt gets the noise of ``seed + i``, however many are made at once.
        generator: instead of a seed, for a single picture.
        pipeline_arguments: passed to the pipeline, e.g. ``image=``, ``strength=``, ``num_frames=``.

    Returns:
        ``num_images`` PIL pictures for each prompt, in order (lists of frames from a video pipeline).

    Raises:
        SSRError: empty prompt, steps or sizes out of range, a subject of another model, a pipeline that does not fit.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    subjects = [subjects] if isinstance(subjects, Subject) else list(subjects)
    guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
    _check(prompts, num_inference_steps, guidance_scale, num_images, height, width, seed)
    if subject_guidance is not None and not 0 <= subject_guidance <= 10:
        raise SSRError(f"subject_guidance is {subject_guidance}; give a number from 0 to 10, usually 0 to 2")
    for name, value in (("shared_noise", shared_noise), ("smooth_noise", smooth_noise)):
        if value is not None and not 0 <= value <= 1:
            raise SSRError(f"{name} is {value}; give a number from 0 to 1")
    if "clip_skip" in pipeline_arguments:
        raise SSRError("clip_skip does not work with this version of transformers; leave it out")
    pipe = self.pipe if pipe is None else pipe
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise SSRError(f"a {type(pipe).__name__} has no UNet; give a Stable Diffusion 1.5 pipeline")
    temporarily = not attention.claimed(unet)
    if not attention.is_installed(unet):
        self.install(pipe)
    try:
        size = _size(pipe, height, width, pipeline_arguments)
        guidance = guidance_scale > 1 and unet.config.time_cond_proj_dim is None  # as the stock pipelines decide it
        halves = not hasattr(type(pipe), "do_perturbed_attention_guidance")  # PAG has three parts
        if subject_guidance and not halves:
            raise SSRError("subject_guidance does not go with perturbed-attention guidance; leave one of them out")
        if subject_guidance is None:
            subject_guidance = self.config.subject_guidance if guidance and halves else 0.0
        arguments = self.conditioning(subjects, guidance=guidance, size=size, dtype=unet.dtype, halves=halves)
        extra = arguments.pop("cross_attention_kwargs", {})
        if extra or pipeline_arguments.get("cross_attention_kwargs"):
            arguments["cross_attention_kwargs"] = {
                **(pipeline_arguments.pop("cross_attention_kwargs", None) or {}),
                **extra,
            }
        if height is not None:
            arguments["height"] = height
        if width is not None:
            arguments["width"] = width
        seed = int(torch.randint(2**32, ())) if seed is None else seed
        jobs = [(text, seed + i) for text in prompts for i in range(num_images)]
        share, smooth, trajectories = _clip_settings(pipe, shared_noise, smooth_noise, trajectories, pipeline_arguments)
        # Pipelines that start from a picture pair pictures with prompts in ways of their own: one at a time there.
        batch = MAX_BATCH if "image" not in pipeline_arguments and not hasattr(pipe, "motion_adapter") else 1
        results = []
        for start in range(0, len(jobs), batch):
            part = jobs[start : start + batch]
            generators = [torch.Generator("cpu").manual_seed(number) for _, number in part]
            if share or smooth:
                frames, source = pipeline_arguments.get("num_frames", FRAMES), generator or generators[0]
                ways = _boxes(trajectories, len(subjects), frames, part[0][1], generator)
                arguments["latents"] = clip_noise(pipe, share, frames, size, source, smooth, ways)
            with guided(unet, subject_guidance, self.config.subject_guidance_until, halves=guidance):
                output = pipe(
                    prompt=[text for text, _ in part] if batch > 1 else part[0][0],
                    negative_prompt=_negative(negative_prompt, len(part), batch),
                    num_inference_steps=num_inference_steps,
                    guidance_scale=guidance_scale,
                    generator=generator or (generators if batch > 1 else generators[0]),
                    **arguments,
                    **pipeline_arguments,
                )
            results.extend(output.frames if hasattr(output, "frames") else output.images)
        return results
    finally:
        if temporarily:
            self.remove(pipe)


def _size(pipe, height: int | None, width: int | None, arguments: dict) -> tuple[int, int]:
    """(height, width) of what the pipeline will make. Pipelines that start from a picture take its size, save
    inpainting."""
    factor, sample = pipe.vae_scale_factor, pipe.unet.config.sample_size
    size = tuple(side * factor for side in (sample if isinstance(sample, (list, tuple)) else (sample, sample)))
    picture = arguments.get("image")
    if picture is not None and "mask_image" not in arguments:
        while isinstance(picture, (list, tuple)):
            picture = picture[0]
        if torch.is_tensor(picture):
            size = tuple(picture.shape[-2:])
        else:
            size = picture.shape[-3:-1] if hasattr(picture, "shape") else (picture.height, picture.width)
        size = tuple(side - side % factor for side in size)
    return height or size[0], width or size[1]


def _clip_settings(pipe, share: float | None, smooth: float | None, trajectories, arguments: dict) -> tuple:
    """What a clip's frames have of their noise in common, how far the rest follows from frame to frame, and the
    trajectories that it goes along; zeros and None for pictures and where the noise is given otherwise."""
    adapter = getattr(pipe, "motion_adapter", None)
    if adapter is None or any(name in arguments for name in ("latents", "video")):
        given = {"shared_noise": share, "smooth_noise": smooth, "trajectories": trajectories is not None}
        for name, value in given.items():
            if value:
                raise SSRError(f"{name} is for clips made from noise; leave it out with pictures, latents= and video=")
        return 0.0, 0.0, None
    share = adapter.config.get(NOISE_KEY, 0.0) if share is None else share
    if trajectories is not None and not share:
        raise SSRError(
            "trajectories go along noise that frames have in common, here none; give shared_noise (--shared-noise) too"
        )
    if trajectories is None and share and adapter.config.get(CARRY_KEY) and not hasattr(pipe, "controlnet"):
        trajectories = ANY_MOTION
    return share, adapter.config.get(SMOOTH_KEY, 0.0) if smooth is None else smooth, trajectories


def _boxes(trajectories, subjects: int, frames: int, seed: int, generator) -> torch.Tensor | None:
    """Trajectories as boxes (subjects, frames, 4); random ways follow from the generator, or without one the seed."""
    if not isinstance(trajectories, str):
        return None if trajectories is None else check_trajectories(trajectories, frames)
    if generator is not None:  # which may be on a GPU
        seed = int(torch.randint(2**32, (), generator=generator, device=generator.device))
    return random_trajectories(max(1, subjects), frames, torch.Generator().manual_seed(seed), trajectories)


def _negative(negative_prompt: str | None, count: int, batch: int):
    return negative_prompt if negative_prompt is None or batch == 1 else [negative_prompt] * count


def _check(prompts, steps, guidance_scale, num_images, height, width, seed) -> None:
    if not prompts or not all(isinstance(text, str) and text.strip() for text in prompts):
        raise SSRError('the prompt is empty; say what to generate, e.g. "a cat in the snow"')
    if not isinstance(steps, int) or not 1 <= steps <= 1000:
        raise SSRError(f"num_inference_steps is {steps}; give a whole number from 1 to 1000, usually 20 to 30")
    if not math.isfinite(guidance_scale) or not 0 <= guidance_scale <= 100:
        raise SSRError(f"guidance_scale is {guidance_scale}; give a number from 0 to 100, usually 3 to 8")
    if not isinstance(num_images, int) or num_images < 1:
        raise SSRError(f"num_images is {num_images}; give a whole number from 1")
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 2**63):
        raise SSRError(f"the seed is {seed}; give a whole number from 0")
    for name, value in (("height", height), ("width", width)):
        if value is not None and (not isinstance(value, int) or value < 8 or value % 8):
            raise SSRError(f"{name} is {value}; give a multiple of 8 pixels")
