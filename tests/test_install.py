"""Installing subject cross-attention into a UNet, and removing it without a trace."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open

from ssr_encoder import SSRError
from ssr_encoder.attention import SubjectAttnProcessor, install, is_installed, remove

D = 32  # width of text embeddings


@pytest.fixture
def given():
    """Latents and text embeddings, one row."""
    return torch.randn(1, 4, 16, 16), torch.randn(1, 12, D)


def run(unet, given):
    with torch.no_grad():
        return unet(given[0], 500, given[1]).sample


def test_remove_leaves_no_trace(unet, subject_config, given):
    before = run(unet, given)
    processors, config, text = dict(unet.attn_processors), dict(unet.config), repr(unet)
    keys, attributes = list(unet.state_dict()), set(vars(unet))
    install(unet, subject_config.layers)
    assert is_installed(unet) and torch.equal(run(unet, given), before), "without subjects it is the plain UNet"
    assert list(unet.state_dict()) == keys
    remove(unet)
    assert not is_installed(unet) and torch.equal(run(unet, given), before)
    assert list(unet.attn_processors) == list(processors)
    assert all(unet.attn_processors[name] is processor for name, processor in processors.items())
    assert dict(unet.config) == config and unet.config.encoder_hid_dim_type is None and repr(unet) == text
    assert list(unet.state_dict()) == keys and unet.encoder_hid_proj is None
    assert set(vars(unet)) == attributes and not unet._forward_pre_hooks


def test_only_text_attentions_are_replaced(unet, subject_config):
    others = {
        n: p for n, p in unet.attn_processors.items() if n.removesuffix(".processor") not in subject_config.layers
    }
    install(unet, subject_config.layers)
    assert len(others) == len(subject_config.layers)
    assert all(unet.attn_processors[name] is processor for name, processor in others.items())
    assert sum(isinstance(p, SubjectAttnProcessor) for p in unet.attn_processors.values()) == len(subject_config.layers)


def test_a_unet_saved_while_installed_is_a_stock_one(unet, subject_config, given, new_unet, tmp_path):
    installed = install(unet, subject_config.layers)
    installed.save_pretrained(tmp_path / "installed")
    new_unet().save_pretrained(tmp_path / "plain")
    names = []
    for kind in ("installed", "plain"):
        with safe_open(tmp_path / kind / "diffusion_pytorch_model.safetensors", "pt") as file:
            names.append(sorted(file.keys()))
    assert names[0] == names[1]
    again = UNet2DConditionModel.from_pretrained(tmp_path / "installed")
    assert torch.equal(run(again, given), run(installed, given))


def test_double_install_and_needless_remove(unet, subject_config):
    with pytest.raises(SSRError, match="nothing to remove"):
        remove(unet)
    install(unet, subject_config.layers)
    with pytest.raises(SSRError, match="already installed"):
        install(unet, subject_config.layers)
    remove(unet)
    install(unet, subject_config.layers)


def ip_adapter_weights(unet) -> dict:
    weights = {"image_proj": {}, "ip_adapter": {}}
    weights["image_proj"] |= {"proj.weight": torch.randn(4 * D, 16), "proj.bias": torch.randn(4 * D)}
    weights["image_proj"] |= {"norm.weight": torch.ones(D), "norm.bias": torch.zeros(D)}
    for i, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            weights["ip_adapter"] |= {f"{i}.to_{x}_ip.weight": torch.randn(width, D) for x in "kv"}
    return weights


def test_the_slot_of_an_ip_adapter_is_taken(pipe, subject_config):
    pipe.unet._load_ip_adapter_weights([ip_adapter_weights(pipe.unet)])
    processors = dict(pipe.unet.attn_processors)
    with pytest.raises(SSRError, match="IP-Adapter"):
        install(pipe.unet, subject_config.layers)
    assert all(pipe.unet.attn_processors[n] is p for n, p in processors.items())
    pipe.unload_ip_adapter()
    remove(install(pipe.unet, subject_config.layers))


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": (32, 96)},
        {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")},
        {"layers_per_block": 2},
        {"block_out_channels": (32, 64, 64), "attention_head_dim": 4}
        | {"down_block_types": ("CrossAttnDownBlock2D",) * 3, "up_block_types": ("CrossAttnUpBlock2D",) * 3},
    ],
    ids=["wider", "fewer", "more in a block", "more blocks"],
)
def test_another_unet_is_refused(new_unet, subject_config, changes):
    unet = new_unet(**changes)
    processors = dict(unet.attn_processors)
    with pytest.raises(SSRError, match="made for another UNet") as error:
        install(unet, subject_config.layers)
    assert "\n" not in str(error.value) and "attn2" in str(error.value)
    assert all(unet.attn_processors[n] is p for n, p in processors.items()) and not is_installed(unet)


def test_what_is_no_unet_is_refused(text_encoder, subject_config):
    with pytest.raises(SSRError, match="CLIPTextModel has no UNet"):
        install(text_encoder, subject_config.layers)
