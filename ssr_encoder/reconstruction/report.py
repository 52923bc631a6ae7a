"""Table 1 and Fig. 2 of the supplement from the runs of a study: Markdown, JSON, and a picture."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import SSRError
from ..extras import need
from ..files import written_beside
from ..provenance import versions
from .config import SETTINGS
from .measure import COLUMNS
from .study import read_json

FORMAT = "ssr-reconstruction-report-1"
LEVEL = 0.95
# Table 1 as printed: PS, PSNR, CLIP-T, ZS.
PAPER = {
    "A": {"ps": 0.0036, "psnr": 28.63, "clip_t": 0.1816, "zero_shot": 0.753},
    "B": {"ps": 0.0013, "psnr": 28.56},
    "C": {"ps": 0.0004, "psnr": 29.73, "clip_t": 0.1394, "zero_shot": 0.684},
    "D": {"ps": 0.0006, "psnr": 29.49, "clip_t": 0.1816, "zero_shot": 0.753},
}


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds with its interval; low and high are NaN for one seed."""

    mean: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict:
        """JSON values; None where there is no interval."""
        ends = {name: x if math.isfinite(x) else None for name, x in (("low", self.low), ("high", self.high))}
        return {"mean": self.mean, **ends, "n": self.n}


def t_interval(values: list[float], level: float = LEVEL) -> Interval:
    """Mean and interval by Student's t with n - 1 degrees of freedom: mean +- t * s / sqrt(n), s with n - 1."""
    n, mean = len(values), statistics.fmean(values)
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    quantile = float(need("scipy.stats", "bench").t.ppf((1 + level) / 2, n - 1))
    half = quantile * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def load_runs(out: Path, settings: list[str], seeds: list[int]) -> dict[str, dict[int, dict]]:
    """setting -> seed -> what ``run.json`` holds.

    Raises:
        SSRError: a run is missing, damaged, or not of the others' study (another number of steps, other data, ...).
    """
    runs: dict[str, dict[int, dict]] = {setting: {} for setting in settings}
    common, first = None, ""
    for setting in settings:
        for seed in seeds:
            path = out / "runs" / f"{setting}-{seed}" / "run.json"
            if not path.is_file():
                raise SSRError(f"{path.parent} is not finished; run `ssr reconstruct` again")
            run = read_json(path)
            own = ("setting", "seed", "hidden_layers", "encoder", "encoder_sha256")
            shared = {key: value for key, value in run["settings"].items() if key not in own}
            if common is None:
                common, first = shared, path.parent.name
            changed = [key for key in {**common, **shared} if common.get(key) != shared.get(key)]
            if changed:
                raise SSRError(f"{setting}-{seed} and {first} in {out} differ in {changed[0]}; report them apart")
            runs[setting][seed] = run
    return runs


def summarise(runs: dict[str, dict[int, dict]], **about) -> dict:
    """Table 1 as JSON: means over seeds with intervals, and the paired difference of D and A.

    Args:
        about: what else to record (commit, command).
    """
    figures = {
        setting: {
            name: [run["figures"][name] for _, run in sorted(of_setting.items()) if name in run["figures"]]
            for name in COLUMNS
        }
        for setting, of_setting in runs.items()
    }
    table = {
        setting: {name: t_interval(values).to_dict() for name, values in columns.items() if values}
        for setting, columns in figures.items()
    }
    settings = next(iter(next(iter(runs.values())).values()))["settings"]
    result = {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        **about,
        "seeds": sorted({seed for of_setting in runs.values() for seed in of_setting}),
        "ps": settings["ps"],
        "study": {key: value for key, value in settings.items() if key not in ("setting", "seed", "hidden_layers")},
        "encoders": {s: next(iter(r.values()))["settings"]["encoder"] for s, r in runs.items()},
        "layers": {s: next(iter(r.values()))["settings"]["hidden_layers"] for s, r in runs.items()},
        "seconds": {s: [run["seconds"] for _, run in sorted(r.items())] for s, r in runs.items()},
        "table": table,
        "values": figures,
    }
    if "A" in runs and "D" in runs:
        both = sorted(set(runs["A"]) & set(runs["D"]))
        result["d_minus_a"] = {}
        for name in COLUMNS:
            pairs = [[runs[s][seed]["figures"].get(name) for s in "DA"] for seed in both]
            if pairs and all(None not in pair for pair in pairs):
                result["d_minus_a"][name] = t_interval([d - a for d, a in pairs]).to_dict()
    return result


