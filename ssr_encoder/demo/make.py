"""Makes everything that the demonstration shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from ..encoder import SSREncoder
from ..marks import mark_query
from .scenes import Composition, DemoPicture, DemoSubject

SIDE = 384  # pixels of the marked references


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


def make_demo(
    ssr: SSREncoder,
    pictures: list[DemoPicture],
    composed: Composition,
    steps: int = 20,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[list[Row], ComposedRow]:
    """Encode every subject and generate its scenes, those of one subject in one batch.

    Args:
        on_step: called after every denoising step; there are ``steps`` of them a subject, and for the composition.

    Raises:
        SSRError: steps or seed out of range.
    """
    ssr.pipe.set_progress_bar_config(disable=True)

    def after_step(pipe, step, timestep, tensors):
        on_step()
        return tensors

    def generate(prompts, subjects):
        return ssr.generate(prompts, subjects, num_inference_steps=steps, seed=seed, callback_on_step_end=after_step)

    rows, encoded = [], {}
    for picture in pictures:
        reference = picture.open()
        for subject in picture.subjects:
            chosen = encoded[id(subject)] = ssr.encode(reference, **subject.query)
            marked = mark_query(reference, subject.query, SIDE, ssr.config.point_radius)
            rows.append(Row(subject, marked, chosen.heat_map(reference), generate(subject.prompts, [chosen])))
    references = [
        mark_query(subject.picture.open(), subject.query, SIDE, ssr.config.point_radius)
        for subject in composed.subjects
    ]
    scenes = generate(composed.prompts, [encoded[id(subject)] for subject in composed.subjects])
    return rows, ComposedRow(composed, references, scenes)


def count_pictures(pictures: list[DemoPicture], composed: Composition) -> int:
    """How many pictures :func:`make_demo` generates."""
    return sum(len(s.prompts) for picture in pictures for s in picture.subjects) + len(composed.prompts)
