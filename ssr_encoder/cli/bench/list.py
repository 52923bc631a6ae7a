"""``ssr bench list``: the benchmarks that the package ships."""

from __future__ import annotations

import json
import textwrap

FIELDS = ("name", "version", "title", "paper", "citation", "suite", "num_images")

EPILOG = """\
examples:
  ssr bench list
  ssr bench list --json

A benchmark is a versioned file; `ssr bench run` also takes the path of one of your own (.yaml).
"""


def add_parser(subparsers):
    parser = subparsers.add_parser(
        "list",
        help="the benchmarks that there are",
        description="List the benchmarks that the package ships, with the paper that each follows.",
        epilog=EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser


def run(args) -> None:
    from ...bench.benchmark import list_cards

    cards = [{field: card[field] for field in FIELDS} for card in list_cards()]
    if args.json:
        print(json.dumps(cards))
        return
    for card in cards:
        where = "embedded world, nothing to download" if card["suite"] == "mini" else "your own copy: --data FOLDER"
        print(f"{card['name']} (version {card['version']}): {card['title']}; {where}")
        print(textwrap.fill(card["paper"], 100, initial_indent="    ", subsequent_indent="    "))
