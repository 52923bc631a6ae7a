"""Runs: whole, resumed, on several processes, and never mixed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bench_pieces import (
    Paint,
    PaintThenDie,
    PaintThenTidy,
    brightness,
    contents,
    make_dreambench,
    make_multi_subject,
    two_brightnesses,
)
from PIL import Image

from ssr_encoder import SSRError
from ssr_encoder.bench.benchmark import load_benchmark
from ssr_encoder.bench.methods import SSR, Text, load_method
from ssr_encoder.bench.results import load_run
from ssr_encoder.bench.runner import run_benchmark

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_dreambench(tmp_path_factory.mktemp("dreambooth"))


@pytest.fixture(scope="module")
def benchmark(data):
    return load_benchmark("dreambench", data=data, images=2)


@pytest.fixture(scope="module")
def whole(benchmark, tmp_path_factory) -> Path:
    """A run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    paint(benchmark, folder)
    return folder


def paint(benchmark, folder, make_metrics=brightness, settings=None, **changes) -> list:
    return list(
        run_benchmark(benchmark, partial(Paint, **changes), folder, make_metrics=make_metrics, settings=settings)
    )


def test_a_run_is_written_and_read(benchmark, whole):
    run = load_run(whole)
    assert list(run.items) == [item.key for item in benchmark.items] and len(run.items) == 50
    assert run.name == "paint" and run.meta["digest"] == benchmark.digest()
    assert run.meta["settings"] == {"strength": 0.5} and run.metrics["brightness"]["direction"] == "higher"
    item, made = benchmark.items[30], run.items[benchmark.items[30].key]
    assert (made["prompt"], made["query"], made["tags"]) == (item.prompt, item.query, list(item.tags))
    method = Paint()
    subject = method.personalise(item.reference.open(), item.query, item.class_name)
    for path, expected in zip(run.pictures(item.key), method.generate(subject, item.template, item.seeds), strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(expected))
    values = [np.asarray(Image.open(path)).mean() / 255 for path in run.pictures(item.key)]
    assert run.scores[item.key]["brightness"] == pytest.approx(values)
    assert np.array_equal(np.asarray(Image.open(run.reference(item.key))), np.asarray(item.reference.open()))
    assert run.heat_map(item.key) is None


def test_nothing_is_made_twice(benchmark, whole, tmp_path):
    log = tmp_path / "log"
    before = contents(whole)
    steps = paint(benchmark, whole, log=log)
    assert len(steps) == 100 and all(step.skipped for step in steps) and not log.exists()
    assert contents(whole) == before


def test_killed_again_and_again(benchmark, whole, tmp_path):
    folder, rng, killed = tmp_path / "killed", random.Random(0), 0
    for _ in range(6):
        child = multiprocessing.get_context("fork").Process(
            target=paint, args=(benchmark, folder), kwargs={"pause": 0.05}
        )
        child.start()
        child.join(rng.uniform(0.05, 0.6))  # 50 items take 2.5 s and more: the first kills cannot miss
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.join()
    assert killed >= 2
    paint(benchmark, folder)
    assert contents(folder) == contents(whole)


