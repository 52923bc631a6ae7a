"""Subjects beside other things in a pipeline: LoRAs, other checkpoints and precisions, FreeU, slicing, compilation."""

import copy

import numpy as np
import pytest
import torch
from calls import call, differ
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from ssr_encoder import SSREncoder
from ssr_encoder.attention import is_installed


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
