"""A UNet laid out for a GPU: the same numbers as the stock one's, and no layout but channels last."""

import copy

import pytest
import torch
import torch.nn.functional as F
from small import SMALL
from torch import nn

from ssr_encoder.mini.models import make_unet
from ssr_encoder.mini.recipes.channels_last import ChannelsLastNorm, group_norm, group_norm_gradients, lay_out

INPUTS = {
    "sample": torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)),
    "timestep": torch.tensor([10, 900]),
    "encoder_hidden_states": torch.randn(2, 5, SMALL.text_width, generator=torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(("channels", "side"), [(64, 8), (96, 5)])
def test_norm_is_the_stock_one(silu, channels, side):
    torch.manual_seed(0)
    stock = nn.GroupNorm(32, channels, eps=1e-5)
    nn.init.normal_(stock.weight)
    nn.init.normal_(stock.bias)
    norm = ChannelsLastNorm(stock, silu, group_norm, group_norm_gradients)
    x = (2 * torch.randn(3, channels, side, side) + 1).requires_grad_()
    expected = F.silu(stock(x)) if silu else stock(x)
    found = norm(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    learned, gradient = (x, stock.weight, stock.bias), torch.randn_like(expected)
    expected = torch.autograd.grad(expected, learned, gradient)
    torch.testing.assert_close(torch.autograd.grad(found, learned, gradient), expected, rtol=1e-4, atol=1e-4)


def test_unet_computes_the_same():
    stock = make_unet(SMALL)
    laid_out = copy.deepcopy(stock)
    lay_out(laid_out)
    target = torch.randn_like(INPUTS["sample"])
    results, gradients = [], []
    for unet in (stock, laid_out):
        results.append(unet(**INPUTS).sample)
        F.mse_loss(results[-1], target).backward()
        gradients.append([p.grad for p in unet.parameters()])  # in the same order
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-2, atol=1e-5)


def test_every_convolution_gets_channels_last():
    unet = make_unet(SMALL)
    asked = {"stock": [], "laid out": []}

    def watch(kind: str):
        def note(module, given):
            if given[0].shape[1] > 1 and given[0].shape[2] > 1:
                asked[kind].append(given[0].is_contiguous(memory_format=torch.channels_last))

        return [m.register_forward_pre_hook(note) for m in unet.modules() if isinstance(m, nn.Conv2d)]

    inputs = {**INPUTS, "sample": INPUTS["sample"].to(memory_format=torch.channels_last)}
    handles = watch("stock")
    unet.to(memory_format=torch.channels_last)(**inputs)
    for handle in handles:
        handle.remove()
    lay_out(unet)
    watch("laid out")
    unet(**inputs)
    assert len(asked["laid out"]) == len(asked["stock"]) and all(asked["laid out"])
    assert not all(asked["stock"])  # else all this were for nothing
