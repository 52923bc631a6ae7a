"""Trajectories: where they lead, and that clips are made along them."""

import functools

import numpy as np
import pytest
import torch
from calls import make_clip
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssr_encoder import SSREncoder, SSRError, random_trajectories, trajectory
from ssr_encoder.companions import controlled_video_pipeline, video_pipeline
from ssr_encoder.shared_noise import CARRY_KEY, NOISE_KEY, clip_noise
from ssr_encoder.trajectories import ANY_MOTION, MOTIONS, check_trajectories


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(motion=st.sampled_from(MOTIONS), frames=st.integers(2, 32), seed=st.integers(0, 1000), many=st.integers(1, 3))
@example(motion="cross", frames=2, seed=132, many=1)  # a large box that would go farther than the picture is wide
def test_a_box_keeps_its_size_and_stays_in_the_picture(motion, frames, seed, many):
    boxes = trajectory(motion, frames, generator(seed), many)
    assert boxes.shape == (frames, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(sides, sides[:1, :1].expand(frames, 2))
    assert 0.25 < float(sides[0, 0]) < 0.55
    assert boxes.min() >= -0.021 and boxes.max() <= 1.021


@pytest.mark.parametrize("seed", range(8))
def test_what_the_motions_are(seed):
    ways = {motion: trajectory(motion, 16, generator(seed))[:, :2] for motion in MOTIONS}
    span = {motion: (way.amax(0) - way.amin(0)).tolist() for motion, way in ways.items()}
    assert 0.24 < span["walk"][0] < 0.41 < span["cross"][0] + 0.02 < 0.58
    for motion in ("walk", "cross"):
        steps = ways[motion][1:, 0] - ways[motion][:-1, 0]
        assert (steps > 0).all() or (steps < 0).all(), "one way, evenly"
        torch.testing.assert_close(steps, steps[:1].expand(15), atol=1e-4, rtol=0)
    assert span["bounce"][0] < 1e-6 and 0.1 < span["bounce"][1] < 0.29
    assert span["still"] == [0, 0]


def test_subjects_have_ways_of_their_own():
    ways = random_trajectories(3, 8, generator())
    assert ways.shape == (3, 8, 4) and not torch.allclose(ways[0], ways[1])
    assert torch.equal(ways, random_trajectories(3, 8, generator()))
    assert all((way == way[:1]).all() for way in random_trajectories(2, 8, generator(), "still"))
    moving = [random_trajectories(1, 8, generator(seed))[0] for seed in range(20)]
    assert all((way[0] != way[-1]).any() or (way[0] != way[4]).any() for way in moving), "nobody stands still unasked"


def test_there_is_no_such_motion():
    with pytest.raises(SSRError, match="no motion 'dance'; give one of walk, cross, bounce, still, any"):
        random_trajectories(1, 8, generator(), "dance")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(8, 4), r"shape \(8, 4\); give \(subjects, 8, 4\)"),
        (torch.rand(1, 7, 4), r"give \(subjects, 8, 4\)"),
        (torch.zeros(1, 8, 4), "no inside"),
        (torch.full((1, 8, 4), float("nan")), "no inside"),
        (3, "one such tensor for each subject"),
        ([], "one such tensor for each subject"),
    ],
)
def test_bad_trajectories(given, message):
    with pytest.raises(SSRError, match=message):
        check_trajectories(given, 8)


@pytest.fixture(scope="module")
def ssr(folder) -> SSREncoder:
    return SSREncoder.from_pretrained(folder, device="cpu")


made = functools.partial(make_clip, num_frames=4)


def test_clips_are_made_along_trajectories(ssr, still_adapter):
    pipe = video_pipeline(ssr, still_adapter)
    still, moved = (made(ssr, pipe, shared_noise=1, trajectories=motion) for motion in ("still", "cross"))
    assert np.abs(still[1:] - still[:-1]).max() < 1e-4, "all noise in common, and none of it moves"
    assert np.abs(moved[-1] - moved[0]).max() > 1e-3
    assert np.array_equal(moved, made(ssr, pipe, shared_noise=1, trajectories="cross")), "the seed decides"
    boxes = random_trajectories(1, 4, generator(3), "cross")
    assert np.array_equal(moved, made(ssr, pipe, shared_noise=1, trajectories=boxes))
    latents = clip_noise(pipe, 1, 4, (64, 64), generator(3), trajectories=boxes)
    assert np.array_equal(moved, made(ssr, pipe, latents=latents))


def test_a_generator_decides_as_a_seed_does(ssr, still_adapter):
    pipe = video_pipeline(ssr, still_adapter)
    more = {"shared_noise": 1, "trajectories": "any", "seed": None}
    one, again, other = (made(ssr, pipe, generator=generator(seed), **more) for seed in (7, 7, 8))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_an_adapter_that_was_trained_to_follow_gets_motions(ssr, still_adapter, tmp_path):
    still_adapter.register_to_config(**{NOISE_KEY: 1.0, CARRY_KEY: True})
    still_adapter.save_pretrained(tmp_path)
    pipe = video_pipeline(ssr, tmp_path)
    moved = made(ssr, pipe)
    assert np.array_equal(moved, made(ssr, pipe, trajectories=ANY_MOTION))
    assert (
        np.abs(moved[1:] - moved[:-1]).max()
        > 1e-3
        > np.abs(np.diff(made(ssr, pipe, trajectories="still"), axis=0)).max()
    )


def test_where_a_map_says_where_things_are_nothing_moves_unasked(ssr, still_adapter, controlnet):
    still_adapter.register_to_config(**{NOISE_KEY: 1.0, CARRY_KEY: True})
    pipe = controlled_video_pipeline(ssr, still_adapter, controlnet)
    maps = {"conditioning_frames": [Image.new("RGB", (64, 64), "white")] * 4}
    still, moved = (made(ssr, pipe, **maps, **more) for more in ({}, {"trajectories": "cross"}))
    assert np.abs(still[1:] - still[:-1]).max() < 1e-3 < np.abs(moved[1:] - moved[:-1]).max()


def test_trajectories_need_noise_in_common(ssr, still_adapter):
    pipe = video_pipeline(ssr, still_adapter)
    with pytest.raises(SSRError, match="noise that frames have in common, here none"):
        made(ssr, pipe, trajectories="walk")
    with pytest.raises(SSRError, match="trajectories is for clips"):
        ssr.generate("a cat", trajectories="walk", num_inference_steps=2)
