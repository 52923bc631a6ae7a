"""What the commands that measure the ControlNet and the motion adapter share: what they refuse before the work."""

import pytest
from diffusers import ControlNetModel

from ssr_encoder.errors import SSRError
from ssr_encoder.mini import proof_control, proof_motion
from ssr_encoder.mini.models import MiniConfig, make_controlnet
from ssr_encoder.mini.proof_companions import load_companion

COMMANDS = pytest.mark.parametrize("command", [proof_control, proof_motion])


@COMMANDS
@pytest.mark.parametrize("words", [["--steps", "0"], ["-n", "1"], ["-n", "x"], ["--seed", "-1"]])
def test_bad_numbers(tmp_path, command, words, capsys):
    with pytest.raises(SystemExit) as exit:
        command.main(["-o", str(tmp_path), *words])
    assert exit.value.code == 2 and words[0] in capsys.readouterr().err


@COMMANDS
def test_a_place_that_cannot_be_written_is_refused(tmp_path, command):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SSRError, match="file is not a folder"):
        command.main(["-o", str(tmp_path / "file")])
    with pytest.raises(SSRError, match="nowhere does not exist"):
        command.main(["-o", str(tmp_path / "nowhere" / "out")])


def test_a_companion_that_is_cut_off(tmp_path):
    make_controlnet(MiniConfig()).half().save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SSRError, match="cannot load the ControlNet .* train it again"):
        load_companion(ControlNetModel, tmp_path, "ControlNet", "controlnet")
