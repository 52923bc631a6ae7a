"""The released modules' numbers, on the released layout, within 1e-4 (float32)."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file

from ssr_encoder import SubjectConfig, SubjectModel, load_released
from ssr_encoder.attention import SubjectAttnProcessor, install, remove, subject_layers
from ssr_encoder.checkpoint import RELEASED, SD15_LAYERS, load_model, save_model
from ssr_encoder.packing import SubjectRows

HERE = Path(__file__).parent / "conformance"


@pytest.fixture(scope="module")
def released_folder(tmp_path_factory, conformance) -> Path:
    path = tmp_path_factory.mktemp("released")
    torch.save(conformance.aligner_state_dict(), path / RELEASED[0])
    torch.save(conformance.layers_state_dict(), path / RELEASED[1])
    return path


@pytest.fixture(scope="module")
def model(released_folder) -> SubjectModel:
    return load_released(*(released_folder / name for name in RELEASED))


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(HERE / "expected.safetensors")


def test_aligner(model, conformance, expected):
    inputs = conformance.case_inputs("text_query")
    hidden = list(inputs["image_embeds"].chunk(6, dim=1))
    with torch.no_grad():
        tokens, _, _ = model.aligner(inputs["query_embeds"], hidden)
    assert tokens.shape == (2, 462, 768)
    torch.testing.assert_close(tokens[:, ::33, ::32], expected["text_query"], atol=1e-4, rtol=0)


def test_processor(model, conformance, expected):
    spec = json.loads((HERE / "cases.json").read_text())["subject_attention"]
    inputs = conformance.case_inputs("subject_attention")
    attn = Attention(query_dim=320, cross_attention_dim=768, heads=spec["heads"], dim_head=320 // spec["heads"])
    layers = {"to_q": attn.to_q, "to_k": attn.to_k, "to_v": attn.to_v, "to_out": attn.to_out[0]}
    for name, layer in layers.items():
        layer.weight.data = inputs[name] / inputs[name].shape[-1] ** 0.5
    attn.to_out[0].bias.data = 0.1 * inputs["to_out_bias"]

    name = conformance.LAYOUT["layer_index_to_unet_processor"][spec["layer"]].removesuffix(".processor")
    index = list(model.key_values.layers).index(name)
    attn.set_processor(SubjectAttnProcessor(index))
    text, subject = inputs["encoder_hidden_states"].split([77, 462], dim=1)
    with torch.no_grad():
        pack = model.key_values(subject[:, None], spec["scale"])
        rows = SubjectRows(pack, torch.tensor(0.5), list(model.key_values.layers.values()))
        out = attn(inputs["hidden_states"], encoder_hidden_states=(text, [rows]))
    torch.testing.assert_close(out, expected["subject_attention"], atol=1e-4, rtol=0)


def test_layers_are_named_as_in_the_layout(model, conformance):
    names = conformance.LAYOUT["layer_index_to_unet_processor"]
    state = conformance.layers_state_dict()
    assert len(names) == len(model.key_values.layers) == 16
    for index, processor in names.items():
        layer = processor.removesuffix(".processor").replace(".", "/")
        assert torch.equal(model.key_values.to_k[layer].weight, state[f"{index}.to_k_SSR.weight"])
        assert torch.equal(model.key_values.to_v[layer].weight, state[f"{index}.to_v_SSR.weight"])


def test_real_unets_have_the_released_layers():
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        motion = UNetMotionModel(cross_attention_dim=768)
    assert subject_layers(unet) == SD15_LAYERS
    assert list(subject_layers(unet)) == list(SD15_LAYERS)
    assert subject_layers(motion) == SD15_LAYERS
    motion_only = [name for name in motion.attn_processors if "motion_modules" in name]
    assert motion_only, "the motion UNet of this test has no motion modules"
    for kind in (unet, motion):
        install(kind, SD15_LAYERS)
        ours = {n for n, p in kind.attn_processors.items() if isinstance(p, SubjectAttnProcessor)}
        assert ours == {f"{name}.processor" for name in SD15_LAYERS}
        remove(kind)


def test_motion_unets_get_layers_by_name(new_unet, motion_adapter, subject_model):
    """By position motion attentions would be counted; every layer must read the columns made for its own name."""
    unet = new_unet()
    motion = UNetMotionModel.from_unet2d(unet, motion_adapter)
    assert isinstance(motion_adapter, MotionAdapter) and subject_layers(motion) == subject_layers(unet)
    assert list(motion.attn_processors) != list(unet.attn_processors)
    layers = subject_model.key_values.layers
    for kind in (unet, motion):
        install(kind, layers)
    for name in layers:
        flat, moving = (kind.get_submodule(name).processor for kind in (unet, motion))
        assert vars(flat) == vars(moving)
        for kind in (unet, motion):
            assert kind.encoder_hid_proj.widths[flat.index] == unet.get_submodule(name).inner_dim


def test_released_files_become_a_folder_of_ours(released_folder, model, tmp_path):
    save_model(load_model(released_folder), tmp_path)
    again = load_model(tmp_path)
    assert again.fingerprint() == model.fingerprint()
    assert isinstance(again.config, SubjectConfig) and again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
