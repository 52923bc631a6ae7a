"""``ssr bench``: missing files, half-written items, changed prompts, other versions. Nothing is mixed, all is said."""

from __future__ import annotations

import json
import shutil

import pytest
from bench_pieces import contents, make_dreambench

from ssr_encoder.bench.benchmark import CARDS
from ssr_encoder.cli import main


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset, and a run of it by a method that paints: 25 items."""
    folder = tmp_path_factory.mktemp("made")
    make_dreambench(folder / "data")
    assert main([*map(str, command(folder / "data", folder / "run"))]) == 0
    return folder


def command(data, out, *more, name="dreambench"):
    paint = ["--method", "bench_pieces:Paint", "--metrics", "none", "--n", 1, "--images", 1, "--quiet"]
    return ["bench", "run", name, "--data", data, "-o", out, *paint, *more]


@pytest.fixture
def copy(made, tmp_path):
    """Dataset and run of one's own to spoil."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data", tmp_path / "run"


def refused(result, *words):
    code, out, err = result
    assert code == 2 and out == "" and err.startswith("ssr: error: ") and err.count("\n") == 1 and "; " in err, result
    assert all(str(word) in err for word in words), err


def test_missing_files(ssr, copy):
    data, run = copy
    before = contents(run)
    (data / "dog2").rename(data.parent / "dog2")
    refused(ssr(*command(data, run)), data / "dog2", "is missing", "restore")
    (data.parent / "dog2").rename(data / "dog2")
    (data / "prompts_and_classes.txt").unlink()
    refused(ssr(*command(data, run)), "prompts_and_classes.txt", "is not there")
    assert contents(run) == before


def test_a_changed_prompt_file(ssr, copy):
    data, run = copy
    before, path = contents(run), data / "prompts_and_classes.txt"
    path.write_text(path.read_text().replace("in the jungle", "in the office"))
    refused(ssr(*command(data, run)), path, "not those of dreambench version 1", "restore the dataset's own file")
    refused(ssr(*command(data, run.parent / "new")), path)
    assert contents(run) == before and not (run.parent / "new").exists()


def test_a_changed_reference_picture(ssr, copy):
    data, run = copy
    before = contents(run)
    for name in ("dog2", "can"):
        shutil.copy(data / name / "01.png", data / name / "00.png")
    refused(ssr(*command(data, run)), run, "prompts or reference pictures have changed", "choose another folder")
    assert contents(run) == before


def test_half_written_items(ssr, copy):
    data, run = copy
    before = contents(run)
    first, second, third, *_ = sorted((run / "items").glob("*.json"))
    picture = first.with_name(f"{first.stem}-0.png")
    picture.write_bytes(picture.read_bytes()[:70])
    second.write_text(second.read_text()[:40])
    third.unlink()
    for view in (["report", run], ["gallery", run, "-o", run.parent / "g.html"]):
        refused(ssr("bench", *view), first.stem, "half written", "same `ssr bench run`")
    code, out, err = ssr(*command(data, run), "--json")
    assert code == 0 and json.loads(out)["made"] == 3 and json.loads(out)["there_before"] == 22, err
    assert contents(run) == before


def test_results_of_another_version(ssr, copy, monkeypatch):
    data, run = copy
    before = contents(run)
    card = run.parent / "newer.yaml"
    text = (CARDS / "dreambench.yaml").read_text()
    card.write_text(text.replace("version: 1", "version: 2"))
    refused(ssr(*command(data, run, name=card)), run, "version: 1 there, 2 here", "choose another folder")
    monkeypatch.setattr("ssr_encoder.provenance.__version__", "99.0")
    refused(ssr(*command(data, run)), run, 'there, "99.0" here')
    monkeypatch.undo()
    assert contents(run) == before
    meta = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**meta, "format": "ssr-bench-run-0"}))
    refused(ssr(*command(data, run)), run / "run.json", "another version of this package")
    refused(ssr("bench", "report", run), run, "no run.json that can be read")


def test_an_item_of_another_run(ssr, copy):
    data, run = copy
    before = contents(run)
    assert ssr(*command(data, run.parent / "other", "--seed", 5))[0] == 0
    key = min(path.stem for path in (run / "items").glob("*.json"))
    for path in (run.parent / "other" / "items").glob(f"{key}*"):
        shutil.copy(path, run / "items")
    refused(ssr("bench", "figures", run, "-o", run.parent / "f.png", "--items", key), key, "of another run")
    assert ssr(*command(data, run))[0] == 0 and contents(run) == before
