"""A report in blocks: the table of scores, the comparisons, and below them what made the figures."""

from __future__ import annotations

import json
import math
import re

from .report import ALPHA, Report, missing_scores
from .statistics import Difference, Estimate
from .tables import Block, Cell, Facts, Heading, Paragraph, Table

ARROWS = {"higher": "↑", "lower": "↓"}
NONE = "–"
DESCRIBED = ("definition", "backbone", "preprocessing")
METRICS = "Metrics (↑ higher, ↓ lower is better)."


def title(report: Report) -> str:
    meta = report.runs[0].meta
    return f"{meta['benchmark']}, version {meta['version']}"


def score_blocks(report: Report) -> list[Block]:
    """The table, what is missing in it, and the comparisons."""
    names = report.scored
    digits = {m: _digits(e[m].mean for e in report.estimates if m in e) for m in names}
    best = {m: report.best(m) for m in names}
    rows = []
    for i, (run, label) in enumerate(zip(report.runs, report.labels, strict=True)):
        cells = [estimate_cell(report.estimates[i].get(m), digits[m], best[m] == i) for m in names]
        subjects = len({item["subject"] for item in run.items.values()})
        pictures = sum(len(item["images"]) for item in run.items.values())
        rows.append([label, *cells, str(subjects), str(pictures)])
    bold = "" if len(rows) == 1 else (
        f"; bold: better than every other method by a paired test over subjects (p < {ALPHA:g} after Holm's correction "
        "over all pairs of methods, each metric by itself)"
    )  # fmt: skip
    caption = f"Means over subjects with 95 % intervals (bootstrap over subjects){bold}.{few(report.estimates)}"
    table = Table(["method", *(head(report, m) for m in names), "subjects", "pictures"], rows, caption)
    blocks: list[Block] = [Heading("Scores"), table]
    missing = missing_scores(report)
    if missing:
        blocks.append(Paragraph(f"Without a score, and not counted above: {'; '.join(missing)}."))
    if len(rows) > 1:
        blocks.append(_comparison_table(report, names, digits))
    return blocks


def _comparison_table(report: Report, names: list[str], digits: dict[str, int]) -> Table:
    pairs = list(dict.fromkeys(pair for m in names for pair in report.comparisons[m]))
    rows = []
    for i, j in pairs:
        cells: list[Cell | str] = [f"{report.labels[i]} − {report.labels[j]}"]
        for m in names:
            found = report.comparisons[m].get((i, j))
            cells.append(_difference_cell(*found, digits[m]) if found else Cell(NONE))
        rows.append(cells)
    several = f" after Holm's correction over {len(pairs)} comparisons of each metric" if len(pairs) > 1 else ""
    caption = (
        "Differences on the same subjects, prompts and seeds, with 95 % intervals (paired bootstrap over subjects) and "
        f"p of the sign-flip permutation test over subjects{several}."
    )
    return Table(["difference", *(head(report, m) for m in names)], rows, caption)


def source_blocks(report: Report) -> list[Block]:
    """What made the figures: the benchmark, the runs and the metrics, so that another can make them again."""
    first = report.runs[0].meta
    same = {k: v for k, v in first["settings"].items() if all(r.meta["settings"].get(k) == v for r in report.runs)}
    versions = first["versions"]
    same_versions = all(run.meta["versions"] == versions for run in report.runs)
    facts = [("benchmark", f"{first['benchmark']}, version {first['version']}"), ("digest", first["digest"])]
    facts += [("settings", _listed(same))] if same else []
    facts += [("versions", _listed(versions))] if same_versions else []
    heads = ["method", "model", "fingerprint", "commit", "hash", "settings"]
    rows = []
    for run, label in zip(report.runs, report.labels, strict=True):
        own = {k: v for k, v in run.meta["settings"].items() if k not in same}
        own |= {} if same_versions else run.meta["versions"]
        short = [str(run.meta.get(name) or NONE)[:12] for name in ("fingerprint", "commit", "hash")]
        rows.append([label, str(run.meta.get("model") or NONE), *short, _listed(own) or "as above"])
    described = []
    for name, meta in report.metrics.items():
        rest = {k: v for k, v in meta.items() if k not in ("name", "direction", *DESCRIBED)}
        words = (*map(meta.get, DESCRIBED), _listed(rest))
        described.append([f"{name} {ARROWS[meta['direction']]}", *(_text(word) or NONE for word in words)])
    return [
        Heading("What made it"),
        Facts(facts),
        Table(heads, rows, "Runs.", names=len(heads)),
        Table(["metric", *DESCRIBED, "further"], described, METRICS, 5),
    ]


def head(report: Report, metric: str) -> str:
    return f"{metric} {ARROWS[report.metrics[metric]['direction']]}"


def estimate_cell(found: Estimate | None, digits: int, best: bool = False) -> Cell:
    if found is None or math.isnan(found.mean):
        return Cell(NONE)
    detail = "" if math.isnan(found.low) else f"[{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return Cell(f"{found.mean:.{digits}f}".replace("-", "−"), detail.replace("-", "−"), best)


def few(estimates: list[dict[str, Estimate]]) -> str:
    """What has to be said of intervals over few subjects, or nothing."""
    counts = [found.subjects for of_run in estimates for found in of_run.values() if found.subjects]
    if min(counts, default=5) >= 5:
        return ""
    return " Below five subjects an interval is too narrow, and of one there is none."


def _difference_cell(found: Difference, p: float, digits: int) -> Cell:
    if math.isnan(found.mean):
        return Cell(NONE)
    text = f"{found.mean:+.{digits}f}"
    if math.isnan(found.p):
        return Cell(text.replace("-", "−"))
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return Cell(*(x.replace("-", "−") for x in (text, f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}], {shown}")))


def _digits(means) -> int:
    """Behind the point: 3 for figures like 0.712, fewer for larger ones."""
    largest = max((abs(mean) for mean in means if not math.isnan(mean)), default=0)
    return 3 if largest < 10 else 2 if largest < 1000 else 1


def _listed(values: dict) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items())


def _text(value) -> str:
    """A JSON value in words; of a sha256 its beginning."""
    if value is None:
        return NONE
    if isinstance(value, str):
        return value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value
    if isinstance(value, dict):
        return _listed(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
