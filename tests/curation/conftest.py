"""Fixtures of the data steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from mark_step import make_shards


@pytest.fixture
def shards(tmp_path) -> Path:
    """A folder of three small shards."""
    return make_shards(tmp_path / "in")
