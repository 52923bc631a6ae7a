"""``ssr bench run``: a method's pictures of a benchmark, and their scores."""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path

from ...errors import SSRError
from .. import options
from ..terminal import note, progress, silence_loading_bars

EPILOG = """\
examples:
  ssr bench run mini-multi-subject --n 10 --images 2 --steps 12 -o runs/ssr       ten subjects, two pictures a prompt
  ssr bench run mini-multi-subject --n 10 --images 2 --steps 12 -o runs/text --method text     the prompt alone
  ssr bench run dreambench --data dreambooth/dataset --model FOLDER -o runs/dreambench
  ssr bench run humans --data my-people --model FOLDER -o runs/humans --processes 4
  ssr bench run rare --data my-bench --model FOLDER -o runs/rare
  ssr bench run dreambench --data dreambooth/dataset --method my_module:MyMethod -o runs/mine
  accelerate launch -m ssr_encoder.cli bench run dreambench --data dreambooth/dataset -o runs/dreambench

The same command goes on where a stopped one was; a folder of other settings is refused. The files are the same on any
number of processes: each uses one CPU thread, so give as many as there are cores and room for the model.
What a folder for --data looks like: python -m pydoc ssr_encoder.bench.dreambench (or .multisubject, .slices).
"""


def names(text: str) -> tuple[str, ...]:
    """An argument type: names with commas between them."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def pair(text: str) -> tuple[str, str]:
    """An argument type: ROLE=NAME."""
    role, sign, name = text.partition("=")
    if not sign or not role.strip() or not name.strip():
        raise argparse.ArgumentTypeError(f"{text[:80]!r}; write ROLE=NAME, e.g. clip=openai/clip-vit-large-patch14")
    return role.strip(), name.strip()


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "run",
        help="make a method's pictures of a benchmark and score them",
        description="Make a method's pictures of a benchmark and score them; run it again to go on after a stop.",
        epilog=EPILOG,
    )
    parser.add_argument("benchmark", metavar="NAME", help="a benchmark of `ssr bench list`, or a card's path (.yaml)")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="a new folder, or that of the same run")
    group = parser.add_argument_group("benchmark")
    group.add_argument("--data", metavar="FOLDER", help="your copy of its pictures")
    group.add_argument("--n", type=options.whole(1, 10**6), metavar="N", help="subjects, picked by hash (default all)")
    group.add_argument("--images", type=options.whole(1, 1000), metavar="N", help="pictures a prompt (default its own)")
    group.add_argument(
        "--reference", type=options.whole(0, 1000), metavar="I", help="which picture of a subject, from 0"
    )
    group.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="of the noise (default 0)")
    group.add_argument("--world-seed", type=options.whole(0, 2**62), default=0, metavar="SEED", help="of mini scenes")
    group = parser.add_argument_group("method")
    group.add_argument("--method", default="ssr", metavar="M", help='"ssr" (default), "text", or your module:Class')
    group.add_argument("--steps", type=options.steps, default=20, metavar="N", help="denoising steps (default 20)")
    group.add_argument("--scale", type=options.scale, help="strength of the subject (default the model's)")
    group.add_argument(
        "--guidance-scale", type=options.number(0, 100, "3 to 8"), metavar="G", help="default the model's"
    )
    options.add_model(parser)
    group = parser.add_argument_group("scores")
    group.add_argument("--metrics", type=names, metavar="A,B", help="default the benchmark's; none: pictures alone")
    group.add_argument("--suite", choices=("mini", "real"), help="backbones of the metrics (default the benchmark's)")
    group.add_argument("--backbone", type=pair, action="append", default=[], metavar="ROLE=NAME", help="another one")
    group = parser.add_argument_group("work")
    group.add_argument("--processes", type=options.whole(1, 256), default=1, metavar="N", help="of this machine")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print what was done as JSON")
    options.add_loudness(group)
    return parser


def run(args) -> None:
    from ...bench.benchmark import load_benchmark

    choice = {"n": args.n, "images": args.images, "seed": args.seed, "world_seed": args.world_seed}
    benchmark = load_benchmark(args.benchmark, data=args.data, reference=args.reference, **choice)
    device, make_metrics = _device(args), _make_metrics(args, benchmark)
    from ...bench.methods import load_method
    from ...bench.runner import run_benchmark

    silence_loading_bars(args)
    make_method = partial(
        load_method,
        args.method,
        model=args.model,
        base=args.base,
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        subject_scale=args.scale,
        device=device,
        dtype=args.dtype,
    )
    made, skipped, stages = 0, 0, 1 if make_metrics is None else 2
    model = Path(args.model).name if os.path.isdir(args.model) else args.model
    choice["images"] = benchmark.num_images
    with _launched() as launched, progress(args) as start:
        start(f"loading {args.model}")
        steps = run_benchmark(
            benchmark,
            make_method,
            args.output,
            settings=choice,
            model=model,
            make_metrics=make_metrics,
            processes=args.processes,
            shard=launched,
        )
        advance = None
        for step in steps:
            if advance is None:
                advance = start(f"{benchmark.name} with {args.method}", stages * len(benchmark.items))
            advance()
            skipped += step.skipped and step.stage == "pictures"
            made += not step.skipped and step.stage == "pictures"
    if launched is None or launched[0] == 0:
        _tell(args, made, skipped)


def _device(args) -> str | None:
    from ..sources import check_device

    if args.processes > 1 and "WORLD_SIZE" in os.environ:
        raise SSRError("--processes does not go with accelerate launch, which starts its own; leave one of them out")
    device = check_device(args.device)
    return None if device is None else str(device)


def _make_metrics(args, benchmark):
    from ...bench.metrics import default_metrics, load_metrics, metric_names

    suite = args.suite or benchmark.suite
    if args.metrics == ("none",):
        return None
    own = benchmark.metrics if suite == benchmark.suite else ()
    chosen = list(args.metrics or [*default_metrics(suite), *own])
    unknown = [name for name in chosen if name not in metric_names()]
    if unknown:  # before a model is loaded
        raise SSRError(f"no metric {unknown[0]!r}; use some of {', '.join(metric_names())}, or none")
    return partial(load_metrics, chosen, suite=suite, device=args.device or _best(), backbones=dict(args.backbone))


def _best() -> str:
    from ...loading import best_device

    return str(best_device())


class _launched:
    """(number, count) of this process if ``accelerate launch`` started several, else None; waits for all at the end."""

    def __enter__(self) -> tuple[int, int] | None:
        self.state = None
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from accelerate import PartialState

            self.state = PartialState()
            return self.state.process_index, self.state.num_processes
        return None

    def __exit__(self, kind, *_) -> None:
        if self.state is not None:
            if kind is None:
                self.state.wait_for_everyone()
            self.state.destroy_process_group()


def _tell(args, made: int, skipped: int) -> None:
    from ...bench.results import load_run

    run = load_run(args.output)
    pictures = sum(len(item["images"]) for item in run.items.values())
    means = {name: _mean(run, name) for name in run.metrics}
    if args.json:
        done = {"folder": args.output, "hash": run.meta["hash"], "items": len(run.items), "pictures": pictures}
        print(json.dumps({**done, "made": made, "there_before": skipped, "metrics": means}))
        return
    print(f"{len(run.items)} items, {pictures} pictures in {args.output}")
    for name, mean in means.items():
        better = "higher" if run.metrics[name]["direction"] == "higher" else "lower"
        print(f"  {name:18} {'-' if mean is None else f'{mean:.4f}'}  ({better} is better)")
    note(args, "means over pictures; `ssr bench report` has intervals and tests")


def _mean(run, name: str) -> float | None:
    values = [value for scores in run.scores.values() for value in scores.get(name, ()) if value is not None]
    return sum(values) / len(values) if values else None
