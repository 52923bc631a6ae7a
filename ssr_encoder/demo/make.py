"""Makes everything that the demonstration shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from ..companions import control_pipeline, fit_map, video_pipeline
from ..encoder import SSREncoder
from ..images import open_picture
from ..marks import mark_query
from .scenes import Clip, Composition, DemoPicture, DemoSubject, Layout

SIDE = 384  # pixels of the marked references
CLIP_STEPS = 12  # at most: a clip costs as much as its 16 frames


@dataclass
class Row:
    """One subject: the reference with the query on it, what was read, and the subject in new scenes."""

    subject: DemoSubject
    reference: Image.Image
    heat_map: Image.Image
    scenes: list[Image.Image]


@dataclass
class ComposedRow:
    """The references, and their subjects together in new scenes."""

    composed: Composition
    references: list[Image.Image]
    scenes: list[Image.Image]


@dataclass
class LayoutRow:
    """The map, the reference, and the same prompts and noise with the map and without it."""

    layout: Layout
    map: Image.Image
    reference: Image.Image
    guided: list[Image.Image]
    free: list[Image.Image]


@dataclass
class ClipRow:
    """The reference and the frames of its subject in motion."""

    clip: Clip
    reference: Image.Image
    frames: list[Image.Image]
    steps: int


@dataclass
class Shown:
    """Everything that the demonstration made; what was not asked for is missing."""

    rows: list[Row] = field(default_factory=list)
    composed: ComposedRow | None = None
    layout: LayoutRow | None = None
    clip: ClipRow | None = None


def make_demo(
    ssr: SSREncoder,
    pictures: list[DemoPicture],
    composed: Composition,
    steps: int = 12,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[list[Row], ComposedRow]:
    """Encode every subject and generate its scenes, those of one subject in one batch.

    Args:
        on_step: called after every denoising step; there are ``steps`` of them a subject, and for the composition.

    Raises:
        SSRError: steps or seed out of range.
    """

    def generate(prompts, subjects):
        return _generate(ssr, ssr.pipe, prompts, subjects, steps, seed, on_step)

    rows, encoded = [], {}
    for picture in pictures:
        reference = picture.open()
        for subject in picture.subjects:
            chosen = encoded[id(subject)] = ssr.encode(reference, **subject.query)
            rows.append(
                Row(subject, _marked(ssr, subject), chosen.heat_map(reference), generate(subject.prompts, [chosen]))
            )
    references = [_marked(ssr, subject) for subject in composed.subjects]
    scenes = generate(composed.prompts, [encoded[id(subject)] for subject in composed.subjects])
    return rows, ComposedRow(composed, references, scenes)


def make_layout(
    ssr: SSREncoder, layout: Layout, steps: int = 12, seed: int = 0, on_step: Callable[[], None] = lambda: None
) -> LayoutRow:
    """The subject in the map's layout, by the base model's own ControlNet.

    Args:
        on_step: called ``steps`` times a prompt with the map, and ``steps`` times without it.

    Raises:
        SSRError: the base model has no ControlNet.
    """
    pipe, drawn = control_pipeline(ssr), open_picture(layout.map, "control map")
    subject = ssr.encode(layout.subject.picture.open(), **layout.subject.query)
    settings = (layout.prompts, [subject], steps, seed, on_step)
    guided = _generate(ssr, pipe, *settings, image=fit_map(drawn, pipe), controlnet_conditioning_scale=1.0)
    return LayoutRow(layout, drawn, _marked(ssr, layout.subject), guided, _generate(ssr, ssr.pipe, *settings))


def make_clip(
    ssr: SSREncoder, clip: Clip, steps: int = CLIP_STEPS, seed: int = 0, on_step: Callable[[], None] = lambda: None
) -> ClipRow:
    """The subject in motion, by the base model's own motion adapter.

    Args:
        on_step: called after every denoising step.

    Raises:
        SSRError: the base model has no motion adapter.
    """
    pipe = video_pipeline(ssr)
    subject = ssr.encode(clip.subject.picture.open(), **clip.subject.query)
    [frames] = _generate(ssr, pipe, clip.prompt, [subject], steps, seed, on_step, num_frames=clip.frames)
    return ClipRow(clip, _marked(ssr, clip.subject), frames, steps)


def count_pictures(pictures: list[DemoPicture], composed: Composition) -> int:
    """How many pictures :func:`make_demo` generates."""
    return sum(len(s.prompts) for picture in pictures for s in picture.subjects) + len(composed.prompts)


def _generate(ssr: SSREncoder, pipe, prompts, subjects, steps: int, seed: int, on_step, **more) -> list:
    pipe.set_progress_bar_config(disable=True)

    def after_step(pipe, step, timestep, tensors):
        on_step()
        return tensors

    return ssr.generate(
        prompts, subjects, pipe=pipe, num_inference_steps=steps, seed=seed, callback_on_step_end=after_step, **more
    )


def _marked(ssr: SSREncoder, subject: DemoSubject) -> Image.Image:
    return mark_query(subject.picture.open(), subject.query, SIDE, ssr.config.point_radius)
