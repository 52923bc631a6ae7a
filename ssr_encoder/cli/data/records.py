"""``ssr data records``: records to try the other steps on."""

from __future__ import annotations

import json

from ...errors import SSRError
from .. import options

EPILOG = """\
examples:
  ssr data records synthetic -n 10000000 --files 20           Parquet only: urls that lead nowhere
  ssr data records mini -n 2000 --world pictures              pictures of the embedded world, too, some with flaws
  (cd pictures && python -m http.server 8000 --bind 127.0.0.1)    ... and the server that their urls name
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "records",
        help="make records to try the steps on",
        description="Make image-text records in the layout of LAION to try the other steps on.",
        epilog=EPILOG,
    )
    parser.add_argument("out", metavar="OUT", type=options.words, help="the folder to fill with Parquet files")
    parser.add_argument("-n", type=options.whole(1, 10**10), default=10_000, help="records (default 10000)")
    parser.add_argument("--seed", type=options.whole(0, 2**31), default=0, help="of everything random (default 0)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--files", type=options.whole(1, 100_000), metavar="N", help="Parquet files (default 1)")
    which.add_argument("--world", metavar="FOLDER", help="draw a picture of the embedded world for each, into FOLDER")
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8000", metavar="URL", help="where FOLDER will be served"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the files' names as JSON")
    options.add_loudness(group)
    return parser


def run(args) -> None:
    from ...curation.records import make_records, world_records

    if args.world is None:
        paths = make_records(args.out, args.n, args.files or 1, args.seed)
    elif not args.base_url.startswith(("http://", "https://")):
        raise SSRError(f"--base-url {args.base_url!r} is no web address; give one that begins with http://")
    else:
        paths = world_records(args.out, args.world, args.n, args.seed, args.base_url)
    names = [str(path) for path in paths]
    print(json.dumps({"files": names, "records": args.n}) if args.json else "\n".join(names))
