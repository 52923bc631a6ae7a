"""``ssr data check``: what cannot be used is dropped, with its reason."""

from __future__ import annotations

import json
from pathlib import Path

from .. import options
from ..terminal import progress
from . import add_engine, add_folders, add_output, engine_options, summary

EPILOG = """\
examples:
  ssr data check raw checked
  ssr data check raw checked --min-side 256 --max-unsafe 0.1 --workers 8
  ssr data check raw checked --distance 0          duplicates only if their perceptual hashes are equal

Every image is decoded. Dropped are: corrupt images, small ones, those flagged by LAION's punsafe and pwatermark, and
near-duplicates over all shards (perceptual hashes of 64 bits that differ in at most --distance bits), of which the
first by shard and key stays. OUT/decisions.jsonl says why each was dropped, and of what it is a duplicate; OUT/hashes
has a thumbnail and the hash of every other one.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "check",
        help="decode every image; drop corrupt, small, flagged and duplicate ones",
        description="Decode every image and drop corrupt, small, flagged and duplicate ones.",
        epilog=EPILOG,
    )
    add_folders(parser)
    parser.add_argument(
        "--min-side", type=options.whole(1, 100_000), default=64, metavar="PX", help="of the shorter side (default 64)"
    )
    share = options.number(0, 1, "0.1 to 0.5; 1 flags nothing")
    parser.add_argument("--max-unsafe", type=share, default=0.5, metavar="P", help="largest punsafe (default 0.5)")
    parser.add_argument(
        "--max-watermark", type=share, default=0.5, metavar="P", help="largest pwatermark (default 0.5)"
    )
    parser.add_argument(
        "--distance", type=options.whole(0, 4), default=4, metavar="BITS", help="of duplicates, 0 to 4 (default 4)"
    )
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation.check import check

    skipped = 0
    with progress(args) as start:
        reports = check(
            args.source,
            args.out,
            min_side=args.min_side,
            max_unsafe=args.max_unsafe,
            max_watermark=args.max_watermark,
            distance=args.distance,
            start=start,
            **engine_options(args),
        )
        for report in reports:
            skipped += report.skipped
    totals = json.loads((Path(args.out) / "report.json").read_text(encoding="utf-8"))
    print(json.dumps(totals) if args.json else summary(totals, args.out, skipped))
