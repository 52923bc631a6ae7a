"""The contact sheet: one picture of everything that the demonstration made."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from PIL import Image, ImageDraw

from ..marks import font, query_words
from .make import ClipRow, ComposedRow, LayoutRow, Row, Shown

TILE = 232  # side of a picture on the sheet
GAP = 18  # between pictures
SPLIT = 52  # between what was given and what was made
MARGIN = 72
CAPTION = 54  # below each picture
PAPER, PANEL, INK, SOFT, LINE = (244, 243, 239), (255, 255, 255), (28, 28, 32), (112, 112, 120), (226, 224, 218)
ACCENT = (214, 84, 40)
PAD = 30  # inside a panel
COLUMNS = 4  # scenes a row
SHOWN = 6  # frames of a clip
WIDTH = 2 * MARGIN + 2 * PAD + (2 + COLUMNS) * TILE + COLUMNS * GAP + SPLIT
HEADER, TITLE, FOOTER, ROW = 190, 62, 84, TILE + CAPTION


@dataclass
class Panel:
    """A box on the sheet: its title, words above its columns by their offset, its height, and what draws its rows
    from a height on."""

    title: str
    heads: dict[int, str]
    height: int
    draw: Callable[[Image.Image, int], None]


def contact_sheet(shown: Shown, steps: int, seed: int, only: str | None = None) -> Image.Image:
    """All that was made, a panel a reference picture, then what was composed, the layout and the clip; RGB, about
    1,760 pixels wide."""
    panels = _panels(shown)
    sheet = Image.new("RGB", (WIDTH, HEADER + sum(p.height + 2 * GAP for p in panels) - 2 * GAP + FOOTER), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 50), "One subject, anywhere", INK, font(54))
    draw.text(
        (MARGIN + 3, 122),
        "A picture and a query go in: a word, a box, a point or a mask. What it selects appears in new scenes.",
        SOFT,
        font(24),
    )
    y = HEADER
    for panel in panels:
        _frame(sheet, y, panel)
        panel.draw(sheet, y + TITLE)
        y += panel.height + 2 * GAP
    part = f" --only {only}" if only else ""
    note = f"ssr demo{part} --steps {steps} --seed {seed}   ·   no subject shown here was seen in training"
    draw.text((MARGIN + 3, sheet.height - 50), note, SOFT, font(19), anchor="lm")
    return sheet


def _panels(shown: Shown) -> list[Panel]:
    second, scenes = TILE + GAP, 2 * TILE + GAP + SPLIT  # offsets of the second column and of the scenes
    one = TITLE + ROW + PAD - 8
    panels = []
    for picture, group in groupby(shown.rows, lambda row: row.subject.picture):
        rows = list(group)
        heads = {0: "asked for", second: "what was read", scenes: "in new scenes"}
        panels.append(Panel(picture.title, heads, one + (len(rows) - 1) * (ROW + GAP), partial(_draw_rows, rows)))
    if shown.composed:
        heads = {0: "asked for", second: "and", scenes: "composed in one"}
        panels.append(Panel(shown.composed.composed.title, heads, one, partial(_draw_composed, shown.composed)))
    if shown.layout:
        heads = {0: "the layout", second: "asked for", scenes: "in this layout", scenes + 2 * second: "without the map"}
        panels.append(Panel(shown.layout.layout.title, heads, one, partial(_draw_layout, shown.layout)))
    if shown.clip:
        heads = {0: "asked for", TILE + SPLIT: f"{shown.clip.clip.prompt}: {SHOWN} of {len(shown.clip.frames)} frames"}
        panels.append(Panel(shown.clip.clip.title, heads, one, partial(_draw_clip, shown.clip)))
    return panels


def _draw_rows(rows: list[Row], sheet: Image.Image, top: int) -> None:
    for i, row in enumerate(rows):
        y = top + i * (ROW + GAP)
        left = _given(sheet, y, [row.reference, row.heat_map], [query_words(row.subject.query), ""])
        _scenes(sheet, left, y, row.scenes, row.subject.prompts)


def _draw_composed(row: ComposedRow, sheet: Image.Image, top: int) -> None:
    words = [query_words(subject.query) for subject in row.composed.subjects]
    left = _given(sheet, top, row.references[:2], words)
    _scenes(sheet, left, top, row.scenes, row.composed.prompts)


def _draw_layout(row: LayoutRow, sheet: Image.Image, top: int) -> None:
    left = _given(sheet, top, [row.map, row.reference], ["", query_words(row.layout.subject.query)])
    _scenes(sheet, left, top, row.guided[:2] + row.free[:2], row.layout.prompts[:2] * 2)


def _draw_clip(row: ClipRow, sheet: Image.Image, top: int) -> None:
    x = _given(sheet, top, [row.reference], [query_words(row.clip.subject.query)])
    side = (WIDTH - MARGIN - PAD - x - (SHOWN - 1) * GAP) // SHOWN
    for number in shown_frames(len(row.frames)):
        _tile(sheet, x, top + (TILE - side) // 2, row.frames[number], f"frame {number + 1}", SOFT, side)
        x += side + GAP


def shown_frames(count: int) -> list[int]:
    """Indices of the frames of a clip that stand for it on paper, first and last among them."""
    return [round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)]


def _frame(sheet: Image.Image, y: int, panel: Panel) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.rounded_rectangle([MARGIN, y, WIDTH - MARGIN, y + panel.height], 26, PANEL, LINE, 2)
    x = MARGIN + PAD
    letters = font(19)
    for offset, text in panel.heads.items():
        draw.text((x + offset + 2, y + TITLE - 14), text, SOFT, letters, anchor="ls")
    draw.text((WIDTH - MARGIN - PAD - 2, y + TITLE - 14), panel.title, ACCENT, font(24), anchor="rs")


def _given(sheet: Image.Image, y: int, pictures: list[Image.Image], captions: list[str]) -> int:
    """What was given, and an arrow; returns where the scenes begin."""
    x = MARGIN + PAD
    for picture, caption in zip(pictures, captions, strict=True):
        _tile(sheet, x, y, picture, caption, INK)
        x += TILE + GAP
    draw, middle, x = ImageDraw.Draw(sheet), y + TILE // 2, x - GAP + SPLIT // 2
    draw.line([x - 11, middle, x + 8, middle], SOFT, 3)
    draw.polygon([(x + 13, middle), (x + 3, middle - 7), (x + 3, middle + 7)], SOFT)
    return x + SPLIT - SPLIT // 2


def _scenes(sheet: Image.Image, x: int, y: int, scenes: list[Image.Image], prompts: list[str]) -> None:
    for picture, prompt in zip(scenes[:COLUMNS], prompts, strict=False):
        _tile(sheet, x, y, picture, prompt, SOFT)
        x += TILE + GAP


def _tile(sheet: Image.Image, x: int, y: int, picture: Image.Image, caption: str, colour, side: int = TILE) -> None:
    fit = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    corners = Image.new("L", (side * 4, side * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle([0, 0, side * 4 - 1, side * 4 - 1], 60, 255)
    sheet.paste(fit, (x, y), corners.resize((side, side), Image.Resampling.LANCZOS))
    lines = textwrap.wrap(caption, 26)
    for i, line in enumerate(lines[:2]):
        ImageDraw.Draw(sheet).text((x + 2, y + side + 9 + 23 * i), line, colour, font(19), anchor="lt")
