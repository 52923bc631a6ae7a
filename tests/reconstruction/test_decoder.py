"""The decoder of features: its sizes at both scales, and that places and scales stay what they are."""

import re

import pytest
import torch
from diffusers import AutoencoderKL

from ssr_encoder.aligner import SubjectConfig
from ssr_encoder.mini.models import MiniConfig, make_vae
from ssr_encoder.reconstruction.config import StudyConfig
from ssr_encoder.reconstruction.decoder import FeatureDecoder, levels


def made(preset: str, width: int, scales: int, grid: int, size: int) -> FeatureDecoder:
    config = StudyConfig.load(preset)
    return FeatureDecoder(
        width, scales, grid, size, config.channels, config.layers_per_block, config.middle_attention, config.groups
    )


def up_samplings(decoder) -> int:
    return sum(block.upsamplers is not None for block in decoder.up_blocks)


def test_full_scale_is_stable_diffusions_decoder_with_one_more_up_sampling():
    with torch.device("meta"):
        decoder = made("paper", 1024, len(SubjectConfig().hidden_layers), 16, 224)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        inside = decoder.decoder(torch.empty(2, 1024, 16, 16))
        pictures = decoder([torch.empty(2, 256, 1024)] * 6)
    assert inside.shape == (2, 3, 256, 256)
    assert pictures.shape == (2, 3, 224, 224)
    assert up_samplings(decoder.decoder) == up_samplings(vae.decoder) + 1 == 4
    # Level by level from the finest it is that decoder; ours begins one level earlier and reads other features.
    ours = {key: value.shape for key, value in decoder.decoder.state_dict().items()}
    for key, value in vae.decoder.state_dict().items():
        if not key.startswith("conv_in.weight"):
            assert ours[re.sub(r"up_blocks\.(\d)", lambda m: f"up_blocks.{int(m[1]) + 1}", key)] == value.shape


def test_embedded_scale_has_one_more_than_the_embedded_vae_too():
    config = MiniConfig()
    decoder = made("mini", config.vision_width, 4, config.grid, config.image_size)
    assert up_samplings(decoder.decoder) == up_samplings(make_vae(config).decoder) + 1 == 3
    with torch.no_grad():
        assert decoder([torch.randn(1, 256, config.vision_width)] * 4).shape == (1, 3, 128, 128)


@pytest.mark.parametrize(
    ("grid", "size", "number"), [(16, 224, 5), (16, 256, 5), (16, 128, 4), (8, 48, 4), (16, 16, 1)]
)
def test_levels(grid, size, number):
    assert levels(grid, size) == number


def tiny(scales: int = 1) -> FeatureDecoder:
    return FeatureDecoder(12, scales, 8, 48, [8, 8], 1, False, 4).eval()


@torch.no_grad()
def test_a_patch_is_drawn_where_it_is():
    decoder = tiny()
    features = torch.randn(16, 64, 12)
    other = features.clone()
    other[:, 2 * 8 + 6] += 3 * torch.randn(16, 12)  # row 2, column 6
    change = (decoder([features]) - decoder([other])).abs().sum(1).mean(0)
    row, column = divmod(int(torch.nn.functional.avg_pool2d(change[None], 6).argmax()), 8)
    assert abs(row - 2) <= 1 and abs(column - 6) <= 1  # not (6, 2); a random decoder may lean to one side


@torch.no_grad()
def test_scales_are_summed_and_every_one_counts():
    decoder, one = tiny(3), tiny()
    one.decoder.load_state_dict(decoder.decoder.state_dict())
    one.read[0].load_state_dict(decoder.read[1].state_dict())
    features = [torch.randn(2, 64, 12) for _ in range(3)]
    for number in range(3):
        changed = [f + (i == number) * torch.randn(2, 64, 12) for i, f in enumerate(features)]
        assert not torch.allclose(decoder(features), decoder(changed))
    for number in (0, 2):
        torch.nn.init.zeros_(decoder.read[number][1].weight)
        torch.nn.init.zeros_(decoder.read[number][1].bias)
    assert torch.allclose(decoder(features), one(features[1:2]), atol=1e-5)


def test_a_wrong_number_of_scales_is_refused():
    with pytest.raises(ValueError):
        tiny(2)([torch.randn(1, 64, 12)])
