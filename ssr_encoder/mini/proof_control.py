"""What the embedded ControlNet does with subjects: layout from a map, identity from the reference.

    python -m ssr_encoder.mini.proof_control -n 48 --steps 12 -o DIR [--controlnet DIR] [--json]

The cases are those of ``ssr proof`` by a word, all of held-out identities. Each gets a map of its own: of a drawn scene
with the same subject alone in the prompt's place. How far a picture follows it is the IoU, on the oracle's 16 x 16
grid, of the cells in which the oracle sees the asked-for concept with those that the silhouette covers. Writes
DIR/control.json and DIR/control.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..cli import options
from ..encoder import SSREncoder
from ..errors import SSRError, run_program
from ..files import write_json, written_beside
from ..images import picture_grid
from .control import edge_map, layout_map
from .models import weights_dir
from .oracle import GRID, Oracle
from .proof import METRICS, Case, make_cases, make_pictures, summarise
from .proof_companions import alone_in_place, load_companion, made_by, mean_interval, parse, world_and_judge
from .world import World

# What the lines of the table are, in the order in which they are made.
LINES = {
    "drawn": "the drawn scenes that the maps are of: what the judge itself reaches",
    "no_control": "subject, no map",
    "layout": "subject and silhouette",
    "layout_alone": "silhouette, no subject",
    "edges": "subject and edges",
    "edges_alone": "edges, no subject",
}
ROWS = 4  # cases of each kind of map in the picture


def prove_control(
    ssr: SSREncoder,
    controlnet: ControlNetModel,
    n: int = 48,
    steps: int = 12,
    seed: int = 0,
    batch: int = 8,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[dict]:
    """Yield a result for each of :data:`LINES`: the proof's figures and "iou", each with a 95 % interval; for lines
    with a subject and a map also "change", the paired differences from no_control; and cases, maps and verdicts.

    All lines have the same prompts and noise. ``on_step`` is called :func:`count_steps` times.

    Raises:
        SSRError: fewer than two cases, which have no interval; the oracle's weights are not there.
    """
    if n < 2:
        raise SSRError(f"n is {n}; give at least 2 cases")
    world, judge = world_and_judge(ssr)
    cases = make_cases(world, "text", n, seed)
    subjects = [[ssr.encode(c.references[0], **c.queries[0])] for c in cases]
    drawn, masks = draw_targets(world, cases, seed)
    maps = {"layout": layout_map(masks[:, None]), "edges": edge_map(drawn)}
    pipe = StableDiffusionControlNetPipeline(
        **ssr.pipe.components, controlnet=controlnet, requires_safety_checker=False
    )
    without: dict[str, list] = {}
    for line in LINES:
        begin = time.monotonic()
        kind, alone = line.removesuffix("_alone"), line.endswith("_alone")
        if line == "drawn":
            pictures = drawn
        else:
            extra = {"pipe": pipe, "images": maps[kind]} if kind in maps else {}
            pictures = make_pictures(ssr, cases, None if alone else subjects, steps, seed, batch, on_step, **extra)
        verdicts, ious = [], []
        for picture, case, mask in zip(pictures, cases, masks, strict=True):
            verdicts.append(judge(picture, case))
            ious.append(overlap(region(judge.oracle, picture, case.concepts[0]), covered(mask)))
        values = {m: [getattr(v, m) for v in verdicts] for m in METRICS} | {"iou": ious}
        result = {
            "line": line,
            "figures": summarise(verdicts) | {"iou": mean_interval(ious, 0.0, 1.0)},
            "seconds": time.monotonic() - begin,
            "cases": cases,
            "maps": maps.get(kind),
            "verdicts": verdicts,
            "ious": ious,
        }
        if line == "no_control":
            without = values
        elif kind in maps and not alone:
            result["change"] = {metric: paired_interval(values[metric], without[metric]) for metric in METRICS}
            result["change"]["iou"] = mean_interval([a - b for a, b in zip(ious, without["iou"], strict=True)])
        yield result


def count_steps(n: int, steps: int, batch: int) -> int:
    """Denoising steps of all batches of a proof."""
    return -(-n // batch) * steps * (len(LINES) - 1)


def draw_targets(world: World, cases: list[Case], seed: int) -> tuple[Tensor, Tensor]:
    """For each case its subject alone in its prompt's place: pictures (n, 3, 128, 128) and coverage (n, 128, 128)."""
    scenes = alone_in_place(world, cases, torch.Generator().manual_seed(seed + 2000))
    pictures, masks = world.render(scenes, 128)
    return pictures, masks[:, 0]


