"""``ssr data fetch``: the pictures of records, into shards."""

from __future__ import annotations

from .. import options
from . import add_engine, add_folders, add_output, engine_options, work_through

EPILOG = """\
examples:
  ssr data fetch good raw
  ssr data fetch good raw --workers 16 --threads 64 --per-host 2 --user-agent my-lab
  ssr data fetch good raw --timeout 5 --retries 0 --max-mb 8

Uses img2dataset's downloader. Pictures whose host sends X-Robots-Tag: noai, noimageai, noindex or noimageindex, for all
or for the user agent that you give, are not taken. What did not come is listed with its url and the reason in
OUT/NAME.failures.jsonl. Bytes are stored as they came; `ssr data check` decodes them.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "fetch",
        help="the pictures of records, into shards",
        description="Fetch the pictures of records (Parquet files with url and caption) into shards.",
        epilog=EPILOG,
    )
    add_folders(parser, "a folder of Parquet files, or one")
    parser.add_argument(
        "--samples", type=options.whole(1, 10**6), default=1000, metavar="N", help="a shard (default 1000)"
    )
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--threads", type=options.whole(1, 1024), default=32, metavar="N", help="requests at once a worker (default 32)"
    )
    group.add_argument(
        "--per-host", type=options.whole(1, 1024), default=4, metavar="N", help="... to one host (default 4)"
    )
    group.add_argument("--retries", type=options.whole(0, 20), default=2, metavar="N", help="default 2")
    group.add_argument(
        "--timeout",
        type=options.number(0.01, 3600, "10"),
        default=10.0,
        metavar="S",
        help="without a byte (default 10 s)",
    )
    group.add_argument(
        "--deadline", type=options.number(0.01, 86400, "60"), default=60.0, metavar="S", help="a picture (default 60 s)"
    )
    group.add_argument(
        "--max-mb", type=options.number(0.001, 1000, "32"), default=32.0, metavar="MB", help="a picture (default 32)"
    )
    group.add_argument(
        "--user-agent", type=options.words, default="ssr-encoder", metavar="WORD", help="who asks (default ssr-encoder)"
    )
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation.fetch import Limits, fetch
    from ...curation.rows import plan

    limits = Limits(
        threads=args.threads,
        per_host=args.per_host,
        retries=args.retries,
        timeout=args.timeout,
        deadline=args.deadline,
        max_bytes=int(args.max_mb * 2**20),
        user_agent=args.user_agent,
    )
    reports = fetch(args.source, args.out, limits=limits, samples_per_shard=args.samples, **engine_options(args))
    work_through(args, reports, len(plan(args.source, args.samples)))
