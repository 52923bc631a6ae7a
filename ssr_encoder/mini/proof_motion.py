"""What the embedded motion model does with subjects: one identity throughout a clip, and motion.

    python -m ssr_encoder.mini.proof_motion -n 24 --steps 12 -o DIR [--adapter DIR] [--json]

The cases are those of ``ssr proof`` by a word, all of held-out identities; the clips are made by the stock AnimateDiff
pipeline and judged frame by frame. Beside them stand clips that were drawn, not made: the same subjects in the same
places. Writes DIR/motion.json, DIR/motion.png (reference and 8 frames of each clip) and DIR/motion.gif.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import MotionAdapter
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..cli import options
from ..companions import check_frames, video_pipeline
from ..encoder import SSREncoder
from ..errors import SSRError, run_program
from ..files import write_json, written_beside
from ..images import picture_grid
from ..shared_noise import CARRY_KEY
from ..trajectories import random_trajectories
from ..video import save_clip
from .judge import Judge
from .models import weights_dir
from .oracle import GRID, Oracle, identity_embedding
from .proof import METRICS, Case, make_cases, wilson
from .proof_companions import alone_in_place, load_companion, made_by, mean_interval, parse, world_and_judge
from .world import World
from .world.motion import FRAMES, animate

# A clip has motion if the middle of its subject wanders by more than a twentieth of the picture: a quarter of what the
# median drawn clip does (0.21; 38 of 40 pass), and a repeated picture gives 0.
MOVED = 0.05
# No drawn subject goes farther from a frame to the next (at most 0.11 in 40 clips): what does, jumps, as in frames that
# know nothing of one another.
JUMP = 0.15
SEEN = 0.75  # share of the frames in which the subject must be seen for its motion to count
SHARES = {
    "shown": "frames with the queried subject",
    "identity": "frames with the right identity",
    "other": "frames with another subject of the reference",
    "place": "frames with the place right",
    "followed": "frames with the middle of the subject in its box",
    "moved": f"clips with motion (> {MOVED} of the picture, no jump > {JUMP})",
}
MEANS = {
    "ends": "likeness of the last frame's subject to the first's (cosine)",
    "drift": "change of the subject from a frame to the next (1 - cosine)",
    "wander": "how far the subject's middle wanders (share of the picture)",
    "jump": "its longest way from a frame to the next",
    "flicker": "change of the background from a frame to the next, in [0, 1]",
    "seconds": "to make a clip",
}
LINES = ("made", "drawn")
ROWS, SHOWN = 12, 8  # clips and frames in the picture
GIF_CLIPS = 6


def prove_motion(
    ssr: SSREncoder,
    adapter: MotionAdapter,
    n: int = 24,
    steps: int = 12,
    seed: int = 0,
    frames: int = FRAMES,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[dict]:
    """Make and judge n clips; yields for each its case and, under "made" and "drawn", its pictures (frames, 3, H, W)
    and figures. ``on_step`` is called n * steps times.

    Raises:
        SSRError: fewer than two clips, which have no interval; more frames than the adapter knows; the adapter is
            another model's; the oracle's weights are not there.
    """
    if n < 2:
        raise SSRError(f"n is {n}; give at least 2 clips")
    world, judge = world_and_judge(ssr)
    pipe = video_pipeline(ssr, adapter)
    check_frames(pipe, frames)
    pipe.set_progress_bar_config(disable=True)

    def after_step(pipe, step, timestep, tensors):
        on_step()
        return tensors

    cases = make_cases(world, "text", n, seed)
    for i, (case, drawn) in enumerate(zip(cases, draw_clips(world, cases, frames, seed), strict=True)):
        subject = ssr.encode(case.references[0], **case.queries[0])
        way = None
        if pipe.motion_adapter.config.get(CARRY_KEY):  # as ssr.generate does it by itself, but known here
            way = random_trajectories(1, frames, torch.Generator().manual_seed(seed + i))
        begin = time.monotonic()
        made = ssr.generate(
            case.prompt,
            [subject],
            pipe=pipe,
            num_frames=frames,
            num_inference_steps=steps,
            trajectories=way,
            seed=seed + i,
            output_type="pt",
            callback_on_step_end=after_step,
        )[0].float()
        seconds = time.monotonic() - begin
        figures = judge_clip(judge, made, case, None if way is None else way[0]) | {"seconds": seconds}
        yield {
            "case": case,
            "made": {"clip": made.cpu(), "figures": figures},
            "drawn": {"clip": drawn, "figures": judge_clip(judge, drawn, case)},
        }


def draw_clips(world: World, cases: list[Case], frames: int, seed: int) -> Tensor:
    """For each case its subject alone, moving, in its prompt's place: (n, frames, 3, 128, 128)."""
    generator = torch.Generator().manual_seed(seed + 3000)
    scenes = alone_in_place(world, cases, generator)
    pictures, _ = world.render(animate(world, scenes, frames, generator), 128)
    return pictures.unflatten(0, (-1, frames))


