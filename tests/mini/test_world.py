"""The world: its lists, its drawing, its masks."""

import pytest
import torch

from ssr_encoder.mini.world import Scenes, World, boxes, random_identities, sample_scenes


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lists(world):
    assert len(world.concepts) == len(set(world.concepts)) >= 100
    assert {"cat", "dog", "fox", "woman", "man", "girl", "boy", "bus", "guitar"} <= set(world.concepts)
    assert len(world.styles) == 5 and len(world.places) == 17 and world.places[-1] == "plain"
    assert world.colours[0] == "as drawn"
    assert all(name.isalpha() for name in world.concepts + world.places)
    assert world.available.flatten(1).sum(1).min() >= 8
    assert world.available[..., 0].any(1).all()


def test_people_change_skin_and_things_are_tinted(world):
    woman, cat = world.concepts.index("woman"), world.concepts.index("cat")
    noto = world.styles.index("noto")
    assert world.colour_name(woman, 1) == "light" and world.colour_name(cat, 1) == "red"
    ids = torch.tensor([cat, cat, woman, woman]), torch.full((4,), noto), torch.tensor([0, 1, 1, 5])
    drawn, red, light, dark = world.portraits(*ids)
    assert torch.equal(drawn[3], red[3]), "a tint keeps the outline"
    assert red[0].mean() > 1.5 * red[2].mean(), "red is red"
    assert light[:3].mean() > dark[:3].mean() + 0.02


def test_masks_and_boxes(world):
    scenes = sample_scenes(world, 96, generator(), split="any")
    images, masks = world.render(scenes, 96)
    assert images.shape == masks.shape == (96, 3, 96, 96) and images.dtype == torch.float32
    for values in (images, masks):
        assert values.min() >= 0 and values.max() <= 1
    assert masks.sum(1).max() <= 1 + 1e-5
    assert torch.equal(masks.flatten(2).any(-1), scenes.concept >= 0)
    found = boxes(masks)
    edges = (torch.arange(96) + 0.5) / 96
    inside_x = (edges > found[..., :1]) & (edges < found[..., 2:3])
    inside_y = (edges > found[..., 1:2]) & (edges < found[..., 3:])
    filled = masks >= 0.5
    assert not (filled & ~(inside_x[..., None, :] & inside_y[..., :, None])).any(), "nothing outside its box"
    assert torch.equal(filled.any(-2) & ~inside_x, torch.zeros_like(inside_x))
    first_column = (found[..., 0] * 96).round().long()
    shown = filled.flatten(2).any(-1)
    assert filled.any(-2).gather(-1, first_column[..., None])[..., 0][shown].all(), "boxes are tight"
    assert (boxes(torch.zeros(2, 3, 8, 8)) == 0).all()


def test_favoured_concepts_are_drawn_more_often():
    """Alone in a scene in proportion to their weights, beside others more often too; never twice for that."""
    few = World.load()
    few.restrict(["cat", "bus", "fox", "apple"], few.styles)
    alone = sample_scenes(few, 3000, generator(), favour={"cat": 3.0}, subjects=(1.0, 0.0, 0.0)).concept[:, 0]
    assert (alone == few.concepts.index("cat")).float().mean() == pytest.approx(3 / 6, abs=0.03)
    two = sample_scenes(few, 3000, generator(), favour={"cat": 3.0}, subjects=(0.0, 1.0, 0.0), distinct=1.0).concept
    with_cat = (two == few.concepts.index("cat")).any(1).float().mean()
    assert with_cat == pytest.approx(1 / 2 + 1 / 2 * 3 / 5, abs=0.03), "the first of two, or the second after another"
    assert (two[:, 0] != two[:, 1]).all()
    evenly = [sample_scenes(few, 50, generator(2), favour=f).concept for f in (None, {}, {"cat": 1.0})]
    assert torch.equal(evenly[0], evenly[1]) and torch.equal(evenly[0], evenly[2])
    with pytest.raises(ValueError, match="gryphon"):
        sample_scenes(few, 1, generator(), favour={"gryphon": 2.0})


def test_favoured_drawings_are_those_of_their_concept_more_often():
    few = World.load()
    few.restrict(["cat", "bus"], few.styles)
    noto = few.styles.index("noto")
    favour = {"cat/noto": 4.0}
    scenes = sample_scenes(few, 3000, generator(), favour=favour, subjects=(1.0, 0.0, 0.0))
    cat = scenes.concept[:, 0] == few.concepts.index("cat")
    assert cat.float().mean() == pytest.approx(0.5, abs=0.03), "the concept itself is as often there"
    shares = [(scenes.style[part, 0] == noto).float().mean() for part in (cat, ~cat)]
    drawings = len(few.styles)
    assert shares == pytest.approx([4 / (3 + drawings), 1 / drawings], abs=0.04)
    with pytest.raises(ValueError, match="cat/oil"):
        sample_scenes(few, 1, generator(), favour={"cat/oil": 2.0})


def test_a_drawing_faces_the_way_that_is_asked_for(world):
    """Of the first subject alone; nothing else is drawn differently but where things go."""
    facing = torch.arange(64) % 3 == 0
    asked, free = (sample_scenes(world, 64, generator(3), facing=f) for f in (facing, None))
    assert torch.equal(asked.flip[:, 0], facing) and torch.equal(asked.flip[:, 1:], free.flip[:, 1:])
    assert 0.25 < free.flip[:, 0].float().mean() < 0.75
    for name in ("concept", "style", "colour", "place", "hat"):
        assert torch.equal(getattr(asked, name), getattr(free, name))


