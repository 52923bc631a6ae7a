"""Options that several commands share, with the checks that cost nothing. No torch in here."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
from collections.abc import Callable

from ..errors import SSRError
from ..extras import need

REGIONS = ("mask", "box", "point")


def number(low: float, high: float, usual: str) -> Callable[[str], float]:
    """An argument type: a finite number in [low, high]."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}; give a number from {low:g} to {high:g}, usually {usual}")
        return value

    return read


def whole(low: int, high: int, usual: str = "") -> Callable[[str], int]:
    """An argument type: a whole number in [low, high]."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r}; give a whole number from {low} to {high}{f', usually {usual}' if usual else ''}"
            )
        return value

    return read


def numbers(names: str) -> Callable[[str], tuple[float, ...]]:
    """An argument type: finite numbers with commas between them, as many as there are names."""

    def read(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) != len(names.split(",")) or not all(map(math.isfinite, values)):
            raise argparse.ArgumentTypeError(f"{text[:80]!r}; give {names} in pixels of the picture")
        return values

    return read


def words(text: str) -> str:
    """An argument type: text that can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not UTF-8; type it again") from None
    return text


scale = number(0, 10, "0.5 to 1.5")
steps = whole(1, 1000, "20 to 30")


def add_reference(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """REF and the ways to say which subject in it is meant."""
    parser.add_argument(
        "reference", metavar="REF", nargs="?" if optional else None, help="the reference picture (PNG, JPEG, WebP, ...)"
    )
    group = parser.add_argument_group("the subject in REF", "a text, or a region, or both")
    group.add_argument("--query", type=words, metavar="TEXT", help='the subject in a word or two: "cat", "red cup"')
    region = group.add_mutually_exclusive_group()
    region.add_argument("--mask", metavar="FILE", help="a picture of REF's size, white on the subject")
    region.add_argument("--box", type=numbers("x0,y0,x1,y1"), metavar="X0,Y0,X1,Y1", help="a box in pixels of REF")
    region.add_argument("--point", type=numbers("x,y"), metavar="X,Y", help="a place on the subject, in pixels of REF")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which encoder, and where it runs."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="mini",
        metavar="MODEL",
        help='"mini" (ships with the package, the default), a folder, or a hub id',
    )
    group.add_argument("--base", metavar="MODEL", help="another base model: a folder, a hub id, or a .safetensors file")
    group.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    group.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default float32")


def add_subject_guidance(group) -> None:
    """``--subject-guidance``: see guidance.py."""
    group.add_argument(
        "--subject-guidance",
        type=number(0, 10, "0 to 2"),
        metavar="X",
        help="push the subjects X times further than the prompt in the noisy steps, 0 to 10 (default the model's)",
    )


def add_few_steps(group) -> None:
    """``--few-steps``: see :func:`ssr_encoder.few_step.few_steps`."""
    group.add_argument("--few-steps", action="store_true", help="8 steps without guidance, by a distilled LoRA")
    group.add_argument(
        "--few-step-lora",
        metavar="LORA",
        help="of another base model, for --few-steps: a folder, a file or a hub id (default the base's own)",
    )


@contextlib.contextmanager
def few_steps(ssr, args):
    """What ``--few-steps`` and ``--few-step-lora`` ask for, within the context: settings of ``generate``."""
    if not args.few_steps:
        yield {}
        return
    from ..few_step import few_steps

    with few_steps(ssr, args.few_step_lora) as settings:
        yield settings


def check_few_steps(args) -> None:
    """What can be known of ``--few-steps`` before a model is loaded.

    Raises:
        SSRError: a LoRA for nothing or from nowhere, or peft is missing.
    """
    from ..few_step import check_lora

    check_lora(args.few_step_lora)
    if args.few_step_lora is not None and not args.few_steps:
        raise SSRError("--few-step-lora says something about --few-steps, which is missing; give it as well")
    if args.few_steps:
        need("peft", "lora")


def add_output(parser: argparse.ArgumentParser, json: str | None = None) -> None:
    """How much is said."""
    group = parser.add_argument_group("output")
    if json:
        group.add_argument("--json", action="store_true", help=json)
    group.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    add_loudness(group)


def add_loudness(parser) -> None:
    """``--quiet`` and ``--verbose``."""
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no notes")
    parser.add_argument("--verbose", action="store_true", help="show the libraries' warnings too")


def add_commands(parser: argparse.ArgumentParser, package: str, names: tuple[str, ...]) -> None:
    """The commands of a group: modules of ``package`` with add_parser(subparsers) and run(args)."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=type(parser))
    for name in names:
        command = importlib.import_module(f".{name}", package)
        command.add_parser(commands).set_defaults(run=command.run)
