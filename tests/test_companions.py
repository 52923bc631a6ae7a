"""ControlNet and AnimateDiff pipelines made of a base model and its companions, on tiny real ones."""

import copy
import shutil

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, MotionAdapter
from PIL import Image
from safetensors.torch import load_file, save_file

from ssr_encoder import SSREncoder, SSRError
from ssr_encoder.attention import is_installed
from ssr_encoder.companions import (
    check_frames,
    check_place,
    control_pipeline,
    controlled_video_pipeline,
    fit_map,
    own_companion,
    subjects_by_frame,
    video_pipeline,
)

CALL = {"num_inference_steps": 1, "seed": 3, "output_type": "np"}


@pytest.fixture(scope="module")
def base(tmp_path_factory, folder, controlnet, motion_adapter):
    """An encoder's folder with both companions beside the base model."""
    path = tmp_path_factory.mktemp("companions") / "base"
    shutil.copytree(folder, path)
    seeing = copy.deepcopy(controlnet)
    torch.manual_seed(8)
    torch.nn.init.normal_(seeing.controlnet_cond_embedding.conv_out.weight, std=5.0)  # zero at birth: blind
    seeing.save_pretrained(path / "controlnet")
    motion_adapter.save_pretrained(path / "motion_adapter")
    return path


@pytest.fixture(scope="module")
def ssr(base):
    ssr = SSREncoder.from_pretrained(base, device="cpu")
    ssr.pipe.set_progress_bar_config(disable=True)
    return ssr


@pytest.fixture(scope="module")
def pair(ssr, picture):
    return [ssr.encode(picture, "cat", box=(8, 16, 40, 48)), ssr.encode(picture, "dog", box=(56, 16, 88, 48))]


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def differ(a, b) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def disc() -> Image.Image:
    return Image.radial_gradient("L").point(lambda v: 255 * (v < 90)).resize((64, 64))


def test_control(ssr, pair):
    plain = ssr.generate("a cat", pair[0], **CALL)[0]
    pipe = quiet(control_pipeline(ssr))
    assert pipe.unet is ssr.pipe.unet and is_installed(pipe.unet)
    layout = fit_map(disc(), pipe)
    assert layout.size == (64, 64) and layout.mode == "RGB"

    def made(subject, scale, drawn=layout):
        more = {"image": drawn, "controlnet_conditioning_scale": scale}
        return ssr.generate("a cat", subject, pipe=pipe, **more, **CALL)[0]

    assert differ(made(pair[0], 0.0), plain) < 1e-4, "without force it is the text-to-image pipeline"
    guided = made(pair[0], 1.0)
    assert differ(guided, plain) > 1e-3
    assert differ(guided, made(pair[1], 1.0)) > 1e-3 and differ(guided, made((), 1.0)) > 1e-3
    assert np.array_equal(guided, made(pair[0], 1.0))
    assert differ(guided, made(pair[0], 1.0, fit_map(Image.new("L", (64, 64)), pipe))) > 1e-4, "it sees the map"
    assert is_installed(ssr.pipe.unet) and np.array_equal(ssr.generate("a cat", pair[0], **CALL)[0], plain)


def test_video(ssr, pair):
    plain = ssr.generate("a cat", pair[0], **CALL)[0]
    pipe = quiet(video_pipeline(ssr))
    assert is_installed(pipe.unet) and is_installed(ssr.pipe.unet) and pipe.unet is not ssr.pipe.unet
    frames = ssr.generate("a cat", pair[0], pipe=pipe, num_frames=3, **CALL)[0]
    assert np.asarray(frames).shape == (3, 64, 64, 3) and differ(frames[0], frames[1]) > 1e-3
    assert differ(frames, ssr.generate("a cat", pipe=pipe, num_frames=3, **CALL)[0]) > 1e-3
    assert np.array_equal(ssr.generate("a cat", pair[0], **CALL)[0], plain), "the base pipeline is as before"
    assert all(torch.equal(value, pipe.unet.state_dict()[name]) for name, value in ssr.pipe.unet.state_dict().items())


