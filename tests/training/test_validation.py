"""Selection on fixed held-out pictures: what the figures say, and that a whole run gets better at it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_training import make_sample, write_tar

from ssr_encoder.cli import main
from ssr_encoder.errors import SSRError
from ssr_encoder.training import Trainer
from ssr_encoder.training.validation import Validator, _interval
from ssr_encoder.training.world import write_world


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Six samples whose masks cover the left half."""
    path = tmp_path_factory.mktemp("labelled")
    half = np.zeros((64, 72), dtype=np.uint8)
    half[:, :36] = 255
    Image.fromarray(half).save(path / "mask.png")
    mask = (path / "mask.png").read_bytes()
    samples = [make_sample(i) | {"mask.png": mask} for i in range(8)]
    for i, sample in enumerate(samples):
        sample["json"] = json.dumps({"query": "cat", "other_query": "dog"} if i else {}).encode()
    samples[3]["mask.png"] = b"damaged"
    write_tar(path / "0.tar", samples)
    return path


def test_attention_on_the_mask_is_what_is_counted(new_config, labelled):
    trainer = Trainer(new_config(f'run.validation="{labelled}"'))
    validator = Validator(trainer.base, trainer.config)
    assert len(validator.pictures) == 6
    area = validator.inside.mean()
    assert abs(area - 0.5) < 0.01  # the centre crop of a half is a half
    grid = int(validator.inside.shape[1] ** 0.5)
    left = torch.zeros(6, 12, 1 + grid**2)
    left[:, :, 1:] = (torch.arange(grid) < grid // 2).float().repeat(grid) * 2 / grid**2
    assert torch.allclose((validator._maps(left) * validator.inside).sum(1), torch.ones(6))


def test_figures_are_the_same_every_time_and_change_with_the_model(new_config, labelled):
    trainer = Trainer(new_config(f'run.validation="{labelled}"'))
    validator = Validator(trainer.base, trainer.config)
    first = validator.figures(trainer.model)
    assert validator.figures(trainer.model) == first
    for name in ("attention_in_mask", "loss_right", "query_gain"):
        assert first[f"{name}/low"] <= first[name] <= first[f"{name}/high"]
    assert abs(first["attention_in_mask"] - 0.5) < 0.1  # an untrained one looks everywhere
    with torch.no_grad():
        trainer.model.aligner.to_k.weight.mul_(50)
    assert validator.figures(trainer.model)["attention_in_mask"] != first["attention_in_mask"]
    assert validator.grid(trainer.model).size == (3 * 66 - 2, 6 * 66 - 2)


def test_the_gain_is_measured_inside_the_mask(new_config, tmp_path):
    """The whole picture's is the mean of its halves', and the other way round it is a loss."""
    found = {}
    for name, left, right, queries in (
        ("left", 255, 0, ("cat", "dog")),
        ("right", 0, 255, ("cat", "dog")),
        ("whole", 255, 255, ("cat", "dog")),
        ("swapped", 255, 255, ("dog", "cat")),
    ):
        mask = np.zeros((64, 72), dtype=np.uint8)
        mask[:, :36], mask[:, 36:] = left, right
        Image.fromarray(mask).save(tmp_path / "mask.png")
        samples = [make_sample(i) | {"mask.png": (tmp_path / "mask.png").read_bytes()} for i in range(4)]
        for sample in samples:
            sample["json"] = json.dumps(dict(zip(("query", "other_query"), queries, strict=True))).encode()
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", samples)
        trainer = Trainer(new_config(f'run.validation="{tmp_path / name}"'))
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.add_(torch.linspace(-0.2, 0.2, parameter.numel()).view_as(parameter))
        found[name] = Validator(trainer.base, trainer.config).figures(trainer.model)
    gains = {name: figures["query_gain"] for name, figures in found.items()}
    assert gains["left"] != pytest.approx(gains["right"], rel=0.01)
    assert gains["whole"] == pytest.approx((gains["left"] + gains["right"]) / 2, rel=1e-3)
    assert gains["swapped"] == pytest.approx(-gains["whole"], rel=1e-3)
    losses = [found[name]["loss_right"] for name in ("whole", "swapped")]
    assert gains["whole"] == pytest.approx(losses[1] - losses[0], rel=1e-3)


def test_intervals_cover_the_mean():
    found = _interval("x", torch.arange(100.0))
    assert found["x"] == 49.5 and 40 < found["x/low"] < 47 and 52 < found["x/high"] < 59


def test_nothing_to_validate_on(new_config, shards):
    trainer = Trainer(new_config(f'run.validation="{shards}"'))
    with pytest.raises(SSRError, match="no sample with a picture, KEY.mask.png"):
        Validator(trainer.base, trainer.config)


def test_the_command_trains_the_embedded_model(tmp_path, capsys):
    write_world(tmp_path / "shards", 12, per_shard=6)
    write_world(tmp_path / "held-out", 4, split="holdout", masks=True)
    words = [f"data.shards={tmp_path}/shards", f"run.out={tmp_path}/run", f"run.validation={tmp_path}/held-out"]
    words += ["run.validate_every=2", "optim.steps=2", "optim.batch_size=2", "run.log_every=1"]
    assert main(["train", "mini", *words]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[-1] == f"{tmp_path}/run/encoder" and "step 2/2" in lines[-2] and "attention in mask" in lines[-2]
    assert (tmp_path / "run/validation/selection-00000002.png").exists()
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [0, 1, 2]  # 0: what training begins with
    assert 0 < logged[0]["attention_in_mask"] < 1 and "loss" not in logged[0]
    assert list((tmp_path / "run/tensorboard").iterdir())
    assert main(["train", "mini", *words, "--json"]) == 0  # it is done already
    assert main(["train", "mini", *words, f"data.cache={tmp_path}/cache", "--estimate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["samples"] == 12
    assert main(["train", "mini", *words, "run.seed=3"]) == 2
    assert "run.seed was 0" in capsys.readouterr().err


def test_world_shards_are_the_same_bytes_every_time(tmp_path):
    for name in ("a", "b"):
        write_world(tmp_path / name, 5, per_shard=3, masks=True)
    for file in ("000000.tar", "000001.tar"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
