"""``ssr bench run`` and ``ssr bench list``, in this process."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
from bench_pieces import contents, make_dreambench, make_multi_subject
from PIL import Image

from ssr_encoder.bench.benchmark import load_benchmark
from ssr_encoder.bench.metrics import default_metrics
from ssr_encoder.bench.results import load_run
from ssr_encoder.cli.bench.run import _make_metrics

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dreambench(tmp_path_factory.mktemp("dreambooth"))


def refused(result, *names):
    code, out, err = result
    assert code == 2 and out == "" and err.startswith("ssr: error: ") and err.count("\n") == 1, result
    assert "; " in err and all(str(name) in err for name in names), err


def test_a_tiny_model_goes_through_dreambench(ssr, folder, data, tmp_path):
    """A random model of Stable Diffusion 1.5's architecture, from pictures to scores of real encoders."""
    command = ["bench", "run", "dreambench", "--data", data, "--model", folder, "--steps", 1, "--images", 1]
    command += ["--device", "cpu", "-o", tmp_path / "run", "--suite", "mini", "--metrics", "clip_t,clip_i"]
    code, out, err = ssr(*command, "--json")
    assert code == 0, err
    done = json.loads(out)
    assert (done["items"], done["pictures"], done["made"], done["there_before"]) == (50, 50, 50, 0)
    assert set(done["metrics"]) == {"clip_t", "clip_i"} and all(-1 <= v <= 1 for v in done["metrics"].values())
    run = load_run(tmp_path / "run")
    assert run.meta["settings"] == {
        "steps": 1,
        "guidance_scale": 3.0,
        "subject_scale": 0.8,
        "dtype": "float32",
        "n": None,
        "images": 1,
        "seed": 0,
        "world_seed": 0,
    }
    assert run.meta["model"] == folder.name and run.meta["hash"] == done["hash"]
    with Image.open(run.pictures("dog2-00")[0]) as made, Image.open(run.heat_map("dog2-00")) as heat:
        assert made.size == (64, 64) and heat.size == (64, 48)
    before = contents(tmp_path / "run")
    code, out, err = ssr(*command)
    assert code == 0 and "50 items, 50 pictures" in out and "clip_i" in out
    assert contents(tmp_path / "run") == before


def test_another_method_and_no_scores(ssr, tmp_path):
    make_multi_subject(tmp_path / "bench")
    command = ["bench", "run", "multi-subject", "--data", tmp_path / "bench", "--method", "bench_pieces:Paint"]
    command += ["--metrics", "none", "--n", 3, "--images", 2, "-o", tmp_path / "run"]
    code, out, err = ssr(*command, "--json")
    assert code == 0 and json.loads(out)["metrics"] == {}, err
    run = load_run(tmp_path / "run")
    assert len({item["subject"] for item in run.items.values()}) == 3 and run.name == "paint"
    refused(ssr(*command, "--seed", 1), "settings.seed: 0 there, 1 here", tmp_path / "run")
    refused(ssr(*command, "--images", 1), "settings.images: 2 there, 1 here")
    assert ssr(*command, "--quiet")[0] == 0


def test_mistakes_are_one_line(ssr, data, tmp_path):
    run = ["bench", "run", "dreambench", "-o", tmp_path / "run", "--model", "./no/such/model"]
    refused(ssr("bench", "run", "nothing", "-o", tmp_path / "run"), "nothing", "dreambench")
    refused(ssr(*run), "--data")
    refused(ssr(*run, "--data", tmp_path / "none"), tmp_path / "none")
    refused(ssr(*run, "--data", data, "--metrics", "clip_t,beauty"), "beauty", "clip_t")
    refused(ssr(*run, "--data", data, "--metrics", "none", "--method", "beauty"), "beauty", "module:Class")
    refused(ssr(*run, "--data", data, "--metrics", "none"), "no/such/model")
    code, out, err = ssr(*run, "--images", 0)
    assert code == 2 and "--images" in err and err.count("\n") == 1
    refused(ssr("bench", "run", "mini-dreambench", "--data", data, "-o", tmp_path / "run"), "reads no folder")
    assert not (tmp_path / "run").exists()


def test_a_benchmark_s_own_metrics_come_beside_the_suite_s():
    benchmark = load_benchmark("mini-dreambench")
    args = Namespace(suite=None, metrics=None, device="cpu", backbone=[])
    assert _make_metrics(args, benchmark).args[0] == [*default_metrics("mini"), "hat", "companion"]
    args.suite = "real"  # of which the oracle is no part
    assert _make_metrics(args, benchmark).args[0] == default_metrics("real")


def test_list(ssr):
    code, out, _ = ssr("bench", "list")
    assert code == 0 and "mini-multi-subject (version 1)" in out and "--data FOLDER" in out
    names = [card["name"] for card in json.loads(ssr("bench", "list", "--json")[1])]
    assert names == sorted(names) and "rare" in names
