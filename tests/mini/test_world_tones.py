"""Nameless colours, which only training sees."""

import random

import pytest
import torch

from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.world import World, captions, load_world, query_texts, sample_scenes
from ssr_encoder.mini.world.tint import APART, BLENDS, COLOURS, DUOTONES, ENDS_APART, TONES, TURNS, tint, turned_tones


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
    assert len(looks) == DUOTONES + TURNS + BLENDS
    assert torch.cdist(looks, looks).fill_diagonal_(1).amin(1).median() > 0.02


def test_a_turned_drawing_keeps_its_luminance_and_outline():
    drawn = (0.55, 0.45, 0.4)  # mild enough for every hue to be within [0, 1]
    for tone in range(len(COLOURS) + DUOTONES, len(COLOURS) + DUOTONES + TURNS):
        for alpha in (1.0, 0.5):
            pixel = painted(tone, drawn, alpha)
            assert pixel[3] == alpha
            assert luminance(pixel) == pytest.approx(alpha * luminance(drawn), abs=1e-4)
            assert (pixel[:3] / alpha - torch.tensor(drawn)).abs().max() > 0.01, "and looks otherwise"


def test_no_tone_shows_a_held_out_colour(world):
    """Of each concept: drawn beside its held-out colours, in the middle of the duotone, every tone differs; a blend
    does where its two ends meet."""
    first = len(COLOURS)
    grey = (0.5, 0.5, 0.5)
    tones = torch.stack([painted(k, grey) for k in range(first, first + TONES)])[:, :3]
    named = torch.stack([painted(k, grey) for k in range(first)])[:, :3]
    turned = torch.zeros(TONES, dtype=torch.bool)
    turned[DUOTONES : DUOTONES + TURNS] = True
    barred = world.holdout.any(1)
    barred[:, 0] = False
    assert barred.sum() > 20
    for concept, colour in barred.nonzero().tolist():
        distance = (tones - named[colour]).norm(dim=1)
        assert (distance[world.tones[concept] & ~turned] >= APART - 1e-3).all()
    shown = [world.concepts.index(name) for name in ("cat", "bus", "apple")]
    assert (world.tones[shown].sum(1) > 100).all()
    assert not world.tones[world.person].any()


def turned_drawings(world: World, concept: int, style: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean RGB of a drawing as drawn (3,) and at every turn of its hue (TURNS, 3), as they are painted."""
    colour = torch.tensor([0, *range(len(COLOURS) + DUOTONES, len(COLOURS) + DUOTONES + TURNS)])
    pictures = world.portraits(torch.full_like(colour, concept), torch.full_like(colour, style), colour)
    means = pictures[:, :3].sum((2, 3)) / pictures[:, 3:].sum((2, 3))
    return means[0], means[1:]


def test_no_turned_drawing_looks_like_a_held_out_one(world):
    """Neither like itself where that is held out, as a panda does at every turn, nor like a held-out colour."""
    named = torch.stack([painted(k, (0.5, 0.5, 0.5)) for k in range(len(COLOURS))])[:, :3]
    some = torch.zeros(len(world.concepts), dtype=torch.bool)
    for concept in world.holdout.any(-1).any(-1).nonzero()[:, 0].tolist():
        free = world.tones[concept, DUOTONES : DUOTONES + TURNS]
        some[concept] = free.any()
        for style in world.available[concept].any(-1).nonzero()[:, 0].tolist():
            own, turned = turned_drawings(world, concept, style)
            for colour in world.holdout[concept].any(0).nonzero()[:, 0].tolist():
                distance = (turned - (named[colour] if colour else own)).norm(dim=1)
                # A tenth of leeway: where painting clips a colour, the mean is not quite what the turn makes of it.
                assert (distance[free] >= APART * 0.9).all(), (world.concepts[concept], world.colours[colour])
    names = {world.concepts[k] for k in some.nonzero()[:, 0].tolist()}
    assert "panda" not in names, "black and white at every turn, and held out as drawn"
    assert {"balloon", "fox", "cat"} <= names, "held out as drawn too, but the turned ones are of other colours"


def test_a_blend_passes_from_one_colour_to_a_plainly_other_one():
    """Painted on grey from the middle to the rim: the two sides differ as promised, every other tone is even."""
    size = 24
    grey = torch.tensor([0.5, 0.5, 0.5, 1.0]).view(1, 4, 1, 1).expand(1, 4, size, size)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    disc = (x**2 + y**2) < 1
    for tone in range(len(COLOURS), len(COLOURS) + TONES):
        looks = tint(grey, torch.tensor([tone]), torch.tensor([[0.0, 1.0]]))[0]
        assert torch.equal(looks[3], grey[0, 3]), "a tone keeps the outline"
        apart = torch.cdist(looks[:3, disc].T, looks[:3, disc].T)
        if tone < len(COLOURS) + DUOTONES + TURNS:
            assert apart.max() < 1e-3
            continue
        assert apart.max() >= ENDS_APART - 0.02
        end = looks[:3, disc][:, apart.max(1).values.argmax()]
        share = ((looks[:3, disc] - end[:, None]).norm(dim=0) < apart.max() / 2).float().mean()
        assert 0.4 < share < 0.6, "half of the drawing is nearer to either end"


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


def test_turned_hues_can_be_more_often(world):
    def share(turned: float) -> float:
        scenes = sample_scenes(world, 4000, generator(5), tones=1.0, turned=turned, favour={"bus": 1e6})
        nameless = scenes.colour[:, 0] - len(COLOURS)
        return float(turned_tones("cpu")[nameless[nameless >= 0]].float().mean())

    free = world.tones[world.concepts.index("bus")]
    turns = int((free & turned_tones("cpu")).sum())
    assert 0 < turns < TURNS + 1 and int(turned_tones("cpu").sum()) == TURNS
    others = int(free.sum()) - turns
    assert share(1.0) == pytest.approx(turns / (turns + others), abs=0.03)
    assert share(10.0) == pytest.approx(10 * turns / (10 * turns + others), abs=0.03)
