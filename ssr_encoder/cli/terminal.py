"""What a person sees while a command works: progress, notes, and none of the libraries' chatter."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable


@contextlib.contextmanager
def third_party_silenced(args):
    """Without warnings, log lines and progress bars of the libraries, unless ``--verbose``."""
    if getattr(args, "verbose", False):
        yield
        return
    if not wants_progress(args):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of downloads; read when the hub is imported
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def silence_loading_bars(args) -> None:
    """Turn off the bars that transformers and diffusers draw for every part that they load; imports both."""
    if not getattr(args, "verbose", False):
        import diffusers.utils.logging
        import transformers.utils.logging

        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()


def wants_progress(args) -> bool:
    """Whether to draw bars: only for a person at a terminal."""
    return sys.stderr.isatty() and not getattr(args, "quiet", False) and not getattr(args, "json", False)


def note(args, text: str) -> None:
    """A remark on stderr that ``--quiet`` and ``--json`` leave out."""
    if not getattr(args, "quiet", False) and not getattr(args, "json", False):
        print(f"ssr: note: {text}", file=sys.stderr)


@contextlib.contextmanager
def progress(args):
    """Yield ``start(description, total=None) -> advance``: each call begins a new bar, ``advance()`` is one step.

    Nothing is drawn unless stderr is a terminal and neither ``--quiet`` nor ``--json`` was given.
    """
    if not wants_progress(args):
        yield lambda description, total=None: _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bars:

        def start(description: str, total: int | None = None) -> Callable[[], None]:
            for task in bars.task_ids:
                bars.remove_task(task)
            task = bars.add_task(description, total=total)
            return lambda: bars.advance(task)

        yield start


def _nothing() -> None:
    pass
