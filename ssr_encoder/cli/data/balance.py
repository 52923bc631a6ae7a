"""``ssr data balance``: fewer samples of what is everywhere."""

from __future__ import annotations

from pathlib import Path

from .. import options
from . import add_engine, add_folders, add_output, engine_options, work_through

EPILOG = """\
examples:
  ssr data balance described balanced                      thin out what more than 1 % of the captions name
  ssr data balance described balanced --share 0.001        thin out much more
  ssr data balance described balanced --cap 50000 --decides commonest      about 50,000 captions of each at most

One descriptor of a caption decides, the rarest unless --decides says otherwise: with share T, the caption is kept with
probability sqrt(T / f), f the share of captions with that descriptor; with cap N, with N / their number. The content
of the image draws the lot. Writes OUT/descriptors.json, .md and .png of what is left.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "balance",
        help="thin out samples whose subjects are all frequent",
        description="Thin out samples whose subjects are all frequent; the others stay.",
        epilog=EPILOG,
    )
    add_folders(parser, "a folder that `ssr data describe` filled")
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument("--share", type=options.number(1e-9, 1, "0.001 to 0.05"), metavar="T", help="default 0.01")
    rule.add_argument("--cap", type=options.whole(1, 10**12), metavar="N", help="captions of one descriptor")
    parser.add_argument(
        "--decides", choices=("rarest", "commonest"), default="rarest", help="descriptor of a caption (default rarest)"
    )
    parser.add_argument(
        "--frequencies", metavar="FILE", help="another descriptors.json than SOURCE's: of a larger set, say"
    )
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="another choice (default 0)")
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation import list_shards, run_step
    from ...curation.balance import BalanceStep
    from ...curation.describe import count
    from ...curation.table2 import FILES, read_frequencies, table, write_files

    counted = read_frequencies(args.frequencies or Path(args.source) / FILES[0])
    share = 0.01 if args.share is None and args.cap is None else args.share
    step = BalanceStep(counted, share, args.cap, args.decides, args.seed)
    reports = run_step(step, args.source, args.out, **engine_options(args))
    work_through(args, reports, len(list_shards(args.source)))
    after = count(args.out)
    paths = write_files(after, args.out, before=counted)
    if not args.json:
        print("\n" + table(after["frequencies"]) + "\n" + "\n".join(map(str, paths)))
