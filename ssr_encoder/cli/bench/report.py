"""``ssr bench report``: runs of one benchmark side by side, with intervals and paired tests."""

from __future__ import annotations

import argparse
import contextlib
import json

from .. import options
from ..outputs import check_file
from ..terminal import note

EPILOG = """\
examples:
  ssr bench report runs/ssr                                      Markdown on the terminal
  ssr bench report runs/ssr runs/text -o report.html             a page; .md and .tex (booktabs) too
  ssr bench report runs/ssr runs/text runs/other --against ssr   each other method minus ssr
  ssr bench report runs/ssr --by frequency -o rare.md            and a chart of the scores against frequency
  ssr bench report runs/ssr --by live                            items tagged "live" and the others

Means are over subjects, intervals (95 %) resample subjects, and runs are compared in pairs of the same pictures asked
for (sign-flip permutation test over subjects, Holm's correction). Bold is only what this test supports. Runs of another
version of the benchmark, or with a metric measured in another way, are refused.
"""
SUFFIXES = (".md", ".tex", ".html")


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "report",
        help="tables of one or several runs: intervals, paired tests, what made them",
        description="Put runs of one benchmark side by side: Markdown, LaTeX or HTML.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=options.words, help="folders that `ssr bench run` filled"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help=".md, .tex or .html (default: Markdown on the terminal)")
    parser.add_argument(
        "--against", metavar="METHOD", type=options.words, help="compare the others with this one (default: all pairs)"
    )
    parser.add_argument(
        "--by", metavar="TAG", type=options.words, help='also by groups of items: "frequency" for tags "frequency:N"'
    )
    parser.add_argument("--partial", action="store_true", help="take runs that have not ended, with what is there")
    options.add_output(parser, "print the figures as JSON instead of Markdown")
    return parser


def run(args: argparse.Namespace) -> None:
    path = check_file(args.output, args.overwrite, SUFFIXES) if args.output else None
    from ...bench.groups import group_blocks
    from ...bench.presentation import score_blocks, source_blocks, title
    from ...bench.report import compare, record
    from ...bench.results import load_run
    from ...bench.tables import pictures_beside, render
    from ...files import written_beside

    report = compare([load_run(folder, partial=args.partial) for folder in args.runs], args.against)
    if path is None:
        if args.json:
            print(json.dumps(record(report)))
            return
        blocks = score_blocks(report) + (group_blocks(report, args.by, None) if args.by else [])
        print(render(title(report), blocks + source_blocks(report), ".md"), end="")
        return
    chart = f"{path.stem}-{''.join(c if c.isalnum() else '-' for c in args.by)}.png" if args.by else None
    blocks = score_blocks(report) + (group_blocks(report, args.by, chart) if args.by else []) + source_blocks(report)
    files = {path: render(title(report), blocks, path.suffix.lower()).encode(), **pictures_beside(path, blocks)}
    for other in files.keys() - {path}:
        check_file(other, args.overwrite)
    with contextlib.ExitStack() as stack:
        for place, data in files.items():
            stack.enter_context(written_beside(place)).write_bytes(data)
    if args.json:
        print(json.dumps(record(report)))
    note(args, f"report: {path}")
