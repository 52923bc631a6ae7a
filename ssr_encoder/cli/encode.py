"""``ssr encode``: a subject to a file."""

from __future__ import annotations

import json

from . import options, outputs
from .sources import SUBJECT_FILE, load_encoder, read_reference
from .terminal import progress

EPILOG = f"""\
examples:
  ssr encode pets.jpg --query cat -o cat.safetensors
  ssr encode pets.jpg --mask cat-mask.png --scale 0.8 -o cat.safetensors
  ssr generate cat.safetensors --prompt "a cat in the snow"

The file holds the subject, not the picture, and fits only the model that made it (`ssr info cat.safetensors`).
{outputs.POLICY[0].upper()}{outputs.POLICY[1:]}.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "encode",
        help="save a subject of a picture to a file",
        description="Encode a subject once, to use it often, or without its picture.",
        epilog=EPILOG,
    )
    options.add_reference(parser)
    parser.add_argument("--scale", type=options.scale, help="its strength from now on (default: the model's)")
    options.add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=f"ends in {SUBJECT_FILE}")
    options.add_output(parser, "print what was written as JSON")
    return parser


def run(args) -> None:
    path = outputs.check_file(args.output, args.overwrite, (SUBJECT_FILE,))
    source = read_reference(args)
    source.scale = args.scale
    with progress(args) as start:
        ssr = load_encoder(args, start)
        start("encoding the subject")
        subject = source.encode(ssr)
    subject.save(path)
    if args.json:
        figures = {"file": str(path), "query": subject.query, "scale": subject.scale, "model": args.model}
        print(json.dumps(figures | {"fingerprint": ssr.fingerprint, "tokens": list(subject.tokens.shape)}, indent=1))
    else:
        print(path)
