"""What ``ssr proof`` leaves: a table, a JSON record, and a page of the best, median and worst cases."""

from __future__ import annotations

import platform
import time
from html import escape

import torch
from PIL import Image
from rich import box
from rich.table import Table

from ..encoder import SSREncoder
from ..images import picture_grid
from ..marks import mark_query, query_words
from ..page import document, figure
from ..provenance import commit, versions
from .judge import Verdict
from .proof import Case
from .world import World

FORMAT = "ssr-proof-1"
# metric -> (heading, whether more is better)
HEADINGS = {
    "shown": ("queried subject shown", True),
    "identity": ("right identity", True),
    "other": ("other subject shown", False),
    "place": ("place right", True),
}
ASKED = {
    "text": "by a word",
    "mask": "by a mask",
    "box": "by a box",
    "point": "by a point",
    "twin": "one of two of a class, by a box",
    "composed": "two subjects of two pictures, by words",
    "boxed": "the same two, by a word and a box each",
}
EXAMPLES = 6  # best, median and worst cases of each line on the page


def record(
    ssr: SSREncoder,
    results: list[dict],
    judge: dict,
    model: str,
    n: int,
    steps: int,
    seed: int,
    guidance_scale: float | None = None,
    few_steps: str | None = None,
) -> dict:
    """Everything that a later reader needs to compare, as JSON values. Shares are in [0, 1]. ``few_steps``: whose LoRA
    was used ("own", or a place)."""
    guidance_scale = ssr.config.guidance_scale if guidance_scale is None else guidance_scale
    return {
        "format": FORMAT,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "commit": commit(),
        "model": model,
        "fingerprint": ssr.fingerprint,
        "device": str(ssr.device),
        "dtype": str(ssr.dtype).removeprefix("torch."),
        "device_name": torch.cuda.get_device_name(ssr.device) if ssr.device.type == "cuda" else platform.processor(),
        "seed": seed,
        "n": n,
        "steps": steps,
        "subject_scale": ssr.config.subject_scale,
        "several_scale": ssr.config.default_scale(2),
        "guidance_scale": guidance_scale,
        "subject_guidance": ssr.config.subject_guidance if guidance_scale > 1 else 0.0,
        "few_steps": few_steps,
        "judge": judge,
        "lines": {
            result["line"]: {
                key: result[key]
                for key in ("figures", "scale_0", "new_drawings", "by_concept", "chance_identity", "seconds")
            }
            for result in results
        },
    }