def test_half_written_items_are_made_again(benchmark, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    keys = [item.key for item in benchmark.items]
    picture = folder / "items" / f"{keys[0]}-1.png"
    picture.write_bytes(picture.read_bytes()[:60])
    (folder / "items" / f"{keys[1]}-0.png").unlink()
    (folder / "items" / f"{keys[2]}.json").write_text('{"format": "ssr-be')
    (folder / "items" / f"{keys[3]}.json").unlink()
    (folder / "items" / f".{keys[4]}-0.png.99.png").write_bytes(b"half")
    scores = folder / "scores" / f"{keys[5]}.json"
    scores.write_text(scores.read_text()[:-30])
    with pytest.raises(SSRError, match=f"item {keys[0]} .* half written"):
        load_run(folder)
    steps = paint(benchmark, folder)
    made = [step.key for step in steps if step.stage == "pictures" and not step.skipped]
    assert made == keys[:4] and contents(folder) == contents(whole)
    assert [step.key for step in steps if step.stage == "scores" and not step.skipped] == [keys[5]]


def test_a_damaged_reference_is_written_again(benchmark, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "references" / "can.png").write_bytes(b"\x89PNG")
    with pytest.raises(SSRError, match="half written"):
        load_run(folder)
    paint(benchmark, folder)
    assert contents(folder) == contents(whole)


def test_an_unfinished_run_is_read_only_if_asked(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "items" / "can-07.json").unlink()
    with pytest.raises(SSRError, match="has not ended"):
        load_run(folder)
    run = load_run(folder, partial=True)
    assert len(run.items) == 49 and "can-07" not in run.scores


def test_other_metrics_score_all_anew_and_leave_the_pictures(benchmark, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    pictures = {name: value for name, value in contents(folder).items() if name.startswith("items/")}
    steps = paint(benchmark, folder, two_brightnesses)
    assert {step.stage for step in steps if not step.skipped} == {"scores"}
    run = load_run(folder)
    assert set(run.metrics) == {"brightness", "alone"} and all(len(s) == 2 for s in run.scores.values())
    assert {name: value for name, value in contents(folder).items() if name.startswith("items/")} == pictures
    paint(benchmark, folder, None)  # pictures alone: the scores stay
    assert set(load_run(folder).metrics) == {"brightness", "alone"}


def test_scores_that_do_not_apply_are_null(tmp_path):
    benchmark = load_benchmark("multi-subject", data=make_multi_subject(tmp_path / "bench"), images=1)
    paint(benchmark, tmp_path / "run", two_brightnesses)
    assert all(scores["alone"] == [None] for scores in load_run(tmp_path / "run").scores.values())


def test_another_run_is_refused(benchmark, data, whole, tmp_path):
    before = contents(whole)
    with pytest.raises(SSRError, match=r"settings.strength: 0.5 there, 0.7 here.*choose another folder"):
        paint(benchmark, whole, strength=0.7)
    with pytest.raises(SSRError, match="settings.steps: null there, 5 here"):
        paint(benchmark, whole, settings={"steps": 5})
    other = make_dreambench(tmp_path / "other")
    Image.new("RGB", (48, 48), "red").save(other / "can" / "00.png")
    with pytest.raises(SSRError, match="prompts or reference pictures have changed"):
        paint(load_benchmark("dreambench", data=other, images=2), whole)
    with pytest.raises(SSRError, match="prompts or reference pictures have changed"):
        paint(load_benchmark("dreambench", data=data, images=1), whole)
    moved = shutil.copytree(data, tmp_path / "moved")  # the same bytes elsewhere are the same benchmark
    assert all(step.skipped for step in paint(load_benchmark("dreambench", data=moved, images=2), whole))
    assert contents(whole) == before


def test_a_run_of_another_version_is_refused(benchmark, whole, tmp_path, monkeypatch):
    import ssr_encoder.provenance as provenance

    monkeypatch.setattr(provenance, "__version__", "99.0")
    with pytest.raises(SSRError, match=r'versions.ssr-encoder: ".*" there, "99.0" here'):
        paint(benchmark, whole)


def test_an_item_of_another_run_is_not_taken(benchmark, whole, tmp_path):
    paint(benchmark, tmp_path / "other", strength=0.9)
    folder = shutil.copytree(whole, tmp_path / "copy")
    for path in (tmp_path / "other" / "items").glob("dog2-03*"):
        shutil.copy(path, folder / "items")
    with pytest.raises(SSRError, match="item dog2-03 .* of another run"):
        load_run(folder)
    paint(benchmark, folder)
    assert contents(folder) == contents(whole)


def test_a_folder_with_other_things_is_refused(benchmark, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SSRError, match="holds no run"):
        paint(benchmark, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SSRError, match="damaged"):
        paint(benchmark, tmp_path)
    with pytest.raises(SSRError, match="no run.json"):
        load_run(tmp_path / "nothing")


def test_shards_of_others_make_a_whole(benchmark, whole, tmp_path):
    """As `accelerate launch` starts them: each does its part of one folder."""
    for number in (1, 0, 2):
        steps = run_benchmark(benchmark, Paint, tmp_path / "run", make_metrics=brightness, shard=(number, 3))
        subjects = {step.key[:3] for step in steps}
        assert len(subjects) <= 1  # two subjects for three processes
    assert contents(tmp_path / "run") == contents(whole)


def test_one_and_two_processes_give_the_same(folder, tmp_path):
    """Our method with a tiny random model of Stable Diffusion 1.5's architecture."""
    benchmark = load_benchmark("multi-subject", data=make_multi_subject(tmp_path / "bench"), images=2)
    make = partial(load_method, "ssr", model=str(folder), steps=2, device="cpu")
    for processes in (1, 2):
        steps = list(
            run_benchmark(
                benchmark, make, tmp_path / str(processes), make_metrics=two_brightnesses, processes=processes
            )
        )
        assert len(steps) == 2 * len(benchmark.items) == 16
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    run = load_run(tmp_path / "2")
    assert run.meta["settings"] == {
        "steps": 2, "guidance_scale": 3.0, "subject_scale": 0.8, "dtype": "float32",
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(run.meta) and str(folder) not in json.dumps(run.meta)
    with Image.open(run.heat_map("0-cat-00")) as heat:
        assert heat.size == (64, 48)


def test_a_process_that_dies_is_told(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("PAINT_ALIVE", str(os.getpid()))
    with pytest.raises(SSRError, match="a process died.*run the same command again"):
        list(run_benchmark(benchmark, PaintThenDie, tmp_path / "run", processes=2))
    assert multiprocessing.active_children() == []


def test_a_process_may_end_in_peace(benchmark, tmp_path, monkeypatch):
    """Stopped before, it leaves semaphores behind, and Python warns of them."""
    monkeypatch.setenv("PAINT_ALIVE", str(os.getpid()))
    make = partial(PaintThenTidy, log=tmp_path / "log")
    assert len(list(run_benchmark(benchmark, make, tmp_path / "run", processes=2))) == len(benchmark.items)
    assert (tmp_path / "log.tidy").exists() and multiprocessing.active_children() == []


def test_a_picture_depends_on_its_seed_alone(folder, picture):
    method = SSR(model=str(folder), steps=2, device="cpu")
    subject = method.personalise(picture, {"query": "cat"}, "cat")
    together = method.generate(subject, "a {} in the snow", [5, 6, 7, 8, 9])
    apart = method.generate(subject, "a {} in the snow", [9, 5])
    for one, other in ((together[4], apart[0]), (together[0], apart[1])):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1
    assert np.abs(np.asarray(together[0], int) - np.asarray(together[1], int)).max() > 20


def test_ours_and_the_prompt_alone(folder, picture):
    ours, text = (kind(model=str(folder), steps=2, device="cpu") for kind in (SSR, Text))
    prompt, seeds = "a {} in the snow", [3]
    made = [m.generate(m.personalise(picture, {"query": "cat"}, "cat"), prompt, seeds)[0] for m in (ours, text)]
    assert not np.array_equal(*map(np.asarray, made))
    off = SSR(model=str(folder), steps=2, subject_scale=0.0, device="cpu")
    alone = off.generate(off.personalise(picture, {"query": "cat"}, "cat"), prompt, seeds)[0]
    assert np.array_equal(np.asarray(alone), np.asarray(made[1]))
    one, other = ours.describe(), text.describe()
    assert one["weights_sha256"]["unet"] == other["weights_sha256"]["unet"]
    assert "subject_model" in one["weights_sha256"] and "subject_model" not in other["weights_sha256"]


def test_methods_by_name():
    assert load_method("bench_pieces:Paint", strength=0.2).strength == 0.2
    for name, message in (
        ("nothing", "no method 'nothing'; give one of ssr, text"),
        ("no_such_module:Class", "cannot be imported"),
        ("bench_pieces:Nothing", "no class Nothing"),
        ("bench_pieces:Brightness", "has no personalise"),
    ):
        with pytest.raises(SSRError, match=message):
            load_method(name)
