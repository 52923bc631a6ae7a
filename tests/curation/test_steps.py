"""Steps: nothing lost or doubled, whatever is killed, on every engine; what is done is not done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mark_step import Mark, files, killed_again_and_again, make_shards

from ssr_encoder.curation import Outcome, Sample, read_shard, run_step, write_shard
from ssr_encoder.errors import SSRError


def run(step, source, out, **options) -> list:
    return list(run_step(step, source, out, **options))


def setups(log: Path) -> int:
    return len(log.read_text().split()) if log.exists() else 0


# -- what is written
def test_samples_and_reports(shards, tmp_path):
    reports = run(Mark(), shards, tmp_path / "out", batch_size=2)
    assert [(r.shard, r.kept, r.dropped) for r in reports] == [
        ("000000.tar", 4, {"sixth": 2, "third": 1}),
        ("000001.tar", 5, {"third": 1, "sixth": 1}),
        ("000002.tar", 5, {"third": 1, "sixth": 1}),
    ]
    samples = list(read_shard(tmp_path / "out" / "000001.tar"))
    assert [s.key for s in samples] == ["001000", "001001", "001003", "001004", "001006"]
    assert samples[0] == Sample("001000", b"001000" * 9, "png", "né 001000", {"n": 1, "mark": "x"})
    report = json.loads((tmp_path / "out" / "000001.report.json").read_text())
    assert report["dropped_keys"] == [["001002", "sixth"], ["001005", "third"]]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == {
        "step": "mark", "parameters": {"mark": "x"}, "shards": 3, "samples": 21, "kept": 14,
        "dropped": {"sixth": 4, "third": 3}, "bad_shards": [],
    }  # fmt: skip


def test_a_shard_of_which_nothing_is_left_is_written(tmp_path):
    write_shard(tmp_path / "0.tar", [Sample("3", b"", "png")])
    run(Mark(), tmp_path, tmp_path / "out")
    assert list(read_shard(tmp_path / "out" / "0.tar")) == []


def test_the_batch_size_changes_nothing(shards, tmp_path):
    run(Mark(), shards, tmp_path / "a", batch_size=1)
    run(Mark(), shards, tmp_path / "b", batch_size=100)
    assert files(tmp_path / "a") == files(tmp_path / "b")


# -- what is done
def test_done_shards_are_skipped_without_setup(shards, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    run(Mark(log=log), shards, out)
    before = files(out)
    again = run(Mark(log=log), shards, out)
    assert all(r.skipped for r in again) and setups(log) == 1
    assert files(out) == before


@pytest.mark.parametrize("change", ["parameters", "input", "output", "no output", "no report", "bad report"])
def test_stale_shards_are_made_again(shards, tmp_path, change):
    out = tmp_path / "out"
    run(Mark(), shards, out)
    step = Mark("y" if change == "parameters" else "x")
    if change == "input":
        write_shard(shards / "000001.tar", [Sample("1", b"new", "png")])
    elif change == "output":
        (out / "000001.tar").write_bytes((out / "000001.tar").read_bytes()[:-512])
    elif change == "no output":
        (out / "000001.tar").unlink()
    elif change == "no report":
        (out / "000001.report.json").unlink()
    elif change == "bad report":
        (out / "000001.report.json").write_text('{"shard": ')
    made = [r.shard for r in run(step, shards, out) if not r.skipped]
    assert made == (["000000.tar", "000001.tar", "000002.tar"] if change == "parameters" else ["000001.tar"])
    run(step, shards, tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh")


# -- bad input
def test_a_bad_shard_is_counted_and_listed(shards, tmp_path):
    out = tmp_path / "out"
    run(Mark(), shards, out)
    bad = shards / "000001.tar"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:4000])
    reports = run(Mark(), shards, out)
    assert [bool(r.error) for r in reports] == [False, True, False]
    totals = json.loads((out / "report.json").read_text())
    assert [b["shard"] for b in totals["bad_shards"]] == ["000001.tar"]
    assert (totals["kept"], totals["samples"]) == (9, 14)  # no part of it
    assert not (out / "000001.tar").exists()
    with pytest.raises(SSRError, match=r"000001\.tar"):
        run(Mark(), shards, out, strict=True)
    bad.write_bytes(whole)  # mended: it comes in
    assert [r.skipped for r in run(Mark(), shards, out)] == [True, False, True]


def test_folders_that_do_not_fit(shards, tmp_path):
    with pytest.raises(SSRError, match="both read and written"):
        run(Mark(), shards, shards)
    make_shards(tmp_path / "out", shards=4)
    with pytest.raises(SSRError, match=r"000003\.tar, which is not of this input"):
        run(Mark(), shards, tmp_path / "out")
    with pytest.raises(SSRError, match="no engine 'slurm'"):
        run(Mark(), shards, tmp_path / "new", engine="slurm")
    with pytest.raises(SSRError, match="--engine ray"):
        run(Mark(), shards, tmp_path / "new", address="auto")


# -- bad steps
class Losing(Mark):
    def __call__(self, samples):
        return Outcome(samples[1:])


class Doubling(Mark):
    def __call__(self, samples):
        return Outcome(samples + samples[:1])


class Failing(Mark):
    def __call__(self, samples):
        Path("/no/such/model").read_bytes()


class Dying(Mark):
    def __call__(self, samples):
        os._exit(9)


@pytest.mark.parametrize("step", [Losing(), Doubling()])
def test_a_step_that_loses_or_doubles_is_found_out(shards, tmp_path, step):
    with pytest.raises(RuntimeError, match="lost, added or doubled"):
        run(step, shards, tmp_path / "out")
    assert [name for name in files(tmp_path / "out") if name.endswith(".tar")] == []


def test_a_failing_step_is_said_in_a_line(shards, tmp_path):
    with pytest.raises(SSRError, match=r"mark failed on .*000000\.tar: .*/no/such/model"):
        run(Failing(), shards, tmp_path / "out")


# -- engines
def test_two_workers_write_what_one_does(shards, tmp_path):
    (shards / "000001.tar").write_bytes(b"damaged")
    run(Mark(), shards, tmp_path / "one")
    reports = run(Mark(log=tmp_path / "log"), shards, tmp_path / "two", workers=2)
    assert [r.shard for r in reports] == ["000000.tar", "000001.tar", "000002.tar"]
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert 1 <= setups(tmp_path / "log") <= 2


def test_a_dead_worker_is_said_in_a_line(shards, tmp_path):
    with pytest.raises(SSRError, match="a worker died"):
        run(Dying(), shards, tmp_path / "out", workers=2)
    run(Mark(), shards, tmp_path / "out")  # and what it left is in nobody's way
    run(Mark(), shards, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_ray_writes_what_this_process_does(shards, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)  # relative paths
    (shards / "000001.tar").write_bytes(b"damaged")
    run(Mark(), "in", "here")
    reports = run(Mark(), "in", "there", engine="ray", workers=2)
    assert sorted(r.shard for r in reports) == ["000000.tar", "000001.tar", "000002.tar"]
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert all(r.skipped != bool(r.error) for r in run(Mark(), "in", "there"))
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999", "here:there"])
def test_no_cluster_is_said_in_a_line(shards, tmp_path, address):
    pytest.importorskip("ray")
    with pytest.raises(SSRError, match=f"no Ray cluster at {address} .*check --address"):
        run(Mark(), shards, tmp_path / "out", engine="ray", address=address)


# -- kills
def test_killed_at_any_moment_it_ends_the_same(tmp_path):
    source = make_shards(tmp_path / "in", shards=6, samples=12)
    step = Mark(pause=0.004)
    started = time.perf_counter()
    run(step, source, tmp_path / "unbroken", batch_size=4)
    seconds = time.perf_counter() - started
    out = tmp_path / "out"
    killed, rounds = 0, 0
    while killed < 20:  # a folder that is done before its last kill is begun anew
        rounds += 1
        out = tmp_path / f"out{rounds}"
        killed += killed_again_and_again(lambda to=out: run(step, source, to, batch_size=4), 5, seconds / 2)
        run(step, source, out, batch_size=4)
        assert files(out) == files(tmp_path / "unbroken")


def started(folder: Path, source: Path, out: Path, engine: str) -> subprocess.Popen:
    """A run of two workers in a process of its own that is writing a shard."""
    script = (
        "import sys; sys.path[:0] = [sys.argv[3]]\n"
        "from mark_step import Mark\nfrom ssr_encoder.curation import run_step\n"
        "if __name__ == '__main__':\n"
        "    options = dict(engine=sys.argv[4], workers=2, batch_size=1)\n"
        "    list(run_step(Mark(pause=0.1), sys.argv[1], sys.argv[2], **options))\n"
    )
    (folder / "run.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, folder / "run.py", source, out, Path(__file__).parent, engine],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    wait(lambda: out.is_dir() and any(path.name.startswith(".0") for path in out.iterdir()), 120)
    return process


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_workers_of_a_killed_run_end_too(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    source, out = make_shards(tmp_path / "in", shards=4, samples=40), tmp_path / "out"
    process = started(tmp_path, source, out, engine)

    def at_work() -> list[int]:
        return [pid for pid in children(process.pid) if engine == "local" or "MapWorker" in " ".join(command(pid))]

    wait(lambda: len(at_work()) >= 2, 60)  # on a busy machine the second one may come seconds after the first
    workers = at_work()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait(lambda: not any(map(alive, workers)), 30)
    run(Mark(), source, out)  # whichever engine it was, any other can go on
    run(Mark(), source, tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh")


def test_a_killed_ray_worker_is_replaced(tmp_path):
    pytest.importorskip("ray")
    source, out = make_shards(tmp_path / "in", shards=4, samples=30), tmp_path / "out"
    process = started(tmp_path, source, out, "ray")
    actors = [pid for pid in children(process.pid) if "MapWorker" in " ".join(command(pid))]
    assert actors
    os.kill(actors[0], signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    run(Mark(), source, tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh")


def wait(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def command(pid: int) -> list[str]:
    import psutil

    try:
        return psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return []


def alive(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
