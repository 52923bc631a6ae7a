"""Fetching from a server that misbehaves in every way that the web does."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from mark_step import files, killed_again_and_again
from PIL import Image

from ssr_encoder.curation import read_shard
from ssr_encoder.curation.fetch import Limits, fetch, reason
from ssr_encoder.errors import SSRError

LIMITS = Limits(threads=8, retries=1, timeout=0.6, deadline=1.2, max_bytes=40_000, user_agent="tests")


def picture(kind: str = "PNG", colour: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (colour, 9, 9)).save(stream, kind)
    return stream.getvalue()


class Web(http.server.BaseHTTPRequestHandler):
    """/png/N, /jpeg/N and /webp/N are pictures; the rest is trouble."""

    asked, busy, most, lock = Counter(), 0, 0, threading.Lock()  # requests; at /busy: now, and at most

    def do_GET(self):
        with self.lock:
            self.asked[self.path] += 1
        with contextlib.suppress(OSError):  # they have hung up
            self.serve(self.path.strip("/").split("/"), self.asked[self.path])

    def serve(self, path, time_asked):
        name = path[0]
        if name in ("png", "jpeg", "webp"):
            self.answer(picture(name.upper(), int(path[1])))
        elif name == "lies":  # says JPEG, is WebP
            self.answer(picture("WEBP"), {"Content-Type": "image/jpeg"})
        elif name == "page":  # says PNG, is a page
            self.answer(b"<html>not here</html>", {"Content-Type": "image/png"})
        elif name == "redirect":
            self.answer(b"", {"Location": "/png/7"}, 302)
        elif name == "endless":
            self.answer(b"", {"Location": f"/endless/{time_asked}"}, 302)
        elif name == "to-file":
            self.answer(b"", {"Location": "file:///etc/hostname"}, 302)
        elif name == "slow":
            time.sleep(2)
        elif name == "drip":
            self.answer(b"\x89PNG", {"Content-Length": "1000"})
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif name == "early":
            self.answer(picture()[:40], {"Content-Length": "100"})
        elif name == "huge":
            self.answer(bytes(50_000))
        elif name == "hangs-up":
            self.close_connection = True
        elif name == "sometimes":  # comes at the second attempt
            self.answer(picture() if time_asked > 1 else b"", status=200 if time_asked > 1 else 503)
        elif name == "noai":
            self.answer(picture(), {"X-Robots-Tag": "noai"})
        elif name == "not-tests":
            self.answer(picture(), {"X-Robots-Tag": "tests: noimageai"})
        elif name == "not-others":
            self.answer(picture(), {"X-Robots-Tag": "others: noai"})
        elif name == "busy":
            self.count(1)
            time.sleep(0.05)
            self.count(-1)
            self.answer(picture())
        else:
            self.answer(b"", status=404)

    def count(self, change: int):
        with self.lock:
            Web.busy += change
            Web.most = max(Web.most, Web.busy)

    def answer(self, body: bytes, headers=None, status: int = 200):
        self.send_response(status)
        for header, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    Web.asked, Web.busy, Web.most = Counter(), 0, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def records(folder, urls, **columns):
    folder.mkdir(exist_ok=True)
    rows = [
        {"url": url, "caption": f"caption {n}"} | {k: v[n] for k, v in columns.items()} for n, url in enumerate(urls)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder


def run(source, out, limits=LIMITS, **options):
    return list(fetch(source, out, limits=limits, **options))


def test_pictures_come_as_they_are_in_order(web, tmp_path):
    urls = [f"{web}/{kind}/{n}" for n in range(4) for kind in ("png", "jpeg", "webp")]
    source = records(
        tmp_path / "in",
        urls,
        aesthetic=[float("nan"), *[6.5] * 11],
        hash=[2**62] * 12,
        date=[b"\xff"] * 12,
        width=[1] * 12,
    )
    reports = run(source, tmp_path / "out", samples_per_shard=5)
    assert [(r.shard, r.kept) for r in reports] == [("000000.tar", 5), ("000001.tar", 5), ("000002.tar", 2)]
    samples = [s for n in range(3) for s in read_shard(tmp_path / "out" / f"{n:06d}.tar")]
    assert [s.key for s in samples[3:7]] == ["0000003", "0000004", "0000010", "0000011"]
    assert [s.meta["url"] for s in samples] == urls
    assert [s.caption for s in samples] == [f"caption {n}" for n in range(12)]
    assert [s.extension for s in samples[:3]] == ["png", "jpg", "webp"]
    assert samples[3].image == picture("PNG", 1) and samples[4].image == picture("JPEG", 1)
    meta = samples[0].meta
    assert (meta["aesthetic"], meta["hash"], meta["width"], meta["height"]) == (None, 2**62, 24, 16)
    assert len(meta["sha256"]) == 64 and "caption" not in meta


TROUBLE = {
    "page": "not a picture",
    "nowhere": "HTTP 404",
    "endless": "endless redirects",
    "to-file": "HTTP 302",
    "slow": "too slow",
    "drip": "too slow",
    "early": "closed early",
    "hangs-up": "closed early",
    "huge": "too large",
    "noai": "opted out",
    "not-tests": "opted out",
}


def test_trouble_is_recorded_with_its_reason_and_costs_no_one_else(web, tmp_path):
    fine = ["png/1", "lies", "redirect", "sometimes", "not-others"]
    urls = [f"{web}/{name}" for name in (*fine, *TROUBLE)]
    elsewhere = [
        "http://127.0.0.1:1/a.png",
        "file:///etc/hostname",
        "no address",
        None,
        "http://[",
        "ftp://127.0.0.1/a",
    ]
    began = time.monotonic()
    [report] = run(records(tmp_path / "in", [*urls, *elsewhere]), tmp_path / "out")
    assert time.monotonic() - began < 20
    samples = list(read_shard(tmp_path / "out" / "000000.tar"))
    assert [s.meta["url"] for s in samples] == urls[: len(fine)]
    assert samples[1].extension == "webp"
    lines = [json.loads(line) for line in (tmp_path / "out" / "000000.failures.jsonl").read_text().splitlines()]
    found = {line["url"]: line["reason"] for line in lines}
    assert {name: found[f"{web}/{name}"] for name in TROUBLE} == TROUBLE
    assert [found[url] for url in elsewhere[:2]] == ["unreachable", "not a web address"]
    assert len(lines) == len(TROUBLE) + len(elsewhere) and all(line["message"] for line in lines)
    assert report.dropped == dict(Counter(line["reason"] for line in lines))
    # Asked again: only what may come another time.
    assert {name for name in TROUBLE if Web.asked[f"/{name}"] > 1} == {"slow", "early", "hangs-up"}
    assert sum(count for path, count in Web.asked.items() if path.startswith("/endless")) < 12
    assert Web.asked["/sometimes"] == 2


def test_no_more_than_so_many_requests_to_one_host(web, tmp_path):
    source = records(tmp_path / "in", [f"{web}/busy/{n}" for n in range(24)])
    [report] = run(source, tmp_path / "out", replace(LIMITS, per_host=3, threads=12, timeout=10))
    assert report.kept == 24
    assert Web.most <= 3
    run(source, tmp_path / "out2", replace(LIMITS, per_host=12, threads=12, timeout=10))
    assert Web.most > 3  # so that it was the limit


def test_redirects_do_not_wait_for_themselves(web, tmp_path):
    source = records(tmp_path / "in", [f"{web}/redirect/{n}" for n in range(4)])
    [report] = run(source, tmp_path / "out", replace(LIMITS, per_host=1))
    assert report.kept == 4


def test_done_shards_are_not_fetched_again(web, tmp_path):
    source = records(tmp_path / "in", [f"{web}/png/{n}" for n in range(6)])
    run(source, tmp_path / "out", samples_per_shard=2)
    before = files(tmp_path / "out")
    Web.asked.clear()
    assert all(r.skipped for r in run(source, tmp_path / "out", replace(LIMITS, threads=1), samples_per_shard=2))
    assert not Web.asked
    (tmp_path / "out" / "000001.tar").unlink()
    run(source, tmp_path / "out", samples_per_shard=2)
    assert set(Web.asked) == {"/png/2", "/png/3"}
    assert files(tmp_path / "out") == before


def test_killed_at_any_moment_it_ends_the_same(web, tmp_path):
    source = records(tmp_path / "in", [f"{web}/{'png' if n % 5 else 'nowhere'}/{n}" for n in range(30)])
    began = time.perf_counter()
    run(source, tmp_path / "unbroken", samples_per_shard=3)
    seconds = time.perf_counter() - began
    killed = 0
    for n in range(4):
        out = tmp_path / f"out{n}"
        killed += killed_again_and_again(lambda to=out: run(source, to, samples_per_shard=3), 5, seconds / 2)
        run(source, out, samples_per_shard=3)
        assert files(out) == files(tmp_path / "unbroken")
    assert killed >= 10


def test_urllib_is_left_as_it_was(web, tmp_path):
    run(records(tmp_path / "in", [f"{web}/png/1"]), tmp_path / "out")
    with urllib.request.urlopen("data:,hello") as response:  # which ours would refuse
        assert response.read() == b"hello"


def test_records_that_will_not_do(tmp_path):
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "a.parquet"
    parquet.write_table(pa.table({"URL": ["http://a"]}), table)
    with pytest.raises(SSRError, match=r"no column url \(it has URL\); run `ssr data filter`"):
        run(tmp_path / "in", tmp_path / "out")
    parquet.write_table(pa.table({"url": pa.array([], pa.string())}), table)
    with pytest.raises(SSRError, match="no records in"):
        run(tmp_path / "in", tmp_path / "out")
    table.write_bytes(b"PAR1")
    with pytest.raises(SSRError, match=r"bad records .*a\.parquet"):
        run(tmp_path / "in", tmp_path / "out")


def test_shards_reach_over_files(web, tmp_path):
    by_file = defaultdict(list)
    for n in range(5):
        by_file[n // 2].append({"url": f"{web}/png/{n}", "caption": str(n)})
    (tmp_path / "in").mkdir()
    for n, rows in by_file.items():
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / f"{n}.parquet")
    run(tmp_path / "in", tmp_path / "out", samples_per_shard=3)
    shards = [[s.caption for s in read_shard(tmp_path / "out" / f"{n:06d}.tar")] for n in range(2)]
    assert shards == [["0", "1", "2"], ["3", "4"]]


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("HTTP Error 429: Too Many Requests", "HTTP 429"),
        ("<urlopen error [Errno -2] Name or service not known>", "unreachable"),
        ("<urlopen error timed out>", "too slow"),
        ("[Errno 104] Connection reset by peer", "closed early"),
    ],
)
def test_reasons_to_count_by(message, short):
    assert reason(message) == short
