"""Public means exported, sorted, documented."""

import inspect

import pytest

import ssr_encoder


def test_all_is_sorted_and_complete():
    assert ssr_encoder.__all__ == sorted(ssr_encoder.__all__)
    assert len(set(ssr_encoder.__all__)) == len(ssr_encoder.__all__)
    for name in ssr_encoder.__all__:
        assert getattr(ssr_encoder, name) is not None
    assert set(ssr_encoder.__all__) <= set(dir(ssr_encoder))
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = ssr_encoder.nothing_like_this


def test_star_import_gives_what_is_exported():
    names = {}
    exec("from ssr_encoder import *", names)
    assert set(ssr_encoder.__all__) <= set(names)


@pytest.mark.parametrize("name", [name for name in ssr_encoder.__all__ if not name.startswith("__")])
def test_everything_exported_is_documented(name):
    thing = getattr(ssr_encoder, name)
    assert thing.__module__.startswith("ssr_encoder.")
    assert inspect.getdoc(thing) and not thing.__doc__.startswith(f"{name}("), "a docstring of its own"
    if not inspect.isclass(thing):
        return
    for method, value in vars(thing).items():
        documented = isinstance(value, (classmethod, staticmethod, property)) or inspect.isfunction(value)
        if not documented or method.startswith("_") or method in ("device", "dtype", "config", "from_config"):
            continue
        assert getattr(thing, method).__doc__, f"{name}.{method} has no docstring"


def test_version():
    parts = ssr_encoder.__version__.split(".")
    assert len(parts) >= 2 and parts[0].isdigit()
