"""The measurement of the embedded ControlNet."""

import json

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from ssr_encoder import SSREncoder
from ssr_encoder.errors import SSRError
from ssr_encoder.mini.judge import load_oracle
from ssr_encoder.mini.models import MiniConfig, make_controlnet, weights_dir
from ssr_encoder.mini.proof import METRICS, make_cases, make_pictures
from ssr_encoder.mini.proof_companions import load_companion, mean_interval
from ssr_encoder.mini.proof_control import (
    LINES,
    count_steps,
    covered,
    draw_targets,
    main,
    overlap,
    paired_interval,
    prove_control,
    region,
)
from ssr_encoder.mini.world import World, load_world

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> World:
    return load_world("cpu", weights_dir())


@pytest.fixture(scope="module")
def ssr() -> SSREncoder:
    return SSREncoder.from_pretrained("mini", device="cpu")


def test_overlap():
    a, b = torch.zeros(16, 16, dtype=torch.bool), torch.zeros(16, 16, dtype=torch.bool)
    assert overlap(a, b) == 0
    a[:4, :4] = b[:4, 2:6] = True
    assert overlap(a, b) == pytest.approx(8 / 24)
    assert overlap(a, a) == 1


def test_cells_are_covered_by_more_than_half():
    mask = torch.zeros(128, 128)
    mask[:8, :5] = 1  # five of eight columns of the first cell
    mask[8:16, :4] = 1  # just half of the one below
    assert covered(mask).nonzero().tolist() == [[0, 0]]


def test_mean_interval():
    found = mean_interval([0.0, 1.0, 1.0, 0.0], 0.0, 1.0)
    assert (found["value"], found["n"]) == (0.5, 4)
    assert found["low"] == 0.0 and found["high"] == 1.0, "cut"
    narrow = mean_interval([0.5, 0.6, 0.7])
    assert narrow["high"] - narrow["value"] == pytest.approx(1.96 * 0.1 / 3**0.5)


def test_paired_interval():
    # Agresti and Min 2005: with 1/2 added to each of the four counts, b = 8.5, c = 2.5, n = 52
    found = paired_interval([1.0] * 8 + [0.0] * 2 + [1.0] * 40 + [None], [0.0] * 8 + [1.0] * 2 + [1.0] * 40 + [1.0])
    half = 1.96 * ((8.5 + 2.5) - (8.5 - 2.5) ** 2 / 52) ** 0.5 / 52
    assert (found["value"], found["n"]) == (pytest.approx(0.12), 50)
    assert (found["low"], found["high"]) == (pytest.approx(6 / 52 - half), pytest.approx(6 / 52 + half))
    same = paired_interval([1.0] * 10, [1.0] * 10)
    assert same["value"] == 0 and same["low"] < 0 < same["high"]


def test_targets_show_the_cases_subject_alone_and_the_oracle_sees_it_there(world):
    cases = make_cases(world, "text", 6, seed=3)
    pictures, masks = draw_targets(world, cases, seed=3)
    again, _ = draw_targets(world, cases, seed=3)
    assert torch.equal(pictures, again)
    oracle = load_oracle("cpu")
    here = [
        overlap(region(oracle, p, c.concepts[0]), covered(m)) for p, c, m in zip(pictures, cases, masks, strict=True)
    ]
    assert sum(here) / 6 > 0.6
    absent = [
        overlap(region(oracle, p, (c.concepts[0] + 1) % 12), covered(m))
        for p, c, m in zip(pictures, cases, masks, strict=True)
    ]
    assert sum(absent) / 6 < 0.1


def test_each_picture_follows_its_own_map(ssr, world):
    from diffusers import StableDiffusionControlNetPipeline

    torch.manual_seed(0)
    controlnet = make_controlnet(MiniConfig()).eval()
    for parameter in [
        *controlnet.controlnet_down_blocks.parameters(),
        *controlnet.controlnet_cond_embedding.parameters(),
    ]:
        torch.nn.init.normal_(parameter, std=0.1)
    pipe = StableDiffusionControlNetPipeline(
        **ssr.pipe.components, controlnet=controlnet, requires_safety_checker=False
    )
    cases = make_cases(world, "text", 3, seed=1)
    maps = torch.zeros(3, 3, 128, 128)
    black = list(make_pictures(ssr, cases, None, 1, 0, 2, pipe=pipe, images=maps))
    maps[2] = 1
    third = list(make_pictures(ssr, cases, None, 1, 0, 2, pipe=pipe, images=maps))
    assert [bool((a - b).abs().max() > 1e-3) for a, b in zip(black, third, strict=True)] == [False, False, True]


def test_an_untrained_controlnet_leaves_every_figure_as_it_was(tmp_path, capsys):
    make_controlnet(MiniConfig()).half().save_pretrained(tmp_path / "controlnet")
    out = tmp_path / "proof"
    # The judge draws all identities of the concepts in question: this seed's have few.
    main(["-n", "2", "--steps", "1", "--seed", "2202", "-o", str(out), "--controlnet", str(tmp_path / "controlnet")])
    printed = capsys.readouterr().out
    proof = json.loads((out / "control.json").read_text())
    lines = proof["lines"]
    assert list(lines) == list(LINES) and proof["n"] == 2 and "fingerprint" in proof
    assert all(line in printed for line in LINES)
    assert Image.open(out / "control.png").width == 8 * 132 - 4
    assert lines["drawn"]["figures"]["iou"]["value"] > 0.5
    assert set(lines["drawn"]["figures"]) == {*METRICS, "iou"}
    for kind in ("layout", "edges"):
        assert lines[kind]["figures"] == lines["no_control"]["figures"]
        assert all(change["value"] == 0 for change in lines[kind]["change"].values())
        assert "change" not in lines[f"{kind}_alone"]


def test_steps():
    assert count_steps(48, 12, 8) == 6 * 12 * 5


def test_bad_input(tmp_path, ssr):
    with pytest.raises(SSRError, match="no ControlNet in"):
        load_companion(ControlNetModel, tmp_path, "ControlNet", "controlnet")
    with pytest.raises(SSRError, match="at least 2"):
        next(prove_control(ssr, make_controlnet(MiniConfig()), n=1))
