"""Held to what the model said at the start, but where something is to be learned."""

import pytest
import torch
from small import random_weights, small_recipe

from ssr_encoder.mini.recipes import RECIPES


@pytest.fixture(scope="module")
def first_stages(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def stage(first_stages, monkeypatch):
    monkeypatch.setattr(RECIPES["unet"], "learn", ("balloon",))
    return small_recipe("unet", first_stages, batch_size=8)


def with_concepts(stage, names: list[str]):
    """A batch whose targets show these concepts, two in each."""
    stage.__class__.planning = {"subjects": (0.0, 1.0, 0.0), "favour": dict.fromkeys(names, 1e6)}
    stage._plans = None
    return stage._batch()


def test_nothing_is_learned_where_the_concept_is_not(stage, monkeypatch):
    monkeypatch.setattr(stage.__class__, "planning", {})
    batch = with_concepts(stage, ["cat", "bus"])
    with torch.no_grad():
        said = stage._denoise(**batch["model"])[0]
    assert torch.equal(batch["target"], said)
    list(stage.run())
    with torch.no_grad():
        assert not torch.allclose(stage._denoise(**batch["model"])[0], said, atol=1e-3), "the recipe itself learns"
        assert torch.equal(stage._denoise(**batch["model"], denoiser=stage.anchor.start)[0], said)


def test_the_picture_is_learned_where_the_concept_has_a_reference(stage, monkeypatch):
    monkeypatch.setattr(stage.__class__, "planning", {})
    velocities = []
    get_velocity = stage.scheduler.get_velocity
    monkeypatch.setattr(
        stage.scheduler, "get_velocity", lambda *given: velocities.append(get_velocity(*given)) or velocities[-1]
    )
    learned = kept = 0
    for _ in range(4):
        batch = with_concepts(stage, ["balloon", "bus"])
        with torch.no_grad():
            said = stage._denoise(**batch["model"])[0]
        to_picture = (batch["target"] - velocities[-1]).abs().flatten(2).amax(1)  # (n, pixels)
        to_start = (batch["target"] - said).abs().flatten(2).amax(1)
        given = batch["model"]["scale"].sum(1) > 0
        assert (to_start[~given] < 1e-5).all(), "without a subject, all is kept"
        assert ((to_picture < 1e-4).sum(1) < to_picture.shape[1] * 0.8).all(), "never the whole picture"
        learned += int(((to_picture < 1e-4) & (to_start > 1e-2)).any(1).sum())
        kept += int((to_start < 1e-5).any(1).sum())
    assert learned >= 8 and kept >= 24


def test_areas_are_those_of_the_learned_subject(stage):
    example = stage.held_out(16, subjects=(0.0, 1.0, 0.0), favour={"balloon": 1e6})
    areas = stage.anchor.areas(example, stage.config.latent_size)
    balloon = example.target.concept[:, :2] == stage.world.concepts.index("balloon")
    assert balloon.any(1).all() and not balloon.all()
    assert (areas.flatten(2).sum(2) > 0).equal(balloon)
    expected = example.areas.mean((2, 3))[balloon]
    assert torch.allclose(areas.mean((2, 3))[balloon], expected, atol=1e-5)
