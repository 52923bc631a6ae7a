"""From a folder of pictures to the report, the gallery and the figure, through the commands."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import torch
from bench_pieces import make_dreambench, make_multi_subject
from PIL import Image

from ssr_encoder.bench.results import load_run
from ssr_encoder.cli import main
from ssr_encoder.curation import Sample, write_shard
from ssr_encoder.curation.candidates import write_bench
from ssr_encoder.curation.describe import count
from ssr_encoder.files import write_json
from ssr_encoder.images import picture_grid
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.world import load_world, sample_scenes

pytestmark = pytest.mark.usefixtures("one_thread")
# How many captions of the training data name each; the last two none.
SEEN = {"cat": 30, "fox": 12, "frog": 5, "bus": 5, "apple": 1}
PAIRS = (("cat", "bus"), ("fox", "apple"), ("frog", "panda"), ("cat", "penguin"))


@pytest.fixture
def ssr(capsys):
    """A function (*words) -> (stdout, stderr) of a command that works."""

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out, err

    return run


def tiny(folder, data, out, *words):
    """The command that runs a random model of Stable Diffusion 1.5's architecture, at one step."""
    command = ["bench", "run", *words, "--data", data, "--model", folder, "--steps", 1, "--images", 1, "-o", out]
    return [*command, "--device", "cpu", "--suite", "mini"]


def test_a_tiny_model_through_everything(ssr, folder, tmp_path):
    data, runs = make_multi_subject(tmp_path / "bench"), []
    for method in ("ssr", "text"):
        runs.append(tmp_path / method)
        command = tiny(folder, data, runs[-1], "multi-subject", "--method", method)
        done = json.loads(ssr(*command, "--metrics", "clip_t,clip_i,exclusive_clip", "--json")[0])
        assert done["made"] == done["items"] == 8 and set(done["metrics"]) == {"clip_t", "clip_i", "exclusive_clip"}
    for suffix in ("md", "tex", "html"):
        ssr("bench", "report", *runs, "--by", "two-subjects", "-o", tmp_path / f"report.{suffix}")
        text = (tmp_path / f"report.{suffix}").read_text()
        assert all(word in text for word in ("multi-subject, version 1", "two-subjects", folder.name))
    found = json.loads(ssr("bench", "report", *runs, "--json")[0])
    for label, folder_of_run in zip(("ssr", "text"), runs, strict=True):
        scores = next(run["scores"] for run in found["runs"] if run["label"] == label)
        values = [v for s in load_run(folder_of_run).scores.values() for v in s["clip_i"]]
        assert scores["clip_i"]["mean"] == pytest.approx(np.mean(values)) and scores["clip_i"]["subjects"] == 4
    assert len(found["comparisons"]) == 3
    ssr("bench", "gallery", runs[0], "-o", tmp_path / "gallery.html")
    page = (tmp_path / "gallery.html").read_text()
    assert (
        page.count('<article class="card"') == 8 and page.count("data:image/webp") == 8 + 4 + 4
    )  # with references, maps
    _, err = ssr("bench", "figures", *runs, "-o", tmp_path / "figure.png", "-n", 3, "--by", "clip_i", "--side", 64)
    with Image.open(tmp_path / "figure.png") as grid:
        assert grid.width > 4 * 64 and grid.height > 3 * 64 and len(re.findall(r"\d-\w+-\d\d", err)) == 3


