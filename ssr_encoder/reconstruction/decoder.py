"""Patch features to pictures: the LDM VAE's decoder with one more up-sampling block (supplement, section B.2)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor, nn


def levels(grid: int, size: int) -> int:
    """Resolutions of a decoder that doubles ``grid`` until it reaches ``size``: 16 to 224 is five, through 256; the
    VAE's own has four (three doublings)."""
    return 1 + math.ceil(math.log2(size / grid))


class FeatureDecoder(nn.Module):
    """Features of one or more scales to a picture.

    Every scale is normalised (layer norm) and projected, and the projections are summed: with one scale that is
    settings A to C, with K it is D. So the settings differ in what is read, and hardly in what reads it.

    Args:
        width: of a token.
        scales: how many features there are.
        grid: patches a side.
        size: pixels a side of the picture.
        channels: widths of the VAE's decoder, of the finest level first; the last is repeated for further levels.
    """

    def __init__(
        self,
        width: int,
        scales: int,
        grid: int,
        size: int,
        channels: list[int],
        layers_per_block: int = 2,
        middle_attention: bool = True,
        groups: int = 32,
    ):
        super().__init__()
        self.grid, self.size = grid, size
        self.read = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(scales))
        number = levels(grid, size)
        self.channels = (list(channels) + [channels[-1]] * number)[:number]
        self.decoder = Decoder(
            in_channels=width,
            out_channels=3,
            up_block_types=("UpDecoderBlock2D",) * number,
            block_out_channels=tuple(self.channels),
            layers_per_block=layers_per_block,
            norm_num_groups=groups,
            mid_block_add_attention=middle_attention,
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """(B, grid * grid, width) of each scale to (B, 3, size, size), meant for [-1, 1]."""
        x = sum(read(feature) for read, feature in zip(self.read, features, strict=True))
        x = x.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        pictures = self.decoder(x)
        if pictures.shape[-1] != self.size:
            pictures = F.interpolate(pictures, size=(self.size, self.size), mode="nearest")
        return pictures
