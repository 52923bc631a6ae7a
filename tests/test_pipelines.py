"""The stock pipelines, installed: each runs with one and two subjects, and is itself again after remove."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import save_file

from ssr_encoder import SSREncoder, SSRError
from ssr_encoder.attention import is_installed

CALL = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
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


def call(pipe, prompt="a cat in the snow", seed=0, **arguments) -> np.ndarray:
    """(n, H, W, 3), frames in a row."""
    output = pipe(prompt=prompt, generator=torch.Generator().manual_seed(seed), **{**CALL, **arguments})
    found = np.asarray(output.frames if hasattr(output, "frames") else output.images)
    assert np.isfinite(found).all()
    return found.reshape(-1, *found.shape[-3:])


def differ(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


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


# -- beside other things
def lora(pipe, folder):
    """A LoRA for the UNet's attentions, saved as users have them."""
    peft = pytest.importorskip("peft")
    from peft.utils import get_peft_model_state_dict

    unet = copy.deepcopy(pipe.unet)
    unet.add_adapter(peft.LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder


def test_lora_before_or_after(new_unet, new_pipe, encoder, subjects, tmp_path):
    pipes = [new_pipe(StableDiffusionPipeline, new_unet()) for _ in range(2)]
    before, folder = call(pipes[0]), lora(pipes[0], tmp_path)
    put = encoder.conditioning(subjects)
    pipes[0].load_lora_weights(folder)
    styled = call(pipes[0])
    encoder.install(pipes[0])
    encoder.install(pipes[1])
    plain_subject = call(pipes[1], **put)
    pipes[1].load_lora_weights(folder)
    first, second = (call(pipe, **put) for pipe in pipes)
    assert np.array_equal(first, second)
    assert differ(first, styled) > 1e-3 and differ(first, plain_subject) > 1e-3 and differ(styled, before) > 1e-3
    half = call(pipes[0], cross_attention_kwargs={"scale": 0.5}, **put)
    assert differ(half, first) > 1e-4, "the LoRA scale still works"
    for pipe in pipes:
        encoder.remove(pipe)
        assert np.array_equal(call(pipe), styled)
        pipe.unload_lora_weights()
        assert np.array_equal(call(pipe), before)


def original_names(unet) -> dict[str, torch.Tensor]:
    """The UNet's weights by the names of original Stable Diffusion checkpoints."""
    per = unet.config.layers_per_block + 1
    whole = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    inside = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
    }  # fmt: skip

    def renamed(stem: str) -> str:
        if stem in whole:
            return whole[stem]
        if stem.startswith("mid_block"):
            _, kind, index, rest = stem.split(".", 3)
            home = f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}"
        else:
            side, block, kind, index, rest = stem.split(".", 4)
            block, index, down = int(block), int(index), side == "down_blocks"
            if kind == "downsamplers":
                return f"input_blocks.{(block + 1) * per}.0.op"
            if kind == "upsamplers":
                return f"output_blocks.{block * per + per - 1}.2.conv"
            home = f"input_blocks.{block * per + index + 1}" if down else f"output_blocks.{block * per + index}"
            home += ".1" if kind == "attentions" else ".0"
        return f"{home}.{rest if kind == 'attentions' else inside[rest]}"

    stems = ((name.rsplit(".", 1), value) for name, value in unet.state_dict().items())
    return {f"model.diffusion_model.{renamed(stem)}.{end}": value.contiguous() for (stem, end), value in stems}


