"""The command that trains a stage: what it refuses before any work, and how it says so."""

import runpy
import sys

import pytest

from ssr_encoder.errors import SSRError
from ssr_encoder.mini.train import main


@pytest.mark.parametrize(
    "stage, option", [("vae", "--noisier"), ("clip", "--same-way"), ("motion", "--reference-is-target")]
)
def test_a_setting_that_a_stage_does_not_have_is_refused(tmp_path, stage, option):
    with pytest.raises(SSRError, match=f"{option} is nothing to stage {stage}"):
        main([stage, option, "0.5", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


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
