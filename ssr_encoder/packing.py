"""Keys and values of subjects, packed into the one tensor that travels through diffusers' ``image_embeds`` slot.

    pack (G, P, N*T, F): G guidance rows (negative first), P prompts with subjects of their own (mostly 1: the same
    subjects for all), N subjects of T tokens each,
    F = [ layer 0: K, V | layer 1: K, V | ... ] [ log-scale a layer ] [ start, stop ]

In memory a row holds these parts one after the other, each with all its tokens together (the last two dimensions only
carry the sizes), so that a layer reads one contiguous stretch. The bracketed parts are there only when needed: the
log-scales when subjects or layers differ in scale, the window when a subject acts in a part of the steps only. With
scales ``s_i`` (paper: lambda, one for each subject)

    O = Attn_text + sum_i s_i P_i V_i,   P = softmax over the tokens of all subjects of (q k + log s_i)

so equal scales give the paper's joint attention times lambda, a scale of 0 is as if the subject were left out, and
everything between is continuous. An output region is a scale that varies over the picture: s_i times its weight there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .aligner import SubjectConfig

# Logit of a token that must not be read. Finite, so that a row in which nothing may be read stays a number (it is
# multiplied by zero). Fits float16, also added to itself.
OFF = -1e4


class SubjectKeyValues(nn.Module):
    """``W_K^s`` and ``W_V^s`` of every cross-attention layer (paper, section 3.4), kept outside the UNet."""

    def __init__(self, layers: dict[str, int], query_dim: int):
        super().__init__()
        self.layers = dict(layers)
        self.to_k, self.to_v = nn.ModuleDict(), nn.ModuleDict()
        for name, width in layers.items():
            self.to_k[_key(name)] = nn.Linear(query_dim, width, bias=False)
            self.to_v[_key(name)] = nn.Linear(query_dim, width, bias=False)

    @classmethod
    def from_config(cls, config: SubjectConfig) -> SubjectKeyValues:
        return cls(config.layers, config.query_dim)

    def forward(self, subject_tokens: Tensor, scale: Tensor | float = 1.0, window: Tensor | None = None) -> Tensor:
        """Pack keys, values, scales and step windows of all layers.

        Args:
            subject_tokens: (R, N, T, query_dim): N subjects for each of R rows.
            scale: one number >= 0, or a tensor that broadcasts to (R, N, layers): then each subject's log-scale
                goes into the pack beside its values.
            window: (N, 2) or None: the part of the denoising, as fractions of the training timesteps from 0
                (noise) to 1 (picture), in which each subject acts.

        Returns:
            (R, N*T, F). With guidance and prompts split, (G, P, N*T, F), it is given to a pipeline as
            ``ip_adapter_image_embeds=[pack]`` or to a UNet as ``added_cond_kwargs={"image_embeds": [pack]}``.
        """
        rows, subjects, tokens, _ = subject_tokens.shape
        count = subjects * tokens
        same = not torch.is_tensor(scale)
        table = None if same else scale.to(subject_tokens).expand(rows, subjects, len(self.layers))
        parts = []
        for i, name in enumerate(self.layers):
            factor = scale if same else table[:, :, None, i : i + 1]
            parts += [self.to_k[_key(name)](subject_tokens), self.to_v[_key(name)](subject_tokens) * factor]
        if not same or window is not None:
            table = torch.full((rows, subjects, len(self.layers)), float(scale)).to(subject_tokens) if same else table
            parts.append(table.log().clamp(min=OFF).transpose(1, 2).repeat_interleave(tokens, dim=2))
        if window is not None:
            parts.append(window.to(subject_tokens).t().repeat_interleave(tokens, dim=1).expand(rows, -1, -1))
        return torch.cat([part.flatten(1) for part in parts], dim=1).unflatten(1, (count, -1))


class SubjectRows:
    """A pack (R, N*T, F) on its way through a UNet, cut once into its ``parts``: keys and values a layer, then what
    else there is. (Every layer cutting out its own would, in training, cost a gradient of the whole pack's size each.)

    A motion UNet repeats image embeddings once a frame; a row is shared by all its frames instead, so the repetition is
    a no-op here and costs no memory. ``UNetMotionModel`` asks for it with ``repeat_interleave`` and ``shape``.

    Args:
        widths: inner width of every layer.
    """

    def __init__(self, pack: Tensor, progress: Tensor, widths: list[int]):
        self.pack, self.progress, self.widths = pack, progress, widths
        self.tokens, features = pack.shape[1:]
        sizes, rest = [2 * width for width in widths], features - 2 * sum(widths)
        if rest:
            sizes += [1] * len(widths) + [rest - len(widths)] * (rest > len(widths))
        self.parts = pack.flatten(1).split([size * self.tokens for size in sizes], dim=1)

    @property
    def shape(self) -> torch.Size:
        return self.pack.shape

    def key_value(self, index: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, (R, N*T, width) each."""
        width = self.widths[index]
        key, value = self.parts[index].chunk(2, dim=1)
        return key.unflatten(1, (self.tokens, width)), value.unflatten(1, (self.tokens, width))

    def log_scale(self, index: int) -> Tensor | None:
        """A layer's log-scales (R, N*T); None: they are in the values."""
        layers = len(self.widths)
        return self.parts[layers + index] if len(self.parts) > layers else None

    def window(self) -> tuple[Tensor, Tensor] | None:
        """Start and stop of every token, (R, N*T) each; None: all act all the time."""
        return self.parts[-1].chunk(2, dim=1) if len(self.parts) > 2 * len(self.widths) else None

    def repeat_interleave(self, repeats: int, dim: int = 0, output_size: int | None = None) -> SubjectRows:
        return self


def _key(name: str) -> str:
    return name.replace(".", "/")  # ModuleDict keys may not contain dots
