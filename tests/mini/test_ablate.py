"""``ssr ablate``: lambda and tau over a range, everything else equal."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ssr_encoder import SSREncoder, SSRError
from ssr_encoder.cli import main
from ssr_encoder.mini.ablate import Measure, ablate_lambda, ablate_tau
from ssr_encoder.mini.ablate_figure import draw_figure
from ssr_encoder.mini.proof import make_pictures
from ssr_encoder.mini.recipes.base import TrainConfig
from ssr_encoder.mini.recipes.subject import SSRRecipe


@pytest.fixture(scope="module")
def ssr() -> SSREncoder:
    return SSREncoder.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def measure() -> Measure:
    return Measure(2, 2, seed=1, keep=2)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    evaluate = SSRRecipe.evaluate
    monkeypatch.setattr(SSRRecipe, "ring_sizes", {"cpu": 8, "cuda": 8})
    monkeypatch.setattr(SSRRecipe, "evaluate", lambda self: evaluate(self, n=4))


def test_lambda(ssr, measure, tmp_path):
    before = ssr.config
    points = list(ablate_lambda(ssr, (0.0, 1.0), measure))
    assert ssr.config == before
    assert [p.value for p in points] == [0.0, 1.0]
    nothing = torch.stack(list(make_pictures(ssr, measure.cases["text"], None, 2, seed=1)))
    assert torch.allclose(points[0].pictures, nothing, atol=1e-4)  # lambda 0 is the prompt alone
    assert not torch.allclose(points[1].pictures, nothing, atol=1e-2)
    for point in points:
        assert set(point.figures) == {"text", "twin"}
        assert all(0 <= f["low"] <= f["value"] <= f["high"] <= 1 for f in point.figures["text"].values() if f["n"])
    draw_figure(points, "lambda", [c.prompt for c in measure.cases["text"]], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert min(picture.size) > 300


def test_the_scale_is_as_before_after_an_error(ssr, measure):
    before = ssr.config.subject_scale
    points = ablate_lambda(ssr, (0.3,), lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(points)
    assert ssr.config.subject_scale == before


def test_tau(measure, tmp_path):
    train = TrainConfig(batch_size=2, seed=3)
    points = list(ablate_tau((0.0, 1.0), tmp_path, measure, train_steps=2, train=train))
    weights = [load_file(tmp_path / f"tau-{tau}" / "model.safetensors") for tau in (0, 1)]
    assert any(not torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert all("attention_in_mask" in p.signals for p in points)
    assert not list(tmp_path.glob("*/*.state.pt"))

    again = list(ablate_tau((0.0,), tmp_path / "again", measure, train_steps=2, train=train))
    same = load_file(tmp_path / "again" / "tau-0" / "model.safetensors")
    assert all(torch.equal(weights[0][k], same[k]) for k in same)  # nothing but tau differs between runs
    assert again[0].figures == points[0].figures

    made = (tmp_path / "tau-0" / "model.safetensors").stat().st_mtime_ns
    kept = list(ablate_tau((0.0,), tmp_path, measure, train_steps=2, train=train))
    assert (tmp_path / "tau-0" / "model.safetensors").stat().st_mtime_ns == made
    assert kept[0].signals == points[0].signals
    with pytest.raises(SSRError, match="other settings"):
        list(ablate_tau((0.0,), tmp_path, measure, train_steps=3, train=train))


def test_scratch_forgets_the_shipped_weights(measure, tmp_path):
    train = TrainConfig(batch_size=2, seed=3)
    list(ablate_tau((0.01,), tmp_path / "a", measure, train_steps=1, train=train))
    list(ablate_tau((0.01,), tmp_path / "b", measure, train_steps=1, train=train, scratch=True))
    shipped, random = (load_file(tmp_path / x / "tau-0.01" / "model.safetensors") for x in "ab")
    name = max(shipped, key=lambda k: shipped[k].numel())
    assert (
        torch.nn.functional.cosine_similarity(shipped[name].flatten().float(), random[name].flatten().float(), 0) < 0.5
    )


def test_command(tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(["ablate", "lambda", "--values", "0,1", "-n", "2", "--steps", "1", "-o", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((folder / "ablate.json").read_text())
    assert [p["value"] for p in printed["points"]] == [0, 1]
    assert (folder / "ablate.png").stat().st_size > 10_000


@pytest.mark.parametrize("values", ["1,0", "a", "-1", "nan", "0,0", ""])
def test_bad_values(values, capsys):
    assert main(["ablate", "tau", f"--values={values}"]) == 2
    assert "rising numbers" in capsys.readouterr().err
