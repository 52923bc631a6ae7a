"""Figures against formulas, intervals against tables, and ``ssr reconstruct`` from the command line to the files."""

import argparse
import json
import math

import pytest
import torch
from PIL import Image

from ssr_encoder.cli import Parser, reconstruct
from ssr_encoder.errors import SSRError
from ssr_encoder.reconstruction import report
from ssr_encoder.reconstruction.config import StudyConfig
from ssr_encoder.reconstruction.measure import OracleDistance, alignment, psnr, quality
from ssr_encoder.reconstruction.pairs import WorldPairs


@pytest.fixture(autouse=True)
def _one(one_thread):
    pass


def parse(*words) -> argparse.Namespace:
    parser = Parser(prog="ssr")
    reconstruct.add_parser(parser.add_subparsers(parser_class=Parser)).set_defaults(run=reconstruct.run)
    return parser.parse_args(["reconstruct", *map(str, words)])


def test_psnr_is_its_formula_for_each_picture():
    a, b = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    wanted = [10 * math.log10(1 / float((x.double() - y.double()).square().mean())) for x, y in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(wanted, rel=1e-5)
    found = quality(lambda x: b, lambda x, y: torch.zeros(3), [(a, None)])
    assert found == {"ps": 0.0, "psnr": pytest.approx(sum(wanted) / 3, rel=1e-5)}


def test_the_oracles_distance_grows_with_the_damage():
    distance = OracleDistance(torch.device("cpu"))
    world = WorldPairs(StudyConfig.load("mini", ["test_pictures=2"]), 128, torch.device("cpu"))
    pictures, _ = next(world.test(2))
    soft = torch.nn.functional.avg_pool2d(pictures, 3, 1, 1)
    softer = torch.nn.functional.avg_pool2d(pictures, 15, 1, 7)
    assert distance(pictures, pictures).tolist() == [0.0, 0.0]
    assert (distance(soft, pictures) > 0).all() and (distance(softer, pictures) > distance(soft, pictures)).all()
    assert torch.allclose(distance(soft, pictures)[1:], distance(soft[1:], pictures[1:]), rtol=1e-4)
    assert "not LPIPS" in distance.name


def test_the_worlds_pairs_are_a_function_of_seed_and_number():
    pairs = WorldPairs(StudyConfig.load("mini", ["zero_shot_pictures=6"]), 128, torch.device("cpu"))
    a, b, c, d = pairs.batch(3, 5, 2), pairs.batch(3, 5, 2), pairs.batch(3, 6, 2), pairs.batch(4, 5, 2)
    assert torch.equal(a[0], b[0]) and a[1] == b[1]
    assert not torch.equal(a[0], c[0]) and not torch.equal(a[0], d[0])
    batches = list(pairs.labelled(4))
    assert [len(labels) for _, labels in batches] == [4, 2]
    assert all(0 <= label < len(pairs.names) for _, labels in batches for label in labels)


def test_alignment_is_the_mean_cosine_and_the_share_of_nearest_names(encoders, pairs):
    clip = encoders["clip"]
    with torch.no_grad():
        pictures, texts = next(pairs.test(8))
        cosines = (clip.features(pictures, [3])[1] * clip.text_embeds(texts)).sum(1)
        names = [sum(clip.text_embeds([name, f"a {name} cat"])) / 2 for name in pairs.names]
        pictures, labels = next(pairs.labelled(8))
        scores = clip.features(pictures, [3])[1] @ torch.stack([name / name.norm() for name in names]).t()
    found = alignment(clip, pairs, 8)
    assert found["clip_t"] == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert found["zero_shot"] == pytest.approx(float((scores.argmax(1) == labels).float().mean()))
    assert alignment(encoders["dino"], pairs, 8) == {}


def test_t_interval_against_the_table():
    # Student's t, 2 degrees of freedom, 97.5 %: 4.3027; 1 degree: 12.706
    found = report.t_interval([1.0, 2.0, 3.0])
    half = 4.3026527 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half))
    found = report.t_interval([0.0, 2.0])
    assert found.high == pytest.approx(1 + 12.7062 * math.sqrt(2) / math.sqrt(2), rel=1e-5)
    assert report.t_interval([4.0]).to_dict() == {"mean": 4.0, "low": None, "high": None, "n": 1}


