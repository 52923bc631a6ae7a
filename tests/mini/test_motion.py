"""The motion recipe: it starts from the still model, and only temporal attention learns."""

from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file
from small import SMALL

from ssr_encoder.mini.data import Ring
from ssr_encoder.mini.recipes import RECIPES
from ssr_encoder.mini.recipes.base import TrainConfig, plain_attention
from ssr_encoder.mini.recipes.motion import SHOWN, motion_modules
from ssr_encoder.mini.train import parse
from ssr_encoder.shared_noise import CARRY_KEY, NOISE_KEY, SHARED_NOISE, SMOOTH_KEY

pytestmark = pytest.mark.usefixtures("one_thread")


def make(stage: str, weights: Path, **train):
    train = TrainConfig(**{"batch_size": 1, "max_steps": 2, "warmup": 1, **train})
    made = RECIPES[stage](SMALL, train, torch.device("cpu"), weights)
    if hasattr(made, "ring"):
        made.ring = Ring(4)
    return made


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """Random weights of the earlier stages."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for stage in ("vae", "clip", "unet"):
        make(stage, folder).save(folder)
    return folder


@pytest.fixture(scope="module")
def kept(earlier) -> dict:
    """Two encoded clips."""
    recipe = make("motion", earlier)
    recipe.at_once = {"cpu": 2}
    return recipe._draw()


def batch_of(recipe, kept: dict, short: float = 0.0) -> dict:
    recipe.short = short
    return recipe._conditions(kept)


def test_the_stage_is_known():
    assert parse(["motion", "--out", "x", "--streams", "2", "--bfloat16"]).stage == "motion"


def test_a_clip_has_one_timestep_and_frames_with_noise_of_their_own(earlier, kept):
    recipe = make("motion", earlier)
    assert kept["latents"].shape == (2, 16, 4, 32, 32) and kept["area"].shape == (2, 16, 1, 32, 32)
    assert kept["boxes"].shape == (2, 16, 3, 4)
    model = batch_of(recipe, kept)["model"]
    assert model["timesteps"].shape == (2,) and model["noisy"].shape == kept["latents"].shape
    still = kept | {"latents": kept["latents"][:, :1].expand(-1, 16, -1, -1, -1)}
    noisy = batch_of(recipe, still)["model"]["noisy"]
    assert (noisy[:, 0] - noisy[:, 1]).abs().mean() > 0.01


def test_most_clips_have_a_part_of_their_noise_in_common(earlier):
    recipe = make("motion", earlier)
    nowhere = {"latents": torch.empty(64, 3, 4, 32, 32), "boxes": torch.zeros(64, 3, 3, 4)}
    noise = recipe._noise(nowhere).flatten(2)
    alike = (noise[:, 0] * noise[:, 1]).mean(1)
    together = alike > SHARED_NOISE / 2
    assert 48 < together.sum() < 64
    assert (alike - SHARED_NOISE * together).abs().max() < 0.1 and (noise.var(2) - 1).abs().max() < 0.2


def test_noise_goes_along_with_subjects(earlier):
    recipe = make("motion", earlier)
    recipe.together = 1.0
    boxes = torch.zeros(16, 2, 3, 4)
    boxes[:, 0, 0], boxes[:, 1, 0] = torch.tensor([0.25, 0.25, 0.5, 0.75]), torch.tensor([0.5, 0.25, 0.75, 0.75])
    first, second = recipe._noise({"latents": torch.empty(16, 2, 4, 32, 32), "boxes": boxes}).unbind(1)
    here, there = first[..., 9:23, 9:15], second[..., 9:23, 17:23]  # the smallest box, without its edges
    assert float((here * there).mean()) == pytest.approx(SHARED_NOISE, abs=0.1)
    assert abs(float((here * second[..., 9:23, 9:15]).mean())) < 0.1, "it is gone from where it was"
    assert float((first[..., 28:] * second[..., 28:]).mean()) == pytest.approx(SHARED_NOISE, abs=0.1)


def test_some_steps_see_a_part_of_the_frames(earlier, kept):
    recipe = make("motion", earlier)
    lengths = {batch_of(recipe, kept, short=1.0)["target"].shape[1] for _ in range(20)}
    assert lengths <= set(range(8, 13)) and len(lengths) > 2
    batch = batch_of(recipe, kept, short=1.0)
    assert batch["pixel_weight"].shape[1] == batch["model"]["noisy"].shape[1]


def test_it_starts_from_the_still_model(earlier, kept):
    recipe = make("motion", earlier)
    assert len(motion_modules(recipe.adapter)) == 10
    model = batch_of(recipe, kept)["model"]
    with torch.no_grad():
        moving, still = (recipe._denoise(**model, still=still) for still in (False, True))
    assert torch.allclose(moving, still, atol=1e-4)
    figures = recipe.evaluate(2)
    assert figures["loss_motion"] == pytest.approx(figures["loss_still"], rel=1e-4)
    assert figures["change_motion"] == pytest.approx(figures["change_still"], rel=1e-3)


def test_only_temporal_attention_learns_and_what_is_saved_is_a_stock_adapter(earlier, tmp_path):
    recipe = make("motion", earlier)
    before = {k: v.clone() for k, v in recipe.motion.state_dict().items()}
    list(recipe.run())
    changed = {k for k, v in recipe.motion.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if "motion_modules" in k and "pos_embed" not in k}
    recipe.save(tmp_path)
    (file,) = (tmp_path / "motion_adapter").glob("*.safetensors")
    assert {value.dtype for value in load_file(file).values()} == {torch.float16}
    assert recipe.adapter.dtype == torch.float32
    adapter = MotionAdapter.from_pretrained(tmp_path / "motion_adapter")
    assert (adapter.config[NOISE_KEY], adapter.config[SMOOTH_KEY]) == (recipe.in_common, recipe.smooth)
    assert adapter.config[CARRY_KEY] is True
    averaged = dict(zip((n for n, _ in recipe.adapter.named_parameters()), recipe.ema.shadow_params, strict=True))
    for name, value in adapter.named_parameters():
        assert torch.allclose(value.float(), averaged[name], atol=1e-3)

    again = make("motion", earlier)
    again.resume(tmp_path)
    for a, b in zip(again.parameters_list, recipe.parameters_list, strict=True):
        assert torch.equal(a, b)
    assert again.motion.mid_block.motion_modules[0].proj_out.weight.abs().sum() > 0, "resumed into the UNet itself"


def test_shipped_weights_are_where_it_starts(earlier, tmp_path):
    for path in earlier.iterdir():
        (tmp_path / path.name).symlink_to(path)
    recipe = make("motion", earlier)
    torch.nn.init.normal_(recipe.adapter.mid_block.motion_modules[0].proj_out.weight)
    recipe.adapter.save_pretrained(tmp_path / "motion_adapter")
    again = make("motion", tmp_path)
    own = again.motion.mid_block.motion_modules[0].proj_out.weight
    assert torch.equal(own, recipe.adapter.mid_block.motion_modules[0].proj_out.weight)
    again.export(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again" / "motion_adapter" / "config.json").read_text()


def test_streams_share_a_batch(earlier):
    gradients = []
    for streams in (1, 2):
        torch.manual_seed(0)
        recipe = make("motion", earlier, streams=streams, batch_size=2)
        recipe.short = 1.0
        for module in motion_modules(recipe.adapter):
            torch.nn.init.constant_(module.proj_out.weight, 0.01)
        recipe.backward()
        gradients.append([p.grad for p in recipe.parameters_list])
    for a, b in zip(*gradients, strict=True):
        assert a is not None and (a - b).norm() <= 1e-3 * a.norm() + 1e-6


def test_plain_attention_is_attention():
    shape = (8, 2, 16, 8)
    found = []
    for plain in (False, True):
        q, k, v = (torch.randn(shape, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3))
        if plain:
            with plain_attention():
                out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
                assert not torch.backends.cuda.flash_sdp_enabled()
        else:
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        out.square().sum().backward()
        found.append((out.detach(), q.grad, k.grad, v.grad))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))
    assert torch.backends.cuda.flash_sdp_enabled(), "as before"


def test_sample_grid(earlier):
    pictures, columns = make("motion", earlier).sample_grid(clips=1, steps=1, frames=4)
    assert columns == SHOWN + 1 and pictures.shape == (columns, 3, 128, 128)
    assert pictures.min() >= 0 and pictures.max() <= 1
