"""The qualitative grids of the supplement (Figs. 6 to 9): a column for each item, a row for each method."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..errors import SSRError
from ..marks import font, mark_query, query_words
from .report import clusters
from .results import Run
from .statistics import estimate

INK, SOFT, PAPER, LINE = (28, 28, 32), (100, 100, 108), (255, 255, 255), (210, 208, 202)
CHOICES = ("best", "median", "worst")


def choose_items(run: Run, count: int, choice: str = "best", metric: str | None = None) -> list[str]:
    """Keys of the ``count`` items that are best, worst or nearest the median by the mean score of a metric.

    No subject is shown twice while there are others: of each comes its best (worst, most usual) item first.

    Raises:
        SSRError: the run was not scored by this metric.
    """
    if not run.metrics:
        raise SSRError(f"the run in {run.folder} has no scores to choose by; name the items with --items")
    metric = metric or next(iter(run.metrics))
    if metric not in run.metrics:
        raise SSRError(f"the run in {run.folder} has no {metric}; it was measured by {', '.join(run.metrics)}")
    means = {key: estimate_of(run, metric, key) for key in run.items}
    means = {key: mean for key, mean in means.items() if not math.isnan(mean)}
    if not means:
        raise SSRError(f"no picture in {run.folder} has a score by {metric}; choose by another metric")
    higher = run.metrics[metric]["direction"] == "higher"
    middle = sorted(means.values())[len(means) // 2]
    rank = {
        "best": lambda key: -means[key] if higher else means[key],
        "worst": lambda key: means[key] if higher else -means[key],
        "median": lambda key: abs(means[key] - middle),
    }[choice]
    ranked = sorted(means, key=rank)  # stable: ties in the benchmark's order
    seen: dict[str, int] = {}
    turn = {}
    for key in ranked:
        subject = run.items[key]["subject"]
        turn[key] = seen[subject] = seen.get(subject, -1) + 1
    return sorted(ranked, key=turn.__getitem__)[:count]


def estimate_of(run: Run, metric: str, key: str) -> float:
    """The mean score of an item's pictures; NaN without one."""
    return estimate(clusters(run, metric, [key])).mean


def item_grid(
    runs: Sequence[Run], labels: Sequence[str], keys: Sequence[str], images: int = 1, tile: int = 224
) -> Image.Image:
    """The grid: above the references with their queries and prompts, below a row for each run.

    Args:
        keys: of the items, a column each.
        images: of each item that a row shows, one below the other.
        tile: side of a picture in pixels.

    Raises:
        SSRError: a run has no such item or fewer pictures of it.
    """
    for run in runs:
        for key in keys:
            if key not in run.items:
                raise SSRError(f"{run.folder} has no item {key}; look for keys in its gallery (`ssr bench gallery`)")
            there = len(run.items[key]["images"])
            if there < images:
                raise SSRError(f"item {key} in {run.folder} has {there} pictures, not {images}; ask for fewer")
    gap, size = max(4, tile // 28), max(11, tile // 13)
    letters, line = font(size), round(size * 1.25)
    captions = [_caption(runs[0], key, tile, letters) for key in keys]
    heads = [_wrapped(label, tile, letters) for label in labels]
    below = max(map(len, captions)) * line + 2 * gap
    side = math.ceil(max(letters.getlength(text) for head in [*heads, ["reference"]] for text in head)) + 3 * gap
    rows = [(head, run, i) for head, run in zip(heads, runs, strict=True) for i in range(images)]
    width = side + len(keys) * (tile + gap) + gap
    height = gap + tile + below + len(rows) * (tile + gap) + (len(runs) - 1) * gap * (images > 1) + gap
    grid = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(grid)
    _words(draw, 2 * gap, gap + tile // 2, ["reference"], letters, line, SOFT)
    for column, (key, caption) in enumerate(zip(keys, captions, strict=True)):
        x = side + column * (tile + gap)
        with Image.open(runs[0].reference(key)) as picture:
            query = _drawable(runs[0].items[key]["query"])
            _paste(grid, mark_query(picture, query, tile, label=False) if query else picture, x, gap, tile)
        for i, text in enumerate(caption):
            draw.text((x, gap + tile + gap // 2 + i * line), text, SOFT if i == 0 else INK, letters)
    y = gap + tile + below
    draw.line([gap, y - gap, width - gap, y - gap], LINE, max(1, tile // 150))
    for head, run, i in rows:
        if i == 0:
            _words(draw, 2 * gap, y + tile // 2, head, letters, line, INK)
        for column, key in enumerate(keys):
            with Image.open(run.pictures(key)[i]) as picture:
                _paste(grid, picture, side + column * (tile + gap), y, tile)
        y += tile + gap + (gap if images > 1 and i == images - 1 else 0)
    return grid


def _caption(run: Run, key: str, width: int, letters) -> list[str]:
    """A line with the query, then the prompt."""
    item = run.items[key]
    query = query_words(item["query"]).removeprefix("the word ").removeprefix("the words ")
    first = _wrapped(f"Query: {query}", width, letters)[0]
    return [first, *_wrapped(item["prompt"], width, letters)[:4]]


def _wrapped(text: str, width: int, letters) -> list[str]:
    """Lines that are no wider than ``width`` pixels, except for single words."""
    characters = max(4, int(width / (letters.getlength(text) / max(1, len(text)))))
    while characters > 4 and any(letters.getlength(line) > width for line in textwrap.wrap(text, characters)):
        characters -= 1
    return textwrap.wrap(text, characters) or [""]


def _words(draw: ImageDraw.ImageDraw, x: int, middle: int, lines: list[str], letters, line: int, colour) -> None:
    top = middle - len(lines) * line // 2
    for i, text in enumerate(lines):
        draw.text((x, top + i * line), text, colour, letters)


def _drawable(query: dict) -> dict:
    """What can be drawn over the reference: a word stands in the caption, and a mask is a file elsewhere."""
    return {name: query[name] for name in ("box", "point") if query.get(name) is not None}


def _paste(grid: Image.Image, picture: Image.Image, x: int, y: int, tile: int) -> None:
    """Into a square of ``tile`` pixels, whole and in the middle."""
    factor = tile / max(picture.size)
    size = tuple(max(1, round(side * factor)) for side in picture.size)
    picture = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    grid.paste(picture, (x + (tile - size[0]) // 2, y + (tile - size[1]) // 2))