def test_single_file_checkpoints(pipe, folder, encoder, subjects, text_encoder, tokenizer, vae, tmp_path):
    save_file(original_names(pipe.unet), tmp_path / "community.safetensors")
    loaded = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "community.safetensors"), config=str(folder), vae=vae, text_encoder=text_encoder,
        tokenizer=tokenizer, scheduler=pipe.scheduler, safety_checker=None,
    )  # fmt: skip
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(call(loaded), call(pipe))
    ssr = SSREncoder.from_pretrained(folder, base=loaded, device="cpu")
    common = {"num_inference_steps": 2, "seed": 1, "output_type": "np"}
    found = ssr.generate("a cat", subjects, **common)[0]
    assert np.array_equal(found, encoder.generate("a cat", subjects, pipe=pipe, **common)[0])
    assert ssr.pipe is loaded and differ(found, ssr.generate("a cat", **common)[0]) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(pipe, encoder, subjects, dtype):
    common = {"num_inference_steps": 2, "seed": 1, "output_type": "np", "pipe": pipe}
    regional = [subjects[0].with_(scale=0.5, region=(0, 0, 0.6, 1)), subjects[1].with_(steps=(0.0, 0.7))]
    full, plain = (encoder.generate("a cat", given, **common)[0] for given in (regional, []))
    parts = {name: copy.deepcopy(part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    half = StableDiffusionPipeline(**{**pipe.components, **parts}, requires_safety_checker=False).to(dtype)
    half.set_progress_bar_config(disable=True)
    found = encoder.generate("a cat", regional, **{**common, "pipe": half})[0]
    assert np.isfinite(found).all()
    assert differ(found, full) < 0.25 * differ(full, plain) + (0.02 if dtype == torch.float16 else 0.1)


def test_freeu(pipe, encoder, subjects):
    before = call(pipe)
    encoder.install(pipe)
    put = encoder.conditioning(subjects)
    normal = call(pipe, **put)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    free = call(pipe, **put)
    pipe.disable_freeu()
    assert np.array_equal(call(pipe, **put), normal) and free.shape == normal.shape
    encoder.remove(pipe)
    assert np.array_equal(call(pipe), before)


def test_attention_slicing_is_healed(pipe, encoder, subjects):
    """It replaces every processor without a word; generate and install put ours back."""
    common = {"pipe": pipe, "num_inference_steps": 2, "seed": 0, "output_type": "np"}
    before, processors = call(pipe), dict(pipe.unet.attn_processors)
    encoder.install(pipe)
    expected = encoder.generate("a cat", subjects, **common)[0]
    pipe.enable_attention_slicing()
    assert not is_installed(pipe.unet)
    assert differ(encoder.generate("a cat", subjects, **common)[0], expected) < 1e-4
    assert is_installed(pipe.unet), "what was installed stays installed"
    pipe.enable_attention_slicing()
    encoder.install(pipe)
    encoder.remove(pipe)
    assert all(pipe.unet.get_submodule(n).processor is processors[f"{n}.processor"] for n in encoder.config.layers)
    assert differ(call(pipe), before) < 1e-4


def test_generate_heals_its_own_pipeline(folder, subjects):
    ssr = SSREncoder.from_pretrained(folder, device="cpu")
    ssr.pipe.set_progress_bar_config(disable=True)
    common = {"num_inference_steps": 1, "seed": 0, "output_type": "np"}
    expected = ssr.generate("a cat", subjects, **common)[0]
    ssr.pipe.enable_attention_slicing()
    assert differ(ssr.generate("a cat", subjects, **common)[0], expected) < 1e-4


@pytest.mark.parametrize("special", [False, True], ids=["plain", "regions, scales, windows"])
def test_compile_without_graph_breaks(pipe, encoder, subjects, special):
    """``fullgraph`` raises at the first break; several timesteps must share one graph."""
    if special:
        subjects = [subjects[0].with_(scale=0.4, steps=(0, 0.9)), subjects[1].with_(region=(0, 0, 0.5, 1))]
    encoder.install(pipe)
    put = encoder.conditioning(subjects, size=(64, 64))
    steps = {"num_inference_steps": 4}
    expected, plain = call(pipe, **put, **steps), call(pipe, **steps)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager = pipe.unet
    pipe.unet = torch.compile(eager, backend="eager", fullgraph=True)
    assert is_installed(pipe.unet)
    assert differ(call(pipe, **put, **steps), expected) < 1e-4
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, "the UNet, and the hook in front of it"
    assert not torch._dynamo.utils.counters["graph_break"]
    assert differ(call(pipe, **steps), plain) < 1e-4
    encoder.remove(pipe)
    assert not is_installed(eager) and differ(call(pipe, **steps), plain) < 1e-4
    torch._dynamo.reset()


def test_subject_guidance_of_a_compiled_unet(pipe, encoder, subjects):
    common = {"num_inference_steps": 6, "seed": 5, "output_type": "np", "pipe": pipe, "subject_guidance": 1.0}
    [expected] = encoder.generate("a cat", subjects, **common)
    encoder.install(pipe)
    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend="eager", fullgraph=True)
    assert differ(encoder.generate("a cat", subjects, **common)[0], expected) < 1e-4
    torch._dynamo.reset()


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
