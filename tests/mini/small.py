"""The embedded family in small, for the tests of its recipes."""

from pathlib import Path

import torch

from ssr_encoder.mini.data import Ring
from ssr_encoder.mini.models import (
    MiniConfig,
    make_image_encoder,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    make_vae,
    weights_dir,
)
from ssr_encoder.mini.recipes import RECIPES
from ssr_encoder.mini.recipes.base import TrainConfig
from ssr_encoder.mini.world import caption_words, load_world

SMALL = MiniConfig(
    vae_channels=[16, 16, 32], text_width=32, text_layers=1, vision_width=32, vision_layers=2, patch_size=16, heads=2,
    unet_channels=[32, 32, 64], unet_heads=[2, 2, 2], hidden_layers=[1, 2], aligner_heads=2, aligner_head_dim=16,
)  # fmt: skip


def random_weights(folder: Path) -> Path:
    """The frozen parts of the first stages, with random weights, and the part of the world that ``mini`` knows."""
    (folder / "world.json").write_text((weights_dir() / "world.json").read_text())
    torch.manual_seed(0)
    tokenizer = make_tokenizer(caption_words(load_world("cpu", folder)), SMALL.text_length)
    tokenizer.save_pretrained(folder / "tokenizer")
    make_vae(SMALL).save_pretrained(folder / "vae")
    make_text_encoder(SMALL, tokenizer).save_pretrained(folder / "text_encoder")
    make_image_encoder(SMALL).save_pretrained(folder / "image_encoder")
    make_unet(SMALL).save_pretrained(folder / "unet")
    return folder


def small_recipe(stage: str, weights: Path, **train):
    """A recipe that begins the same every time and takes three steps."""
    torch.manual_seed(0)
    train = TrainConfig(**{"batch_size": 4, "max_steps": 3, "warmup": 1, "learning_rate": 1e-2, **train})
    made = RECIPES[stage](SMALL, train, torch.device("cpu"), weights)
    made.ring = Ring(8)
    return made