def test_mask_is_what_changes_with_the_subject(world):
    scenes = sample_scenes(world, 32, generator(1), subjects=(0, 1, 0), hats=0, split="any")
    images, masks = world.render(scenes, 64)
    other = scenes[:]
    other.colour = torch.where((torch.arange(3) == 0) & ~world.person[scenes.concept], 2, scenes.colour)
    changed = (world.render(other, 64)[0] - images).abs().amax(1) > 1e-6
    assert changed.any()
    assert (masks[:, 0][changed] > 0).all(), "recolouring slot 0 changes pixels of its mask only"


def test_little_is_hidden(world):
    scenes = sample_scenes(world, 300, generator(2), hats=0)
    _, masks = world.render(scenes, 64)
    whole = torch.zeros_like(masks[:, :, 0, 0])
    for slot in range(3):
        alone = scenes[:]
        alone.concept = torch.where(torch.arange(3) == slot, scenes.concept, -1)
        whole[:, slot] = world.render(alone, 64)[1][:, slot].sum((1, 2))
    shown = masks.sum((2, 3)) / whole.clamp_min(1)
    present = scenes.concept >= 0
    assert (shown[present] > 0.6).float().mean() > 0.98
    assert whole[present].min() > 20


def test_the_same_seed_draws_the_same(world):
    a, b = (sample_scenes(world, 20, generator(3)) for _ in range(2))
    images, masks = world.render(a, 64)
    again = world.render(b, 64)
    assert torch.equal(images, again[0]) and torch.equal(masks, again[1])
    other = world.render(sample_scenes(world, 20, generator(4)), 64)[0]
    assert not torch.equal(images, other)


def test_a_batch_draws_like_its_parts(world):
    scenes = sample_scenes(world, 40, generator(5))
    images, masks = world.render(scenes, 64)
    for index in (0, 7, 39):
        image, mask = world.render(scenes[index], 64)
        torch.testing.assert_close(image[0], images[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(mask[0], masks[index], atol=1e-5, rtol=0)


def test_sizes_agree(world):
    scenes = sample_scenes(world, 24, generator(6))
    large, small = world.render(scenes, 128), world.render(scenes, 64)
    for big, little in zip(large, small, strict=True):
        assert (torch.nn.functional.avg_pool2d(big, 2) - little).abs().mean() < 0.03


def test_hats_sit_on_top(world):
    scenes = sample_scenes(world, 200, generator(7), subjects=(1, 0, 0), hats=1)
    hatted = scenes[scenes.hat[:, 0]]
    assert len(hatted) > 20
    bare = hatted[:]
    bare.hat = torch.zeros_like(hatted.hat)
    images, masks = world.render(hatted, 64)
    without, whole = world.render(bare, 64)
    changed = (images - without).abs().amax(1) > 0.02
    rows = torch.arange(64.0)[:, None]
    above = (changed * rows).sum((1, 2)) / changed.sum((1, 2)) < (whole[:, 0] * rows).sum((1, 2)) / whole[:, 0].sum(
        (1, 2)
    )
    assert above.all()
    assert (masks[:, 0] <= whole[:, 0] + 1e-6).all(), "a hat hides its wearer and is no part of it"


def test_scenes_are_values(world):
    scenes = sample_scenes(world, 10, generator(8))
    assert len(scenes[3]) == 1 and len(scenes[-1]) == 1 and len(scenes[2:5]) == 3
    assert len(scenes[torch.tensor([1, 1])]) == 2
    both = Scenes.cat([scenes[:4], scenes[4:]])
    assert torch.equal(both.concept, scenes.concept) and torch.equal(both.crop, scenes.crop)
    assert scenes.to("cpu").place.equal(scenes.place)


def test_slots_have_no_order(world):
    scenes = sample_scenes(world, 6000, generator(9), subjects=(0, 1, 0))
    assert abs((scenes.depth[:, 0] > scenes.depth[:, 1]).float().mean() - 0.5) < 0.03
    assert (scenes.centre[:, 0] - scenes.centre[:, 1]).mean(0).abs().max() < 0.02


def test_identities_by_split(world):
    for split, expected in (("train", False), ("holdout", True)):
        ids = random_identities(world, 500, generator(10), split)
        assert world.available[ids].all()
        assert (world.holdout[ids] == expected).all()
    with pytest.raises(ValueError, match="split"):
        random_identities(world, 1, generator(), "test")


def test_restricting_leaves_the_numbers_and_keeps_the_split(tmp_path):
    full, small = World.load(), World.load().restrict(["cat", "fox", "bus"], ["noto", "twemoji"])
    assert small.concepts == full.concepts and small.available.shape == full.available.shape
    scenes = sample_scenes(small, 200, torch.Generator().manual_seed(0), split="train")
    shown = scenes.concept >= 0
    names = {small.concepts[c] for c in scenes.concept[shown].tolist()}
    assert names == {"cat", "fox", "bus"}
    assert {small.styles[s] for s in scenes.style[shown].tolist()} == {"noto", "twemoji"}
    assert not full.holdout[scenes.concept[shown], scenes.style[shown], scenes.colour[shown]].any()
    with pytest.raises(ValueError, match="zebu"):
        World.load().restrict(["zebu"], ["noto"])
