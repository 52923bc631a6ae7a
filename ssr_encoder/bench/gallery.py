"""The gallery of a run: every item with its reference, query, heat map, pictures and scores on one page."""

from __future__ import annotations

import json
import math
import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ..marks import query_words
from ..page import data_uri, document
from .gallery_view import SCRIPT, STYLE
from .presentation import ARROWS, NONE
from .report import clusters
from .results import Run
from .statistics import estimate

INLINE = 24_000_000  # bytes of picture files up to which they go into the page


def gallery_page(run: Run, page: str | os.PathLike, inline: bool | None = None) -> str:
    """The page for a run, to be written to ``page``.

    Args:
        inline: whether the pictures go into the page (WebP of their own size, each once) or are links to the run's
            files, relative to the page, which must then move together with the run; by their size if None.
    """
    keys = list(run.items)
    files = {path for key in keys for path in _files(run, key)}
    if inline is None:
        inline = sum(path.stat().st_size for path in files) <= INLINE
    names = {path: f"p{i}" for i, path in enumerate(sorted(files))}
    base = Path(page).resolve().parent
    links = {path: quote(Path(os.path.relpath(path.resolve(), base)).as_posix()) for path in files}
    pictures = {names[path]: data_uri(Image.open(path)) if inline else links[path] for path in files}
    items = [_data(run, key) for key in keys]
    means = [item["means"] for item in items]
    data = {
        "metrics": [{"name": m, "direction": meta["direction"]} for m, meta in run.metrics.items()],
        "items": items,
        "pictures": pictures,
    }
    rows = zip(keys, means, _places(run, means), strict=True)
    cards = "\n".join(_card(run, key, names, of_item, places) for key, of_item, places in rows)
    tags: dict[str, int] = {}
    for item in run.items.values():
        for tag in item["tags"]:
            tags[tag] = tags.get(tag, 0) + 1
    body = f"""
<h1>{escape(run.meta["benchmark"])}: {escape(run.name)}</h1>
<p class="lead">{_summary(run)}</p>
<div class="bar">
<input type="search" id="words" placeholder="prompt, subject, query, tag ..." aria-label="show only items with these
words">
<select id="tag" aria-label="show only items with this tag"><option value="">all tags</option>
{"".join(f'<option value="{escape(t)}">{escape(t)} ({n})</option>' for t, n in sorted(tags.items()))}</select>
<select id="sort" aria-label="sort by"><option value="">in the benchmark's order</option>
{"".join(f'<option value="{escape(m)}">by {escape(m)}</option>' for m in run.metrics)}</select>
<button type="button" id="order"></button><output aria-live="polite"></output></div>
<p id="none" class="soft" hidden>No item has all of this; take away a word or the tag.</p>
<div id="cards">
{cards}
</div>
<dialog><figure><img alt=""><figcaption></figcaption></figure></dialog>
<footer>{escape(_source(run))}</footer>
<script type="application/json" id="data">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>
<script>{SCRIPT}</script>"""
    return document(f"{run.meta['benchmark']}: {run.name}", STYLE, body)


def _files(run: Run, key: str) -> list[Path]:
    heat_map = run.heat_map(key)
    return [run.reference(key), *([heat_map] if heat_map else []), *run.pictures(key)]


def _data(run: Run, key: str) -> dict:
    """What the script needs of an item: the words to search, tags, and for each metric the scores and their mean."""
    item, scores = run.items[key], run.scores.get(key, {})
    words = (key, item["subject"], item["prompt"], item["class_name"], query_words(item["query"]), *item["tags"])
    values = [[_number(x) for x in scores.get(m) or [None] * len(item["images"])] for m in run.metrics]
    return {"text": " ".join(words).lower(), "tags": item["tags"], "scores": values, "means": list(map(_mean, values))}


