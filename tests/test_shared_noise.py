"""Noise that frames share: its statistics, and that clips are made from it."""

import functools

import numpy as np
import pytest
import torch
from calls import make_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_encoder import SSREncoder, SSRError
from ssr_encoder.companions import video_pipeline
from ssr_encoder.shared_noise import NOISE_KEY, SMOOTH_KEY, carry_noise, clip_noise, mix_noise


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_unit_variance_and_the_share_between_frames(share, seed):
    noise = mix_noise((3, 4, 4, 64, 64), share, torch.Generator().manual_seed(seed))
    assert noise.shape == (3, 4, 4, 64, 64)
    correlation = torch.corrcoef(noise.flatten(2).reshape(12, -1))
    expected = torch.block_diag(*[torch.full((4, 4), share)] * 3).fill_diagonal_(1)
    assert (correlation - expected).abs().max() < 0.05, "clips share nothing"
    assert (noise.flatten(2).var(2) - 1).abs().max() < 0.08 and noise.mean(dim=(2, 3, 4)).abs().max() < 0.05


@settings(max_examples=10, deadline=None)
@given(share=st.floats(0, 1), smooth=st.floats(0, 1), seed=st.integers(0, 1000))
def test_what_is_not_in_common_follows_the_frame_before(share, smooth, seed):
    noise = mix_noise((2, 5, 4, 64, 64), share, torch.Generator().manual_seed(seed), smooth=smooth)
    apart = (torch.arange(5)[:, None] - torch.arange(5)).abs()
    expected = torch.block_diag(*[share + (1 - share) * smooth**apart] * 2)
    assert (torch.corrcoef(noise.flatten(2).reshape(10, -1)) - expected).abs().max() < 0.05
    assert (noise.flatten(2).var(2) - 1).abs().max() < 0.08


def test_a_share_for_each_clip():
    share = torch.tensor([0.0, 1.0])[:, None, None, None, None]
    none, all_of_it = mix_noise((2, 3, 4, 64, 64), share, torch.Generator().manual_seed(0))
    assert torch.equal(all_of_it[0], all_of_it[2]) and abs(float((none[0] * none[2]).mean())) < 0.05


BOXES = torch.tensor(  # two subjects in four frames on 16 x 24 latents: one goes right and down, one stays
    [[[k / 12, k / 16, (6 + k) / 24, (6 + k) / 16], [0.75, 0.5, 1.0, 1.0]] for k in range(4)]
)[None]


def test_a_box_takes_its_noise_along_and_the_rest_stands_still():
    still, carried = torch.randn(1, 4, 16, 24), torch.randn(1, 2, 4, 16, 24)
    noise = carry_noise(still, carried, BOXES)
    assert noise.shape == (1, 4, 4, 16, 24)
    for frame in range(4):
        for y in range(16):
            for x in range(24):
                found = noise[0, frame, :, y, x]
                # The largest box is 6 x 6 latents around a middle that goes 1.5 to the right and 1 down a frame.
                right, down = round(1.5 * frame), frame
                if x - right in range(6) and y - down in range(6):
                    expected = carried[0, 0, :, y - down, x - right]
                elif x >= 18 and y >= 8:
                    expected = carried[0, 1, :, y, x]
                else:
                    expected = still[0, :, y, x]
                assert torch.equal(found, expected), (frame, x, y)


def test_a_frame_of_carried_noise_is_plain_noise():
    boxes = torch.tensor([[k / 32, 0.2, k / 32 + 0.5, 0.8] for k in range(8)])[None, :, None]
    noise = mix_noise((1, 8, 4, 64, 64), 1.0, torch.Generator().manual_seed(0), boxes=boxes)[0]
    for frame in noise:
        assert abs(float(frame.var()) - 1) < 0.05 and abs(float(frame.mean())) < 0.05
        for neighbour in (frame.roll(1, -1), frame.roll(1, -2), frame.roll(1, 0)):
            assert abs(float((frame * neighbour).mean())) < 0.05
    alike = [float((noise[0] * frame).mean()) for frame in noise[1:]]
    untouched = [1 - 0.6 * (0.5 + k / 32) for k in range(1, 8)]  # by the box in the first frame and in this one
    assert alike == pytest.approx(untouched, abs=0.05)


def test_a_box_of_no_size_is_not_there():
    still, carried = torch.randn(2, 4, 16, 24), torch.randn(2, 2, 4, 16, 24)
    noise = carry_noise(still, carried, torch.zeros(2, 3, 2, 4))
    assert torch.equal(noise, still[:, None].expand(-1, 3, -1, -1, -1))


@pytest.fixture(scope="module")
def ssr(folder) -> SSREncoder:
    return SSREncoder.from_pretrained(folder, device="cpu")


made = functools.partial(make_clip, num_frames=3)


def apart(frames: np.ndarray) -> float:
    return float(np.abs(frames[1:] - frames[:-1]).max())


def test_frames_with_all_noise_in_common_are_one_picture(ssr, still_adapter):
    pipe = video_pipeline(ssr, still_adapter)
    own, half, all_of_it = (made(ssr, pipe, shared_noise=share) for share in (0, 0.5, 1))
    assert apart(all_of_it) < 1e-4 < apart(half) < apart(own)
    assert np.array_equal(own, made(ssr, pipe)), "a stock adapter knows nothing of it"
    assert np.array_equal(half, made(ssr, pipe, shared_noise=0.5)), "as repeatable as anything with a seed"


def test_a_frame_is_as_far_from_another_as_in_time(ssr, still_adapter):
    frames = made(ssr, video_pipeline(ssr, still_adapter), smooth_noise=0.9)
    first, second, third = frames
    assert 1e-4 < np.abs(second - first).mean() < np.abs(third - first).mean()


@pytest.mark.parametrize(("key", "argument"), [(NOISE_KEY, "shared_noise"), (SMOOTH_KEY, "smooth_noise")])
def test_an_adapter_asks_for_its_noise(ssr, still_adapter, tmp_path, key, argument):
    still_adapter.register_to_config(**{NOISE_KEY: 0.0, SMOOTH_KEY: 0.0} | {key: 1.0})
    still_adapter.save_pretrained(tmp_path)
    pipe = video_pipeline(ssr, tmp_path)
    assert apart(made(ssr, pipe)) < 1e-4 < apart(made(ssr, pipe, **{argument: 0}))
    given = clip_noise(pipe, 0.0, 3, (64, 64), torch.Generator().manual_seed(0))
    assert apart(made(ssr, pipe, latents=given)) > 1e-4, "given noise is taken as it is"


@pytest.mark.parametrize("argument", ["shared_noise", "smooth_noise"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_noise_out_of_range(ssr, still_adapter, argument, value):
    with pytest.raises(SSRError, match=f"{argument} is .*; give a number from 0 to 1"):
        made(ssr, video_pipeline(ssr, still_adapter), **{argument: value})


@pytest.mark.parametrize("argument", ["shared_noise", "smooth_noise"])
def test_pictures_share_no_noise(ssr, still_adapter, argument):
    with pytest.raises(SSRError, match=f"{argument} is for clips"):
        ssr.generate("a cat", **{argument: 0.5}, num_inference_steps=2)
    with pytest.raises(SSRError, match="leave it out with"):
        pipe = video_pipeline(ssr, still_adapter)
        made(ssr, pipe, **{argument: 0.5}, latents=clip_noise(pipe, 0.0, 3, (64, 64), torch.Generator()))
