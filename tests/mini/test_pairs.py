"""Examples in pairs: what two of a pair share, and the loss on what their errors do not."""

import random

import pytest
import torch
from small import SMALL, random_weights, small_recipe

from ssr_encoder.errors import SSRError
from ssr_encoder.mini.data import draw
from ssr_encoder.mini.models import make_tokenizer
from ssr_encoder.mini.recipes.pairs import pair_loss
from ssr_encoder.mini.world import World, caption_words


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights"))


def test_pair_loss_is_the_unshared_part_of_the_squared_error():
    error = torch.randn(6, 4, 8, 8)
    target, ones = torch.randn(6, 4, 8, 8), torch.ones(6, 1, 8, 8)
    shared = (error[0::2] + error[1::2]) / 2
    unshared = pair_loss(target + error, target, torch.ones(6), ones)
    torch.testing.assert_close((error**2).mean(), (shared**2).mean() + unshared)
    assert pair_loss(target + shared.repeat_interleave(2, 0), target, torch.ones(6), ones) < 1e-10


def test_pair_loss_weighs_samples_and_pixels():
    error = torch.zeros(4, 1, 2, 2)
    error[0, 0, 0, 0], error[2, 0, 1, 1] = 2.0, 2.0
    weight = torch.tensor([1.0, 1.0, 0.5, 0.5])
    pixels = torch.ones(4, 1, 2, 2)
    pixels[1, 0, 0, 0] = 5.0  # of the other one of the pair: the larger counts
    # Squares 4 x 5 and 4 x 1, means over 4 pixels, weighted, mean over 2 pairs, a quarter.
    assert float(pair_loss(error, torch.zeros_like(error), weight, pixels)) == pytest.approx((5.0 + 0.5) / 2 / 4)


def test_a_pair_is_one_scene_with_the_subject_in_two_drawings():
    world = World.load()
    tokenizer = make_tokenizer(caption_words(world), 20)
    example = draw(
        world, tokenizer, SMALL, 16, torch.Generator().manual_seed(1), random.Random(1), tones=0.5, pairs=True
    )
    target = example.target
    assert (target.style[0::2, 0] != target.style[1::2, 0]).all()
    for name in ("concept", "centre", "size", "angle", "place"):
        assert torch.equal(getattr(target, name)[0::2], getattr(target, name)[1::2])
    apart = (example.pictures[0::2] - example.pictures[1::2]).abs().amax(1)
    assert (apart.flatten(1).amax(1) > 0.1).all()
    around = torch.nn.functional.max_pool2d(example.subject_area, 9, 1, 4)
    nowhere = (around[0::2] + around[1::2]) == 0
    assert nowhere.float().mean() > 0.2
    # Shadows are the only thing outside a drawing that its shape changes, and they are soft.
    assert apart[nowhere].mean() < 0.01
    held = world.holdout[target.concept.clamp(min=0), target.style, target.colour.clamp_max(len(world.colours) - 1)]
    assert not held[(target.concept >= 0) & (target.colour < len(world.colours))].any()


def test_both_of_a_pair_get_the_same_noise_timestep_and_conditions(weights):
    stage = small_recipe("unet", weights, batch_size=8)
    batch = stage._batch()
    model = batch["model"]
    for name in ("timesteps", "scale"):
        assert torch.equal(model[name][0::2], model[name][1::2])
    alphas = stage.alphas[model["timesteps"]].view(-1, 1, 1, 1)
    # velocity = sqrt(a) noise - sqrt(1 - a) latents and noisy = sqrt(a) latents + sqrt(1 - a) noise
    noise = alphas.sqrt() * batch["target"] + (1 - alphas).sqrt() * model["noisy"]
    torch.testing.assert_close(noise[0::2], noise[1::2], atol=1e-4, rtol=1e-4)
    assert len({float(x) for x in noise[:, 0, 0, 0].round(decimals=3)}) == 4, "pairs differ from each other"


def test_the_loss_of_pairs_is_in_the_sum(weights):
    stage = small_recipe("unet", weights)
    batch = stage._batch()
    loss, figures = stage._loss_of(batch)
    expected = figures["denoising"] + stage.contrast * figures["contrast"] + stage.tau * figures["reg"]
    torch.testing.assert_close(loss.detach(), expected)
    assert figures["contrast"] > 0
    assert "contrast" not in small_recipe("ssr", weights)._loss_of(small_recipe("ssr", weights)._batch())[1]


def test_an_odd_batch_is_refused(weights):
    with pytest.raises(SSRError, match="batch size is 5.*even"):
        small_recipe("unet", weights, batch_size=5)