def _card(run: Run, key: str, names: dict[Path, str], means: list, places: list) -> str:
    item = run.items[key]
    query = query_words(item["query"])
    given = [
        _figure(names[run.reference(key)], "reference", f"reference picture; asked for by {query}", _mark(run, key))
    ]
    heat_map = run.heat_map(key)
    if heat_map:
        given.append(_figure(names[heat_map], "where it looked", "heat map over the reference picture"))
    made = [
        _figure(names[path], "", f"{item['prompt']}, picture {i}", made=True)
        for i, path in enumerate(run.pictures(key), 1)
    ]
    scores = "".join(
        f'<li data-metric="{escape(m)}"><span>{escape(m)} {ARROWS[meta["direction"]]}</span>'
        f"<b>{NONE if mean is None else f'{mean:.3f}'}</b>"
        + ("" if place is None else f'<i style="--at:{place:.0%}"></i>')
        + "</li>"
        for (m, meta), mean, place in zip(run.metrics.items(), means, places, strict=True)
    )
    tags = "".join(f'<button type="button" class="tag">{escape(tag)}</button>' for tag in item["tags"])
    return (
        f'<article class="card" id="{escape(key)}"><header><h2>{escape(item["prompt"])}</h2>'
        f'<p class="soft"><code>{escape(key)}</code> · {escape(query)} {tags}</p></header>'
        f'<div class="row"><div class="given">{"".join(given)}</div><div class="made">{"".join(made)}</div></div>'
        f'<ul class="scores">{scores}</ul></article>'
    )


def _figure(name: str, caption: str, alt: str, mark: str = "", made: bool = False) -> str:
    kind = ' class="result"' if made else ""
    return (
        f'<figure{kind}><span class="frame"><img data-picture="{name}" alt="{escape(alt)}" loading="lazy" tabindex="0">'
        f"{mark}</span><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _mark(run: Run, key: str) -> str:
    """The box or point of a query, drawn over the reference picture."""
    query = run.items[key]["query"]
    with Image.open(run.reference(key)) as picture:
        width, height = picture.size
    corner = max(width, height) / 40
    if query.get("box") is not None:
        x0, y0, x1, y1 = map(float, query["box"])
        shape = f'<rect x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}" rx="{corner:g}"/>'
    elif query.get("point") is not None:
        x, y = map(float, query["point"])
        shape = f'<circle cx="{x:g}" cy="{y:g}" r="{corner:g}"/>'
    else:
        return ""
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true"><g class="edge">{shape}</g>{shape}</svg>'


def _places(run: Run, means: list[list[float | None]]) -> list[list[float | None]]:
    """For each item and metric where it lies between the worst (0) and the best (1) item of the run; None if all are
    equal or it has no score."""
    places: list[list[float | None]] = [[] for _ in means]
    for column, meta in enumerate(run.metrics.values()):
        values = [row[column] for row in means if row[column] is not None]
        worst, best = (min(values), max(values)) if values else (0.0, 0.0)
        if meta["direction"] == "lower":
            worst, best = best, worst
        for row, out in zip(means, places, strict=True):
            out.append(None if row[column] is None or best == worst else (row[column] - worst) / (best - worst))
    return places


def _summary(run: Run) -> str:
    subjects = {item["subject"] for item in run.items.values()}
    pictures = sum(len(item["images"]) for item in run.items.values())
    parts = [f"{len(run.items):,} items of {len(subjects):,} subject{'s' * (len(subjects) > 1)}, {pictures:,} pictures"]
    unmade = len(run.meta.get("items", run.items)) - len(run.items)
    parts += [f"{unmade:,} more to be made"] if unmade else []
    for metric in run.metrics:
        mean = estimate(clusters(run, metric)).mean
        parts += [] if math.isnan(mean) else [f"{metric} {mean:.3f}"]
    return escape(" · ".join(parts))


def _source(run: Run) -> str:
    meta = run.meta
    settings = ", ".join(f"{name} {value}" for name, value in meta["settings"].items())
    versions = ", ".join(f"{name} {value}" for name, value in meta["versions"].items())
    return (
        f"{meta['benchmark']}, version {meta['version']} · {run.name}, model {meta.get('model')} · {settings} · "
        f"{versions} · commit {str(meta.get('commit'))[:12]} · run {meta['hash'][:12]}"
    )


def _number(value) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _mean(values: list[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return math.fsum(kept) / len(kept) if kept else None
