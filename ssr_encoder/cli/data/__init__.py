"""``ssr data``: training data step by step, one module a command. Nothing heavy is imported before a step runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .. import options
from ..terminal import progress

# Each is a module of this package with add_parser(subparsers) and run(args).
COMMANDS = (
    "records",
    "filter",
    "fetch",
    "check",
    "caption",
    "describe",
    "balance",
    "split",
    "bench_candidates",
)

EPILOG = """\
the way from records to training shards:
  ssr data filter records good --where "width >= 512"     Parquet to Parquet: aesthetic score above 6.0, and yours
  ssr data fetch good raw                                 pictures and captions into shards
  ssr data check raw checked                              corrupt, small, flagged and duplicate pictures dropped
  ssr data caption checked captioned                      captions by BLIP-2
  ssr data describe captioned described                   what they name, and how often
  ssr data balance described balanced                     less of what is everywhere (if you like)
  ssr data split balanced data                            data/train, and 5,000 samples in data/test
  ssr data bench-candidates data/test candidates          a page on which a person picks the bench

Every step reads a folder and fills another, says what it kept and dropped, and continues where it was when it is run
again: only what is missing, or was made from other input or with other options, is made. With --workers N it uses N
processes, with --engine ray [--address A] the actors of a Ray cluster that sees the same folders.
`ssr data COMMAND --help` has examples.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "data",
        help="from raw image-text records to training shards, step by step",
        description="From raw image-text records to training shards, step by step.",
        epilog=EPILOG,
    )
    options.add_commands(parser, __name__, COMMANDS)
    return parser


def run(args) -> None:
    """Never called: one of the commands is required, and each has its own."""


def add_folders(
    parser, source: str = "the folder of shards to read", out: str = "the folder of shards to fill"
) -> None:
    """SOURCE and OUT."""
    parser.add_argument("source", metavar="SOURCE", type=options.words, help=source)
    parser.add_argument("out", metavar="OUT", type=options.words, help=out)


def add_engine(parser) -> None:
    """Where the work is done, and what happens to unreadable input."""
    group = parser.add_argument_group("work")
    group.add_argument("--workers", type=options.whole(1, 4096), default=1, metavar="N", help="processes (default 1)")
    group.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine (default) or Ray")
    group.add_argument("--address", metavar="A", help="of the Ray cluster (default: one is started here)")
    group.add_argument("--strict", action="store_true", help="stop at an unreadable file instead of listing it")


def add_output(parser) -> None:
    """How much is said."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print OUT/report.json instead of a summary")
    options.add_loudness(group)


def engine_options(args) -> dict:
    """What `add_engine` read, as the arguments of `run_step` and its like."""
    return {"engine": args.engine, "address": args.address, "workers": args.workers, "strict": args.strict}


def work_through(args, reports: Iterator, total: int | None = None) -> dict:
    """Draws the reports of a step from its iterator under a bar and prints the folder's totals, which it returns."""
    skipped = 0
    with progress(args) as start:
        advance = start(f"{Path(args.source).name} to {Path(args.out).name}", total)
        for report in reports:
            skipped += report.skipped
            advance()
    totals = json.loads((Path(args.out) / "report.json").read_text(encoding="utf-8"))
    print(json.dumps(totals) if args.json else summary(totals, args.out, skipped))
    return totals


def summary(totals: dict, out: str, skipped: int = 0) -> str:
    """A folder's totals in a few lines."""
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in totals["dropped"].items())
    kept = f"{totals['step']}: {totals['kept']:,} of {totals['samples']:,} kept"
    lines = [f"{kept} (dropped: {dropped})" if dropped else kept]
    done = f", {skipped:,} done before" if skipped else ""
    lines.append(f"{totals['shards'] - len(totals['bad_shards']):,} of {totals['shards']:,} files in {out}{done}")
    lines += [f"not read: {bad['shard']}: {bad['reason']}" for bad in totals["bad_shards"]]
    return "\n".join(lines)
