"""``ssr bench figures``: the qualitative grids of the supplement."""

from __future__ import annotations

import argparse

from .. import options
from ..outputs import PICTURES, check_file
from ..terminal import note

EPILOG = """\
examples:
  ssr bench figures runs/ssr runs/text -o figure.png                 the six best of the first run (Fig. 9)
  ssr bench figures runs/ssr -o figure.png --images 4                several pictures of each (Figs. 6 to 8)
  ssr bench figures runs/ssr runs/text -o figure.png --choose median --by dino -n 8
  ssr bench figures runs/ssr runs/text -o figure.png --items fox-0,dog-3,hat-1

Columns are items: the reference with its query and prompt; rows are methods. Items that are chosen by a score are those
of the first run, of as many subjects as there are. The best are not what a reader will get: say how they were chosen,
or show the median ones.
"""


def keys(text: str) -> list[str]:
    """An argument type: names with commas between them."""
    found = [word.strip() for word in options.words(text).split(",") if word.strip()]
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text[:60]!r}; give different keys of items: fox-0,dog-3")
    return found


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "figures",
        help="a grid of references, prompts and every method's pictures",
        description="Draw the qualitative grid of one or several runs of a benchmark (supplement, Figs. 6 to 9).",
        epilog=EPILOG,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=options.words, help="folders that `ssr bench run` filled"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="a picture: .png, .jpg or .webp")
    which = parser.add_argument_group("items")
    which.add_argument("--items", type=keys, metavar="KEY,...", help="these, in this order")
    which.add_argument("--choose", choices=("best", "median", "worst"), default="best", help="else (default best) ...")
    which.add_argument("--by", metavar="METRIC", type=options.words, help="... by this metric (default: the first)")
    which.add_argument("-n", "--n", type=options.whole(1, 100), default=6, metavar="N", help="... so many (default 6)")
    parser.add_argument(
        "--images", type=options.whole(1, 100), default=1, metavar="N", help="pictures of an item (default 1)"
    )
    parser.add_argument(
        "--side", type=options.whole(48, 1024), default=224, metavar="PIXELS", help="of a picture (default 224)"
    )
    options.add_output(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    path = check_file(args.output, args.overwrite, PICTURES)
    from ...bench.figures import choose_items, item_grid
    from ...bench.report import check_together, labels
    from ...bench.results import load_run
    from ..outputs import PictureFiles

    runs = [load_run(folder, partial=True) for folder in args.runs]
    check_together(runs)
    chosen = args.items or choose_items(runs[0], args.n, args.choose, args.by)
    grid = item_grid(runs, labels(runs), chosen, args.images, args.side)
    PictureFiles(str(path), [0], args.overwrite).write([grid])
    note(args, f"figure: {path} ({', '.join(chosen)})")
