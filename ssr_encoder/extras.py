"""Optional dependencies, imported where they are needed."""

from __future__ import annotations

import importlib

from .errors import SSRError


def need(module: str, extra: str):
    """The imported ``module``, which comes with the package's extra ``extra``.

    Raises:
        SSRError: it is not installed; the message is the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise SSRError(f'{missing} is not installed; run: pip install "ssr-encoder[{extra}]"') from None
