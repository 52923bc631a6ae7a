"""The demonstration's page."""

from __future__ import annotations

import base64
from html import escape
from itertools import groupby

from ..marks import query_words
from ..page import document, figure
from ..video import FPS, clip_bytes
from .make import ClipRow, ComposedRow, LayoutRow, Row, Shown
from .scenes import compose_commands, generate_command
from .sheet import shown_frames

STYLE = """
.row { display: grid; grid-template-columns: 2fr 4.3fr; gap: clamp(18px, 3vw, 40px); padding: 26px 0 4px; }
.row + .row { border-top: 1px solid var(--line); margin-top: 26px; }
.given, .made { display: grid; gap: clamp(8px, 1.2vw, 16px); align-items: start; align-content: start; }
.given { grid-template-columns: 1fr 1fr; } .made { grid-template-columns: repeat(4, 1fr); }
.made.six { grid-template-columns: repeat(6, 1fr); }
.head { grid-column: 1 / -1; font-size: .74rem; text-transform: uppercase; letter-spacing: .09em; color: var(--accent);
  font-weight: 600; }
.row details { grid-column: 1 / -1; margin: 0; }
@media (max-width: 860px) { .row { grid-template-columns: 1fr; } }
@media (max-width: 520px) { .made, .made.six { grid-template-columns: 1fr 1fr; } }
"""


def demo_page(shown: Shown, steps: int, seed: int, model: str) -> str:
    """The page as HTML, with all pictures inside."""
    parts = [
        "<h1>One subject, anywhere</h1>"
        '<p class="lead">A picture with several subjects and a query go in: a word, a box, a point or a mask. '
        "The encoder reads the one that was asked for, leaves the others, and puts it into new scenes.</p>"
    ]
    for picture, group in groupby(shown.rows, lambda row: row.subject.picture):
        parts.append(_section(picture.title, "".join(_row(row, steps, seed, model) for row in group)))
    if shown.composed:
        parts.append(_section(shown.composed.composed.title, _composed(shown.composed, steps, seed, model)))
    if shown.layout:
        parts.append(_section(shown.layout.layout.title, _layout(shown.layout, steps, seed, model)))
    if shown.clip:
        parts.append(_section(shown.clip.clip.title, _clip(shown.clip, seed, model)))
    parts.append(
        "<footer><p>No subject on this page was seen in training: not these drawings in these colours. "
        "Each picture is the first one made. The commands run in the folder of this page.</p></footer>"
    )
    return document("One subject, anywhere", STYLE, "\n".join(parts))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _row(row: Row, steps: int, seed: int, model: str) -> str:
    asked, name = query_words(row.subject.query), row.subject.name
    given = figure(row.reference, f"asked for by <b>{escape(asked)}</b>", f"{name}, asked for by {asked}")
    given += figure(row.heat_map, "what was read", f"heat map of what was read for {asked}")
    command = generate_command(row.subject, row.subject.prompts, steps, seed, model)
    return _block(f"The {escape(name)}", given, _scenes(row.scenes, row.subject.prompts), [command])


def _composed(row: ComposedRow, steps: int, seed: int, model: str) -> str:
    given = ""
    for subject, reference in zip(row.composed.subjects, row.references, strict=True):
        asked = query_words(subject.query)
        caption = f"the {escape(subject.name)}, by <b>{escape(asked)}</b>"
        given += figure(reference, caption, f"{subject.name}, asked for by {asked}")
    commands = compose_commands(row.composed, steps, seed, model)
    return _block("The subjects", given, _scenes(row.scenes, row.composed.prompts), commands)


def _layout(row: LayoutRow, steps: int, seed: int, model: str) -> str:
    layout, subject = row.layout, row.layout.subject
    asked = query_words(subject.query)
    given = figure(row.map, "the map: a silhouette", "map of the layout: a white silhouette on black")
    given += figure(row.reference, f"asked for by <b>{escape(asked)}</b>", f"{subject.name}, asked for by {asked}")
    made = _scenes(row.guided, [f"{prompt}, with the map" for prompt in layout.prompts])
    made += _scenes(row.free, [f"{prompt}, without it" for prompt in layout.prompts])
    commands = [generate_command(subject, layout.prompts, steps, seed, model, more) for more in (layout.option, "")]
    return _block(f"The {escape(subject.name)}", given, made, commands, "In this layout, and without the map")


def _clip(row: ClipRow, seed: int, model: str) -> str:
    clip, subject = row.clip, row.clip.subject
    asked = query_words(subject.query)
    given = figure(row.reference, f"asked for by <b>{escape(asked)}</b>", f"{subject.name}, asked for by {asked}")
    given += _playing(row.frames, clip.prompt)
    numbers = shown_frames(len(row.frames))
    made = _scenes([row.frames[i] for i in numbers], [f"frame {i + 1}" for i in numbers])
    commands = [generate_command(subject, [clip.prompt], row.steps, seed, model, clip.option)]
    return _block(f"The {escape(subject.name)}", given, made, commands, "Frame by frame", "made six")


def _playing(frames: list, prompt: str) -> str:
    """A clip that plays for ever, as animated WebP."""
    data = base64.b64encode(clip_bytes(frames, ".webp", FPS)).decode()
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{escape(f"{prompt}, moving")}">'
        f"<figcaption>{escape(prompt)}</figcaption></figure>"
    )


def _scenes(scenes: list, prompts: list[str]) -> str:
    return "".join(figure(scene, escape(prompt), prompt) for scene, prompt in zip(scenes, prompts, strict=True))


def _block(
    head: str, given: str, made: str, commands: list[list[str]], over: str = "In new scenes", kind: str = "made"
) -> str:
    text = "\n\n".join(" \\\n    ".join(command) for command in commands)
    return (
        f'<div class="row"><div class="given"><div class="head">{head}</div>{given}</div>'
        f'<div class="{kind}"><div class="head">{over}</div>{made}</div>'
        f"<details><summary>The command that makes this</summary><pre>{escape(text)}</pre></details></div>"
    )