def markdown(result: dict) -> str:
    """The table, the difference, and what the columns are."""
    study, n = result["study"], len(result["seeds"])
    read = ", ".join(f"{s} {layers} of {result['encoders'][s]}" for s, layers in result["layers"].items())
    lines = [
        "# Image encoders by reconstruction (supplement, section B, Table 1)",
        "",
        f"Mean over {n} seed{'s' if n > 1 else ''} and its 95 % interval (Student's t over seeds); "
        f"{study['steps']} steps of {study['batch_size'] * study['accumulate']} pictures.",
        "",
        "| setting | " + " | ".join(f"{head} {'↑' if more else '↓'}" for head, more in COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for setting, columns in result["table"].items():
        cells = [_cell(name, columns.get(name)) for name in COLUMNS]
        lines.append(f"| {setting}: {SETTINGS[setting]} | " + " | ".join(cells) + " |")
    if result.get("d_minus_a"):
        cells = [_cell(name, result["d_minus_a"].get(name), signed=True) for name in COLUMNS]
        lines += ["| **D minus A**, paired by seed | " + " | ".join(cells) + " |"]
    lines += [
        "",
        f"PS is {result['ps'].removeprefix('PS ').strip('()')}; PSNR in dB, pictures in [0, 1]. CLIP-T is the mean "
        "cosine of held-out pictures and their texts, ZS zero-shot top-1, both of the encoder itself: settings that "
        "leave it untouched have the same value for every seed, hence no spread.",
        "",
        f"Layers read: {read}.",
        "",
        "The paper's Table 1 (LAION, ViT-L/14, 100,000 steps), not comparable in value:",
        "",
        "| setting | " + " | ".join(head for head, _ in COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for setting, printed in PAPER.items():
        cells = [_number(name, printed[name]) if name in printed else "–" for name in COLUMNS]
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def load_examples(out: Path, settings: list[str], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The held-out originals (m, 3, H, W) in [0, 1], and each setting's reconstructions of them."""
    found, originals = {}, None
    for setting in settings:
        path = out / "runs" / f"{setting}-{seed}" / "examples.safetensors"
        try:
            both = load_file(path)
        except (OSError, SafetensorError):
            raise SSRError(f"{path} is damaged; delete the folder {path.parent} to make that run again") from None
        originals = both["originals"].float() / 255
        found[setting] = both["reconstructions"].float() / 255
    return originals, found


def draw_figure(originals: Tensor, reconstructions: dict[str, Tensor], path: Path) -> None:
    """Fig. 2: a row of originals, and one of reconstructions for each setting."""
    need("matplotlib", "bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {"original": originals} | {f"{s}: {SETTINGS[s]}": made for s, made in reconstructions.items()}
    columns = len(originals)
    figure = Figure(figsize=(1.5 * columns + 1.6, 1.5 * len(rows)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (name, pictures), line in zip(rows.items(), grid, strict=True):
        for picture, axes in zip(pictures, line, strict=True):
            axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8, rotation=0, ha="right", va="center")
    with written_beside(path) as temporary:
        figure.savefig(temporary, format="png")


def _number(name: str, value: float, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if name == "zero_shot":
        return f"{100 * value:{sign}.1f}%"
    return f"{value:{sign}.{2 if name == 'psnr' else 4}f}"


def _cell(name: str, found: dict | None, signed: bool = False) -> str:
    if found is None:
        return "–"
    text = _number(name, found["mean"], signed)
    if found["low"] is None:
        return text
    return f"{text} [{_number(name, found['low'], signed)}, {_number(name, found['high'], signed)}]"
