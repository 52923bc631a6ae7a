"""``ssr ablate``: how the model depends on lambda and tau (supplement F)."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

from ..errors import SSRError
from . import options
from .folders import check_own_folder, whole_folder
from .sources import check_device, load_encoder
from .terminal import progress

EPILOG = """\
examples:
  ssr ablate lambda                                  seven subject scales, 60 cases a line: 10 minutes on two cores
  ssr ablate lambda --values 0,0.5,1 -n 200 --device cuda -o lambda
  ssr ablate tau --train-steps 1000 -o tau           trains once a value, then generates; run it again to go on
  ssr ablate tau --scratch --train-steps 20000       from random weights, as in the paper

Every value sees the same cases, noise and, for tau, training examples. Writes ablate.json and ablate.png: pictures over
the values, and selectivity, identity and text alignment with their 95 % intervals, judged as in `ssr proof`.
"""


def values(text: str) -> tuple[float, ...]:
    """An argument type: rising numbers from 0 to 10."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(0 <= x <= 10 for x in numbers) or sorted(set(numbers)) != list(numbers):
        raise argparse.ArgumentTypeError(f"{text[:60]!r}; give rising numbers from 0 to 10: 0,0.5,1")
    return numbers


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "ablate",
        help="how selectivity, identity and text alignment depend on lambda or tau",
        description="Measure over a range of lambda (the subject scale) or tau (the weight of L_reg in training).",
        epilog=EPILOG,
    )
    parser.add_argument("parameter", choices=("lambda", "tau"), help="which")
    parser.add_argument("--values", type=values, metavar="A,B,...", help="default: seven scales, five weights")
    parser.add_argument("-n", type=options.whole(1, 100_000), default=60, help="cases a line (default 60)")
    parser.add_argument("--steps", type=options.steps, default=12, metavar="N", help="denoising steps (default 12)")
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="of everything (default 0)")
    group = parser.add_argument_group("training (tau)")
    group.add_argument("--train-steps", type=options.whole(1, 10**8), metavar="N", help="optimiser steps (default 300)")
    group.add_argument("--batch", type=options.whole(1, 4096), default=0, metavar="N", help="default: the recipe's")
    group.add_argument("--scratch", action="store_true", help="from random weights instead of the shipped ones")
    group.add_argument("--bfloat16", action="store_true", help="train in bfloat16 on the CPU too")
    options.add_model(parser)
    parser.add_argument("-o", "--output", default="ssr-ablate", metavar="FOLDER", help="default: ssr-ablate")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print what ablate.json holds")
    options.add_loudness(group)
    return parser


def _check(args) -> None:
    """Refuse what would do nothing: tau trains and measures the shipped model, lambda trains none."""
    if args.parameter == "tau":
        given = {"--model": args.model != "mini", "--base": args.base is not None}
        why = "tau, which trains the shipped mini"
    else:
        given = {
            "--train-steps": args.train_steps is not None,
            "--batch": args.batch != 0,
            "--scratch": args.scratch,
            "--bfloat16": args.bfloat16,
        }
        why = "lambda, which trains nothing"
    for option, there in given.items():
        if there:
            raise SSRError(f"{option} is nothing to {why}; leave it out")


def run(args) -> None:
    _check(args)
    folder = check_own_folder(args.output, "ablate.json")
    from ..extras import need

    need("matplotlib", "plots")  # before minutes of work
    with progress(args) as start:
        import torch

        from ..loading import best_device

        if args.parameter == "lambda":
            ssr = load_encoder(args, start)
            device = ssr.device
        else:
            device = check_device(args.device) or best_device()
        from ..mini import ablate
        from ..mini.ablate_figure import draw_figure
        from ..mini.recipes.base import TrainConfig

        chosen = args.values or ablate.VALUES[args.parameter]
        measure = ablate.Measure(args.n, args.steps, args.seed, device=str(device))
        train_steps = 300 if args.train_steps is None else args.train_steps
        pictures = -(-args.n // 16) * args.steps * len(measure.cases) * len(chosen)
        if args.parameter == "lambda":
            points = list(ablate.ablate_lambda(ssr, chosen, measure, start("generating", pictures)))
        else:
            whole = Path(os.path.abspath(folder))  # "." has no name
            runs = whole.with_name(whole.name + ".runs")  # kept: an interrupted ablation goes on from it
            train = TrainConfig(batch_size=args.batch, seed=args.seed, bfloat16=args.bfloat16)
            points = list(
                ablate.ablate_tau(
                    chosen,
                    runs,
                    measure,
                    train_steps=train_steps,
                    scratch=args.scratch,
                    train=train,
                    device=str(device),
                    dtype=getattr(torch, args.dtype),
                    on_training=_bars(start, train_steps),
                )
            )
    settings = {"n": args.n, "steps": args.steps, "seed": args.seed, "model": args.model}
    if args.parameter == "tau":
        settings |= {"train_steps": train_steps, "scratch": args.scratch}
    result = ablate.record(points, args.parameter, **settings)
    prompts = [case.prompt for case in next(iter(measure.cases.values()))]
    with whole_folder(folder) as temporary:
        (temporary / "ablate.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        draw_figure(points, args.parameter, prompts, temporary / "ablate.png")
    if args.json:
        print(json.dumps(result))
        return
    for point in points:
        text = point.figures["text"]
        print(
            f"{args.parameter} {point.value:<6g} concept shown {text['shown']['value']:.0%}, identity "
            f"{text['identity']['value']:.0%}, other subject shown {text['other']['value']:.0%}, place "
            f"{text['place']['value']:.0%}; not its twin {point.figures['twin']['told_apart']['value']:.0%}"
        )
    print(f"figure: {folder / 'ablate.png'}")


def _bars(start, steps: int):
    """A bar for each value, moved on to the step that training has reached."""
    state = {"value": None, "done": 0, "advance": None}

    def on_training(value: float, done: int) -> None:
        if value != state["value"]:
            state.update(value=value, done=0, advance=start(f"training with tau {value:g}", steps))
        for _ in range(done - state["done"]):
            state["advance"]()
        state["done"] = done

    return on_training
