"""Train one stage of the embedded model.

    python -m ssr_encoder.mini.train STAGE --time-limit 9m --out DIR [--resume DIR] [--weights DIR]

STAGE is vae, clip, oracle, captioner, dino, unet, ssr, aligner, few_step, controlnet or motion. ``--weights`` is the
folder with the finished earlier stages (default: the shipped weights). A stage starts from its own weights there, if
there are any, from random ones otherwise; ``--continue`` also counts on from their steps and samples.
``--resume`` goes on from a folder that an earlier run wrote, with the optimiser's state. Every half minute prints a
line of figures and appends it to DIR/STAGE.jsonl; every ``--save-every`` saves everything and draws DIR/STAGE.png.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import torch

from ..cli import options
from ..errors import SSRError, run_program
from ..images import picture_grid
from .models import MiniConfig, weights_dir
from .recipes import RECIPES
from .recipes.base import TrainConfig
from .world.scenes import favourites

# What can be set of a recipe, and in which stages.
SCENES = ("unet", "ssr", "few_step", "controlnet")
SETTINGS = {"noisier": ("unet", "ssr", "controlnet", "motion"), "only": ("unet", "ssr")} | dict.fromkeys(
    ("reference_is_target", "same_way", "tones", "turned", "favour"), SCENES
)
SHARE = options.number(0, 1, "0.1 to 0.9")


def seconds(text: str) -> float:
    """ "90", "90s", "9m" or "1.5h" in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write 90s, 9m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def times(text: str) -> dict[str, float]:
    """ "cat=8,bus=2" as a number above 0 for each name."""
    found = {name: float(value) for name, value in re.findall(r"([a-z /]+)=(\d+(?:\.\d+)?)(?:,|$)", text)}
    if not found or 0 in found.values() or len(found) != text.count(",") + 1:
        raise argparse.ArgumentTypeError(f"{text!r} says not how many times; write cat=8,bus=2")
    return found


def pattern(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no regular expression ({error}); write 'unet.up_blocks'"
        ) from error
    return text


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ssr_encoder.mini.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=RECIPES)
    parser.add_argument("--time-limit", type=seconds, default=540.0, help="e.g. 90s, 9m (default), 1.5h")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="folder of an earlier run of this stage")
    parser.add_argument("--weights", type=Path, default=weights_dir(), help="folder with the earlier stages")
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="count on from the steps and samples of --weights"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--decay", type=float, default=0.25, help="share of the time in which the rate falls (0: never)"
    )
    parser.add_argument(
        "--warmup", type=options.whole(1, 1_000_000), default=200, help="steps in which the rate rises (200)"
    )
    parser.add_argument("--ema-decay", type=float, default=0.999, help="of the averaged weights, for a step (0.999)")
    parser.add_argument("--save-every", type=seconds, default=180.0)
    parser.add_argument("--report-every", type=seconds, default=30.0)
    parser.add_argument("--max-steps", type=int, default=0)
    parser.add_argument("--streams", type=int, default=1, help="threads that share a batch (unet, ssr; one a core)")
    parser.add_argument(
        "--workers", type=int, help="processes that decide what is drawn (unet and on; 3 on a GPU, else this one does)"
    )
    parser.add_argument("--bfloat16", action="store_true", help="on the CPU too: faster with AVX512-BF16 or AMX")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-graph", action="store_true", help="unet and ssr on a GPU: autocast, kernel by kernel")
    parser.add_argument("--no-grid", action="store_true", help="draw no sample grid at the end")
    parser.add_argument(
        "--noisier",
        type=float,
        default=None,
        help="timesteps are 1000 * u**NOISIER: below 1 noisy ones come more often, above 1 clean ones "
        "(unet, ssr, controlnet, motion)",
    )
    parser.add_argument("--reference-is-target", type=SHARE, default=None, help="share of examples (unet and on)")
    parser.add_argument(
        "--same-way", type=SHARE, default=None, help="share of references that look as their targets do (unet and on)"
    )
    parser.add_argument("--tones", type=SHARE, default=None, help="share of subjects in nameless colours (unet and on)")
    parser.add_argument(
        "--turned",
        type=options.number(0.01, 1000, "10"),
        help="how many times more often a nameless colour is a turned hue of the drawing's own (unet and on)",
    )
    parser.add_argument(
        "--favour",
        type=times,
        default=None,
        help="concepts, or drawings of one, drawn more often, and how many times, such as cat=8,balloon/noto=6",
    )
    parser.add_argument(
        "--only",
        type=pattern,
        metavar="PATTERN",
        help="only parameters whose names begin with this regular expression learn, such as 'unet.up_blocks|subject' "
        "(unet, ssr)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    start = time.monotonic()
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(args.seed)
    train = TrainConfig(
        time_limit=args.time_limit,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        decay=args.decay,
        warmup=args.warmup,
        ema_decay=args.ema_decay,
        compile=not args.no_compile,
        graph=not args.no_graph,
        streams=args.streams,
        bfloat16=args.bfloat16,
        max_steps=args.max_steps,
        workers=args.workers if args.workers is not None else 3 * (device.type == "cuda"),
    )
    for name, stages in SETTINGS.items():
        if getattr(args, name) is not None:
            if args.stage not in stages:
                option = f"--{name.replace('_', '-')}"
                raise SSRError(f"{option} is nothing to stage {args.stage}, only to {', '.join(stages)}; leave it out")
            setattr(RECIPES[args.stage], name, getattr(args, name))
    if args.resume and not (state := args.resume / f"{args.stage}.state.pt").is_file():
        raise SSRError(f"{state} is not there, nothing to go on from; give the --out of an earlier run of this stage")
    recipe = RECIPES[args.stage](MiniConfig(), train, device, args.weights)
    if args.favour and (unknown := sorted(set(args.favour) - favourites(recipe.world))):
        raise SSRError(f"--favour names {unknown[0]!r}, which is nothing in this world; write cat=8,bus=2")
    if args.resume:
        recipe.resume(args.resume)
    elif args.go_on:
        recipe.resume(args.weights)
    print(
        f"{args.stage}: {sum(p.numel() for p in recipe.parameters_list) / 1e6:.2f} M parameters on {device}, "
        f"set up in {time.monotonic() - start:.0f} s",
        flush=True,
    )
    args.out.mkdir(parents=True, exist_ok=True)
    saved, before = time.monotonic(), recipe.samples
    begun = time.monotonic()
    for progress in recipe.run(args.report_every):
        rate = (progress.samples - before) / (time.monotonic() - begun)
        line = {
            "stage": args.stage,
            "steps": progress.steps,
            "samples": progress.samples,
            "seconds": round(progress.seconds),
            "per_second": round(rate, 1),
            **progress.figures,
        }
        if progress.finished or time.monotonic() - saved >= args.save_every:
            with recipe.averaged():
                line |= recipe.evaluate()
            recipe.save(args.out)
            saved = time.monotonic()
        with open(args.out / f"{args.stage}.jsonl", "a") as log:
            log.write(json.dumps(line) + "\n")
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()), flush=True)
    if args.no_grid:
        return
    with recipe.averaged():
        grid = recipe.sample_grid()
    if grid is not None:
        picture_grid(*grid).save(args.out / f"{args.stage}.png")


if __name__ == "__main__":
    run_program(main)
