"""``ssr data caption``: captions that describe the picture."""

from __future__ import annotations

from .. import options
from . import add_engine, add_folders, add_output, engine_options, work_through

EPILOG = """\
examples:
  ssr data caption checked captioned                                     BLIP-2 (15 GB are downloaded once)
  ssr data caption checked captioned --captioner blip2/ --device cuda --dtype float16 --batch 64
  ssr data caption checked captioned --captioner mini                    for pictures of the embedded world

The old caption stays in original_caption of the sample's JSON.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "caption",
        help="describe every image anew, with BLIP-2",
        description="Replace every caption by one that describes the image.",
        epilog=EPILOG,
    )
    add_folders(parser)
    group = parser.add_argument_group("captioner")
    group.add_argument(
        "--captioner",
        default="Salesforce/blip2-opt-2.7b",
        metavar="MODEL",
        help='a BLIP-2 folder or hub id (default Salesforce/blip2-opt-2.7b), or "mini"',
    )
    group.add_argument("--prompt", type=options.words, metavar="TEXT", help='what captions begin with: "a photo of"')
    group.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    group.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: float16 on a GPU, else float32"
    )
    group.add_argument("--batch", type=options.whole(1, 4096), default=16, metavar="N", help="images (default 16)")
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation import list_shards, run_step
    from ...curation.caption import CaptionStep
    from ..terminal import silence_loading_bars

    silence_loading_bars(args)
    step = CaptionStep(args.captioner, args.device, args.dtype, args.prompt)
    reports = run_step(step, args.source, args.out, batch_size=args.batch, **engine_options(args))
    work_through(args, reports, len(list_shards(args.source)))
