"""``ssr data split``: samples held out for testing."""

from __future__ import annotations

import json
from pathlib import Path

from .. import options
from ..terminal import progress
from . import add_engine, add_folders, add_output, engine_options, summary

EPILOG = """\
examples:
  ssr data split checked data                      5,000 samples to data/test, the others to data/train
  ssr data split checked data -n 200 --seed 1

The content of the images decides, not their names or order, and near-duplicates (as in `ssr data check`) go to one
side together. OUT/held_out.jsonl lists what was held out.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "split",
        help="hold out samples for testing, no near-duplicate on both sides",
        description="Hold out samples for testing, by content, with no image or near-duplicate on both sides.",
        epilog=EPILOG,
    )
    add_folders(parser, out="the folder in which train/ and test/ are filled")
    parser.add_argument(
        "-n", type=options.whole(1, 10**9), default=5000, help="samples to hold out (default 5000, as the paper)"
    )
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="another choice (default 0)")
    parser.add_argument(
        "--distance",
        type=options.whole(0, 4),
        default=4,
        metavar="BITS",
        help="of near-duplicates, 0 to 4 (default 4)",
    )
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation.split import split

    skipped = {"train": 0, "test": 0}
    with progress(args) as start:
        reports = split(
            args.source,
            args.out,
            args.n,
            seed=args.seed,
            distance=args.distance,
            start=start,
            **engine_options(args),
        )
        for side, report in reports:
            skipped[side] += report.skipped
    folders = {side: Path(args.out) / side for side in skipped}
    totals = {side: json.loads((path / "report.json").read_text(encoding="utf-8")) for side, path in folders.items()}
    if args.json:
        print(json.dumps(totals))
        return
    for side, path in folders.items():
        print(summary(totals[side], str(path), skipped[side]))
