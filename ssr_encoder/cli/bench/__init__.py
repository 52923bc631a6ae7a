"""``ssr bench``: benchmarks, runs and reports, one module a command. Nothing heavy is imported before one runs."""

from __future__ import annotations

from .. import options

# Each is a module of this package with add_parser(subparsers) and run(args).
COMMANDS = ("list", "run", "report", "gallery", "figures")

EPILOG = """\
from a benchmark to a table:
  ssr bench list                                                    what there is
  ssr bench run mini-multi-subject --n 10 --images 2 -o runs/ssr    pictures and scores; again to go on after a stop
  ssr bench run mini-multi-subject --n 10 --images 2 --method text -o runs/text      the floor: the prompt alone
  ssr bench report runs/ssr runs/text -o report.html                tables with intervals and paired tests
  ssr bench gallery runs/ssr -o gallery.html                        every item on a page

`ssr bench COMMAND --help` has examples.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "bench",
        help="run a method on a benchmark, and report: dreambench, multi-subject, ...",
        description="Benchmarks of subject-driven generation: run a method, score it, report.",
        epilog=EPILOG,
    )
    options.add_commands(parser, __name__, COMMANDS)
    return parser


def run(args) -> None:
    """Never called: one of the commands is required, and each has its own."""
