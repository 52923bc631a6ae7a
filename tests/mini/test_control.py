"""The embedded ControlNet's maps and its recipe."""

import json

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from small import SMALL, small_recipe

from ssr_encoder.errors import SSRError
from ssr_encoder.mini.control import control_map, edge_map, layout_map
from ssr_encoder.mini.models import make_controlnet, make_unet
from ssr_encoder.mini.recipes.controlnet import start_from

pytestmark = pytest.mark.usefixtures("one_thread")


def disc(colour, ground, size: int = 64) -> torch.Tensor:
    """(1, 3, size, size): a disc of a quarter of the size as its radius."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = (x - size / 2) ** 2 + (y - size / 2) ** 2 <= (size / 4) ** 2
    colours = torch.tensor([ground, colour])[inside.long()]
    return colours.permute(2, 0, 1)[None]


# -- maps
def test_a_layout_is_the_union_of_what_is_visible():
    masks = torch.zeros(2, 3, 8, 8)
    masks[0, 0, :4] = 1
    masks[0, 1, 2:6] = 0.5
    made = layout_map(masks)
    assert made.shape == (2, 3, 8, 8)
    assert made[0, :, 0].eq(1).all() and made[0, :, 3].eq(1).all() and made[0, :, 5].eq(0.5).all()
    assert made[1].eq(0).all() and made[0, :, 6:].eq(0).all()


def test_edges_lie_on_the_outline_and_are_thin():
    edges = edge_map(disc([1.0, 0.2, 0.1], [0.1, 0.3, 0.9]))[0, 0]
    y, x = (edges > 0.5).nonzero().unbind(1)
    distance = ((x - 32.0) ** 2 + (y - 32.0) ** 2).sqrt()
    assert (distance - 16).abs().max() < 2
    assert 0.8 * 2 * np.pi * 16 < len(x) < 1.6 * 2 * np.pi * 16, "one or two pixels wide, all around"
    angles = torch.atan2(y - 32.0, x - 32.0)
    assert torch.histc(angles, 16, -torch.pi, torch.pi).min() > 0, "no gap"


def test_edges_of_equal_brightness_are_seen():
    grey = [0.5, 0.5, 0.5]
    same = [0.5 + 0.3, 0.5 - 0.3 * 0.299 / 0.587, 0.5]  # the same luminance (Rec. 601)
    assert (edge_map(disc(same, grey))[0, 0] > 0.5).sum() > 80


def test_an_even_picture_has_no_edges_and_noise_of_a_level_stays_black():
    assert edge_map(torch.full((1, 3, 32, 32), 0.4)).max() == 0
    faint = torch.full((1, 3, 32, 32), 0.4) + torch.linspace(0, 0.02, 32)
    assert edge_map(faint).max() == 0


def test_each_picture_has_its_own_scale():
    strong = disc([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    weak = strong / 2
    together = edge_map(torch.cat([strong, weak]))
    assert torch.equal(together[0], together[1]) and together.max() == 1
    torch.testing.assert_close(together[1:], edge_map(weak))


def test_maps_of_users_pictures(tmp_path):
    picture = Image.new("RGB", (300, 150), "navy")
    ImageDraw.Draw(picture).rectangle((100, 50, 199, 99), fill="orange")
    edges = control_map(picture)
    assert edges.size == (128, 64) and edges.mode == "RGB"
    assert np.asarray(edges).max() == 255 and np.asarray(edges)[0].max() == 0
    mask = Image.new("L", (300, 150))
    ImageDraw.Draw(mask).rectangle((100, 50, 199, 99), fill=255)
    mask.save(tmp_path / "mask.png")
    layout = np.asarray(control_map(tmp_path / "mask.png", "layout", size=300))
    assert layout.shape == (150, 300, 3) and (layout[60:90, 110:190] == 255).all() and layout[:40].max() == 0


def test_what_is_transparent_in_a_mask_is_outside(tmp_path):
    mask = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    ImageDraw.Draw(mask).rectangle((16, 16, 47, 47), fill="white")
    mask.save(tmp_path / "mask.png")
    layout = np.asarray(control_map(tmp_path / "mask.png", "layout", size=64))
    assert (layout[20:44, 20:44] == 255).all() and layout[:12].max() == 0


def test_what_is_no_map_is_refused(tmp_path):
    with pytest.raises(SSRError, match="layout, edges"):
        control_map(Image.new("RGB", (32, 32)), "depth")
    with pytest.raises(SSRError, match="empty"):
        control_map(Image.new("RGB", (32, 32)), "layout")
    with pytest.raises(SSRError, match="does not exist"):
        control_map(tmp_path / "none.png")


# -- the recipe
@pytest.fixture(scope="module")
def fresh(first_stages):
    return small_recipe("controlnet", first_stages)


@pytest.fixture(scope="module")
def trained(first_stages):
    """A recipe after three steps, and the frozen parts' weights before them."""
    made = small_recipe("controlnet", first_stages)
    before = {k: v.clone() for k, v in made.denoiser.state_dict().items()}
    list(made.run())
    return made, before


