"""Scores by what items are tagged with: two groups with and without a tag, or fidelity against a number in it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

from ..errors import SSRError
from ..extras import need
from .presentation import estimate_cell, few, head
from .report import Report, clusters
from .results import Run
from .statistics import Estimate, estimate, rank_trend, subject_means
from .tables import Block, Cell, Heading, Picture, Table

BINS = 6  # at most, of a number


@dataclass(frozen=True)
class Group:
    """Items that belong together."""

    name: str
    keys: frozenset[str]
    place: float = math.nan  # of numbers: their median over the subjects


def find_groups(run: Run, prefix: str) -> list[Group]:
    """The groups of a run's items: by the number or word behind ``prefix:`` in their tags, or with and without the tag
    ``prefix``. Numbers of many values are put into up to :data:`BINS` groups of about as many subjects.

    Raises:
        SSRError: no item has such a tag.
    """
    values = {key: _value(item["tags"], prefix) for key, item in run.items.items()}
    values = {key: value for key, value in values.items() if value is not None}
    if not values:
        tags = sorted({tag.partition(":")[0] for item in run.items.values() for tag in item["tags"]})
        raise SSRError(f"no item has a tag {prefix!r}; the benchmark has: {', '.join(tags) or 'none'}")
    if set(values.values()) == {True}:
        with_tag = frozenset(values)
        return [Group(prefix, with_tag), Group(f"not {prefix}", frozenset(run.items) - with_tag)]
    if not all(isinstance(value, float) for value in values.values()):
        texts = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in values.items()}
        return [
            Group(f"{prefix} {name}", frozenset(key for key, text in texts.items() if text == name))
            for name in sorted(set(texts.values()))
        ]
    subjects = {(run.items[key]["subject"], value) for key, value in values.items()}
    found = []
    for numbers in _binned(sorted(value for _, value in subjects)):
        keys = frozenset(key for key, value in values.items() if numbers[0] <= value <= numbers[-1])
        name = f"{numbers[0]:g}" if numbers[0] == numbers[-1] else f"{numbers[0]:g}–{numbers[-1]:g}"
        found.append(Group(f"{prefix} {name}", keys, numbers[len(numbers) // 2]))
    return found


def group_blocks(report: Report, prefix: str, chart_name: str | None) -> list[Block]:
    """A table with a row for each run and group; of numbers also the rank correlation over subjects and, where it has
    a name, the chart."""
    groups = find_groups(report.runs[0], prefix)
    found = [[{m: _of_group(run, m, group) for m in report.scored} for group in groups] for run in report.runs]
    rows = []
    for label, of_run in zip(report.labels, found, strict=True):
        for group, estimates in zip(groups, of_run, strict=True):
            subjects = str(max(e.subjects for e in estimates.values()))
            rows.append([label, group.name, *(estimate_cell(e, 3) for e in estimates.values()), subjects])
    heads = ["method", "group", *(head(report, m) for m in report.scored), "subjects"]
    caption = "Means over the subjects of each group with 95 % intervals (bootstrap over subjects)."
    caption += few([estimates for of_run in found for estimates in of_run])
    blocks: list[Block] = [Heading(f"By {prefix}"), Table(heads, rows, caption, names=2)]
    if math.isnan(groups[0].place):
        return blocks
    blocks.append(_trends(report, prefix))
    if chart_name is not None:
        png = chart(report, prefix, groups, found)
        blocks.append(Picture(chart_name, png, f"Scores against {prefix}, with 95 % intervals over subjects."))
    return blocks


def chart(report: Report, prefix: str, groups: list[Group], found: list[list[dict[str, Estimate]]]) -> bytes:
    """A panel for each metric, a line for each run, as PNG."""
    need("matplotlib", "bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = report.scored
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.9 * rows + 0.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    places = [group.place for group in groups]
    least = min((place for place in places if place > 0), default=math.inf)
    for metric, axes in zip(metrics, panels, strict=False):
        for i, (label, of_run) in enumerate(zip(report.labels, found, strict=True)):
            points = [(x, e[metric]) for x, e in zip(places, of_run, strict=True) if not math.isnan(e[metric].mean)]
            if not points:
                continue
            x, estimates = zip(*points, strict=True)
            mean = [e.mean for e in estimates]
            below = [0.0 if math.isnan(e.low) else max(0.0, e.mean - e.low) for e in estimates]
            above = [0.0 if math.isnan(e.high) else max(0.0, e.high - e.mean) for e in estimates]
            style = {"marker": "o", "markersize": 4, "capsize": 3, "linewidth": 1.4, "color": f"C{i}"}
            axes.errorbar(x, mean, [below, above], label=label, **style)
        if max(places) >= 20 * least:  # counts from none to millions
            axes.set_xscale("symlog", linthresh=least)  # a logarithm, and a place for 0 beside it
        axes.set_title(head(report, metric), fontsize=10)
        axes.set_xlabel(prefix)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels:  # those left over
        axes.set_visible(False)
    if len(report.runs) > 1:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), frameon=False, fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _trends(report: Report, prefix: str) -> Table:
    rows = []
    for run, label in zip(report.runs, report.labels, strict=True):
        values: dict[str, list[float]] = {}
        for item in run.items.values():
            value = _value(item["tags"], prefix)
            if value is not None:
                values.setdefault(item["subject"], []).append(value)
        of_subject = {subject: sum(numbers) / len(numbers) for subject, numbers in values.items()}
        cells = []
        for metric in report.scored:
            rho, p = rank_trend(of_subject, subject_means(clusters(run, metric)))
            cells.append(Cell("–") if math.isnan(rho) else Cell(f"{rho:+.2f}".replace("-", "−"), f"p = {p:.3f}"))
        rows.append([label, *cells])
    caption = f"Rank correlation (Spearman's ρ) of a subject's mean with {prefix}, with p of a permutation test."
    return Table(["method", *report.scored], rows, caption)


def _of_group(run: Run, metric: str, group: Group) -> Estimate:
    return estimate(clusters(run, metric, [key for key in run.items if key in group.keys]))


def _value(tags, prefix: str) -> float | str | bool | None:
    """Behind ``prefix:`` as a number if it is one, else the text; True for the tag itself; None without it."""
    for tag in tags:
        name, colon, text = tag.partition(":")
        if name != prefix:
            continue
        if not colon:
            return True
        try:
            return float(text) if math.isfinite(float(text)) else text
        except ValueError:
            return text
    return None


def _binned(numbers: list[float]) -> list[list[float]]:
    """Sorted numbers in up to :data:`BINS` groups of about one size; equal numbers stay together."""
    distinct = sorted(set(numbers))
    if len(distinct) <= BINS:
        return [[number] for number in distinct]
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for number in distinct:  # by the middle of its rank
        before = sum(x < number for x in numbers)
        count = numbers.count(number)
        bins[min(BINS - 1, int((before + count / 2) * BINS / len(numbers)))] += [number] * count
    return [group for group in bins if group]
