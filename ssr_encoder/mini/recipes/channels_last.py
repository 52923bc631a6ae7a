"""A UNet laid out for a GPU's tensor cores: channels last from its first convolution to its last.

Stock blocks go back to channels first at every group norm, behind every transformer and, while training, before every
shortcut; these copies were a third of a training step's time (docs/log.md, session 18). Here the norms, with the
activation that follows, work on channels last, and nothing else asks for another order. The same numbers, to rounding.
"""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn


def lay_out(unet: nn.Module, compile: bool = False) -> None:
    """Change a UNet's modules in place; its parameters stay the same ones, in the same order, under other names.

    Args:
        compile: let ``torch.compile`` fuse the norms and the gates; a few kernels, the same for all sizes.
    """
    unet.eval()  # nothing here drops out, and blocks that train copy their input before a shortcut
    unet.to(memory_format=torch.channels_last)
    functions = [group_norm, group_norm_gradients, geglu]
    forward, backward, gate = (torch.compile(f, dynamic=True) if compile else f for f in functions)

    def norm(stock: nn.GroupNorm, silu: bool) -> ChannelsLastNorm:
        return ChannelsLastNorm(stock, silu, forward, backward)

    for module in list(unet.modules()):
        if isinstance(module, ResnetBlock2D):
            module.norm1, module.norm2 = norm(module.norm1, True), norm(module.norm2, True)
            module.time_emb_proj = nn.Sequential(nn.SiLU(), module.time_emb_proj)
            module.nonlinearity = nn.Identity()  # it is in the norms and before the projection
        elif isinstance(module, Transformer2DModel):
            module.norm = norm(module.norm, False)
            module._get_output_for_continuous_inputs = types.MethodType(_project_out, module)
        elif isinstance(module, GEGLU):
            module.forward = types.MethodType(lambda self, x: gate(self.proj(x)), module)
        elif isinstance(module, UNet2DConditionModel):
            module.conv_norm_out, module.conv_act = norm(module.conv_norm_out, True), nn.Identity()


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Group norm of (N, places, C), then SiLU if ``silu``.

    Returns:
        the result; the factor and the addend of each channel (N, C) that the norm comes down to; mean and inverse
        deviation of each channel's group (2, N, C).
    """
    n, places, channels = x.shape
    size, values = channels // groups, x.float()

    def share(sums: Tensor) -> Tensor:  # (N, C) sums -> the mean of each channel's group
        return _by_group(sums, groups) / (places * size)

    mean, square = share(values.sum(1)), share((values * values).sum(1))
    deviation = ((square - mean * mean).clamp(min=0) + eps).rsqrt()
    factor = weight.float() * deviation
    addend = bias.float() - mean * factor
    result = values * factor[:, None] + addend[:, None]
    if silu:
        result = result * result.sigmoid()
    return result.to(x.dtype), factor, addend, torch.stack([mean, deviation])


def group_norm_gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    factor: Tensor,
    addend: Tensor,
    moments: Tensor,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of :func:`group_norm`, for its input, weight and bias, from its result's (N, places, C)."""
    n, places, channels = x.shape
    values, normed = x.float(), gradient.float()
    if silu:
        linear = values * factor[:, None] + addend[:, None]
        gate = linear.sigmoid()
        normed = normed * gate * (1 + linear * (1 - gate))
    mean, deviation = moments.unbind()
    sums = normed.sum(1)
    along = ((normed * values).sum(1) - mean * sums) * deviation  # with the normalised input
    size = channels // groups
    level = _by_group(weight.float() * sums, groups) / (places * size)
    slope = _by_group(weight.float() * along, groups) / (places * size) * deviation * deviation
    rest = slope * mean - level * deviation
    of_x = normed * factor[:, None] - values * slope[:, None] + rest[:, None]
    return of_x.to(x.dtype), along.sum(0).to(weight.dtype), sums.sum(0).to(weight.dtype)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """(N, C): each channel has its group's sum."""
    by_group = values.unflatten(1, (groups, values.shape[1] // groups))
    return by_group.sum(-1, keepdim=True).expand_as(by_group).flatten(1)


def geglu(projected: Tensor) -> Tensor:
    """The gated half of (..., 2 D)."""
    values, gate = projected.chunk(2, dim=-1)
    return values * F.gelu(gate)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps, silu, forward, backward):
        # A parameter would be compiled for its size alone.
        result, factor, addend, moments = forward(x, weight.detach(), bias.detach(), groups, eps, silu)
        ctx.save_for_backward(x, weight, factor, addend, moments)
        ctx.groups, ctx.silu, ctx.function = groups, silu, backward
        return result

    @staticmethod
    def backward(ctx, gradient):
        x, weight, *kept = ctx.saved_tensors
        gradients = ctx.function(gradient.contiguous(), x, weight.detach(), *kept, ctx.groups, ctx.silu)
        return *gradients, None, None, None, None, None


class ChannelsLastNorm(nn.Module):
    """A group norm's parameters, applied with channels last and, if ``silu``, with the activation that follows."""

    def __init__(self, stock: nn.GroupNorm, silu: bool, forward: Callable, backward: Callable):
        super().__init__()
        self.weight, self.bias = stock.weight, stock.bias
        self.settings = (stock.num_groups, stock.eps, silu, forward, backward)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        places = x.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        result = _Normed.apply(places, self.weight, self.bias, *self.settings)
        return result.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def _project_out(self, hidden_states, residual, batch_size, height, width, inner_dim):
    """As in Transformer2DModel with its projection a convolution, without the copy before it."""
    places = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
    return self.proj_out(places) + residual