def judge_clip(judge: Judge, clip: Tensor, case: Case, way: Tensor | None = None) -> dict[str, float | None]:
    """A clip (frames, 3, H, W) in [0, 1], whose subject was to go along boxes (frames, 4): shares of its frames, and
    what moves; None where nothing can be said."""
    verdicts = [judge(picture, case) for picture in clip]
    figures = {}
    for metric in METRICS:
        values = [value for v in verdicts if (value := getattr(v, metric)) is not None]
        figures[metric] = statistics.fmean(values) if values else None
    return figures | movement(judge.oracle, clip, case.concepts[0], way)


@torch.no_grad()
def movement(oracle: Oracle, clip: Tensor, concept: int, way: Tensor | None = None) -> dict[str, float | None]:
    """ "ends", "drift", "wander", "jump", "flicker", "followed" and "moved" of a clip (frames, 3, H, W) in [0, 1].

    The middle of a subject is that of the oracle's probability of its concept on the 16 x 16 grid. It wanders as far as
    the diagonal of the rectangle that its way fills, after a mean over three frames. It has followed where it is in the
    frame's box of ``way`` (frames, 4); where it is not seen it has not.
    """
    device = next(oracle.parameters()).device
    answers = oracle(clip.to(device) * 2 - 1)
    probability = answers["concept"].softmax(1)
    mine = probability[:, concept + 1]
    mine = torch.where(mine > 0.1, mine, 0.0)
    mass = mine.sum((1, 2))
    seen = mass > 2  # cells
    figures: dict[str, float | None] = dict.fromkeys(("ends", "drift", "wander", "jump"))
    figures["followed"] = None if way is None else 0.0
    if seen.sum() > 1:
        every = torch.full((len(clip),), concept, device=device)
        embedding = identity_embedding(answers, every)[seen]
        at = (torch.arange(GRID, device=device) + 0.5) / GRID
        middle = torch.stack([(mine.sum(1) * at).sum(1), (mine.sum(2) * at).sum(1)], 1)[seen] / mass[seen, None]
        if way is not None:
            box = way.to(device)[seen]
            inside = ((middle > box[:, :2]) & (middle < box[:, 2:])).all(1)
            figures["followed"] = float(inside.sum()) / len(clip)
        smooth = F.avg_pool1d(middle.t(), min(3, len(middle)), stride=1)
        figures |= {
            "ends": float(embedding[0] @ embedding[-1]),
            "drift": float((1 - (embedding[1:] * embedding[:-1]).sum(1)).mean()),
            "wander": float((smooth.amax(1) - smooth.amin(1)).norm()),
            "jump": float((middle[1:] - middle[:-1]).norm(dim=1).max()),
        }
    figures["flicker"] = flicker(clip, probability[:, 0].cpu())
    enough = float(seen.float().mean()) >= SEEN and figures["wander"] is not None
    figures["moved"] = float(enough and figures["wander"] > MOVED and figures["jump"] <= JUMP)
    return figures


