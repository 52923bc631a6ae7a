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
  ssr demo --steps 8                           quicker, hardly different
  ssr demo --only video                        a clip of one of the subjects, moving on the page

Makes contact-sheet.png, index.html (one file with everything in it: open it in a browser, pass it on) and
references/, the pictures with which the commands on the page run. A folder made by an earlier demo is filled again.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "demo",
        help="every subject of three shipped pictures in new scenes: a contact sheet and a page",
        description="Show what the encoder does, on pictures that come with it: what each query selects, the selected "
        "subject in four new scenes, two subjects of two pictures composed in one, and, where the base model has a "
        "ControlNet and a motion adapter beside it, a subject in the layout of a map and a subject in motion.",
        epilog=EPILOG,
    )
    parser.add_argument("--steps", type=options.steps, default=12, metavar="N", help="denoising steps (default 12)")
    parser.add_argument(
        "--only", choices=("subjects", "control", "video"), help="only this part: new scenes, the map, or the clip"
    )
    parser.add_argument("--seed", type=options.whole(0, 2**62), default=0, help="of all pictures (default 0)")
    options.add_model(parser)
    parser.add_argument("-o", "--output", default="ssr-demo", metavar="FOLDER", help="default: ssr-demo")
    options.add_loudness(parser.add_argument_group("output"))
    return parser


def run(args) -> None:
    folder = check_own_folder(args.output, "contact-sheet.png")
    with progress(args) as start:
        ssr = load_encoder(args, start)
        from ..demo.scenes import load_companions, load_scenes
        from ..demo.sheet import contact_sheet
        from ..demo.web import demo_page

        pictures, composed = load_scenes()
        layout, clip = load_companions(pictures)
        shown = _make(args, start, ssr, pictures, composed, layout, clip)
    with whole_folder(folder) as temporary:
        contact_sheet(shown, args.steps, args.seed, args.only).save(temporary / "contact-sheet.png")
        page = demo_page(shown, args.steps, args.seed, args.model)
        (temporary / "index.html").write_text(page, encoding="utf-8")
        (temporary / "references").mkdir()
        masks = [subject.query.get("mask") for picture in pictures for subject in picture.subjects]
        for path in (*(picture.path for picture in pictures), *filter(None, masks), layout.map):
            (temporary / "references" / path.name).write_bytes(path.read_bytes())
    print(f"contact sheet: {folder / 'contact-sheet.png'}")
    print(f"page:          {(folder / 'index.html').resolve().as_uri()}")


def _make(args, start, ssr, pictures, composed, layout, clip):
    """What ``--only`` names, or all that this base model can show."""
    from ..companions import own_companion
    from ..demo.make import CLIP_STEPS, Shown, count_pictures, make_clip, make_demo, make_layout

    shown, settings = Shown(), {"steps": args.steps, "seed": args.seed}
    if args.only in (None, "subjects"):
        batches = sum(len(picture.subjects) for picture in pictures) + 1
        step = start(f"generating {count_pictures(pictures, composed)} pictures", args.steps * batches)
        shown.rows, shown.composed = make_demo(ssr, pictures, composed, **settings, on_step=step)
    if args.only == "control" or args.only is None and own_companion(ssr, "controlnet"):
        step = start("following a map", args.steps * (len(layout.prompts) + 1))
        shown.layout = make_layout(ssr, layout, **settings, on_step=step)
    if args.only == "video" or args.only is None and own_companion(ssr, "motion_adapter"):
        steps = min(args.steps, CLIP_STEPS)
        step = start(f"generating a clip of {clip.frames} frames", steps)
        shown.clip = make_clip(ssr, clip, steps, args.seed, on_step=step)
    return shown
