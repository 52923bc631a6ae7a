"""``ssr data bench-candidates``: images for the multi-subject bench, and the page on which a person chooses."""

from __future__ import annotations

import json
from pathlib import Path

from .. import options
from ..terminal import note
from . import add_engine, add_folders, add_output, engine_options, work_through

EPILOG = """\
examples:
  ssr data bench-candidates data/test candidates           then open candidates/review.html, tick, and save
  ssr data bench-candidates data/test candidates --ticked ticked.json         writes candidates/bench
  ssr data bench-candidates data/test candidates --clip openai/clip-vit-base-patch32 --min-clip 0.3
  ssr data bench-candidates data/test candidates --any-aesthetic

The rule of the paper's supplement, section H: at least two subject descriptors in the caption (run `ssr data describe`
first), caption and image congruent (CLIP score), and a high aesthetic score. A person ticks up to 100.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "bench-candidates",
        help="candidates for the multi-subject bench, and a page to choose on",
        description="Find candidates for the multi-subject bench and make the page on which a person ticks them.",
        epilog=EPILOG,
    )
    add_folders(parser, "a folder of described shards held out for testing")
    parser.add_argument("--ticked", metavar="FILE", help="what the page saved: write OUT/bench with these")
    parser.add_argument(
        "--clip", default="mini", metavar="MODEL", help='"mini" (default, for the embedded world), a folder or a hub id'
    )
    parser.add_argument(
        "--min-clip",
        type=options.number(-1, 1, "0.28 for CLIP, 0.6 for mini"),
        metavar="S",
        help="default: the model's usual one",
    )
    parser.add_argument(
        "--ignore", type=options.words, default="", metavar="A,B", help='descriptors that do not count: "snow,street"'
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--aesthetic", type=options.number(-100, 100, "5 to 7"), default=6.0, metavar="S", help="least (default 6.0)"
    )
    which.add_argument("--any-aesthetic", action="store_true", help="whatever the score, also without one")
    parser.add_argument(
        "--shown", type=options.whole(1, 5000), default=400, metavar="N", help="on the page (default 400)"
    )
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation import list_shards, run_step
    from ...curation.candidates import CandidateStep, best_candidates, read_ticked, write_bench
    from ...curation.review import review_page
    from ...files import written_beside
    from ..terminal import silence_loading_bars

    ticked = read_ticked(args.ticked) if args.ticked else None
    silence_loading_bars(args)
    aesthetic = None if args.any_aesthetic else args.aesthetic
    ignored = tuple(word.strip() for word in args.ignore.split(",") if word.strip())
    step = CandidateStep(args.clip, args.min_clip, aesthetic, ignored=ignored, device=args.device)
    reports = run_step(step, args.source, args.out, batch_size=32, **engine_options(args))
    totals = work_through(args, reports, len(list_shards(args.source)))
    out = Path(args.out)
    rule = json.loads(json.dumps(step.parameters()))
    if ticked is not None:
        count = write_bench(out, ticked, out / "bench", rule)
        note(args, f"{count} images in {out / 'bench'}")
        return
    page = review_page(best_candidates(out, args.shown), totals["kept"], rule)
    with written_beside(out / "review.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    note(args, f"tick on {(out / 'review.html').resolve().as_uri()}")
