"""The figure of an ablation: pictures over the parameter's values as in Fig. 4 of the supplement, and curves below."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ..extras import need
from ..files import written_beside
from .ablate import Point

CURVES = {  # label -> (line, metric, whether to draw 1 - share)
    "selectivity: nothing else of the reference shown": ("text", "other", True),
    "identity right": ("text", "identity", False),
    "concept shown": ("text", "shown", False),
    "text alignment: place right": ("text", "place", False),
    "one of two of a class: not its twin": ("twin", "told_apart", False),
}
SYMBOLS = {"lambda": "λ", "tau": "τ"}


def draw_figure(points: list[Point], parameter: str, prompts: list[str], path: Path) -> None:
    """Write a PNG: a row for each case, a column for each value; below, shares with their 95 % intervals.

    Args:
        prompts: of the pictures that the points keep, in order.
    """
    need("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(points[0].pictures), len(points)
    symbol = SYMBOLS[parameter]
    figure = Figure(figsize=(1.35 * columns + 1.6, 1.35 * rows + 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35 * rows, 4.2))
    grid = top.subplots(rows, columns, squeeze=False)
    for column, point in enumerate(points):
        grid[0, column].set_title(f"{symbol} = {point.value:g}", fontsize=10)
        for row, picture in enumerate(point.pictures):
            axes = grid[row, column]
            axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(textwrap.fill(prompts[row], 16), fontsize=7, rotation=0, ha="right", va="center")
    axes = bottom.subplots()
    places = list(range(columns))  # evenly: tau spans decades and has a zero
    for label, (line, metric, inverted) in CURVES.items():
        shares = [p.figures.get(line, {}).get(metric) for p in points]
        if None in shares:
            continue
        value, low, high = (
            [1 - s[key] if inverted else s[key] for s in shares]
            for key in ("value", *(("high", "low") if inverted else ("low", "high")))
        )
        drawn = axes.plot(places, value, marker="o", label=label)[0]
        axes.fill_between(places, low, high, color=drawn.get_color(), alpha=0.12, linewidth=0)
    axes.set_xticks(places, [f"{p.value:g}" for p in points])
    axes.set_xlabel(f"{symbol} ({'weight of the regularisation' if parameter == 'tau' else 'subject scale'})")
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("share of pictures")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with written_beside(path) as beside:
        figure.savefig(beside, format="png")
