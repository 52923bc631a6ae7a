"""Records made to try the steps on."""

from __future__ import annotations

import io

import duckdb
import numpy as np
import pyarrow.parquet as parquet
import pytest
from mark_step import files
from PIL import Image

from ssr_encoder.curation.filter import COLUMNS
from ssr_encoder.curation.records import FLAWS, make_records, world_records
from ssr_encoder.errors import SSRError


def test_synthetic_records_have_the_layout_and_distributions_they_claim(tmp_path):
    paths = make_records(tmp_path, 50_001, 3)
    assert [p.name for p in paths] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert parquet.read_schema(paths[0]).names == list(COLUMNS)
    query = (
        "SELECT count(*), count(DISTINCT url), avg(aesthetic), stddev(aesthetic), min(width), max(width), avg(punsafe) "
        f"FROM '{tmp_path}/*.parquet'"
    )
    [(count, different, mean, deviation, low, high, unsafe)] = duckdb.connect().execute(query).fetchall()
    assert count == different == 50_001
    assert (low, high) == (256, 1279)
    assert mean == pytest.approx(5, abs=0.03) and deviation == pytest.approx(1, abs=0.03)
    assert unsafe == pytest.approx(1 / 3, abs=0.01)


def test_synthetic_records_follow_the_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_records(tmp_path / name, 100, 2, seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")
    with pytest.raises(SSRError, match="3 records cannot be in 4 files"):
        make_records(tmp_path / "d", 3, 4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with records in r and their pictures in i."""
    folder = tmp_path_factory.mktemp("world")
    world_records(folder / "r", folder / "i", 300, base_url="http://h:1/x/", size=32)
    return folder


def test_records_of_the_world_have_the_flaws_they_say(world):
    rows = parquet.read_table(world / "r" / "00000.parquet").to_pylist()
    assert len(rows) == 300 and {row["flaw"] for row in rows} == set(FLAWS)
    pictures = {}
    for row in rows:
        assert row["url"].startswith("http://h:1/x/")
        file = world / "i" / row["url"].rpartition("/")[2]
        assert file.exists() == (row["flaw"] != "missing")
        assert (row["aesthetic"] > 6) == (row["flaw"] != "low aesthetic")
        assert (row["punsafe"] > 0.5) == (row["flaw"] == "unsafe")
        try:
            pictures[row["url"]] = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB")).astype(int)
            decoded = True
        except OSError:
            decoded = False
        assert decoded == (row["flaw"] not in ("missing", "wrong type", "corrupt"))
    good = np.stack([pictures[row["url"]] for row in rows if row["flaw"] == "good"])
    for row in rows:
        if row["flaw"] == "duplicate":
            assert abs(good - pictures[row["url"]]).mean((1, 2, 3)).min() < 15  # of 255: a JPEG of one of them


def test_records_of_the_world_follow_the_seed(world, tmp_path):
    world_records(tmp_path / "r", tmp_path / "i", 300, base_url="http://h:1/x/", size=32)
    assert files(tmp_path / "r") == files(world / "r")
    assert files(tmp_path / "i") == files(world / "i")