def drawn(pairs, seed: int = 2) -> list[Image.Image]:
    """Scenes of the embedded world, 128 px, with the two things of each pair."""
    world = load_world("cpu", weights_dir())

    def identities(words):
        concepts = [world.concepts.index(word) for word in words]
        rows = [[c, *world.available[c].nonzero()[0].tolist()] for c in concepts]
        return tuple(torch.tensor(rows).T)

    first, second = (identities(words) for words in zip(*pairs, strict=True))
    odds, generator = (0.0, 1.0, 0.0), torch.Generator().manual_seed(seed)
    scenes = sample_scenes(world, len(pairs), generator, "any", odds, first, second, plain=0.0)
    return [picture_grid(p[None], 1) for p in world.render(scenes, 128)[0]]


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def rare(tmp_path):
    """The folder that `ssr data bench-candidates --ticked` writes of drawn scenes, with the counts that `ssr data
    describe` takes of a training set beside it."""
    captions = [word for word, n in SEEN.items() for _ in range(n)]
    grey = png(Image.new("RGB", (8, 8)))
    (tmp_path / "train").mkdir()
    training = [Sample(f"{i:06}", grey, "png", f"a {w}", {"descriptors": [w]}) for i, w in enumerate(captions)]
    write_shard(tmp_path / "train" / "000000.tar", training)
    (tmp_path / "candidates").mkdir()
    pictures = zip(PAIRS, drawn(PAIRS), strict=True)
    found = [
        Sample(f"{i:06}", png(picture), "png", " and ".join(pair), {"descriptors": list(pair), "clip_score": 0.7})
        for i, (pair, picture) in enumerate(pictures)
    ]
    write_shard(tmp_path / "candidates" / "000000.tar", found)
    write_bench(tmp_path / "candidates", [sample.key for sample in found], tmp_path / "bench", {"ignored": []})
    write_json(tmp_path / "bench" / "descriptors.json", count(tmp_path / "train"))
    path = tmp_path / "bench" / "bench.json"
    bench = json.loads(path.read_text())
    for item in bench["items"]:  # one prompt a subject is enough here
        item["prompts"] = {word: ["a {} in the snow"] for word in item["subjects"]}
    write_json(path, bench)
    return tmp_path / "bench"


def test_rare_is_a_curve(ssr, folder, rare, tmp_path):
    """Scores over frequency: the groups, their means and the chart, and what the mini suite cannot say of real data."""
    run = tmp_path / "run"
    ssr(*tiny(folder, rare, run, "rare", "--metrics", "clip_i,exclusive_clip_i,shown"))
    found = load_run(run)
    frequency = {item["class_name"]: item["tags"][-1] for item in found.items.values()}
    assert frequency == {word: f"frequency:{SEEN.get(word, 0)}" for word in (*SEEN, "panda", "penguin")}
    out, _ = ssr("bench", "report", run, "--by", "frequency")
    means = {}
    for key, item in found.items.items():
        means.setdefault(SEEN.get(item["class_name"], 0), []).append(found.scores[key]["clip_i"][0])
    rows = re.findall(r"^\| ssr \| frequency (\d+) \| (\S+) .* \| (\d) \|$", out, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [0, 1, 5, 12, 30]
    for number, mean, subjects in rows:
        values = means[int(number)]
        assert float(mean.replace("−", "-")) == pytest.approx(np.mean(values), abs=6e-4) and int(subjects) == len(
            values
        )
    assert (
        "Spearman" in out and "8 of 8 pictures by shown" in out and "| shown ↑ |" not in out.split("## What made it")[0]
    )
    ssr("bench", "report", run, "--by", "frequency", "-o", tmp_path / "rare.html")
    page = (tmp_path / "rare.html").read_text()
    assert page.count('<figure class="chart">') == 1 and "frequency 12" in page


def test_rare_without_counts_says_how_to_get_them(rare, tmp_path, capsys):
    (rare / "descriptors.json").unlink()
    code = main(["bench", "run", "rare", "--data", str(rare), "-o", str(tmp_path / "run"), "--metrics", "none"])
    assert code == 2 and "copy the one that `ssr data describe` wrote" in capsys.readouterr().err


def test_humans_and_their_figure(ssr, folder, tmp_path):
    """Fig. 5: the people of a folder in DreamBench's layout, several pictures of each."""
    data = make_dreambench(tmp_path / "people", {"anna": "woman", "dog2": "dog"})
    command = tiny(folder, data, tmp_path / "run", "humans", "--metrics", "clip_t")
    command[command.index("--images") + 1] = 2
    assert "25 items, 50 pictures" in ssr(*command)[0]
    run = load_run(tmp_path / "run")
    assert {item["subject"] for item in run.items.values()} == {"anna"} and "human" in run.items["anna-00"]["tags"]
    ssr("bench", "figures", tmp_path / "run", "-o", tmp_path / "fig5.png", "-n", 4, "--images", 2, "--side", 48)
    with Image.open(tmp_path / "fig5.png") as grid:
        assert grid.width > 5 * 48 and grid.height > 3 * 48