def flicker(clip: Tensor, background: Tensor) -> float | None:
    """Mean absolute change from a frame to the next where the oracle sees nothing but backdrop in both and around.

    Args:
        clip: (frames, 3, H, W) in [0, 1].
        background: (frames, 16, 16) probability of no subject.
    """
    taken = F.max_pool2d((background < 0.9).float()[:, None], 3, stride=1, padding=1)
    free = 1 - F.interpolate(torch.maximum(taken[1:], taken[:-1]), clip.shape[-2:])
    clip = clip.cpu()
    change = ((clip[1:] - clip[:-1]).abs().mean(1, keepdim=True) * free).sum()
    return float(change / free.sum()) if free.sum() > 0 else None


def summarise(clips: list[dict], line: str) -> dict[str, dict]:
    """Metric -> value, 95 % interval and n clips. The frames of a clip are much alike: for shares a clip counts as one
    observation (Wilson 1927), the widest that clustering can make the interval."""
    summary = {}
    for metric in (*SHARES, *MEANS):
        values = [v for clip in clips if (v := clip[line]["figures"].get(metric)) is not None]
        if metric in SHARES and values:
            low, high = wilson(sum(values), len(values))
            summary[metric] = {"value": statistics.fmean(values), "low": low, "high": high, "n": len(values)}
        elif len(values) > 1:
            summary[metric] = mean_interval(values, float("-inf"), float("inf"))
    return summary


def picture(clips: list[dict], size: int = 128) -> Image.Image:
    """Rows of reference and 8 frames."""
    rows = []
    for clip in clips[:ROWS]:
        frames = clip["made"]["clip"]
        at = torch.linspace(0, len(frames) - 1, SHOWN).round().long()
        reference = torch.from_numpy(np.array(clip["case"].references[0])).permute(2, 0, 1)[None] / 255
        rows += [F.interpolate(reference, size), F.interpolate(frames[at], size)]
    return picture_grid(torch.cat(rows), SHOWN + 1, gap=4)


def moving_picture(clips: list[dict]) -> list[Image.Image]:
    """Frames in which a few clips play side by side."""
    together = torch.stack([clip["made"]["clip"] for clip in clips[:GIF_CLIPS]], 1)
    return [picture_grid(frame, min(3, len(frame)), gap=4) for frame in together]


def table(lines: dict[str, dict]) -> Table:
    """Shares in percent with 95 % intervals; means as they are."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", *LINES):
        shown.add_column(heading, no_wrap=True)
    for metric, words in (SHARES | MEANS).items():
        cells = []
        for line in LINES:
            found = lines[line].get(metric)
            factor, form = (100, "{:.0f} [{:.0f}, {:.0f}]") if metric in SHARES else (1, "{:.3f} [{:.3f}, {:.3f}]")
            cells.append(form.format(*(factor * found[k] for k in ("value", "low", "high"))) if found else "–")
        shown.add_row(words, *cells)
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ssr_encoder.mini.proof_motion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=options.whole(2, 32), default=FRAMES, help=f"of a clip (default {FRAMES})")
    parser.add_argument(
        "--adapter", type=Path, default=weights_dir() / "motion_adapter", help="default: the shipped one"
    )
    args = parse(parser, argv, 24, "clips", "motion.json, .png and .gif")
    adapter = load_companion(MotionAdapter, args.adapter, "motion adapter", "motion")
    ssr = SSREncoder.from_pretrained("mini", device=args.device)
    clips = []
    for clip in prove_motion(ssr, adapter, args.n, args.steps, args.seed, args.frames):
        clips.append(clip)
        print(f"clip {len(clips)} of {args.n}", file=sys.stderr, flush=True)
    lines = {line: summarise(clips, line) for line in LINES}
    proof = made_by(ssr, "ssr-motion-proof-1", args) | {
        "frames": args.frames,
        "thresholds": {"moved": MOVED, "jump": JUMP, "seen": SEEN},
        "lines": lines,
        "clips": [{"prompt": c["case"].prompt, **{line: c[line]["figures"] for line in LINES}} for c in clips],
    }
    args.output.mkdir(exist_ok=True)
    write_json(args.output / "motion.json", proof)
    with written_beside(args.output / "motion.png") as path:
        picture(clips).save(path)
    save_clip(moving_picture(clips), args.output / "motion.gif")
    if args.json:
        print(json.dumps(proof))
        return
    console = Console()
    console.print(table(lines), width=max(130, console.width))


if __name__ == "__main__":
    run_program(main)
