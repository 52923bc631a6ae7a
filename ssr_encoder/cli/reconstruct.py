"""``ssr reconstruct``: which image features keep detail, by reconstruction (supplement, section B)."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from ..errors import SSRError
from . import options
from .outputs import check_folder
from .sources import check_device
from .terminal import progress, silence_loading_bars

EPILOG = """\
settings: A CLIP's last layer, B DINOv2's, C CLIP's, fine-tuned under L_clip, D several layers of CLIP.

examples:
  ssr reconstruct -o study                                       all settings, three seeds, on the embedded world
  ssr reconstruct --settings A,D --seeds 0 --steps 100 -o quick
  ssr reconstruct --preset paper --set data=shards/ --set test_data=test-shards/ --set imagenet=val/ -o study

Runs are kept in OUT/runs, one for every setting and seed; the same command goes on from what is there. Writes
table1.md, table1.json and figure2.png.
"""


def _settings(text: str) -> list[str]:
    """An argument type: letters of settings."""
    chosen = text.upper().split(",")
    if not set(chosen) <= set("ABCD") or len(set(chosen)) < len(chosen):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; give some of A,B,C,D")
    return chosen


def _seeds(text: str) -> list[int]:
    """An argument type: whole numbers."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if not all(0 <= seed < 2**30 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; give different whole numbers: 0,1,2")
    return seeds


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "reconstruct",
        help="compare image encoders by how well a picture can be made from their features",
        description="Train a decoder on the features of each setting and print Table 1 of the supplement.",
        epilog=EPILOG,
    )
    parser.add_argument("--settings", type=_settings, default=list("ABCD"), metavar="A,B,...", help="default A,B,C,D")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], metavar="N,N,...", help="default 0,1,2")
    parser.add_argument("--steps", type=options.whole(1, 10**8), metavar="N", help="a run (default: the preset's)")
    parser.add_argument("--preset", choices=("mini", "paper"), default="mini", help="default mini")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a constant of the preset: --set batch_size=16"
    )
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where runs and table are kept")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print what table1.json holds")
    options.add_loudness(group)
    return parser


def run(args) -> None:
    from ..extras import need
    from ..files import write_json, written_beside
    from ..reconstruction.config import StudyConfig

    config = StudyConfig.load(args.preset, args.set, steps=args.steps)
    out = Path(args.output)
    if not out.exists():
        check_folder(out.parent)
        out.mkdir()
    check_folder(out)
    if any(out.iterdir()) and not (out / "runs").is_dir():
        raise SSRError(f"folder {out} has other files in it; give a new or an empty one")
    need("matplotlib", "bench")  # before hours of work
    need("scipy", "bench")
    silence_loading_bars(args)

    from ..loading import best_device
    from ..provenance import commit
    from ..reconstruction import report
    from ..reconstruction.study import Study

    study = Study(config, out, check_device(args.device) or best_device())
    with progress(args) as start:
        name = advance = None
        done = 0
        for state in study.run(args.settings, args.seeds):
            if (state.setting, state.seed) != name:
                name, done = (state.setting, state.seed), 0
                advance = start(f"setting {state.setting}, seed {state.seed}", state.steps)
            for _ in range(state.step - done):
                advance()
            done = state.step
            if not args.quiet and not args.json:
                print(_line(state), flush=True)
    result = report.summarise(
        report.load_runs(out, args.settings, args.seeds),
        command=shlex.join(["ssr", *sys.argv[1:]]) if sys.argv[1:2] == ["reconstruct"] else None,
        commit=commit(),
    )
    write_json(out / "table1.json", result)
    with written_beside(out / "table1.md") as path:
        path.write_text(report.markdown(result), encoding="utf-8")
    report.draw_figure(*report.load_examples(out, args.settings, args.seeds[0]), out / "figure2.png")
    if args.json:
        print(json.dumps(result))
        return
    print(report.markdown(result))
    print(f"figure: {out / 'figure2.png'}")


def _line(state) -> str:
    where = f"{state.setting} seed {state.seed}  step {state.step}/{state.steps}"
    if state.figures is None:
        return f"{where}  loss {state.loss:.4f}"
    figures = "  ".join(f"{key} {value:.4f}" for key, value in state.figures.items())
    return f"{where}  {'there already: ' if state.skipped else ''}{figures}"