def test_control_and_video(ssr, pair):
    pipe = quiet(controlled_video_pipeline(ssr))
    layout = fit_map(disc(), pipe)

    def made(scale):
        more = {"conditioning_frames": [layout] * 3, "controlnet_conditioning_scale": scale, "num_frames": 3}
        return ssr.generate("a cat", pair[0], pipe=pipe, **more, **CALL)[0]

    plain = ssr.generate("a cat", pair[0], pipe=quiet(video_pipeline(ssr)), num_frames=3, **CALL)[0]
    assert differ(made(0.0), plain) < 1e-4 and differ(made(1.0), plain) > 1e-3


def test_subjects_that_change_over_the_frames(ssr, pair, still_adapter):
    pipe = quiet(video_pipeline(ssr, still_adapter))

    def made(frames, **more):
        more = subjects_by_frame(ssr, frames) | more
        return ssr.generate("a cat", pipe=pipe, num_frames=3, **more, **CALL)[0]

    first, second = pair
    one, two, both = (ssr.generate("a cat", s, pipe=pipe, num_frames=3, **CALL)[0] for s in (first, second, pair))
    changing = made([[first], [first], [second]])
    assert differ(changing[:2], one[:2]) < 1e-4 and differ(changing[2], two[2]) < 1e-4 and differ(one, two) > 1e-3
    off, full = {"scale": 0.0}, {"scale": ssr.config.subject_scale}
    fading = made([[first, second.with_(**off)], [first, second], [first.with_(**off), second.with_(**full)]])
    for i, expected in enumerate((one, both, two)):
        assert differ(fading[i], expected[i]) < 1e-4, i
    unguided = made([[first]] * 3, guidance_scale=1.0, **subjects_by_frame(ssr, [[first]] * 3, guidance=False))
    assert differ(unguided, ssr.generate("a cat", first, pipe=pipe, num_frames=3, guidance_scale=1.0, **CALL)[0]) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_follows_the_encoder(base, dtype):
    ssr = SSREncoder.from_pretrained(base, device="cpu", dtype=dtype)
    pipe = controlled_video_pipeline(ssr)
    assert {pipe.unet.dtype, pipe.controlnet.dtype, pipe.vae.dtype, ssr.pipe.unet.dtype} == {dtype}
    assert control_pipeline(ssr, ControlNetModel.from_pretrained(base / "controlnet")).controlnet.dtype == dtype


def test_other_companions(ssr, base, controlnet, motion_adapter):
    assert control_pipeline(ssr, str(base / "controlnet")).controlnet.config == control_pipeline(ssr).controlnet.config
    assert control_pipeline(ssr, controlnet).controlnet is controlnet
    assert video_pipeline(ssr, motion_adapter).motion_adapter is motion_adapter


def test_a_map_is_fitted(ssr, tmp_path):
    Image.new("LA", (100, 50), (255, 255)).save(tmp_path / "wide.png")
    found = np.asarray(fit_map(tmp_path / "wide.png", ssr.pipe))
    assert found.shape == (64, 64, 3) and found[:15].max() == 0 and found[-15:].max() == 0 and found[20:44].min() == 255
    clear = Image.new("LA", (64, 64), (255, 0))
    assert np.asarray(fit_map(clear, ssr.pipe)).max() == 0, "transparent is black"
    with pytest.raises(SSRError, match="control map .*missing.png does not exist"):
        fit_map(tmp_path / "missing.png", ssr.pipe)


# -- what is refused
def test_a_base_without_companions(folder):
    ssr = SSREncoder.from_pretrained(folder, device="cpu")
    assert own_companion(ssr, "controlnet") is None
    with pytest.raises(SSRError, match="has no ControlNet of its own.*--controlnet"):
        control_pipeline(ssr)
    with pytest.raises(SSRError, match="has no motion adapter of its own.*--motion-adapter"):
        video_pipeline(ssr)


@pytest.mark.parametrize("where", ["./nowhere", "nowhere", "/no/such/folder", "a/b/c", ""])
def test_places_that_are_not_there(ssr, where):
    for make, name in ((control_pipeline, "controlnet"), (video_pipeline, "motion_adapter")):
        with pytest.raises(SSRError, match="is not a folder"):
            make(ssr, where)
        with pytest.raises(SSRError, match="is not a folder"):
            check_place(name, where)


