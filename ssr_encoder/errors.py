"""The one exception that a user is meant to read, and errors of other libraries in its line."""

from __future__ import annotations

import sys
from collections.abc import Callable


class SSRError(ValueError):
    """Bad input or an impossible request; the message is one line that names the input and the mend.

    The command line prints it without a traceback and exits with code 2.
    """


def first_line(error: BaseException, length: int = 100) -> str:
    """What another library's error says, short enough for a line of ours; its kind, if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]


def run_program(main: Callable[[], None]) -> None:
    """``main`` of a module that is run by ``python -m``: an :class:`SSRError` becomes one line and exit code 2."""
    try:
        main()
    except SSRError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
