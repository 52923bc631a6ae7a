"""Learning through a bfloat16 copy. (That its step is one CUDA graph is seen on a GPU alone.)"""

import pytest
import torch
from small import random_weights, small_recipe

from ssr_encoder.mini.recipes import RECIPES


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights"))


def with_replica(stage, weights):
    recipe = small_recipe(stage, weights)
    recipe.replica = recipe._make_replica()
    return recipe


@pytest.mark.parametrize("stage", ["unet", "ssr"])
def test_gradients_are_those_of_the_module(weights, stage):
    recipe = with_replica(stage, weights)
    batch = recipe._batch()
    loss, figures = recipe._loss_of(batch)
    expected = torch.autograd.grad(loss, recipe.parameters_list, allow_unused=True)
    found, found_figures = recipe.replica.backward(recipe._loss_of, batch)
    assert found == pytest.approx(loss.item(), rel=0.02)
    assert found_figures.keys() == figures.keys()
    join = lambda tensors: torch.cat([t.flatten() for t in tensors])  # noqa: E731
    expected, found = join(expected), join([p.grad for p in recipe.parameters_list])
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(expected, found, dim=0) > 0.99
    assert found.norm() / expected.norm() == pytest.approx(1, rel=0.03)
    frozen = [p for p in recipe.denoiser.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen) and bool(frozen) == (stage == "ssr")


def test_steps_teach_the_module(weights):
    recipe = with_replica("unet", weights)
    batch = recipe._batch()
    recipe._batch = lambda: batch
    losses = []
    for _ in range(12):
        sums = {}
        recipe._step(0.0, 1000, sums)
        losses.append(float(sums["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.float32 for p in recipe.denoiser.parameters())
    recipe.replica.backward(recipe._loss_of, batch)
    for half, master in zip(recipe.replica.copy.parameters(), recipe.denoiser.parameters(), strict=True):
        assert torch.equal(half, master.bfloat16())


def test_the_cpu_and_the_companions_learn_without(weights):
    assert small_recipe("unet", weights).replica is None
    assert {name for name in RECIPES if getattr(RECIPES[name], "replicated", False)} == {"unet", "ssr"}
