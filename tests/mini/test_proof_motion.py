"""The measurement of the embedded motion model."""

import json

import pytest
import torch
from diffusers import MotionAdapter
from PIL import Image

from ssr_encoder import SSREncoder
from ssr_encoder.errors import SSRError
from ssr_encoder.mini.judge import load_oracle
from ssr_encoder.mini.models import MiniConfig, make_motion_adapter, weights_dir
from ssr_encoder.mini.proof import make_cases
from ssr_encoder.mini.proof_companions import load_companion
from ssr_encoder.mini.proof_motion import (
    JUMP,
    LINES,
    MOVED,
    SHARES,
    draw_clips,
    flicker,
    main,
    movement,
    prove_motion,
    summarise,
)
from ssr_encoder.mini.world import World, load_world

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> World:
    return load_world("cpu", weights_dir())


@pytest.fixture(scope="module")
def drawn(world):
    """Cases, and a drawn clip (16, 3, 128, 128) of each."""
    cases = make_cases(world, "text", 6, seed=4)
    return cases, draw_clips(world, cases, 16, seed=4)


def adapter():
    torch.manual_seed(0)
    return make_motion_adapter(MiniConfig()).eval()


def test_drawn_clips_move_and_keep_their_subject(drawn):
    oracle = load_oracle("cpu")
    found = [movement(oracle, clip, case.concepts[0]) for case, clip in zip(*drawn, strict=True)]
    assert sum(f["moved"] for f in found) >= 5
    assert max(f["jump"] for f in found) < JUMP
    assert sum(f["ends"] for f in found) / 6 > 0.8
    assert max(f["flicker"] for f in found) < 0.05


def test_a_repeated_picture_does_not_move(drawn):
    cases, clips = drawn
    found = movement(load_oracle("cpu"), clips[0, :1].expand(8, -1, -1, -1), cases[0].concepts[0])
    assert found["wander"] == pytest.approx(0, abs=1e-5) and found["jump"] == pytest.approx(0, abs=1e-5)
    assert found["moved"] == 0 and found["flicker"] == 0
    assert found["ends"] == pytest.approx(1, abs=1e-4) and found["drift"] == pytest.approx(0, abs=1e-4)


def test_frames_that_know_nothing_of_one_another_jump(drawn):
    cases, clips = drawn
    clip = clips[0].clone()
    clip[1::2] = clip[1::2].roll(64, -1)  # every other frame half a picture aside
    found = movement(load_oracle("cpu"), clip, cases[0].concepts[0])
    assert found["jump"] > JUMP > MOVED and found["moved"] == 0
    assert found["flicker"] is None or found["flicker"] > 0.02


def test_a_clip_without_its_subject_has_no_motion():
    found = movement(load_oracle("cpu"), torch.full((4, 3, 128, 128), 0.5), 0, torch.tensor([[0.0, 0, 1, 1]] * 4))
    assert found["followed"] == 0
    assert found["moved"] == 0 and found["wander"] is None and found["ends"] is None


def test_a_subject_follows_the_boxes_that_it_is_in(drawn):
    cases, clips = drawn
    oracle, concept = load_oracle("cpu"), cases[0].concepts[0]
    everywhere = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(16, 4)
    assert movement(oracle, clips[0], concept)["followed"] is None
    assert movement(oracle, clips[0], concept, everywhere)["followed"] == 1
    away = everywhere.clone()
    away[4:] = torch.tensor([0.9, 0.0, 1.0, 0.02])  # where no middle is, from the fifth frame on
    assert movement(oracle, clips[0], concept, away)["followed"] == pytest.approx(4 / 16)


def test_flicker_is_that_of_the_background():
    clip = torch.zeros(2, 3, 64, 64)
    clip[1, :, :32] = 0.5  # the upper half changes
    background = torch.ones(2, 16, 16)
    assert flicker(clip, background) == pytest.approx(0.25)
    background[:, :8] = 0  # a subject there, and one row of cells around it
    assert flicker(clip, background) == 0
    assert flicker(clip, torch.zeros(2, 16, 16)) is None


def test_a_clip_counts_as_one_observation():
    clips = [{"made": {"figures": {"identity": v, "ends": v, "other": None}}} for v in (1.0, 1.0, 0.5, 1.0)]
    figures = summarise(clips, "made")
    assert figures["identity"]["value"] == 0.875 and figures["identity"]["n"] == 4
    assert figures["identity"]["low"] < 0.5, "four clips say little, however many frames they have"
    assert "other" not in figures and figures["ends"]["n"] == 4


def test_a_clip_is_judged_beside_a_drawn_one():
    ssr = SSREncoder.from_pretrained("mini", device="cpu")
    count = []
    # The judge draws all identities of the concept in question: this seed's have few.
    clip = next(prove_motion(ssr, adapter(), n=2, steps=2, seed=2202, frames=4, on_step=lambda: count.append(0)))
    assert len(count) == 2
    for line in LINES:
        assert clip[line]["clip"].shape == (4, 3, 128, 128)
        assert set(SHARES) <= set(clip[line]["figures"])
    assert clip["made"]["figures"]["seconds"] > 0
    assert clip["drawn"]["figures"]["identity"] > 0


def test_the_command(tmp_path, capsys):
    adapter().half().save_pretrained(tmp_path / "adapter", max_shard_size="5MB")
    out = tmp_path / "proof"
    size = ["-n", "2", "--steps", "1", "--frames", "4", "--seed", "2202"]
    main([*size, "-o", str(out), "--adapter", str(tmp_path / "adapter")])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("right identity", "clips with motion"))
    proof = json.loads((out / "motion.json").read_text())
    assert proof["n"] == 2 and set(proof["lines"]) == set(LINES) and len(proof["clips"]) == 2
    assert proof["thresholds"]["moved"] == MOVED
    assert Image.open(out / "motion.png").width == 9 * 132 - 4
    assert Image.open(out / "motion.gif").n_frames == 4


def test_bad_input(tmp_path):
    with pytest.raises(SSRError, match="no motion adapter in"):
        load_companion(MotionAdapter, tmp_path, "motion adapter", "motion")
    ssr = SSREncoder.from_pretrained("mini", device="cpu")
    with pytest.raises(SSRError, match="at least 2"):
        next(prove_motion(ssr, adapter(), n=1))
    with pytest.raises(SSRError, match="33 frames"):
        next(prove_motion(ssr, adapter(), n=2, frames=33))
