"""Weights that the tests of several recipes begin from."""

from pathlib import Path

import pytest
from small import random_weights


@pytest.fixture(scope="module")
def first_stages(tmp_path_factory) -> Path:
    """The frozen parts of the first stages, with random weights: a folder of its own for every module."""
    return random_weights(tmp_path_factory.mktemp("weights"))
