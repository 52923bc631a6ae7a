"""``ssr data filter``: records by aesthetic score and by an SQL expression."""

from __future__ import annotations

import argparse
import re

from .. import options
from . import add_engine, add_folders, add_output, engine_options, work_through

NAMES = ("url", "caption", "aesthetic", "width", "height", "punsafe", "pwatermark", "hash")

EPILOG = """\
examples:
  ssr data filter laion good
  ssr data filter laion good --aesthetic 6.5 --where "least(width, height) >= 512 and punsafe < 0.1"
  ssr data filter laion good --where "pwatermark < 0.5 and caption not ilike '%stock%'" --memory 8GB
  ssr data filter mine good --any-aesthetic --caption-column alt --url-column link

The expression is DuckDB's SQL over the columns of a record. The usual names of LAION's columns (TEXT, AESTHETIC_SCORE,
...) are known; the output has ours: url, caption, aesthetic, width, height, punsafe, pwatermark, hash, and all others.
"""


def memory(text: str) -> str:
    """An argument type: an amount of memory as DuckDB reads it."""
    if not re.fullmatch(r"\d+(\.\d+)?\s*[KMGT]i?B", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; give for example 4GB")
    return text


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "filter",
        help="records by aesthetic score and an SQL expression",
        description="Keep the records (Parquet files) above an aesthetic score and with a true SQL expression.",
        epilog=EPILOG,
    )
    add_folders(parser, "a folder of Parquet files, or one", "the folder to fill with files of the same names")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--aesthetic",
        type=options.number(-100, 100, "5 to 7"),
        default=6.0,
        metavar="S",
        help="above this (default 6.0)",
    )
    which.add_argument("--any-aesthetic", action="store_true", help="whatever the score, also without one")
    parser.add_argument("--where", type=options.words, metavar="SQL", help="an expression that must be true too")
    parser.add_argument("--memory", type=memory, default="2GB", help="of DuckDB in each worker (default 2GB)")
    group = parser.add_argument_group("columns", "for files that call them otherwise")
    for name in NAMES:
        group.add_argument(f"--{name}-column", type=options.words, metavar="NAME")
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation.filter import filter_records, list_records

    columns = {name: value for name in NAMES if (value := getattr(args, f"{name}_column"))}
    reports = filter_records(
        args.source,
        args.out,
        aesthetic=None if args.any_aesthetic else args.aesthetic,
        where=args.where,
        columns=columns,
        memory=args.memory,
        **engine_options(args),
    )
    work_through(args, reports, len(list_records(args.source)))
