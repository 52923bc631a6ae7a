"""The stock pipelines, installed: each runs with one and two subjects, and is itself again after remove."""

import numpy as np
import pytest
import torch
from calls import call, differ
from diffusers import (
    AnimateDiffPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from ssr_encoder import SSRError
from ssr_encoder.attention import is_installed

KINDS = ["text-to-image", "image-to-image", "inpainting", "controlnet", "animatediff", "pag"]


def canvas(width: int = 64, height: int = 64) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def hole(width: int = 64, height: int = 64) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width // 2, height))
    return mask


@pytest.fixture(params=KINDS)
def stock(request, new_unet, new_pipe, controlnet, motion_adapter):
    """(pipeline, its own arguments) of every kind."""
    unet = new_unet()
    if request.param == "text-to-image":
        return new_pipe(StableDiffusionPipeline, unet), {}
    if request.param == "image-to-image":
        return new_pipe(StableDiffusionImg2ImgPipeline, unet), {"image": canvas(), "strength": 0.9}
    if request.param == "inpainting":
        return new_pipe(StableDiffusionInpaintPipeline, unet), {"image": canvas(), "mask_image": hole()}
    if request.param == "controlnet":
        return new_pipe(StableDiffusionControlNetPipeline, unet, controlnet=controlnet), {"image": canvas()}
    if request.param == "pag":
        pipe = new_pipe(StableDiffusionPAGPipeline, unet, pag_applied_layers=["mid"])
        return pipe, {"pag_scale": 1.5}
    return new_pipe(AnimateDiffPipeline, unet, motion_adapter=motion_adapter), {"num_frames": 3}


def test_every_stock_pipeline(stock, encoder, subjects):
    pipe, own = stock
    before, processors = call(pipe, **own), dict(pipe.unet.attn_processors)
    assert encoder.install(pipe) is pipe
    assert np.array_equal(call(pipe, **own), before), "without subjects it is the stock pipeline"
    assert np.array_equal(call(pipe, **own, **encoder.conditioning([subjects[0].with_(scale=0)])), before)
    one = call(pipe, **own, **encoder.conditioning(subjects[:1]))
    other = call(pipe, **own, **encoder.conditioning(subjects[1:]))
    two = call(pipe, **own, **encoder.conditioning(subjects))
    assert one.shape == before.shape
    for a, b in ((one, before), (two, before), (one, two), (one, other)):
        assert differ(a, b) > 1e-3
    without = call(pipe, **own, **encoder.conditioning([subjects[0], subjects[1].with_(layer_scales={"": 0.0})]))
    assert differ(one, without) < 1e-4, "a subject switched off is as if left out"
    assert encoder.remove(pipe) is pipe
    assert np.array_equal(call(pipe, **own), before), "bit-identical after remove"
    assert all(pipe.unet.attn_processors[name] is processor for name, processor in processors.items())


def test_generate_with_every_stock_pipeline(stock, encoder, subjects):
    pipe, own = stock
    before = call(pipe, **own)
    common = {"pipe": pipe, "num_inference_steps": 2, "seed": 5, "output_type": "np", **own}
    found = encoder.generate(["a cat", "a dog"], subjects, num_images=2, **common)
    assert len(found) == 4 and not is_installed(pipe.unet)
    alone = encoder.generate("a dog", subjects, **{**common, "seed": 6})
    assert differ(found[3], alone[0]) < 1e-4, "picture i has the noise of seed + i, whatever is made beside it"
    assert differ(found[3], found[2]) > 1e-3 and differ(found[3], found[1]) > 1e-3
    regional = [subjects[0].with_(region=(0, 0, 0.5, 1)), subjects[1].with_(region=(0.5, 0, 1, 1), steps=(0, 0.6))]
    assert differ(encoder.generate("a dog", regional, **common)[0], found[2]) > 1e-3
    assert np.array_equal(call(pipe, **own), before)


def test_subject_guidance_with_every_stock_pipeline(stock, encoder, subjects):
    pipe, own = stock
    common = {"pipe": pipe, "num_inference_steps": 12, "seed": 5, "output_type": "np", **own}
    if "pag_scale" in own:
        with pytest.raises(SSRError, match="does not go with perturbed-attention guidance"):
            encoder.generate("a cat", subjects, subject_guidance=1.0, **common)
        first, second = (encoder.generate("a cat", subjects, **common)[0] for _ in range(2))
        assert np.array_equal(first, second), "three parts, also in a pipeline's first call"
        return
    before = call(pipe, **own)
    plain, pushed = (encoder.generate("a cat", subjects, subject_guidance=s, **common)[0] for s in (0, 1.0))
    assert np.shape(plain) == np.shape(pushed) and np.isfinite(pushed).all()
    assert differ(np.asarray(plain), np.asarray(pushed)) > 1e-3
    nobody = [subject.with_(scale=0) for subject in subjects]
    plain, pushed = (encoder.generate("a cat", nobody, subject_guidance=s, **common)[0] for s in (0, 1.0))
    assert np.array_equal(plain, pushed), "without subjects there is nothing to push"
    assert np.array_equal(call(pipe, **own), before)


@pytest.mark.parametrize("kind", ["text-to-image", "image-to-image", "inpainting", "controlnet"])
def test_regions_have_the_pictures_size(kind, new_unet, new_pipe, controlnet, encoder, subjects):
    """96 x 64 pixels, though the UNet's own size is 64 x 64; a picture's size is rounded down as the pipelines do."""
    odd = {"image": canvas(99, 66)}
    pipe, own = {
        "text-to-image": lambda: (new_pipe(StableDiffusionPipeline, new_unet()), {"width": 96, "height": 64}),
        "image-to-image": lambda: (new_pipe(StableDiffusionImg2ImgPipeline, new_unet()), odd),
        "inpainting": lambda: (
            new_pipe(StableDiffusionInpaintPipeline, new_unet()),
            {"image": canvas(96, 64), "mask_image": hole(96, 64), "width": 96, "height": 64},
        ),
        "controlnet": lambda: (new_pipe(StableDiffusionControlNetPipeline, new_unet(), controlnet=controlnet), odd),
    }[kind]()
    common = {"pipe": pipe, "num_inference_steps": 2, "seed": 5, "output_type": "np", **own}
    subject = subjects[0].with_(region=(0, 0, 0.5, 1))
    found = encoder.generate("a cat", [subject], **common)[0]
    assert found.shape == (64, 96, 3) and differ(found, encoder.generate("a cat", **common)[0]) > 1e-3


# -- batches
def test_several_prompts_and_pictures_a_call(pipe, encoder, subjects):
    """One call of the stock pipeline for two prompts and three pictures each equals six calls."""
    encoder.install(pipe)
    latents = torch.randn(6, 4, 16, 16)
    prompts, negatives = ["a cat", "a red dog"], ["snow", "the blue"]
    put = encoder.conditioning(subjects)
    together = call(pipe, prompts, negative_prompt=negatives, num_images_per_prompt=3, latents=latents, **put)
    assert together.shape == (6, 64, 64, 3)
    for i in range(6):
        more = {"negative_prompt": negatives[i // 3], "latents": latents[i : i + 1]}
        assert differ(together[i], call(pipe, prompts[i // 3], **more, **put)[0]) < 1e-4


def test_generate_batches_do_not_matter(pipe, encoder, subjects):
    common = {"pipe": pipe, "num_inference_steps": 2, "output_type": "np", "negative_prompt": "snow"}
    many = encoder.generate("a cat", subjects, num_images=6, seed=10, **common)
    assert len(many) == 6
    for i in (0, 3, 4, 5):
        assert differ(many[i], encoder.generate("a cat", subjects, seed=10 + i, **common)[0]) < 1e-4
    assert len({image.tobytes() for image in many}) == 6
    pictures = encoder.generate("a cat", subjects, num_images=2, num_inference_steps=1, pipe=pipe)
    assert all(isinstance(image, Image.Image) and image.size == (64, 64) for image in pictures)


def test_generators_and_seeds(pipe, encoder):
    common = {"pipe": pipe, "num_inference_steps": 1, "output_type": "np"}
    seeded = encoder.generate("a cat", seed=3, **common)[0]
    assert np.array_equal(encoder.generate("a cat", generator=torch.Generator().manual_seed(3), **common)[0], seeded)
    torch.manual_seed(1)
    first, second = (encoder.generate("a cat", **common)[0] for _ in range(2))
    assert not np.array_equal(first, second), "without a seed every call differs"
    torch.manual_seed(1)
    assert np.array_equal(encoder.generate("a cat", **common)[0], first), "torch.manual_seed reigns over it"


def test_negative_prompt_and_guidance(pipe, encoder, subjects):
    common = {"pipe": pipe, "num_inference_steps": 2, "seed": 0, "output_type": "np"}
    plain = encoder.generate("a cat", subjects, **common)[0]
    assert differ(plain, encoder.generate("a cat", subjects, negative_prompt="a red dog", **common)[0]) > 1e-4
    for scale in (0.0, 1.0):
        off = encoder.generate("a cat", subjects, guidance_scale=scale, negative_prompt="a red dog", **common)[0]
        assert np.array_equal(off, encoder.generate("a cat", subjects, guidance_scale=1, **common)[0])
        assert differ(off, plain) > 1e-3
        assert differ(off, encoder.generate("a cat", guidance_scale=scale, **common)[0]) > 1e-3
    default = encoder.generate("a cat", subjects, guidance_scale=encoder.config.guidance_scale, **common)[0]
    assert np.array_equal(default, plain)


def test_guidance_embedded_in_the_unet(new_unet, new_pipe, encoder, subjects):
    """Distilled UNets take the guidance scale as an input: the pipelines then double nothing, whatever it is."""
    pipe = new_pipe(StableDiffusionPipeline, new_unet(time_cond_proj_dim=8))
    common = {"pipe": pipe, "num_inference_steps": 2, "seed": 0, "output_type": "np", "guidance_scale": 4.0}
    assert differ(encoder.generate("a cat", subjects, **common)[0], encoder.generate("a cat", **common)[0]) > 1e-3


# -- once a generation
def test_keys_and_values_are_made_once(pipe, encoder, subjects):
    counts = dict.fromkeys(encoder.model.key_values.state_dict(), 0)
    steps = []
    hooks = [pipe.unet.register_forward_hook(lambda *_: steps.append(1))]
    for name, module in encoder.model.key_values.named_modules():
        if isinstance(module, torch.nn.Linear):

            def count(*_, name=f"{name}.weight"):
                counts[name] += 1

            hooks.append(module.register_forward_hook(count))
    encoder.generate("a cat", subjects, pipe=pipe, num_inference_steps=7, num_images=6, output_type="latent")
    for hook in hooks:
        hook.remove()
    # Fourteen steps of two batches; once for the positive half, once for the negative one.
    assert len(steps) == 14 and set(counts.values()) == {2}


# -- what is refused
@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": ["a cat", "  "]}, "prompt is empty"),
        ({"prompt": ["a cat", None]}, "prompt is empty"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 1.5}, "num_inference_steps is 1.5"),
        ({"num_inference_steps": 5000}, "num_inference_steps is 5000"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"guidance_scale": -1}, "guidance_scale is -1"),
        ({"num_images": 0}, "num_images is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"height": 63}, "height is 63"),
        ({"width": 0}, "width is 0"),
        ({"width": 64.0}, "width is 64.0"),
        ({"clip_skip": 1}, "clip_skip"),
    ],
)
def test_bad_arguments(pipe, encoder, arguments, match):
    with pytest.raises(SSRError, match=match):
        encoder.generate(**{"prompt": "a cat", "pipe": pipe, **arguments})
    assert not is_installed(pipe.unet)


def test_a_failed_call_leaves_nothing_installed(pipe, encoder, subjects):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder.generate("a cat", subjects, pipe=pipe, num_inference_steps=2, callback_on_step_end=stop)
    assert not is_installed(pipe.unet)


def test_pipelines_that_do_not_fit(new_unet, new_pipe, encoder, subjects, vae):
    wide = new_pipe(StableDiffusionPipeline, new_unet(block_out_channels=(32, 96)))
    with pytest.raises(SSRError, match="made for another UNet"):
        encoder.generate("a cat", subjects, pipe=wide)
    with pytest.raises(SSRError, match="AutoencoderKL has no UNet"):
        encoder.generate("a cat", subjects, pipe=vae)
    with pytest.raises(SSRError, match="no base model"):
        encoder.generate("a cat", subjects)


def test_ip_adapter_arguments_are_refused(pipe, encoder):
    encoder.install(pipe)
    with pytest.raises(SSRError, match="conditioning"):
        call(pipe, ip_adapter_image_embeds=[torch.zeros(2, 1, 32)])
