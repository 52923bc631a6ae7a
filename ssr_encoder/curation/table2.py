"""Table 2 of the paper's supplement in its own form, of any described shards: Markdown, a plot, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import SSRError
from ..extras import need
from ..files import write_json, written_beside

# Section H: of 10 million captions, by words as written.
PAPER_CAPTIONS = 10_000_000
PAPER = {
    "woman": 1528518, "man": 1256613, "people": 536434, "table": 385643, "mountain": 315765, "chairs": 291189,
    "dress": 268058, "suit": 256732, "trees": 240771, "hair": 229538, "wooden": 216958, "street": 212259,
    "house": 191785, "building": 168670, "dog": 164819, "snow": 163838, "girl": 162311, "hat": 157549,
    "flowers": 152308, "sky": 151332, "cat": 147851,
}  # fmt: skip
ROWS, COLUMNS = 7, 3  # of the paper's table
FILES = ("descriptors.json", "descriptors.md", "descriptors.png")


def table(frequencies: dict[str, int], rows: int = ROWS) -> str:
    """The most frequent descriptors as a Markdown table of three columns of (subject, frequency), read downwards."""
    top = list(frequencies.items())[: rows * COLUMNS]
    lines = ["| subject | frequency " * COLUMNS + "|", "|---|---:" * COLUMNS + "|"]
    for row in range(min(rows, len(top))):
        cells = [top[k] if (k := row + rows * column) < len(top) else ("", "") for column in range(COLUMNS)]
        lines.append("".join(f"| {word} | {number} " for word, number in cells) + "|")
    return "\n".join(lines) + "\n"


def markdown(counted: dict) -> str:
    """A page with the table of :func:`describe.count`'s figures and, below it, the paper's, quoted."""
    captions, frequencies = counted["captions"], counted["frequencies"]
    return "\n".join(
        [
            "# The most frequent subject descriptors",
            "",
            f"{captions:,} captions, {counted['described']:,} of them with a descriptor; {len(frequencies):,} "
            "different descriptors. A descriptor counts once a caption.",
            "",
            table(frequencies),
            f"For comparison, the paper's Table 2 (supplement, section H; {PAPER_CAPTIONS:,} captions by BLIP-2). It "
            "counts words of any kind, as its row *wooden* shows:",
            "",
            table(PAPER),
        ]
    )


def plot(counted: dict, path: Path, top: int = 30, before: dict | None = None) -> None:
    """Shares of captions that name each of the ``top`` descriptors, as a PNG; ``before`` are counts to compare with."""
    matplotlib = need("matplotlib", "data")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shown = before or counted
    words = list(shown["frequencies"])[:top][::-1]
    figure = Figure(figsize=(7, 1.2 + 0.22 * len(words)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 if before is None else 0.4
    places = range(len(words))
    if before is not None:
        shift = [place + height for place in places]
        axes.barh(shift, _shares(before, words), height, color="#c9c5bb", label="before")
    axes.barh(places, _shares(counted, words), height, color="#c94a1c", label=None if before is None else "after")
    axes.set_yticks([place + (height / 2 if before is not None else 0) for place in places], words)
    axes.set_xlabel("captions that name it, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.01)
    if before is not None:
        axes.legend(frameon=False, loc="lower right")
    with written_beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=140, metadata={"Software": None})


def write_files(counted: dict, folder: Path, before: dict | None = None) -> list[Path]:
    """descriptors.json, .md and .png in ``folder``."""
    paths = [Path(folder) / name for name in FILES]
    write_json(paths[0], counted)
    with written_beside(paths[1]) as temporary:
        temporary.write_text(markdown(counted), encoding="utf-8")
    plot(counted, paths[2], before=before)
    return paths


def read_frequencies(path: str | Path) -> dict:
    """What :func:`write_files` wrote as JSON.

    Raises:
        SSRError: not such a file.
    """
    try:
        counted = json.loads(Path(path).read_text(encoding="utf-8"))
        frequencies = counted["frequencies"]
        good = counted["captions"] >= 0 and all(isinstance(n, int) and n > 0 for n in frequencies.values())
    except OSError as error:
        raise SSRError(f"cannot read {path} ({error.strerror}); give descriptors.json of `ssr data describe`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise SSRError(f"{path} holds no frequencies; give descriptors.json of `ssr data describe`")
    return counted


def _shares(counted: dict, words: list[str]) -> list[float]:
    return [100 * counted["frequencies"].get(word, 0) / max(1, counted["captions"]) for word in words]
