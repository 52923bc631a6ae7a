"""Fixtures of the training tests; the functions are in tiny_training.py."""

from pathlib import Path

import pytest
from tiny_training import make_shards, tiny_config


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """16 samples in three shards."""
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def new_config(folder, shards, tmp_path):
    """A function (*overrides, out="run", shards=None) -> config; values are JSON."""

    def make(*overrides, out="run", data=None):
        return tiny_config(folder, data or shards, tmp_path / out, *overrides)

    return make
