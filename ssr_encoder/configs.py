"""What configs of every kind share: values from the command line and from YAML, checked against a dataclass's types."""

from __future__ import annotations

import difflib
import math
import types

from .errors import SSRError
from .extras import need


def parse(word: str, text: str, extra: str):
    """The value of an override ``key=text``, read as YAML; "" if there is none.

    Args:
        word: the whole override, for the error.
        extra: the package's extra that brings YAML.
    """
    yaml = need("yaml", extra)
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise SSRError(f"override {word!r} has a value that is not YAML; quote it") from None


def nearest(key: str, known: list[str]) -> str:
    """ "; did you mean ...?", or "" if no known key is spelt alike."""
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def cast(key: str, value, kind, where: str):
    """``value`` as a ``kind``; YAML reads 5e-5 as text, and 1 may stand for 1.0.

    Raises:
        SSRError: it is something else; the line names ``key`` and ``where``.
    """
    try:
        if isinstance(kind, types.GenericAlias) and kind.__origin__ is list:
            values = value if isinstance(value, list) else str(value).split(",") if value != "" else []
            return [cast(key, item, kind.__args__[0], where) for item in values]
        if kind is bool and isinstance(value, bool):
            return value
        if kind in (int, float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and (kind is float or number == int(number)):
                return kind(number)
        if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise SSRError(f"{key} is {value!r} in {where}; it is a {getattr(kind, '__name__', str(kind))}")
