"""The contact sheet: one picture of everything that the demonstration made."""

from __future__ import annotations

import textwrap
from itertools import groupby

from PIL import Image, ImageDraw

from ..marks import font, query_words
from .make import ComposedRow, Row

TILE = 232  # side of a picture on the sheet
GAP = 18  # between pictures
SPLIT = 52  # between what was given and what was made
MARGIN = 72
CAPTION = 54  # below each picture
PAPER, PANEL, INK, SOFT, LINE = (244, 243, 239), (255, 255, 255), (28, 28, 32), (112, 112, 120), (226, 224, 218)
ACCENT = (214, 84, 40)
PAD = 30  # inside a panel
COLUMNS = 4  # scenes a row
WIDTH = 2 * MARGIN + 2 * PAD + (2 + COLUMNS) * TILE + COLUMNS * GAP + SPLIT
HEADER, TITLE, FOOTER, ROW = 190, 62, 84, TILE + CAPTION


def contact_sheet(rows: list[Row], composed: ComposedRow, steps: int, seed: int) -> Image.Image:
    """All rows, grouped by reference picture in panels, the composed one last; RGB, about 1,760 pixels wide."""
    groups = [list(group) for _, group in groupby(rows, lambda row: row.subject.picture.path)]
    panels = [TITLE + len(group) * (ROW + GAP) - GAP + PAD - 8 for group in groups] + [TITLE + ROW + PAD - 8]
    height = HEADER + sum(panels) + GAP * 2 * (len(panels) - 1) + FOOTER
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, 50), "One subject, anywhere", INK, font(54))
    draw.text(
        (MARGIN + 3, 122),
        "A picture and a query go in: a word, a box, a point or a mask. What it selects appears in new scenes.",
        SOFT,
        font(24),
    )
    y = HEADER
    for group, panel in zip(groups, panels, strict=False):
        title = group[0].subject.picture.title
        _panel(sheet, y, panel, title, ("asked for", "what was read", "in new scenes"))
        top = y + TITLE
        for row in group:
            left = _given(sheet, top, [row.reference, row.heat_map], [query_words(row.subject.query), ""])
            _scenes(sheet, left, top, row.scenes, row.subject.prompts)
            top += ROW + GAP
        y += panel + GAP * 2
    _panel(sheet, y, panels[-1], composed.composed.title, ("asked for", "and", "composed in one"))
    words = [query_words(subject.query) for subject in composed.composed.subjects]
    left = _given(sheet, y + TITLE, composed.references[:2], words)
    _scenes(sheet, left, y + TITLE, composed.scenes, composed.composed.prompts)
    note = f"ssr demo --steps {steps} --seed {seed}   ·   no subject shown here was seen in training"
    draw.text((MARGIN + 3, height - 50), note, SOFT, font(19), anchor="lm")
    return sheet


def _panel(sheet: Image.Image, y: int, height: int, title: str, heads: tuple[str, str, str]) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.rounded_rectangle([MARGIN, y, WIDTH - MARGIN, y + height], 26, PANEL, LINE, 2)
    x = MARGIN + PAD
    letters = font(19)
    for offset, text in zip((0, TILE + GAP, 2 * TILE + GAP + SPLIT), heads, strict=True):
        draw.text((x + offset + 2, y + TITLE - 14), text, SOFT, letters, anchor="ls")
    draw.text((WIDTH - MARGIN - PAD - 2, y + TITLE - 14), title, ACCENT, font(24), anchor="rs")


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


def _tile(sheet: Image.Image, x: int, y: int, picture: Image.Image, caption: str, colour) -> None:
    fit = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
    corners = Image.new("L", (TILE * 4, TILE * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle([0, 0, TILE * 4 - 1, TILE * 4 - 1], 60, 255)
    sheet.paste(fit, (x, y), corners.resize((TILE, TILE), Image.Resampling.LANCZOS))
    lines = textwrap.wrap(caption, 26)
    for i, line in enumerate(lines[:2]):
        ImageDraw.Draw(sheet).text((x + 2, y + TILE + 9 + 23 * i), line, colour, font(19), anchor="lt")