def test_it_starts_from_the_unets_encoder():
    unet, controlnet = make_unet(SMALL), make_controlnet(SMALL)
    start_from(controlnet, unet)
    theirs = unet.state_dict()
    own = {k: v for k, v in controlnet.state_dict().items() if not k.startswith("controlnet_")}
    assert {k.split(".")[0] for k in own} == {"conv_in", "time_embedding", "down_blocks", "mid_block"}
    assert all(torch.equal(v, theirs[k]) for k, v in own.items())


def test_an_untrained_controlnet_changes_nothing(fresh):
    figures = fresh.evaluate(4)
    assert len(set(figures.values())) == 1 and len(figures) == 5


def test_the_controlnet_learns_alone(trained):
    made, before = trained
    assert all(torch.equal(v, before[k]) for k, v in made.denoiser.state_dict().items())
    fresh = make_controlnet(SMALL)
    start_from(fresh, made.denoiser.unet)
    changed = [k for k, v in made.trained.state_dict().items() if not torch.equal(v, fresh.state_dict()[k])]
    assert len(changed) == len(fresh.state_dict())


def test_the_loss_tells_maps_apart(trained):
    made, _ = trained
    state = made.generator.get_state()
    figures = made.evaluate(4)
    assert len(set(figures.values())) == 5
    assert made.evaluate(4) == figures, "fixed noise, timesteps and conditions"
    assert torch.equal(made.generator.get_state(), state), "training goes on as if it had not been looked at"


def test_samples_get_the_maps_of_their_own_target(fresh, monkeypatch):
    kept = fresh.encode(fresh.held_out(4))
    for shares, kind in (((1.0, 0.0), "layout"), ((0.0, 1.0), "edges")):
        monkeypatch.setattr(fresh, "maps", shares)
        control = fresh._conditions(kept)["model"]["control"]
        assert torch.equal(control[:, 1], kept[kind].float() / 255)
        assert 0.01 < control.mean() < 0.6
    monkeypatch.setattr(fresh, "maps", (0.0, 0.0))
    assert fresh._conditions(kept)["model"]["control"].max() == 0


def test_noise_and_target_belong_to_the_timesteps_and_noisy_ones_prevail(fresh):
    kept = fresh.encode(fresh.held_out(2))
    rows = torch.arange(2).repeat(200)
    made = fresh._conditions({key: value[rows] for key, value in kept.items()})
    timesteps = made["model"]["timesteps"]
    assert (timesteps > 500).float().mean() == pytest.approx(7 / 8, abs=0.06) and timesteps.max() < 1000
    alpha = fresh.alphas[timesteps].view(-1, 1, 1, 1)
    clean = alpha.sqrt() * made["model"]["noisy"] - (1 - alpha).sqrt() * made["target"]  # v-prediction
    torch.testing.assert_close(clean, kept["latents"][rows], atol=1e-3, rtol=1e-3)


def test_streams_share_a_batch_and_bfloat16_is_near_float32(first_stages):
    one, two, half = (
        small_recipe("controlnet", first_stages, **how)
        for how in ({}, {"streams": 2}, {"streams": 2, "bfloat16": True})
    )
    for made in (one, two, half):
        torch.manual_seed(1)
        for parameter in made.trained.controlnet_down_blocks.parameters():
            torch.nn.init.normal_(parameter, std=0.1)  # else the gradients of all the rest are zero
    losses = [made.backward()[0] for made in (one, two, half)]
    assert torch.allclose(*losses[:2], rtol=1e-4)
    for a, b in zip(one.parameters_list, two.parameters_list, strict=True):
        assert (a.grad - b.grad).norm() <= 1e-3 * a.grad.norm() + 1e-6
    assert losses[0] != losses[2]
    assert torch.allclose(losses[0], losses[2], rtol=0.02)


def test_saved_weights_are_a_stock_controlnet_that_training_goes_on_from(trained, first_stages, tmp_path):
    made, _ = trained
    made.save(tmp_path)
    assert json.loads((tmp_path / "controlnet.json").read_text())["steps"] == 3
    stock = ControlNetModel.from_pretrained(tmp_path / "controlnet")
    (file,) = (tmp_path / "controlnet").glob("*.safetensors")
    assert {value.dtype for value in load_file(file).values()} == {torch.float16}
    with made.averaged():
        for name, value in made.trained.state_dict().items():
            torch.testing.assert_close(stock.state_dict()[name].float(), value, atol=1e-3, rtol=1e-3)
    for part in first_stages.iterdir():
        (tmp_path / part.name).symlink_to(part)
    again = small_recipe("controlnet", tmp_path)
    for name, value in again.trained.state_dict().items():
        assert torch.equal(value, stock.state_dict()[name].float())
    again.resume(tmp_path)
    assert again.steps == 3


def test_the_sample_grid_comes_from_the_stock_pipeline(trained):
    pictures, columns = trained[0].sample_grid()
    assert columns == 7 and pictures.shape == (14, 3, 128, 128)
    assert (pictures[2] - pictures[6]).abs().max() > 0.01, "the map acts"
