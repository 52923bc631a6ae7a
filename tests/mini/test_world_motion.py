"""Clips of the world: who moves how, and that everything else stays."""

import dataclasses

import pytest
import torch

from ssr_encoder.mini.world import World, boxes, sample_scenes
from ssr_encoder.mini.world.motion import MOTIONS, animate, sample_clips, subject_boxes

pytestmark = pytest.mark.usefixtures("one_thread")
N, FRAMES = 24, 16


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


def scenes(world, subjects=(0.5, 0.5, 0.0), seed=0):
    return sample_scenes(world, N, torch.Generator().manual_seed(seed), subjects=subjects)


def moving(world, name: str, seed=0):
    """Still scenes, and clips of them in which all do one thing, each field (n, frames, ...)."""
    still = scenes(world, seed=seed)
    kind = torch.full((N, 3), MOTIONS.index(name))
    clips = animate(world, still, FRAMES, torch.Generator().manual_seed(seed), kind, pan=0.0)
    return still, {f.name: getattr(clips, f.name).unflatten(0, (N, FRAMES)) for f in dataclasses.fields(clips)}


def middles(world, still, clip):
    """Where the middle of each first slot's drawing is, (n, frames, 2)."""
    extent = world.extent[world.index[still.concept, still.style, still.colour]][:, 0]
    x = (extent[:, 0] + extent[:, 2]) / 2 * torch.where(still.flip[:, 0], -1.0, 1.0)
    offset = torch.stack([x, (extent[:, 1] + extent[:, 3]) / 2], -1)[:, None] * clip["size"][:, :, 0, None]
    cos, sin = clip["angle"][:, :, 0].cos(), clip["angle"][:, :, 0].sin()
    turned = torch.stack([cos * offset[..., 0] - sin * offset[..., 1], sin * offset[..., 0] + cos * offset[..., 1]], -1)
    return clip["centre"][:, :, 0] + turned


@pytest.mark.parametrize("name", MOTIONS)
def test_every_motion_is_visible_and_smooth(world, name):
    still, clip = moving(world, name)
    at = middles(world, still, clip)
    wander = (at.amax(1) - at.amin(1)).norm(dim=-1)
    assert wander.median() > 0.08
    assert wander.quantile(0.1) > 0.03
    assert (at[:, 1:] - at[:, :-1]).norm(dim=-1).max() < 0.15


@pytest.mark.parametrize("name", MOTIONS)
def test_subjects_stay_mostly_inside(world, name):
    still, clip = moving(world, name)
    at = middles(world, still, clip)
    assert at.min() > 0.02 and at.max() < 0.98


def test_what_only_turns_keeps_its_feet(world):
    still, clip = moving(world, "turn")
    bottom = world.extent[world.index[still.concept, still.style, still.colour]][:, 0, 3]
    down = bottom[:, None] * clip["size"][:, :, 0]
    foot = clip["centre"][:, :, 0] + torch.stack(
        [-clip["angle"][:, :, 0].sin() * down, clip["angle"][:, :, 0].cos() * down], -1
    )
    rocks = clip["angle"][:, :, 0].amax(1) - clip["angle"][:, :, 0].amin(1)
    assert rocks.min() > 0.3
    whole = foot.amax(1) - foot.amin(1)
    assert whole.quantile(0.7, dim=0).max() < 1e-3, "all but those that the border holds back"


def test_two_that_cross_go_opposite_ways(world):
    still, clip = moving(world, "cross")
    two = still.concept[:, 1] >= 0
    went = (clip["centre"][:, -1] - clip["centre"][:, 0])[two][..., 0]
    assert two.sum() > 5
    assert (went[:, 0] * went[:, 1] < 0).all()
    assert went[:, 0].abs().median() > 0.35


def test_a_clip_is_one_scene(world):
    clips = sample_clips(world, N, 5, torch.Generator().manual_seed(1))
    assert len(clips) == N * 5
    for field in dataclasses.fields(clips):
        value = getattr(clips, field.name).unflatten(0, (N, 5))
        if field.name not in ("centre", "size", "angle", "crop"):
            assert (value == value[:, :1]).all(), field.name
    again = sample_clips(world, N, 5, torch.Generator().manual_seed(1))
    assert torch.equal(clips.centre, again.centre)
    assert 0.2 < (clips.concept[:, 1] >= 0).float().mean() < 0.6
    assert not world.holdout[clips.concept[:, 0], clips.style[:, 0], clips.colour[:, 0]].any()


def test_the_backdrop_stands_still_or_passes_by_a_pixel_a_frame(world):
    empty = scenes(world)[:4]
    empty.concept[:] = -1
    still, panned = (
        world.render(animate(world, empty, FRAMES, torch.Generator().manual_seed(2), pan=share))[0].unflatten(
            0, (4, -1)
        )
        for share in (0.0, 1.0)
    )
    assert torch.equal(still, still[:, :1].expand_as(still))
    for clip in panned:
        left, right = clip[..., :-1], clip[..., 1:]
        assert torch.allclose(left[1:], right[:-1]) or torch.allclose(left[:-1], right[1:])


def test_a_clip_too_long_to_pan_stands_still(world):
    empty = scenes(world)[:2]
    long = animate(world, empty, 40, torch.Generator().manual_seed(2), pan=1.0)
    assert torch.equal(long.crop.unflatten(0, (2, 40))[:, 0], empty.crop)


def test_boxes_are_around_the_drawings(world):
    still = dataclasses.replace(scenes(world, subjects=(1.0, 0.0, 0.0)), angle=torch.zeros(N, 3))
    found = subject_boxes(world, still)
    assert (found[still.concept < 0] == 0).all()
    _, masks = world.render(still, 128)
    drawn = boxes(masks, threshold=0.05)[:, 0]
    torch.testing.assert_close(drawn, found[:, 0].clamp(0, 1), atol=0.03, rtol=0)