def made_runs(figures: dict) -> dict:
    settings = {"steps": 4, "batch_size": 2, "accumulate": 1, "ps": "PS (oracle)", "hidden_layers": [1], "encoder": "e"}
    return {
        setting: {seed: {"settings": settings, "figures": f, "seconds": 1.0} for seed, f in enumerate(of_setting)}
        for setting, of_setting in figures.items()
    }


def test_d_against_a_is_paired_by_seed():
    a = [{"ps": 1.0, "psnr": x, "clip_t": 0.2, "zero_shot": 0.5} for x in (10.0, 20.0, 30.0)]
    d = [{"ps": 0.5, "psnr": x, "clip_t": 0.2, "zero_shot": 0.5} for x in (11.0, 21.5, 30.5)]
    result = report.summarise(made_runs({"A": a, "B": [{"ps": 1.0, "psnr": 9.0}] * 3, "D": d}))
    difference = result["d_minus_a"]["psnr"]
    half = 4.3026527 * 0.5 / math.sqrt(3)
    assert (difference["mean"], difference["low"], difference["high"]) == pytest.approx((1, 1 - half, 1 + half))
    assert result["table"]["A"]["psnr"]["low"] < 0 < difference["low"] + 0.5  # unpaired it would be lost
    text = report.markdown(result)
    assert "| **D minus A**, paired by seed | -0.5000 [-0.5000, -0.5000] | +1.00 [-0.24, +2.24] |" in text
    assert "| B: DINOv2, last layer | 1.0000 [1.0000, 1.0000] | 9.00 [9.00, 9.00] | – | – |" in text
    assert "50.0% [50.0%, 50.0%]" in text and "| C | 0.0004 | 29.73 | 0.1394 | 68.4% |" in text
    json.dumps(result)


def test_the_command_writes_table_and_figure_and_goes_on(tmp_path, capsys):
    out = tmp_path / "study"
    words = ["--settings", "a,D", "--seeds", "0,1", "--steps", 2, "--device", "cpu", "-o", out]
    few = ("batch_size=2", "test_pictures=2", "zero_shot_pictures=2", "examples=2", "test_batch=2")
    for word in few:
        words += ["--set", word]
    reconstruct.run(parse(*words))
    printed = capsys.readouterr().out
    assert "| D: CLIP, multi-scale |" in printed and "not LPIPS" in printed
    result = json.loads((out / "table1.json").read_text())
    assert result["format"] == "ssr-reconstruction-report-1" and result["seeds"] == [0, 1]
    assert set(result["d_minus_a"]) == {"ps", "psnr", "clip_t", "zero_shot"}
    assert result["d_minus_a"]["clip_t"]["mean"] == 0
    assert result["study"]["encoder_sha256"] and result["table"]["A"]["psnr"]["n"] == 2
    with Image.open(out / "figure2.png") as picture:
        assert picture.size[0] > 300
    before = (out / "runs" / "D-1" / "run.json").stat().st_mtime_ns
    reconstruct.run(parse(*words, "--json"))
    assert json.loads(capsys.readouterr().out)["table"] == result["table"]
    assert (out / "runs" / "D-1" / "run.json").stat().st_mtime_ns == before
    with pytest.raises(SSRError, match="is a run with steps 2, not 3"):
        reconstruct.run(parse(*[3 if word == 2 else word for word in words]))
    with pytest.raises(SSRError, match="C-0 is not finished"):
        report.load_runs(out, ["A", "C"], [0])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--settings", "A,E"], "give some of A,B,C,D"),
        (["--seeds", "0,0"], "different whole numbers"),
        (["--steps", "0"], "whole number"),
        (["--set", "step=3"], "did you mean steps"),
        (["--preset", "paper", "--device", "cpu", "--set", "clip=none/none"], "cannot load none/none"),
        (["--device", "tpu"], "device 'tpu' is not there"),
        (["--device", "cpu", "--settings", "B", "--set", "dino=nowhere"], "setting B needs a DINO in nowhere"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, line):
    with pytest.raises(SSRError, match=line) as error:
        reconstruct.run(parse("-o", tmp_path / "out", *words))
    assert "\n" not in str(error.value)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(SSRError, match="other files"):
        reconstruct.run(parse("-o", tmp_path))
    with pytest.raises(SSRError, match="does not exist"):
        reconstruct.run(parse("-o", tmp_path / "no" / "where"))
