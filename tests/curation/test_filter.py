"""The filter on real Parquet files: what passes, what an expression may do, what bad input is told."""

from __future__ import annotations

import json
import math
import os

import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from mark_step import files, killed_again_and_again

from ssr_encoder.curation.filter import filter_records
from ssr_encoder.curation.records import make_records
from ssr_encoder.errors import SSRError

ROWS = [
    {"url": "http://a/1", "caption": "a cat", "aesthetic": 6.5, "width": 512},
    {"url": "http://a/2", "caption": "a dog", "aesthetic": 6.0, "width": 512},  # not above
    {"url": "http://a/3", "caption": None, "aesthetic": None, "width": 900},
    {"url": "http://a/4", "caption": "a 'fox'", "aesthetic": math.nan, "width": 900},
    {"url": None, "caption": "a cow", "aesthetic": 9.0, "width": 900},
    {"url": "", "caption": "a cow", "aesthetic": 9.0, "width": 900},
    {"url": "http://a/7", "caption": "a house", "aesthetic": 7.0, "width": None},
]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def urls(folder) -> list[str]:
    return [row["url"] for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


@pytest.fixture
def records(tmp_path):
    return write(tmp_path / "in" / "a.parquet", ROWS).parent


def run(source, out, **options):
    return list(filter_records(source, out, **options))


def test_above_the_score_and_with_a_url(records, tmp_path):
    [report] = run(records, tmp_path / "out")
    assert urls(tmp_path / "out") == ["http://a/1", "http://a/7"]
    assert (report.kept, report.dropped) == (2, {"aesthetic": 3, "no url": 2})


def test_where_must_be_true(records, tmp_path):
    [report] = run(records, tmp_path / "out", where="width >= 512 -- null is not true")
    assert urls(tmp_path / "out") == ["http://a/1"]
    assert report.dropped == {"aesthetic": 3, "no url": 2, "where": 1}


def test_any_score(records, tmp_path):
    run(records, tmp_path / "out", aesthetic=None, where="caption = 'a ''fox''' or width is null")
    assert urls(tmp_path / "out") == ["http://a/4", "http://a/7"]


def test_columns_of_laion_get_our_names(tmp_path):
    laion = [{"URL": "http://a/1", "TEXT": "a cat", "AESTHETIC_SCORE": "6.5", "WIDTH": 3, "similarity": 0.3}]
    write(tmp_path / "in" / "part-0.c000.snappy.parquet", laion)
    run(tmp_path / "in", tmp_path / "out", where="width = 3 and caption like '%cat' and similarity > 0.2")
    [path] = (tmp_path / "out").glob("*.parquet")
    assert path.name == "part-0.c000.snappy.parquet"
    assert parquet.read_table(path).column_names == ["url", "caption", "aesthetic", "width", "similarity"]


def test_columns_can_be_named(tmp_path):
    rows = [{"link": "http://a/1", "alt": "a cat", "caption": "IMG_1.JPG", "score": 8}]
    source = write(tmp_path / "in" / "a.parquet", rows)
    columns = {"url": "link", "caption": "alt", "aesthetic": "score"}
    run(source, tmp_path / "out", columns=columns)
    [row] = parquet.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    assert row == {"url": "http://a/1", "caption": "a cat", "caption_other": "IMG_1.JPG", "aesthetic": 8}
    with pytest.raises(SSRError, match=r"no column for url; name it with --url-column \(link, alt, caption, score\)"):
        run(source, tmp_path / "out2")
    with pytest.raises(SSRError, match="no column 'links'; it has link, alt"):
        run(source, tmp_path / "out2", columns=columns | {"url": "links"})
    with pytest.raises(SSRError, match="no column for aesthetic"):
        run(source, tmp_path / "out2", columns={"url": "link"})


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("widht > 3", 'Binder Error: Referenced column "widht" not found'),
        ("width >", "Parser Error: syntax error"),
        ("width > 3; DROP VIEW records", "Parser Error"),
        ("1) FROM records; COPY records TO '{0}' --", "bad --where"),
        ("(SELECT count(*) FROM read_text('{1}')) > 0", "file system operations are disabled"),
        ("(SELECT count(*) FROM read_parquet('{2}')) > 0", "file system operations are disabled"),
        ("caption::INTEGER > 3", "Could not convert string 'a cat' to INT32"),
        ("regexp_matches(caption, '[')", "missing ]"),
        ("CASE WHEN width > 0 THEN error('too wide') END", "too wide"),
    ],
)
def test_a_bad_expression_is_one_line_with_the_reason(records, tmp_path, where, words):
    (tmp_path / "secret").write_text("secret")
    other = write(tmp_path / "other" / "b.parquet", ROWS)
    with pytest.raises(SSRError) as error:
        run(records, tmp_path / "out", where=where.format(tmp_path / "stolen", tmp_path / "secret", other))
    assert words in str(error.value) and "where" in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.glob("out/*.parquet")) and not (tmp_path / "stolen").exists()