def table(proof: dict) -> Table:
    """The figures of a :func:`record` for a terminal of 80 columns, in percent; below each line the same at scale 0."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("asked for", no_wrap=True)
    for heading, more in HEADINGS.values():
        words = heading.replace(" subject", "").split()
        shown.add_column(f"{words[0]}\n{words[1]} {'↑' if more else '↓'}", no_wrap=True)
    for line, result in proof["lines"].items():
        shown.add_row(line, *(_percent(result["figures"][m]) for m in HEADINGS), style="bold")
        for name, key, style in (("scale 0", "scale_0", "dim"), ("new drawings", "new_drawings", None)):
            if _counted(result[key]):
                shown.add_row(f"  {name}", *(_percent(result[key][m]) for m in HEADINGS), style=style)
        if "told_apart" in result["figures"]:  # of two of one class, the asked-for one is nearer
            told = _percent(result["figures"]["told_apart"])
            shown.add_row("  not its twin", "", told, "", "")
        if "all_right" in result["figures"]:
            shown.add_row("  both of them", "", _percent(result["figures"]["all_right"]), "", "")
        shown.add_row("  chance", "", f"{100 * result['chance_identity']:.1f}", "", "", style="dim", end_section=True)
    judged = (f"{100 * proof['judge'][k]:.1f}" for k in ("concept_shown", "identity", "other_concept_shown", "place"))
    shown.add_row("the judge", *judged)
    without = "scale 0: same prompts and noise, no subject. " if _with_scale_0(proof) else ""
    shown.caption = (
        f"{proof['n']} held-out cases a line, in percent, [95 % intervals]. ↑ more is better, ↓ less.\n"
        f"{without}the judge: on real scenes."
    )
    shown.caption_justify = "left"
    return shown


def _counted(figures: dict) -> bool:
    return any(figure["n"] for figure in figures.values())


def _with_scale_0(proof: dict) -> bool:
    return any(_counted(line["scale_0"]) for line in proof["lines"].values())


def _percent(figure: dict) -> str:
    if not figure["n"]:
        return "–"
    return f"{100 * figure['value']:.1f} [{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]"


def share(figure: dict) -> str:
    """ "93.3% [90.1, 95.6]", or a dash where nothing was counted."""
    if not figure["n"]:
        return "–"
    return f"{figure['value']:.1%} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def ranked(result: dict, count: int = EXAMPLES) -> dict[str, list[int]]:
    """Indices of the best, median and worst cases of a line, by likeness to the right identity, then by shown."""
    verdicts = result["verdicts"]
    order = sorted(range(len(verdicts)), key=lambda i: (verdicts[i].likeness, verdicts[i].shown), reverse=True)
    count = max(1, min(count, len(order) // 3))
    middle = (len(order) - count) // 2
    return {"best": order[:count], "median": order[middle : middle + count], "worst": order[-count:]}


def proof_page(proof: dict, results: list[dict], radius: float) -> str:
    """The page as HTML, with all pictures inside; ``radius`` is the encoder's ``config.point_radius``."""
    world = World.load()
    versions = ", ".join(f"{name} {version}" for name, version in proof["versions"].items())
    beside = "; beside each figure stands the same at subject scale 0: what the prompt alone explains"
    parts = [
        "<h1>Proof on identities never seen</h1>"
        f'<p class="lead">{proof["n"]} cases a line. Each is a picture with the asked-for subject and one or two '
        "others, and a prompt that puts the subject into a new place. A recogniser that was trained apart judges what "
        f"was made{beside if _with_scale_0(proof) else ''}.</p>",
        f"<section>{_table(proof)}</section>",
    ]
    parts += [_line(result, world, radius) for result in results]
    commit = f", commit {proof['commit'][:12]}" if proof["commit"] else ""
    seconds = sum(line["seconds"] for line in proof["lines"].values())
    parts.append(
        f"<footer><p>Model {escape(str(proof['model']))} ({escape(proof['fingerprint'])}), {proof['steps']} steps, "
        f"seed {proof['seed']}, subject scale {proof['subject_scale']:g} (of each of two composed "
        f"{proof['several_scale']:g}), guidance {proof['guidance_scale']:g}, "
        f"{seconds:.0f} s in {proof['dtype']} on {escape(proof['device'])} {escape(proof['device_name'])}. "
        f"{escape(versions)}{commit}. "
        f"{proof['made']}. All figures: proof.json.</p></footer>"
    )
    return document("SSR-Encoder: proof", STYLE, "\n".join(parts))


def _table(proof: dict) -> str:
    better = {metric: f"{'more' if more else 'less'} is better" for metric, (_, more) in HEADINGS.items()}
    heads = {metric: f"{heading} {'↑' if more else '↓'}" for metric, (heading, more) in HEADINGS.items()}
    top = "".join(f"<th>{heading}<span>{better[metric]}</span></th>" for metric, (heading, _) in HEADINGS.items())
    rows = ""
    for line, result in proof["lines"].items():
        note = ""
        if "told_apart" in result["figures"]:
            note = f"<span>nearer to it than to its twin: {_share(result['figures']['told_apart'])}</span>"
        if "all_right" in result["figures"]:
            note = f"<span>both with the right identity: {_share(result['figures']['all_right'])}</span>"
        cells = f"<th>{line}<span>{ASKED[line]}</span>{note}</th>"
        for metric, head in heads.items():
            extra = ""
            if metric == "identity":
                extra = f"<span>chance {result['chance_identity']:.1%}</span>"
                if _counted(result["new_drawings"]):
                    extra += f"<span>new drawings {_share(result['new_drawings'][metric])}</span>"
            plain = f"<span>scale 0: {_share(result['scale_0'][metric])}</span>" if _counted(result["scale_0"]) else ""
            cells += f'<td data-head="{head}">{_share(result["figures"][metric])}{plain}{extra}</td>'
        rows += f"<tr>{cells}</tr>"
    judge = proof["judge"]
    figures = zip(HEADINGS, ("concept_shown", "identity", "other_concept_shown", "place"), strict=True)
    cells = "".join(f'<td data-head="{heads[metric]}">{judge[key]:.1%}</td>' for metric, key in figures)
    rows += f'<tr class="judge"><th>the judge<span>on real held-out scenes</span></th>{cells}</tr>'
    note = "<p class='soft'>Brackets: 95 % intervals; ↑ more is better, ↓ less. "
    note += "A new drawing is one of which no colour was trained; chance is "
    note += "guessing among the identities of the same class.</p>"
    return f"<table><thead><tr><th>asked for</th>{top}</tr></thead><tbody>{rows}</tbody></table>{note}"


