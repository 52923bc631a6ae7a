"""A study in small: real components of the true architectures with random weights, and pairs that cost nothing."""

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from ssr_encoder.reconstruction.config import StudyConfig
from ssr_encoder.reconstruction.encoders import DINO, TransformersCLIP

HALF = (0.5, 0.5, 0.5)
COLOURS = {"red": (0.9, 0.1, 0.1), "blue": (0.1, 0.1, 0.9)}


class StripePairs:
    """Pictures of 48 px, half in one colour and half grey, and their texts."""

    names, templates = list(COLOURS), ["{}", "a {} cat"]

    def describe(self):
        return {"pairs": "stripes"}

    def batch(self, seed, number, n):
        return self._pairs(1000 * seed + number, n)

    def test(self, n):
        yield self._pairs(-1, n)

    def labelled(self, n):
        pictures, texts = self._pairs(-2, n)
        yield pictures, torch.tensor([self.names.index(text.split()[1]) for text in texts])

    def _pairs(self, key, n):
        generator = torch.Generator().manual_seed(key % 2**40)
        kinds = torch.randint(0, 2, (n, 2), generator=generator).tolist()
        pictures = torch.full((n, 3, 48, 48), 0.5) + 0.05 * torch.rand(n, 3, 48, 48, generator=generator)
        for picture, (colour, left) in zip(pictures, kinds, strict=True):
            half = slice(0, 24) if left else slice(24, 48)
            picture[:, :, half] = torch.tensor(list(COLOURS.values())[colour])[:, None, None]
        return pictures, [f"a {self.names[colour]} {'cat' if left else 'dog'}" for colour, left in kinds]


@pytest.fixture
def pairs():
    return StripePairs()


@pytest.fixture
def tiny_config():
    return StudyConfig(
        scale="mini", batch_size=4, accumulate=1, steps=4, learning_rate=3e-3, channels=[8, 8, 16], layers_per_block=1,
        middle_attention=False, groups=4, hidden_layers=[1, 2, 3], test_batch=4, test_pictures=4, examples=2,
    )  # fmt: skip


@pytest.fixture
def encoders(image_encoder, text_encoder, tokenizer):
    torch.manual_seed(11)
    clip = TransformersCLIP(
        "tiny CLIP", image_encoder, text_encoder, tokenizer, torch.randn(32, 48) / 7, torch.randn(32, 32) / 6,
        torch.tensor(2.66), HALF, HALF,
    )  # fmt: skip
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=48, patch_size=6)
    dino = DINO("tiny DINO", Dinov2Model(Dinov2Config(**sizes)), 48, HALF, HALF)
    return {"clip": clip.eval().requires_grad_(False), "dino": dino.eval().requires_grad_(False)}
