"""Splits: drawn as promised, and respected by every scene."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_encoder.mini.world import World, random_identities, sample_scenes
from ssr_encoder.mini.world.splits import draw_splits, load_splits

WORLD = World.load()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), hats=st.floats(0, 1), distinct=st.floats(0, 1))
def test_training_never_sees_what_is_held_out(seed, hats, distinct):
    generator = torch.Generator().manual_seed(seed)
    scenes = sample_scenes(WORLD, 200, generator, "train", hats=hats, distinct=distinct)
    used = scenes.concept >= 0
    ids = tuple(getattr(scenes, k)[used] for k in ("concept", "style", "colour"))
    assert WORLD.available[ids].all()
    assert not WORLD.holdout[ids].any()
    places = scenes.place[:, None].expand_as(used)[used]
    assert not WORLD.holdout_place[ids[0], places].any()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_holdout_shows_held_out_identities_only(seed):
    scenes = sample_scenes(WORLD, 200, torch.Generator().manual_seed(seed), "holdout")
    used = scenes.concept >= 0
    assert WORLD.holdout[scenes.concept[used], scenes.style[used], scenes.colour[used]].all()


def test_tiers():
    available, holdout, drawings = WORLD.available, WORLD.holdout, WORLD.new_drawing
    assert not (holdout & ~available).any()
    assert drawings.sum() == 24
    trained = available & ~holdout
    assert not trained[drawings].any()
    recoloured = holdout & ~drawings[..., None]
    share = recoloured.sum() / available.sum()
    assert 0.08 <= share <= 0.12
    concept, style, colour = recoloured.nonzero(as_tuple=True)
    assert (trained[concept, style].sum(-1) >= 2).all(), "the drawing is trained in other colours"
    assert trained.any(1)[concept, colour].all(), "the colour is trained on another drawing"
    assert trained.flatten(1).any(1).all(), "every concept is trained"
    pairs = WORLD.holdout_place
    assert not pairs[:, -1].any() and 0.04 <= pairs[:, :-1].float().mean() <= 0.06


def test_splits_are_reproducible_and_versioned():
    a, b, other = draw_splits(WORLD, 0), draw_splits(WORLD, 0), draw_splits(WORLD, 1)
    assert a == b != other
    masks = load_splits(WORLD, a)
    assert torch.equal(masks[0], WORLD.holdout) and torch.equal(masks[2], WORLD.holdout_place)
    with pytest.raises(ValueError, match="version"):
        load_splits(WORLD, a | {"version": 99})


def test_first_and_second_are_honoured():
    generator = torch.Generator().manual_seed(0)
    first = random_identities(WORLD, 150, generator, "any")
    second = random_identities(WORLD, 150, generator, "any")
    scenes = sample_scenes(WORLD, 150, generator, "train", first=first, second=second)
    for slot, identity in enumerate((first, second)):
        for name, value in zip(("concept", "style", "colour"), identity, strict=True):
            assert torch.equal(getattr(scenes, name)[:, slot], value)
    third = scenes.concept[:, 2]
    assert not WORLD.holdout[third, scenes.style[:, 2], scenes.colour[:, 2]][third >= 0].any()
    alone = sample_scenes(WORLD, 150, generator, "train", subjects=(1, 0, 0), first=first)
    assert torch.equal(alone.concept[:, 0], first[0]) and (alone.concept[:, 1:] < 0).all()
    with pytest.raises(ValueError, match="first"):
        sample_scenes(WORLD, 150, generator, second=second)


def test_counts_and_twins_follow_their_probabilities():
    generator = torch.Generator().manual_seed(1)
    scenes = sample_scenes(WORLD, 4000, generator, subjects=(0.5, 0.3, 0.2), distinct=0.5, plain=0.3)
    counts = (scenes.concept >= 0).sum(1)
    for k, share in enumerate((0.5, 0.3, 0.2)):
        assert abs((counts == k + 1).float().mean() - share) < 0.03
    assert abs((scenes.place == len(WORLD.places) - 1).float().mean() - 0.3) < 0.03
    pairs = scenes[counts == 2]
    twins = pairs.concept[:, 0] == pairs.concept[:, 1]
    assert abs(twins.float().mean() - 0.5) < 0.05
    same = (pairs.style[:, 0] == pairs.style[:, 1]) & (pairs.colour[:, 0] == pairs.colour[:, 1])
    assert not (twins & same).any(), "two of one class have two identities"
    none = sample_scenes(WORLD, 1000, generator, subjects=(0, 0, 1), distinct=1).concept.sort(1).values
    assert (none[:, 1:] != none[:, :-1]).all()
