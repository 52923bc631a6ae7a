"""``ssr generate`` with a map and with frames: what it writes, and what it refuses before a model is loaded."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from PIL import Image
from refusal import NOWHERE, check_refused

from ssr_encoder.companions import control_pipeline, controlled_video_pipeline, fit_map, video_pipeline
from ssr_encoder.encoder import SSREncoder
from ssr_encoder.trajectories import ANY_MOTION, MOTIONS
from ssr_encoder.video import clip_bytes


@pytest.fixture(scope="module")
def encoder(companions):
    return SSREncoder.from_pretrained(companions, device="cpu")


@pytest.fixture
def asked(pictures, companions):
    """The words before the new options."""
    reference = (pictures / "pets.png", "--query", "cat", "--prompt", "a cat")
    return ("generate", *reference, "--model", companions, "--steps", 1, "--seed", 5)


def subject(encoder, pictures):
    return encoder.encode(pictures / "pets.png", "cat")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_control_writes_what_python_generates(ssr, here, asked, encoder, pictures):
    drawn = pictures / "mask.png"
    result = ssr(*asked, "--control", drawn, "--control-scale", 0.5, "-o", "cat.png", "--json")
    assert result.code == 0, result.err
    assert result.json["control"] == {"map": str(drawn), "scale": 0.5}
    pipe = control_pipeline(encoder)
    more = {"image": fit_map(drawn, pipe), "controlnet_conditioning_scale": 0.5}
    [expected] = encoder.generate("a cat", subject(encoder, pictures), pipe=pipe, num_inference_steps=1, seed=5, **more)
    assert np.array_equal(pixels("cat.png"), np.asarray(expected)) and expected.size == (32, 32)
    assert ssr(*asked, "-o", "plain.png").code == 0
    assert ssr(*asked, "--control", drawn, "--control-scale", 0, "-o", "off.png").code == 0
    assert abs(pixels("off.png") - pixels("plain.png")).max() <= 1
    assert abs(pixels("cat.png") - pixels("plain.png")).max() > 1


def test_control_of_several_prompts(ssr, here, asked, pictures):
    words = ("--prompt", "a dog", "--num-images", 2, "--control", pictures / "mask.png", "-o", "{n}.png", "--json")
    rows = ssr(*asked, *words).json["images"]
    assert [(row["prompt"], row["seed"]) for row in rows] == [("a cat", 5), ("a cat", 6), ("a dog", 5), ("a dog", 6)]
    assert ssr(*asked, "--control", pictures / "mask.png", "-o", "again.png").code == 0
    assert np.array_equal(pixels("again.png"), pixels("0001.png"))


def test_frames_write_what_python_generates(ssr, here, asked, encoder, pictures):
    result = ssr(*asked, "--frames", 3, "--num-images", 2, "--json")
    assert result.code == 0, result.err
    figures = result.json
    assert (figures["frames"], figures["fps"]) == (3, 8) and "images" not in figures
    assert [(row["file"], row["seed"]) for row in figures["clips"]] == [("ssr-0001.gif", 5), ("ssr-0002.gif", 6)]
    clips = encoder.generate(
        "a cat", subject(encoder, pictures), pipe=video_pipeline(encoder), num_inference_steps=1, seed=5, num_images=2,
        num_frames=3,
    )  # fmt: skip
    for i, frames in enumerate(clips, 1):
        assert (here / f"ssr-{i:04}.gif").read_bytes() == clip_bytes(frames, ".gif", 8)


def test_a_clip_has_fewer_steps_unless_told(ssr, here, asked):
    unsaid = [word for word in asked if word not in ("--steps", 1)]
    assert ssr(*unsaid, "--frames", 2, "-o", "cat.gif", "--json").json["steps"] == 20
    assert ssr(*unsaid, "-o", "cat.png", "--json").json["steps"] == 30
    assert ssr(*asked, "--frames", 2, "-o", "one.gif", "--json").json["steps"] == 1


@pytest.mark.parametrize("option", ["--shared-noise", "--smooth-noise"])
def test_a_clip_of_one_noise(ssr, here, asked, encoder, pictures, option):
    result = ssr(*asked, "--frames", 3, option, 1, "-o", "calm.gif")
    assert result.code == 0, result.err
    [frames] = encoder.generate(
        "a cat", subject(encoder, pictures), pipe=video_pipeline(encoder), num_inference_steps=1, seed=5, num_frames=3,
        **{option[2:].replace("-", "_"): 1.0},
    )  # fmt: skip
    assert (here / "calm.gif").read_bytes() == clip_bytes(frames, ".gif", 8)
    assert ssr(*asked, "--frames", 3, "-o", "usual.gif").code == 0
    assert (here / "usual.gif").read_bytes() != (here / "calm.gif").read_bytes()


def test_a_clip_of_one_motion(ssr, here, asked, encoder, pictures):
    result = ssr(*asked, "--frames", 3, "--shared-noise", 1, "--motion", "cross", "-o", "cross.gif")
    assert result.code == 0, result.err
    [frames] = encoder.generate(
        "a cat", subject(encoder, pictures), pipe=video_pipeline(encoder), num_inference_steps=1, seed=5, num_frames=3,
        shared_noise=1.0, trajectories="cross",
    )  # fmt: skip
    assert (here / "cross.gif").read_bytes() == clip_bytes(frames, ".gif", 8)
    assert ssr(*asked, "--frames", 3, "--shared-noise", 1, "--motion", "still", "-o", "still.gif").code == 0
    assert (here / "still.gif").read_bytes() != (here / "cross.gif").read_bytes()
    check_refused(ssr(*asked, "--frames", 3, "--motion", "walk", "-o", "no.gif"), "--shared-noise")
    assert not (here / "no.gif").exists()


def test_motions_are_those_of_trajectories(ssr):
    shown = ssr("generate", "--help").out
    assert "{" + ",".join((*MOTIONS, ANY_MOTION)) + "}" in shown


def test_frames_in_every_format(ssr, here, asked):
    pytest.importorskip("av")
    for name in ("cat.webp", "cat.mp4"):
        result = ssr(*asked, "--frames", 2, "--fps", 4, "-o", name)
        assert (result.code, result.out) == (0, f"{name}\n"), result.err
    with Image.open("cat.webp") as file:
        assert file.n_frames == 2
    assert b"avc1" in (here / "cat.mp4").read_bytes()


def test_control_and_frames(ssr, here, asked, encoder, pictures):
    result = ssr(*asked, "--frames", 3, "--control", pictures / "mask.png", "-o", "cat.gif")
    assert result.code == 0, result.err
    pipe = controlled_video_pipeline(encoder)
    [frames] = encoder.generate(
        "a cat", subject(encoder, pictures), pipe=pipe, num_inference_steps=1, seed=5, num_frames=3,
        conditioning_frames=[fit_map(pictures / "mask.png", pipe)] * 3, controlnet_conditioning_scale=1.0,
    )  # fmt: skip
    assert (here / "cat.gif").read_bytes() == clip_bytes(frames, ".gif", 8)


def test_a_bright_map_is_noted(ssr, here, asked):
    for name, colour in (("bright.png", 255), ("dark.png", 0)):
        Image.new("L", (32, 32), colour).save(here / name)
        result = ssr(*asked, "--control", name, "-o", f"from-{name}")
        assert result.code == 0 and ("white on black" in result.err) == (colour == 255)


# -- what is refused
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--control", "missing.png"], ["control map missing.png", "does not exist"]),
        (["--control", "text.png"], ["control map text.png", "not a picture"]),
        (["--control", ""], ["control map"]),
        (["--control", "MAP", "--control-scale", "3"], ["--control-scale", "0 to 2"]),
        (["--control", "MAP", "--control-scale", "nan"], ["--control-scale"]),
        (["--control", "MAP", "--controlnet", "./nowhere"], ["ControlNet './nowhere'", "--controlnet"]),
        (["--control", "MAP", "--controlnet", "text.png"], ["ControlNet 'text.png'", "--controlnet"]),
        (["--control", "MAP", "-o", "cat.gif"], ["cat.gif", "--frames 16"]),
        (["--controlnet", "./x"], ["--controlnet", "--control"]),
        (["--control-scale", "1"], ["--control-scale", "--control"]),
        (["--motion-adapter", "./x"], ["--motion-adapter", "--frames"]),
        (["--fps", "8"], ["--fps", "--frames"]),
        (["--shared-noise", "0.9"], ["--shared-noise", "--frames"]),
        (["--motion", "walk"], ["--motion", "--frames"]),
        (["--frames", "4", "--motion", "dance"], ["--motion", "walk"]),
        (["--frames", "4", "--shared-noise", "1.1"], ["--shared-noise", "0 to 1"]),
        (["--frames", "1"], ["--frames", "2 to 32"]),
        (["--frames", "33"], ["--frames", "2 to 32"]),
        (["--frames", "x"], ["--frames"]),
        (["--frames", "4", "--fps", "0"], ["--fps"]),
        (["--frames", "4", "--fps", "51"], ["--fps"]),
        (["--frames", "4", "--motion-adapter", "a/b/c"], ["motion adapter 'a/b/c'", "--motion-adapter"]),
        (["--frames", "4", "-o", "cat.png"], ["cat.png", ".gif or .webp or .mp4"]),
        (["-o", "cat.gif"], ["cat.gif", "--frames 16"]),
        (["-o", "cat.MP4"], ["cat.MP4", "--frames 16"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_words(ssr, here, pictures, words, names):
    (here / "text.png").write_text("this is not a picture")
    words = [str(pictures / "mask.png") if word == "MAP" else word for word in words]
    good = (pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--model", NOWHERE)
    check_refused(ssr("generate", *good, *words), *names)
    assert os.listdir(here) == ["text.png"]


def test_mp4_without_the_extra(ssr, here, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    good = (pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--model", NOWHERE)
    result = ssr("generate", *good, "--frames", 4, "-o", "cat.mp4")
    check_refused(result, 'pip install "ssr-encoder[video]"')
    assert os.listdir(here) == []


def test_a_base_without_companions_and_one_that_does_not_fit(ssr, here, asked, model, companions):
    words = [model if word == companions else word for word in asked]
    drawn = here / "map.png"
    Image.new("L", (32, 32)).save(drawn)
    for more, name in ((["--control", drawn], "--controlnet"), (["--frames", 2], "--motion-adapter")):
        result = ssr(*words, *more)
        check_refused(result, "of its own", name)
    wrong = (["--control", drawn, "--controlnet"], ["--frames", 2, "--motion-adapter"])
    for more, given in zip(wrong, ("motion_adapter", "controlnet"), strict=True):
        check_refused(ssr(*words, *more, f"{companions}/{given}"), given, "it is a", "check --")
    assert os.listdir(here) == ["map.png"]
