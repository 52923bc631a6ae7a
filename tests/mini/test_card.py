"""The weights, their card and their figures agree: a small proof, made anew, against the card's intervals."""

import re

import pytest

from ssr_encoder import SSREncoder
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.proof import METRICS, prove

CELL = r"(\d+) % \((\d+) to (\d+)\); (\d+)"


def card_line(name: str) -> dict[str, tuple[int, int, int]]:
    """Metric -> low, high and the figure at scale 0, in percent, of a line of the card's table."""
    text = (weights_dir() / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {name} \|(.*)\|$", text, re.MULTILINE)[1]
    cells = [re.fullmatch(CELL, cell.strip()).groups() for cell in row.split("|")]
    return {
        metric: (int(low), int(high), int(bare)) for metric, (_, low, high, bare) in zip(METRICS, cells, strict=True)
    }


@pytest.fixture(scope="module")
def proof():
    return next(prove(SSREncoder.from_pretrained("mini"), n=24, steps=8, lines=("text",)))


@pytest.mark.parametrize("metric", METRICS)
def test_the_card_says_what_the_weights_do(proof, metric):
    low, high, bare = card_line("text")[metric]
    found, without = proof["figures"][metric], proof["scale_0"][metric]
    assert 100 * found["low"] <= high and low <= 100 * found["high"]
    assert 100 * without["low"] - 1 <= bare <= 100 * without["high"] + 1
    assert (metric != "identity") or 100 * found["low"] > bare, "the identity comes from the reference"


def test_the_readme_has_the_cards_table():
    card = (weights_dir() / "README.md").read_text(encoding="utf-8")
    readme = weights_dir().parents[2] / "README.md"
    if not readme.is_file():
        pytest.skip("an installed package has no README beside it")
    rows = re.findall(rf"^\|[^|]+\|(?: {CELL} \|)+$", card, re.MULTILINE)
    lines = [line for line in card.splitlines() if re.search(CELL, line)]
    assert len(rows) == len(lines) == 7
    assert all(line in readme.read_text(encoding="utf-8") for line in lines)
