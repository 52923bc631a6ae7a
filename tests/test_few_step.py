"""A distilled LoRA in the encoder's pipeline, and everything as before when it is gone."""

import copy
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from ssr_encoder import SSREncoder, SSRError, control_pipeline, few_steps, fit_map
from ssr_encoder.few_step import FEW_STEPS, FILE, FOLDER

peft = pytest.importorskip("peft")
from peft.utils import get_peft_model_state_dict  # noqa: E402


def save_lora(unet, folder, neutral: bool = False, targets=("to_q", "to_k", "conv1")):
    """A LoRA for a UNet; a neutral one changes nothing."""
    unet = copy.deepcopy(unet)
    torch.manual_seed(6)
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=list(targets), init_lora_weights=neutral))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory, folder, new_unet, controlnet):
    """An encoder's folder with a LoRA and a ControlNet beside the base model."""
    path = tmp_path_factory.mktemp("few") / "base"
    shutil.copytree(folder, path)
    save_lora(new_unet(), path / FOLDER)
    controlnet.save_pretrained(path / "controlnet")
    return path


@pytest.fixture
def ssr(base):
    made = SSREncoder.from_pretrained(base, device="cpu")
    made.pipe.set_progress_bar_config(disable=True)
    return made


def picture_of(ssr, subject, **settings):
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0} | settings
    return ssr.generate("a cat", subject, seed=3, output_type="np", **settings)[0]


def state(ssr) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in ssr.pipe.unet.state_dict().items()}


def test_within_the_context_alone(ssr, picture):
    subject = ssr.encode(picture, "cat")
    before, weights, scheduler = picture_of(ssr, subject), state(ssr), ssr.pipe.scheduler
    with few_steps(ssr) as settings:
        assert settings == {"num_inference_steps": FEW_STEPS, "guidance_scale": 1.0}
        few = picture_of(ssr, subject, **settings)
        assert ssr.pipe.scheduler.timesteps.tolist() == [999, 874, 749, 624, 499, 374, 249, 124]
    assert few.shape == before.shape and np.abs(few - before).max() > 1e-3
    after = state(ssr)
    assert ssr.pipe.scheduler is scheduler and list(after) == list(weights)
    assert all(torch.equal(v, weights[k]) for k, v in after.items())
    assert np.array_equal(picture_of(ssr, subject), before)


def test_with_a_neutral_lora_it_is_the_base_in_8_ddim_steps(ssr, picture, tmp_path):
    subject = ssr.encode(picture, "cat")
    lora = save_lora(ssr.remove(ssr.pipe).unet, tmp_path, neutral=True)
    with few_steps(ssr, lora) as settings:
        few = picture_of(ssr, subject, **settings)
    scheduler = DDIMScheduler.from_config(
        ssr.pipe.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    ssr.pipe.scheduler = scheduler
    expected = picture_of(ssr, subject, num_inference_steps=8)
    assert np.abs(few - expected).max() < 1e-5


def test_it_is_given_up_when_something_fails_inside(ssr, picture):
    before = state(ssr)
    with pytest.raises(ZeroDivisionError), few_steps(ssr):
        raise ZeroDivisionError
    assert list(state(ssr)) == list(before)
    with few_steps(ssr):  # and can be entered again
        pass


def test_it_draws_what_the_lora_beside_the_weights_would(ssr, picture):
    subject = ssr.encode(picture, "cat")
    with few_steps(ssr) as settings:
        few = picture_of(ssr, subject, **settings)
        scheduler = ssr.pipe.scheduler
    ssr.pipe.load_lora_weights(ssr.base + "/" + FOLDER)
    ssr.pipe.scheduler = scheduler
    assert np.abs(few - picture_of(ssr, subject, **settings)).max() < 1e-4


@pytest.mark.parametrize("targets", [("to_v",), ("to_q", "to_v")], ids=["other layers", "some of the same layers"])
def test_another_lora_stays(ssr, picture, tmp_path, targets):
    subject = ssr.encode(picture, "cat")
    plain = picture_of(ssr, subject)
    ssr.pipe.load_lora_weights(save_lora(ssr.remove(ssr.pipe).unet, tmp_path, targets=targets), adapter_name="style")
    full = picture_of(ssr, subject)
    ssr.pipe.set_adapters(["style"], [0.3])
    styled, scheduler = picture_of(ssr, subject), ssr.pipe.scheduler
    assert np.abs(styled - full).max() > 1e-4
    with few_steps(ssr):
        assert ssr.pipe.get_active_adapters() == ["style", FOLDER]
        ssr.pipe.scheduler = scheduler
        both = picture_of(ssr, subject)
    assert ssr.pipe.get_active_adapters() == ["style"]
    assert np.array_equal(picture_of(ssr, subject), styled), "as strong as before"
    assert all(np.abs(both - other).max() > 1e-4 for other in (styled, plain))


def test_another_lora_is_as_strong_within(ssr, tmp_path):
    ssr.pipe.load_lora_weights(save_lora(ssr.remove(ssr.pipe).unet, tmp_path, targets=("to_v",)), adapter_name="style")
    ssr.pipe.set_adapters(["style"], [0.3])
    with few_steps(ssr):
        found = [layer.scaling for layer in ssr.pipe.unet.modules() if "style" in getattr(layer, "scaling", {})]
        assert found and all(scaling["style"] == pytest.approx(0.3) for scaling in found)
    assert all(scaling == {"style": pytest.approx(0.3)} for scaling in found)


def test_a_control_pipeline_built_within_it(ssr, picture):
    subject = ssr.encode(picture, "cat")
    with few_steps(ssr) as settings:
        pipe = control_pipeline(ssr)
        pipe.set_progress_bar_config(disable=True)
        assert isinstance(pipe.scheduler, DDIMScheduler)
        few = picture_of(ssr, subject, pipe=pipe, image=fit_map(picture, pipe), **settings)
    assert few.shape == (64, 64, 3) and np.isfinite(few).all()


def test_what_cannot_be_used(ssr, folder, tmp_path, new_unet):
    other = save_lora(new_unet(block_out_channels=(16, 32)), tmp_path / "other")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / FILE).write_bytes((other / FILE).read_bytes()[:500])
    before = state(ssr)
    for lora, words in (
        (tmp_path / "nowhere", "is not there"),
        (other, "cannot use the LoRA .*other"),
        (tmp_path / "torn", "cannot use the LoRA .*torn"),
        (tmp_path, "cannot use the LoRA"),
    ):
        with pytest.raises(SSRError, match=words) as caught, few_steps(ssr, lora):
            pass
        assert "\n" not in str(caught.value)
        assert list(state(ssr)) == list(before), f"{lora} left something behind"
    with pytest.raises(SSRError, match="no few-step LoRA of its own"), few_steps(SSREncoder.from_pretrained(folder)):
        pass


def test_without_peft_the_message_is_the_line_that_installs_it(ssr, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(SSRError, match=r'pip install "ssr-encoder\[lora\]"'), few_steps(ssr):
        pass
