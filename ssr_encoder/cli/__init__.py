"""The command line ``ssr``: one module a command, one line for every error.

Nothing here, nor at the top of a command's module, imports torch: help and mistakes in arguments are answered at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys

from ..errors import SSRError
from ..version import __version__

# Each is a module of this package with add_parser(subparsers) and run(args).
COMMANDS = (
    "generate",
    "inspect",
    "encode",
    "convert",
    "info",
    "demo",
    "proof",
    "train",
    "ablate",
    "data",
    "bench",
    "reconstruct",
)

EPILOG = """\
begin with:
  ssr demo                                                  see what it does, in a page
  ssr inspect pets.jpg --query cat                          what would be taken from the picture
  ssr generate pets.jpg --query cat --prompt "a cat in the snow"

`ssr COMMAND --help` has examples of every command. Exit codes: 0 done, 2 an error (one line says what to do),
130 interrupted; files are written whole or not at all.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise SSRError(f"{message} (see `{self.prog} --help`)")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after an error (one line on stderr), 130 after Ctrl-C."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, so that a full disk behind a redirection is reported too
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (`| head`) has had enough
        _drop_stdout()
        return 1
    except SSRError as error:
        return _fail(str(error))
    except OSError as error:
        what = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"{what}{error.strerror or error}; check the place and the room left on the disk")
    except MemoryError:
        return _fail("not enough memory; use a smaller picture, fewer pictures, or --dtype float16")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, without importing torch
            raise
        return _fail("not enough memory on the device; use fewer pictures, --dtype float16, or --device cpu")


def _run(argv: list[str]) -> int:
    try:
        args = _parser().parse_args(_joined(argv))
    except SystemExit as done:  # --help, --version
        return done.code or 0
    from .terminal import third_party_silenced

    with third_party_silenced(args):
        return args.run(args) or 0


def _parser() -> Parser:
    parser = Parser(
        prog="ssr",
        description="Pick one subject out of a picture and generate it anywhere (SSR-Encoder).",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"ssr {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS:
        command = importlib.import_module(f".{name}", __name__)
        command.add_parser(subparsers).set_defaults(run=command.run)
    return parser


def _joined(argv: list[str]) -> list[str]:
    """``--box -5,0,9,9`` as ``--box=-5,0,9,9``, which argparse would take for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and re.match(r"--[a-z-]+$", joined[-1]) and re.match(r"-(\d|\.\d|inf|nan)", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _fail(message: str) -> int:
    line = " ".join(message.split())
    print(f"ssr: error: {line if len(line) <= 1000 else line[:1000] + '...'}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
    return 2


def _drop_stdout() -> None:
    """Keep the interpreter from writing what is left in stdout's buffer when it ends, and failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
