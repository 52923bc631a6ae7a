"""Nameless colours, which only training sees."""

import random

import pytest
import torch

from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.world import World, captions, load_world, query_texts, sample_scenes
from ssr_encoder.mini.world.tint import APART, COLOURS, DUOTONES, TONES, TURNS, tint


@pytest.fixture(scope="module")
def world() -> World:
    return load_world("cpu", weights_dir())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted(colour: int, rgb=(0.9, 0.4, 0.1), alpha=1.0) -> torch.Tensor:
    """One pixel of a drawing, in a colour or tone: premultiplied RGBA."""
    texture = torch.tensor([*(c * alpha for c in rgb), alpha]).view(1, 4, 1, 1)
    return tint(texture, torch.tensor([colour]), torch.tensor([[0.0, 1.0]]))[0, :, 0, 0]


def luminance(rgb) -> float:
    return float(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])


def test_tones_are_many_and_distinct():
    first = len(COLOURS)
    looks = torch.stack([painted(k) for k in range(first, first + TONES)])
    assert len(looks) == DUOTONES + TURNS
    assert torch.cdist(looks, looks).fill_diagonal_(1).amin(1).median() > 0.02


def test_a_turned_drawing_keeps_its_luminance_and_outline():
    drawn = (0.55, 0.45, 0.4)  # mild enough for every hue to be within [0, 1]
    for tone in range(len(COLOURS) + DUOTONES, len(COLOURS) + TONES):
        for alpha in (1.0, 0.5):
            pixel = painted(tone, drawn, alpha)
            assert pixel[3] == alpha
            assert luminance(pixel) == pytest.approx(alpha * luminance(drawn), abs=1e-4)
            assert (pixel[:3] / alpha - torch.tensor(drawn)).abs().max() > 0.01, "and looks otherwise"


def test_no_tone_shows_a_held_out_colour(world):
    """Of each concept: drawn beside its held-out colours, in the middle of the duotone, every tone differs."""
    first = len(COLOURS)
    grey = (0.5, 0.5, 0.5)
    tones = torch.stack([painted(k, grey) for k in range(first, first + TONES)])[:, :3]
    named = torch.stack([painted(k, grey) for k in range(first)])[:, :3]
    barred = world.holdout.any(1)
    assert barred.sum() > 20
    for concept, colour in barred.nonzero().tolist():
        if colour == 0:
            assert not world.tones[concept, DUOTONES:].any(), "a drawing in greys looks the same at every turn"
            continue
        distance = (tones[:DUOTONES] - named[colour]).norm(dim=1)
        assert (distance[world.tones[concept, :DUOTONES]] >= APART - 1e-3).all()
    shown = [world.concepts.index(name) for name in ("cat", "bus", "apple")]
    assert (world.tones[shown].sum(1) > 100).all()
    assert not world.tones[world.person].any()


def test_scenes_in_tones_show_no_colour_that_tells_the_drawing(world):
    scenes = sample_scenes(world, 400, generator(), tones=0.5)
    here = scenes.concept >= 0
    concept, colour = scenes.concept[here], scenes.colour[here]
    toned = colour >= len(COLOURS)
    assert 0.5 < toned.float().mean() < 0.85
    assert world.tones[concept[toned], colour[toned] - len(COLOURS)].all()
    named = ~toned & (colour > 0)
    assert not world.holdout.any(1)[concept[named], colour[named]].any()
    plain = sample_scenes(world, 400, generator())
    assert (plain.colour < len(COLOURS)).all(), "nobody else gets tones"


def test_tones_are_not_named(world):
    scenes = sample_scenes(world, 200, generator(1), tones=1.0)
    here = scenes.concept[:, 0] >= 0
    words = " ".join(captions(world, scenes, random.Random(0), drop_attributes=0.0)).replace(",", " ").split()
    words += " ".join(query_texts(world, scenes.concept[here, 0], scenes.colour[here, 0], random.Random(0))).split()
    toned = scenes.colour[scenes.concept >= 0] >= len(COLOURS)
    assert toned.float().mean() > 0.9
    assert sum(word in COLOURS for word in words) <= 2 * int((~toned).sum())
