"""``ssr bench gallery``: every item of a run on a page."""

from __future__ import annotations

import argparse

from .. import options
from ..outputs import check_file
from ..terminal import note

EPILOG = """\
examples:
  ssr bench gallery runs/ssr -o gallery.html
  ssr bench gallery runs/ssr -o gallery.html --pictures inline      one file to pass on, however large

On the page: words and tags to filter by, any metric to sort by (worst first), pictures to enlarge. The view is kept in
the address: gallery.html#sort=dino&tag=live. A run that has not ended shows what is there. With links, the page shows
pictures only as long as it and the run's folder stay where they are to each other.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "gallery",
        help="a page of every item with reference, query, heat map, pictures and scores",
        description="Make a page on which a person browses every item of a run.",
        epilog=EPILOG,
    )
    parser.add_argument("folder", metavar="RUN", type=options.words, help="a folder that `ssr bench run` filled")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the page, .html")
    parser.add_argument(
        "--pictures",
        choices=("auto", "inline", "links"),
        default="auto",
        help="inside the page, or links to the run's files (default: inside up to 24 MB)",
    )
    options.add_output(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    path = check_file(args.output, args.overwrite, (".html",))
    from ...bench.gallery import gallery_page
    from ...bench.results import load_run
    from ...files import written_beside

    inline = {"auto": None, "inline": True, "links": False}[args.pictures]
    page = gallery_page(load_run(args.folder, partial=True), path, inline)
    with written_beside(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    note(args, f"gallery: {path.resolve().as_uri()}")
