"""``ssr inspect``: what a query selects in a picture, before anything is generated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import options, outputs
from .sources import load_encoder, read_reference
from .terminal import progress

if TYPE_CHECKING:
    import numpy as np

MAX_SIDE = 1024  # pixels of each half of the sheet; the selection itself has some 16 x 16 cells

EPILOG = f"""\
examples:
  ssr inspect pets.jpg --query cat -o heat.png       the picture, and beside it what would be read of it
  ssr inspect pets.jpg --point 120,80                the one of two cats that is at this place
  ssr inspect pets.jpg --query cat --json            the same as numbers, and no picture unless -o is given

In the numbers, "map" has rows of cells over the square "map_square" (in pixels of the picture: it reaches beyond a
picture that is not square), and sums to at most 1; "peak" is the strongest place, "box" what is above half of it.
{outputs.POLICY[0].upper()}{outputs.POLICY[1:]}.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "inspect",
        help="show what a query selects in a picture",
        description="Draw what would be read of a picture, or print it.",
        epilog=EPILOG,
    )
    options.add_reference(parser)
    options.add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="the picture to write (default: ssr-heat-0001.png, ...)")
    options.add_output(parser, "print the selection as JSON")
    return parser


def run(args) -> None:
    files = None
    if args.output or not args.json:
        files = outputs.PictureFiles(args.output, [0], args.overwrite, stem="ssr-heat")
    source = read_reference(args)
    from ..images import MIN_SIDE

    with progress(args) as start:
        ssr = load_encoder(args, start)
        start("looking for the subject")
        subject = source.encode(ssr)
    # A large picture would give a map of many gigabytes, all of it interpolated from a few cells.
    small = source.picture.copy()
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    if min(small.size) < MIN_SIDE:  # a panorama whose thumbnail is no picture
        small = source.picture.resize([max(MIN_SIDE, side) for side in small.size])
    shown = subject.with_(size=small.size)

    written = files.write([_sheet(small, shown.heat_map(small))])[0] if files else None
    figures = {
        "query": subject.query,
        "model": args.model,
        "fingerprint": ssr.fingerprint,
        "size": list(subject.size),
        **_figures(shown.selection(), subject.size),
        "map_square": _square(*subject.size),
        "map": [[round(float(cell), 6) for cell in row] for row in subject.attention],
        "file": str(written) if written else None,
    }
    if args.json:
        print(json.dumps(figures))
    else:
        print(
            f"{written}  (peak {figures['peak']}, box {figures['box']}, {100 * figures['area']:.0f} % of the picture)"
        )


def _sheet(picture, heat):
    """The picture and its heat map, side by side (stacked, if it is wide)."""
    from PIL import Image

    width, height = picture.size
    gap = 8
    wide = width > 2 * height
    sheet = Image.new("RGB", (width, 2 * height + gap) if wide else (2 * width + gap, height), "white")
    sheet.paste(picture, (0, 0))
    sheet.paste(heat, (0, height + gap) if wide else (width + gap, 0))
    return sheet


def _figures(selection: np.ndarray, size: tuple[int, int]) -> dict:
    """Peak, box and area of a selection (height, width) in pixels of a picture of another size."""
    import numpy as np

    height, width = selection.shape
    x_scale, y_scale = size[0] / width, size[1] / height
    y, x = np.unravel_index(int(selection.argmax()), selection.shape)
    ys, xs = np.nonzero(selection >= selection.max() / 2)
    box = [xs.min() * x_scale, ys.min() * y_scale, (xs.max() + 1) * x_scale, (ys.max() + 1) * y_scale]
    return {
        "peak": [int((x + 0.5) * x_scale), int((y + 0.5) * y_scale)],
        "box": [round(value) for value in box],
        "area": round(len(xs) / selection.size, 4),
    }


def _square(width: int, height: int) -> list[int]:
    """x0, y0, x1, y1 of the square that the vision encoder sees, in pixels of the picture."""
    from ..images import Frame

    frame = Frame(width, height)
    return [-frame.left, -frame.top, frame.side - frame.left, frame.side - frame.top]
