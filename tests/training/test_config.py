"""Configs: presets, overrides, and one line for everything that cannot be meant."""

import pytest

from ssr_encoder.cli import main
from ssr_encoder.errors import SSRError
from ssr_encoder.training import TrainingConfig


@pytest.mark.parametrize("preset, tau", [("paper", 0.01), ("release-finetune", 0.001), ("mini", 0.01)])
def test_presets(preset, tau):
    config = TrainingConfig.load(preset)
    assert config.objective.tau == tau
    if preset == "paper":
        assert (config.optim.steps, config.optim.learning_rate, config.optim.weight_decay) == (1_000_000, 5e-5, 0.01)
        assert (config.optim.betas, config.data.prompt_drop) == ([0.9, 0.999], 0.8)


def test_a_printed_config_reads_back_as_the_same(tmp_path, capsys):
    assert main(["train", "paper", "--print-config", "optim.steps=7", "data.shards=a b"]) == 0
    path = tmp_path / "my.yaml"
    path.write_text(capsys.readouterr().out)
    config = TrainingConfig.load(path)
    assert (config.optim.steps, config.data.shards) == (7, "a b")
    assert config == TrainingConfig.load("paper", ["optim.steps=7", "data.shards=a b"])


def test_a_file_may_build_on_a_preset(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("preset: mini\noptim: {learning_rate: 1e-4}\n")  # YAML reads 1e-4 as text
    config = TrainingConfig.load(path, ["run.precision=no", "run.log_with="])
    assert (config.optim.learning_rate, config.data.resolution) == (1e-4, 128)
    assert (config.run.precision, config.run.log_with) == ("no", [])


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["optim.learning_rat=1"], "unknown key optim.learning_rat .*did you mean optim.learning_rate"),
        (["objective.steps=1"], "unknown key objective.steps.*optim.steps"),
        (["optmi.steps=1"], "unknown key optmi .*did you mean optim"),
        (["steps=1"], "not section.key=value"),
        (["optim.steps"], "not section.key=value"),
        (["optim.steps=1.5"], "optim.steps is 1.5 .* int"),
        (["optim.steps=true"], "optim.steps is True"),
        (["optim.learning_rate=.nan"], "optim.learning_rate is nan"),
        (["optim.betas=[1, 2]"], "betas"),
        (["optim.batch_size=0"], "at least 1"),
        (["data.prompt_drop=1.5"], "from 0 to 1"),
        (["run.precision=fp8"], "one of no, bf16, fp16"),
        (["run.log_with=[wandbe]"], "one of tensorboard, wandb"),
        (["data.shards={a: [}"], "not YAML"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(overrides, message):
    with pytest.raises(SSRError, match=message) as caught:
        TrainingConfig.load("mini", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1, 2]", "not a mapping"),
        ("a: b: c", "not YAML"),
        ("preset: papre", "preset 'papre' .* unknown"),
        ("optim: 3", "it is a section"),
        ("preset: mini\nextra: {}", "unknown key extra"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(SSRError, match=message):
        TrainingConfig.load(path)


def test_a_missing_config_lists_the_presets(capsys):
    assert main(["train", "nothing.yaml"]) == 2
    assert "mini, paper, release-finetune" in capsys.readouterr().err