def test_companions_of_another_base(ssr, new_unet):
    wide = ControlNetModel.from_unet(
        new_unet(block_out_channels=(32, 96), cross_attention_dim=48), conditioning_embedding_out_channels=(8, 8, 16)
    )
    with pytest.raises(SSRError, match=r"\[32, 96\], cross_attention_dim 48, the base model .*\[32, 64\], .* 32;"):
        control_pipeline(ssr, wide)
    tall = MotionAdapter(
        block_out_channels=(32, 96), motion_layers_per_block=2, motion_num_attention_heads=2, motion_norm_num_groups=8
    )
    with pytest.raises(SSRError, match=r"\[32, 96\], layers_per_block 2, the base model .*\[32, 64\], .* 1;"):
        video_pipeline(ssr, tall)
    assert is_installed(ssr.pipe.unet)


def test_an_adapter_that_cannot_be_joined_leaves_the_encoder_in_place(ssr, motion_adapter):
    odd = MotionAdapter.from_config({**motion_adapter.config, "motion_num_attention_heads": 4})
    odd.down_blocks[0].motion_modules[0] = odd.down_blocks[1].motion_modules[0]
    with pytest.raises(SSRError, match="cannot be joined with this base model.*--motion-adapter"):
        video_pipeline(ssr, odd)
    assert is_installed(ssr.pipe.unet)


def test_a_lora_must_be_fused_before_there_is_a_video_pipeline(folder, motion_adapter):
    peft = pytest.importorskip("peft")
    ssr = SSREncoder.from_pretrained(folder, device="cpu")
    ssr.pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    with pytest.raises(SSRError, match="cannot be joined with this base model .*; fuse a LoRA first"):
        video_pipeline(ssr, motion_adapter)
    assert is_installed(ssr.pipe.unet)
    ssr.pipe.fuse_lora()
    ssr.pipe.unload_lora_weights()
    fused = video_pipeline(ssr, motion_adapter).unet.state_dict()
    assert all(torch.equal(value, fused[name]) for name, value in ssr.pipe.unet.state_dict().items())


def test_damaged_companions(ssr, base, tmp_path):
    with pytest.raises(SSRError, match="it is a MotionAdapter, not a ControlNetModel"):
        control_pipeline(ssr, base / "motion_adapter")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SSRError, match="cannot load the ControlNet"):
        control_pipeline(ssr, tmp_path / "empty")
    cut = shutil.copytree(base / "controlnet", tmp_path / "cut")
    weights = cut / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(SSRError, match="cannot load the ControlNet"):
        control_pipeline(ssr, cut)
    partial = shutil.copytree(base / "controlnet", tmp_path / "partial")
    tensors = load_file(partial / "diffusion_pytorch_model.safetensors")
    del tensors["conv_in.bias"]
    save_file(tensors, partial / "diffusion_pytorch_model.safetensors")
    with pytest.raises(SSRError, match="1 tensors are missing"):
        control_pipeline(ssr, partial)
    pickled = shutil.copytree(base / "motion_adapter", tmp_path / "pickled")
    (pickled / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(
        MotionAdapter.from_pretrained(base / "motion_adapter").state_dict(), pickled / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(SSRError, match="cannot load the motion adapter"):
        video_pipeline(ssr, pickled)


def test_frames(ssr, pair):
    pipe = video_pipeline(ssr)
    check_frames(pipe, 8)
    for count in (1, 9):
        with pytest.raises(SSRError, match=f"{count} frames .* 2 to 8"):
            check_frames(pipe, count)
    for frames in ([], [[], []], [[pair[0]], pair]):
        with pytest.raises(SSRError, match="as many subjects as the others"):
            subjects_by_frame(ssr, frames)
    with pytest.raises(SSRError, match="regions and steps"):
        subjects_by_frame(ssr, [[pair[0].with_(steps=(0, 0.5))]] * 2)
    with pytest.raises(SSRError, match="regions and steps"):
        subjects_by_frame(ssr, [[pair[0].with_(region=(0, 0, 0.5, 1))]] * 2)