def _share(figure: dict) -> str:
    value, _, interval = share(figure).partition(" ")
    return f"{value} <i>{interval}</i>"


def _line(result: dict, world: World, radius: float) -> str:
    body = ""
    for name, indices in ranked(result).items():
        cards = "".join(_card(result, i, world, radius) for i in indices)
        body += f'<h3>{name.capitalize()}</h3><div class="cards">{cards}</div>'
    head = f"<h2>{result['line'].capitalize()}</h2><p class='soft'>{ASKED[result['line']]}</p>"
    return f"<section>{head}{body}</section>"


def _card(result: dict, i: int, world: World, radius: float) -> str:
    case, verdict = result["cases"][i], result["verdicts"][i]
    pictures = ""
    for reference, query, concept in zip(case.references, case.queries, case.concepts, strict=True):
        asked = query_words(query)
        # The class is what the query stands for; a region does not say it.
        caption = f"{escape(asked)}" if "query" in query else f"{escape(asked)}: {escape(world.concepts[concept])}"
        pictures += figure(mark_query(reference, query, 192, radius), caption, f"reference, asked for by {asked}")
    pictures += figure(_image(verdict), "made", f"made for: {case.prompt}")
    if result["without"]:
        plain = _image(result["without"][i])
        pictures += figure(plain, "without subject", f"the same without subject: {case.prompt}")
    words = "".join(
        f'<li class="{"good" if good else "bad"}">{escape(text)}</li>' for text, good in says(case, verdict)
    )
    return f'<article><div class="strip">{pictures}</div><p>{escape(case.prompt)}</p><ul>{words}</ul></article>'


def says(case: Case, verdict: Verdict) -> list[tuple[str, bool]]:
    """A verdict in words, each with whether it is good."""
    if len(case.concepts) == 1:
        words = [
            ("subject shown" if verdict.shown else "subject not shown", verdict.shown == 1),
            ("right identity" if verdict.identity else "wrong identity", verdict.identity == 1),
        ]
    else:
        count = ("none", "one", "both")
        words = [
            (f"{count[round(2 * verdict.shown)]} shown", verdict.shown == 1),
            (f"{count[round(2 * verdict.identity)]} of the right identity", verdict.identity == 1),
        ]
    if verdict.told_apart is not None:
        words.append(("not its twin" if verdict.told_apart else "more like its twin", verdict.told_apart == 1))
    if verdict.other is not None:
        words.append(("another subject leaked in" if verdict.other else "no other subject", verdict.other == 0))
    words.append(("place right" if verdict.place else "place wrong", verdict.place == 1))
    words.append((f"likeness {verdict.likeness:.2f}", True))
    return words + [("new drawing", True)] * case.new_drawing


def _image(verdict: Verdict) -> Image.Image:
    return picture_grid(verdict.picture[None], 1)


STYLE = """
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 14px 14px 14px 0; border-bottom: 1px solid var(--line); }
thead th { font-size: .86rem; line-height: 1.3; vertical-align: bottom; }
tbody th { font-size: 1.05rem; }
td { font-size: 1.3rem; font-weight: 650; letter-spacing: -.01em; white-space: nowrap; }
td i, th i { font: 400 .82rem/1 system-ui, sans-serif; letter-spacing: 0; color: var(--soft); }
th span, td span { display: block; font-size: .8rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
td span { line-height: 1.55; } td span i, th span i { font-size: .74rem; }
tr.judge td, tr.judge th { border-bottom: 0; color: var(--soft); }
section table + p { margin: 14px 0 0; font-size: .86rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 26px 30px;
  margin-bottom: 30px; }
.strip { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 8px; align-items: start; }
.strip img { border-radius: 10px; } .strip figcaption { font-size: .76rem; padding-top: .4em; }
article p { margin: .5em 0 .4em; font-weight: 600; font-size: .95rem; }
ul { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 12px; margin: 0; padding: 0; font-size: .8rem; }
li { color: var(--soft); } li.bad { color: var(--accent); font-weight: 600; }
h3 { margin-top: 1.2em; }
@media (max-width: 860px) {
  thead { display: none; } td span { white-space: normal; }
  tr { display: grid; grid-template-columns: 1fr 1fr; gap: 0 16px; padding: 12px 0; }
  tr + tr { border-top: 1px solid var(--line); }
  tbody th, td { border: 0; padding: 6px 0; white-space: normal; } tbody th { grid-column: 1 / -1; }
  td::before { content: attr(data-head); display: block; font: 400 .8rem/1.4 system-ui, sans-serif; letter-spacing: 0; }
}
"""
