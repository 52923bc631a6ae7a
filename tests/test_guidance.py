"""Subject guidance: the positive predictions moved along what the subjects change, for a while."""

import numpy as np
import pytest
import torch

from ssr_encoder import SSRError
from ssr_encoder.guidance import subject_guidance


@pytest.fixture
def installed(pipe, encoder):
    encoder.install(pipe)
    yield pipe
    encoder.remove(pipe)


@pytest.fixture
def call(encoder, subjects):
    """Arguments of a UNet for three latents with guidance: sample, timestep, prompts, packs."""
    pack = encoder.conditioning(subjects[:1])["ip_adapter_image_embeds"][0].expand(2, 1, -1, -1)
    latents = torch.randn(3, 4, 16, 16).repeat(2, 1, 1, 1)
    text = torch.randn(6, 12, 32)
    return latents, torch.tensor(900), text, pack


@torch.no_grad()
def predict(unet, latents, timestep, text, pack=None, **more):
    added = {} if pack is None else {"added_cond_kwargs": {"image_embeds": [pack]}}
    return unet(latents, timestep, encoder_hidden_states=text, return_dict=False, **added, **more)[0]


def test_the_positive_half_moves_and_nothing_else(installed, call):
    unet, (latents, timestep, text, pack) = installed.unet, call
    plain = predict(unet, *call)
    without = predict(unet, latents[3:], timestep, text[3:])
    late, nobody = predict(unet, latents, 699, text, pack), predict(unet, latents, timestep, text)
    with subject_guidance(unet, 1.5, 0.3):
        found = predict(unet, *call)
        assert torch.equal(predict(unet, latents, 699, text, pack), late)
        assert torch.equal(predict(unet, latents, timestep, text), nobody)
        dictionary = unet(latents, 900, text, added_cond_kwargs={"image_embeds": [pack]}).sample
    torch.testing.assert_close(found[:3], plain[:3])
    torch.testing.assert_close(found[3:], plain[3:] + 1.5 * (plain[3:] - without), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(dictionary, found)
    assert (found[3:] - plain[3:]).abs().max() > 1e-3
    assert torch.equal(predict(unet, *call), plain), "all is as before"


def test_without_guidance_every_row_is_positive(installed, call):
    unet, (latents, timestep, text, _) = installed.unet, call
    plain, without = predict(unet, *call), predict(unet, latents, timestep, text)
    with subject_guidance(unet, 0.5, 0.3, halves=False):
        found = predict(unet, *call)
    torch.testing.assert_close(found, plain + 0.5 * (plain - without), atol=1e-5, rtol=1e-4)


def test_a_controlnets_residuals_are_halved_too(installed, call, controlnet):
    unet, (latents, timestep, text, _) = installed.unet, call
    with torch.no_grad():  # a fresh ControlNet's residuals are zero: the shapes alone are taken from it
        down, mid = controlnet(latents, timestep, text, torch.rand(6, 3, 64, 64), return_dict=False)
    down, mid = tuple(map(torch.randn_like, down)), torch.randn_like(mid)

    def residuals(rows):
        halved = tuple(x[rows] for x in down)
        return {"down_block_additional_residuals": halved, "mid_block_additional_residual": mid[rows]}

    plain = predict(unet, *call, **residuals(slice(None)))
    without = predict(unet, latents[3:], timestep, text[3:], **residuals(slice(3, None)))
    with subject_guidance(unet, 1.0, 1.0):
        found = predict(unet, *call, **residuals(slice(None)))
    torch.testing.assert_close(found[3:], 2 * plain[3:] - without, atol=1e-4, rtol=1e-4)


def test_a_failing_prediction_leaves_the_unet_as_it_was(installed, call):
    unet = installed.unet
    with pytest.raises(RuntimeError), subject_guidance(unet, 1.0, 1.0):
        predict(unet, call[0][:, :1], *call[1:])
    assert not unet._forward_hooks


def test_generate(encoder, subjects, pipe):
    def picture(**settings):
        made = {"num_inference_steps": 8, "seed": 3, "output_type": "np", "pipe": pipe} | settings
        return encoder.generate("a cat", subjects[:1], **made)[0]

    plain = picture()
    assert np.array_equal(picture(subject_guidance=0), plain), "off, as in the paper, if the config does not say else"
    assert np.abs(picture(subject_guidance=1.0) - plain).max() > 1e-3
    settings = {"num_inference_steps": 8, "seed": 2, "output_type": "np", "pipe": pipe, "subject_guidance": 1.0}
    both = encoder.generate("a cat", subjects[:1], num_images=2, **settings)
    np.testing.assert_allclose(both[1], picture(subject_guidance=1.0), atol=1e-3)
    alone = picture(guidance_scale=1.0)
    assert np.abs(picture(guidance_scale=1.0, subject_guidance=1.0) - alone).max() > 1e-3
    two = encoder.generate("a cat", subjects[:2], **(settings | {"seed": 3}))[0]
    assert np.abs(two - picture(subject_guidance=1.0)).max() > 1e-3
    for wrong in (-1, 11, float("nan")):
        with pytest.raises(SSRError, match="subject_guidance is .* give a number from 0 to 10"):
            picture(subject_guidance=wrong)