@torch.no_grad()
def region(oracle: Oracle, picture: Tensor, concept: int) -> Tensor:
    """Cells (16, 16) of a picture (3, H, W) in [0, 1] where the oracle gives the concept more than half."""
    device = next(oracle.parameters()).device
    return oracle(picture[None].to(device) * 2 - 1)["concept"].softmax(1)[0, concept + 1].cpu() > 0.5


def covered(mask: Tensor) -> Tensor:
    """Coverage (H, W) in [0, 1] -> cells (16, 16) of which more than half is covered."""
    return F.adaptive_avg_pool2d(mask[None], GRID)[0].cpu() > 0.5


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two sets of cells; 0 if both are empty."""
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def paired_interval(values: list[float | None], before: list[float | None]) -> dict:
    """Mean difference of paired zeros and ones with its 95 % interval (Agresti and Min 2005: half a case more of each
    kind, so that the interval has a width where no case changed); pairs with a None do not count."""
    pairs = [(a, b) for a, b in zip(values, before, strict=True) if a is not None and b is not None]
    gained, lost, n = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs), len(pairs)
    middle = (gained - lost) / (n + 2)
    half = 1.96 * (gained + lost + 1 - (gained - lost) * middle) ** 0.5 / (n + 2)
    value = (gained - lost) / max(n, 1)
    return {"value": value, "low": max(-1.0, middle - half), "high": min(1.0, middle + half), "n": n}


def picture(results: dict[str, dict], size: int = 128) -> Image.Image:
    """Rows of map, reference, picture with the subject, the same without it; two cases beside one another."""
    rows = []
    for kind in ("layout", "edges"):
        result, alone = results[kind], results[f"{kind}_alone"]
        for i, case in enumerate(result["cases"][:ROWS]):
            reference = torch.from_numpy(np.array(case.references[0])).permute(2, 0, 1) / 255
            made = [result["verdicts"][i].picture, alone["verdicts"][i].picture]
            rows += [F.interpolate(p[None].float(), size)[0] for p in (result["maps"][i], reference, *made)]
    return picture_grid(torch.stack(rows), 8, gap=4)


def table(results: dict[str, dict]) -> Table:
    """Percent with 95 % intervals; IoU as a share."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("line", "IoU", *METRICS):
        shown.add_column(heading, no_wrap=True)
    for line, result in results.items():
        iou = "{value:.2f} {low:.2f}-{high:.2f}".format(**result["figures"]["iou"])
        shares = [{k: 100 * v for k, v in result["figures"][m].items()} for m in METRICS]
        shown.add_row(line, iou, *("{value:.0f} {low:.0f}-{high:.0f}".format(**share) for share in shares))
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ssr_encoder.mini.proof_control",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=options.whole(1, 1024), default=8, help="pictures at once (default 8)")
    parser.add_argument(
        "--controlnet", type=Path, default=weights_dir() / "controlnet", help="default: the shipped one"
    )
    args = parse(parser, argv, 48, "cases", "control.json and control.png")
    controlnet = load_companion(ControlNetModel, args.controlnet, "ControlNet", "controlnet")
    ssr = SSREncoder.from_pretrained("mini", device=args.device)
    controlnet = controlnet.to(ssr.device, ssr.dtype)
    results = {r["line"]: r for r in prove_control(ssr, controlnet, args.n, args.steps, args.seed, args.batch)}
    kept = ("figures", "change", "seconds")
    proof = made_by(ssr, "ssr-control-proof-1", args) | {
        "lines": {line: {key: result[key] for key in kept if key in result} for line, result in results.items()},
    }
    args.output.mkdir(exist_ok=True)
    write_json(args.output / "control.json", proof)
    with written_beside(args.output / "control.png") as path:
        picture(results).save(path)
    if args.json:
        print(json.dumps(proof))
        return
    console = Console()
    console.print(table(results), width=max(100, console.width))
    for line, words in LINES.items():
        print(f"{line:13} {words}")


if __name__ == "__main__":
    run_program(main)
