"""``ssr data``: from records to shards on the command line, and what bad input is told."""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading

import pyarrow.parquet as parquet
import pytest
from refusal import check_refused

from ssr_encoder.cli.data import COMMANDS
from ssr_encoder.curation import list_shards, read_shard


@pytest.fixture
def web(here):
    """The folder ``pictures`` of the current folder, served; its address."""
    (here / "pictures").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(here / "pictures"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("command", [name.replace("_", "-") for name in COMMANDS])
def test_help_of_every_command_has_examples(ssr, command):
    result = ssr("data", command, "--help")
    assert result.code == 0
    assert result.out.split("examples:")[1].count(f"  ssr data {command}") >= 2


def test_help_names_every_command(ssr):
    out = ssr("data", "--help").out
    assert all(re.search(rf"^    {name.replace('_', '-')}\s", out, re.MULTILINE) for name in COMMANDS)


def test_from_records_to_shards(ssr, here, web):
    result = ssr("data", "records", "records", "-n", 40, "--world", "pictures", "--base-url", web)
    assert (result.code, result.out) == (0, "records/00000.parquet\n")
    rows = parquet.read_table("records/00000.parquet").to_pylist()
    bad = [sum(row["flaw"] == flaw for row in rows) for flaw in ("low aesthetic", "unsafe", "missing", "wrong type")]
    assert bad[0] and bad[3]

    result = ssr("data", "filter", "records", "good", "--where", "punsafe < 0.5")
    good = 40 - bad[0] - bad[1]
    assert result.code == 0 and result.out.startswith(f"filter: {good} of 40 kept (dropped: aesthetic {bad[0]}")
    assert result.out.endswith("1 of 1 files in good\n")

    result = ssr("data", "fetch", "good", "raw", "--samples", 10, "--json")
    totals = result.json
    assert result.code == 0 and (totals["samples"], totals["kept"]) == (good, good - bad[2] - bad[3])
    assert totals["dropped"].get("not a picture") == bad[3]
    captions = {row["url"]: row["caption"] for row in rows}
    samples = [sample for shard in list_shards("raw") for sample in read_shard(shard)]
    assert len(samples) == totals["kept"]
    assert all(sample.caption == captions[sample.meta["url"]] for sample in samples)

    result = ssr("data", "fetch", "good", "raw", "--samples", 10)
    shards = -(-good // 10)
    assert result.out.splitlines()[1] == f"{shards} of {shards} files in raw, {shards} done before"


def test_a_bad_file_is_a_line_and_no_error(ssr, here):
    ssr("data", "records", "records", "-n", 10, "--files", 2)
    (here / "records" / "00001.parquet").write_bytes(b"PAR1")
    result = ssr("data", "filter", "records", "good")
    assert result.code == 0 and "\n1 of 2 files in good\nnot read: 00001.parquet: bad records" in result.out
    check_refused(ssr("data", "filter", "records", "strict", "--strict"), "00001.parquet")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["filter", "missing", "out"], "no Parquet records at missing"),
        (["filter", "records", "records"], "both read and written"),
        (["filter", "records", "out", "--where", "widht > 3"], 'Referenced column "widht" not found'),
        (["filter", "records", "out", "--aesthetic", "high"], "give a number"),
        (["filter", "records", "out", "--memory", "much"], "give for example 4GB"),
        (["filter", "records", "out", "--caption-column", "alt"], "no column 'alt'; it has url, caption"),
        (["filter", "records", "out", "--address", "auto"], "--engine ray"),
        (["filter", "records", "out", "--workers", "0"], "give a whole number"),
        (["filter", "records", "records/00000.parquet"], "is not a folder"),
        (["fetch", "missing", "out"], "no Parquet records at missing"),
        (["fetch", "records", "out", "--engine", "slurm"], "invalid choice"),
        (["records", "out", "-n", "3", "--files", "4"], "3 records cannot be in 4 files"),
        (["records", "out", "--world", "p", "--base-url", "here"], "is no web address"),
        (["records", "records/00000.parquet"], "cannot make the folder"),
        (["sort", "records", "out"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input(ssr, here, words, told):
    ssr("data", "records", "records", "-n", 10)
    check_refused(ssr("data", *words), told)
    assert sorted(os.listdir(here / "records")) == ["00000.parquet"]


def test_a_missing_extra_prints_the_line_that_installs_it(ssr, monkeypatch):
    ssr("data", "records", "records", "-n", 10)
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    check_refused(
        ssr("data", "filter", "records", "out"), 'duckdb is not installed; run: pip install "ssr-encoder[data]"'
    )
