"""``ssr demo``: the shipped reference pictures, every subject in them, in new scenes."""

from __future__ import annotations

from . import options
from .folders import check_own_folder, whole_folder
from .sources import load_encoder
from .terminal import progress

EPILOG = """\
examples:
  ssr demo                                     about a minute and a half on two CPU cores
  ssr demo --seed 7 -o another                 other pictures of the same subjects
  ssr demo --steps 8                           quicker, rougher

Makes contact-sheet.png, index.html (one file with everything in it: open it in a browser, pass it on) and
references/, the pictures with which the commands on the page run. A folder made by an earlier demo is filled again.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "demo",
        help="every subject of three shipped pictures in new scenes: a contact sheet and a page",
        description="Show what the encoder does, on pictures that come with it: what each query selects, the selected "
        "subject in four new scenes, and two subjects of two pictures composed in one.",
        epilog=EPILOG,
    )
    parser.add_argument("--steps", type=options.steps, default=20, metavar="N", help="denoising steps (default 20)")
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="of all pictures (default 0)")
    options.add_model(parser)
    parser.add_argument("-o", "--output", default="ssr-demo", metavar="FOLDER", help="default: ssr-demo")
    options.add_loudness(parser.add_argument_group("output"))
    return parser


def run(args) -> None:
    folder = check_own_folder(args.output, "contact-sheet.png")
    with progress(args) as start:
        ssr = load_encoder(args, start)
        from ..demo.make import count_pictures, make_demo
        from ..demo.scenes import load_scenes
        from ..demo.sheet import contact_sheet
        from ..demo.web import demo_page

        pictures, composed = load_scenes()
        step = start(f"generating {count_pictures(pictures, composed)} pictures", _work(pictures, composed, args.steps))
        rows, together = make_demo(ssr, pictures, composed, args.steps, args.seed, step)
    with whole_folder(folder) as temporary:
        contact_sheet(rows, together, args.steps, args.seed).save(temporary / "contact-sheet.png")
        page = demo_page(rows, together, args.steps, args.seed, args.model)
        (temporary / "index.html").write_text(page, encoding="utf-8")
        (temporary / "references").mkdir()
        for picture in pictures:
            masks = [subject.query["mask"] for subject in picture.subjects if "mask" in subject.query]
            for path in (picture.path, *masks):
                (temporary / "references" / path.name).write_bytes(path.read_bytes())
    print(f"contact sheet: {folder / 'contact-sheet.png'}")
    print(f"page:          {(folder / 'index.html').resolve().as_uri()}")


def _work(pictures, composed, steps: int) -> int:
    """Denoising steps of all batches, one a subject and one for the composed pictures."""
    return steps * (sum(len(picture.subjects) for picture in pictures) + 1)
