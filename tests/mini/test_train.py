"""The command that trains a stage: what it refuses before any work, and how it says so."""

import runpy
import sys

import pytest

from ssr_encoder.errors import SSRError
from ssr_encoder.mini.recipes import RECIPES
from ssr_encoder.mini.train import main, parse


@pytest.mark.parametrize(
    "stage, option",
    [
        ("vae", "--noisier"),
        ("clip", "--same-way"),
        ("motion", "--reference-is-target"),
        ("few_step", "--only"),
        ("clip", "--turned"),
    ],
)
def test_a_setting_that_a_stage_does_not_have_is_refused(tmp_path, stage, option):
    with pytest.raises(SSRError, match=f"{option} is nothing to stage {stage}"):
        main([stage, option, "0.5", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option, value, says",
    [
        ("--tones", "1.5", "from 0 to 1"),
        ("--same-way", "often", "from 0 to 1"),
        ("--favour", "cat", "write cat=8,bus=2"),
        ("--favour", "cat=8,bus", "write cat=8,bus=2"),
        ("--favour", "cat=0", "write cat=8,bus=2"),
        ("--favour", "", "write cat=8,bus=2"),
        ("--only", "unet.(", "is no regular expression"),
        ("--warmup", "0", "give a whole number from 1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path, capsys, option, value, says):
    with pytest.raises(SystemExit) as exit:
        parse(["unet", option, value, "--out", str(tmp_path / "out")])
    assert exit.value.code == 2 and says in capsys.readouterr().err


def test_settings_reach_the_recipe(tmp_path, monkeypatch):
    class Told(Exception):
        """Stands where training would begin."""

    seen = {}

    def run(recipe, report_every):
        seen.update(recipe.planning, warmup=recipe.train_config.warmup, parameters=len(recipe.parameters_list))
        raise Told

    recipe = type("UNet", (RECIPES["unet"],), {"run": run})
    monkeypatch.setitem(RECIPES, "unet", recipe)
    words = ["--tones", "0.6", "--same-way", "1", "--favour", "cat=8,hot air balloon=1.5", "--out", str(tmp_path)]
    with pytest.raises(SSRError, match="--favour names 'hot air balloon', which is nothing in this world"):
        main(["unet", *words])
    words[words.index("--favour") + 1] = "cat=8,cat/noto=1.5"
    words += ["--warmup", "7", "--only", "unet.conv_out", "--turned", "4"]
    with pytest.raises(Told):
        main(["unet", *words])
    assert (seen["tones"], seen["same_way"], seen["favour"]) == (0.6, 1.0, {"cat": 8.0, "cat/noto": 1.5})
    assert seen["turned"] == 4.0
    assert seen["warmup"] == 7 and seen["parameters"] == 2, "the weight and the bias"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_nothing_to_resume_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    words = ["unet", "--resume", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("ssr_encoder.mini.train", run_name="__main__")
    printed = capsys.readouterr()
    assert exit.value.code == 2 and printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ") and "nowhere/unet.state.pt is not there" in printed.err
    assert not (tmp_path / "out").exists()