def test_bad_files_are_counted_and_listed(records, tmp_path):
    (records / "b.parquet").write_bytes(b"PAR1 no PAR1")
    whole = write(records / "c.parquet", ROWS * 1000).read_bytes()
    (records / "c.parquet").write_bytes(whole[:100] + bytes(2000) + whole[2100:])
    assert [bool(r.error) for r in run(records, tmp_path / "out")] == [False, True, True]
    expression = run(records, tmp_path / "where", where="width > 0")  # is not blamed for the file
    assert [bool(r.error) for r in expression] == [False, True, True]
    totals = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [bad["shard"] for bad in totals["bad_shards"]] == ["b.parquet", "c.parquet"] and totals["kept"] == 2
    assert [p.name for p in (tmp_path / "out").glob("*.parquet")] == ["a.parquet"]
    with pytest.raises(SSRError, match=r"bad records .*b\.parquet"):
        run(records, tmp_path / "strict", strict=True)


def test_no_records(tmp_path):
    (tmp_path / "empty").mkdir()
    for wrong in ("empty", "missing", "missing.parquet"):
        with pytest.raises(SSRError, match=f"no Parquet records at .*{wrong}"):
            run(tmp_path / wrong, tmp_path / "out")


@pytest.mark.parametrize("name", ["it's [1]*.parquet", "ü ?.parquet"])
def test_odd_file_names(tmp_path, name):
    write(tmp_path / "in" / name, ROWS)
    write(tmp_path / "in" / "it's 1x.parquet", ROWS)  # which the first would match as a pattern
    assert {r.shard: r.kept for r in run(tmp_path / "in", tmp_path / "out")} == {name: 2, "it's 1x.parquet": 2}


def test_it_stays_within_its_memory(tmp_path):
    make_records(tmp_path / "in", 300_000, 1)
    [report] = run(tmp_path / "in", tmp_path / "out", aesthetic=-9.0, memory="120MB")
    assert report.kept == 300_000
    with pytest.raises(SSRError, match="bad --memory 'lots'"):
        run(tmp_path / "in", tmp_path / "out2", memory="lots")


def test_counts_agree_with_duckdb_itself_and_two_workers_with_one(tmp_path):
    make_records(tmp_path / "in", 30_000, 3, seed=4)
    where = "least(width, height) >= 512 AND punsafe < 0.5"
    run(tmp_path / "in", tmp_path / "one", where=where)
    run(tmp_path / "in", tmp_path / "two", where=where, workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    query = f"SELECT url FROM '{tmp_path}/in/*.parquet' WHERE aesthetic > 6 AND {where}"
    assert sorted(urls(tmp_path / "one")) == sorted(u for (u,) in duckdb.connect().execute(query).fetchall())


def test_what_is_done_is_not_done_again(records, tmp_path):
    write(records / "b.parquet", ROWS)
    run(records, tmp_path / "out")
    assert [r.skipped for r in run(records, tmp_path / "out")] == [True, True]
    write(records / "b.parquet", ROWS[:1])
    assert [r.skipped for r in run(records, tmp_path / "out")] == [True, False]
    assert [r.skipped for r in run(records, tmp_path / "out", aesthetic=6.6)] == [False, False]


def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    make_records(source, 20_000, 20)
    run(source, tmp_path / "unbroken")
    assert killed_again_and_again(lambda: run(source, out), 20, 0.15) > 10
    run(source, out)
    assert files(out) == files(tmp_path / "unbroken")
    assert not any(name.startswith(".") for name in os.listdir(out))
