"""A subject as a value: what was selected in a reference picture, and how strongly it shall act."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .aligner import SubjectConfig
from .errors import SSRError
from .files import written_beside
from .images import Frame, open_picture

MAX_SCALE = 10.0
MAP_SIDE = 1024  # pixels: no selection map is drawn larger
FORMAT = "ssr-subject-1"


@dataclass(frozen=True, eq=False)
class Subject:
    """One encoded subject. Immutable: :meth:`with_` makes a changed copy.

    Attributes:
        tokens: subject tokens (K*L, D), float32.
        unconditional_tokens: the same of the empty query on an all-zero picture, for guidance.
        attention: the selection over the encoder's square (rows, columns), summing to at most 1; what the class
            token took is missing.
        size: (width, height) of the reference picture in pixels.
        query: the text asked for, "" if none.
        fingerprint: of the encoder that made it; another one refuses it.
        scale: lambda for this subject in [0, 10]; None takes the encoder's default
            (``several_scale`` of its config where there are several). 0 is as if left out.
        layer_scales: factors on ``scale`` by the beginning of a layer's name ("down", "mid", "up",
            "up_blocks.1", ...); the longest match wins, layers without a match keep factor 1.
        steps: (start, stop) in [0, 1], the part of the denoising in which the subject acts; 0 is noise.
        region: where in the generated picture it may act: a mask (H, W) in [0, 1] of any size (tensor or
            array), or a box (x0, y0, x1, y1) as fractions of the picture; None is everywhere.
    """

    tokens: Tensor
    unconditional_tokens: Tensor
    attention: Tensor
    size: tuple[int, int]
    query: str = ""
    fingerprint: str = ""
    scale: float | None = None
    layer_scales: dict[str, float] = field(default_factory=dict)
    steps: tuple[float, float] = (0.0, 1.0)
    region: Tensor | tuple[float, float, float, float] | None = None

    def __post_init__(self):
        if self.scale is not None:
            check_scale(self.scale)
        for value in self.layer_scales.values():
            check_scale(value)
        object.__setattr__(self, "steps", _check_steps(self.steps))
        if self.region is not None:
            object.__setattr__(self, "region", _check_region(self.region))

    def with_(self, **changes) -> Subject:
        """A copy with other ``scale``, ``layer_scales``, ``steps`` or ``region``."""
        return dataclasses.replace(self, **changes)

    def layer_factor(self, layer: str) -> float:
        """The factor of ``layer_scales`` for one layer name."""
        fitting = [prefix for prefix in self.layer_scales if layer.startswith(prefix)]
        return self.layer_scales[max(fitting, key=len)] if fitting else 1.0

    def region_mask(self, height: int, width: int) -> Tensor:
        """The output region at a size, (height, width) in [0, 1]; all ones without one."""
        from .selection import box_masks

        if self.region is None:
            return torch.ones(height, width)
        if torch.is_tensor(self.region):
            mask = self.region.float()[None, None]
            return torch.nn.functional.interpolate(mask, (height, width), mode="area")[0, 0]
        return box_masks(torch.tensor([self.region]), (height, width))[0]

    def selection(self) -> np.ndarray:
        """The selection over the reference picture, (height, width), between 0 and 1 at its peak.

        At the picture's size or, beyond :data:`MAP_SIDE`, reduced to that: the map itself has few cells.
        """
        scale = min(1.0, MAP_SIDE / max(self.size))
        frame = Frame(*(max(1, round(length * scale)) for length in self.size))
        grid = self.attention.float().cpu()
        image = Image.fromarray((grid / grid.max().clamp(min=1e-8)).numpy(), mode="F")
        full = image.resize((frame.side, frame.side), Image.Resampling.BICUBIC)
        cropped = full.crop((frame.left, frame.top, frame.left + frame.width, frame.top + frame.height))
        return np.asarray(cropped).clip(0, 1)

    def heat_map(self, reference_image) -> Image.Image:
        """The selection drawn over the reference picture (anything :meth:`SSREncoder.encode` takes), of the size of
        :meth:`selection`: bright where the subject was read, dim elsewhere.

        Raises:
            SSRError: the picture has another size than the subject's.
        """
        picture = open_picture(reference_image)
        if picture.size != tuple(self.size):
            raise SSRError(f"this subject is from a picture of {self.size[0]} x {self.size[1]}; give that one")
        heat = self.selection()[..., None]
        if picture.size != heat.shape[1::-1]:
            picture = picture.resize(heat.shape[1::-1], Image.Resampling.LANCZOS)
        colour = _INFERNO[(heat[..., 0] * (len(_INFERNO) - 1)).round().astype(int)]
        base = np.asarray(picture, dtype=np.float32)
        grey = base.mean(axis=2, keepdims=True) * 0.55
        mixed = (1 - heat) * (0.75 * grey + 0.25 * base * 0.5) + heat * (0.45 * base + 0.55 * colour)
        return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file with everything but the picture."""
        path = Path(path)
        tensors = {name: getattr(self, name).contiguous() for name in ("tokens", "unconditional_tokens", "attention")}
        meta = {"format": FORMAT, "query": self.query, "fingerprint": self.fingerprint}
        meta |= {"size": json.dumps(self.size), "scale": json.dumps(self.scale), "steps": json.dumps(self.steps)}
        meta["layer_scales"] = json.dumps(self.layer_scales)
        if torch.is_tensor(self.region):
            tensors["region"] = self.region.contiguous()
        else:
            meta["region"] = json.dumps(self.region)
        with written_beside(path) as temporary:
            save_file(tensors, temporary, meta)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Subject:
        """Read a file written by :meth:`save`.

        Raises:
            SSRError: no such file, damaged, or not a subject.
        """
        path = Path(path)
        if not path.is_file():
            raise SSRError(f"subject file {path} does not exist; make one with `ssr encode`")
        try:
            with safe_open(path, "pt") as file:
                meta = file.metadata() or {}
                if meta.get("format") != FORMAT:
                    raise SSRError(f"{path} is not a subject file; make one with `ssr encode`")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            _check_tensors(tensors)
            if "region" not in tensors:
                tensors["region"] = json.loads(meta["region"])
            return cls(
                **tensors,
                size=tuple(json.loads(meta["size"])),
                query=meta["query"],
                fingerprint=meta["fingerprint"],
                **{name: json.loads(meta[name]) for name in ("scale", "layer_scales", "steps")},
            )
        except SSRError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"[:80]
            raise SSRError(f"subject file {path} is damaged ({reason}); encode the subject again") from None


def subject_scales(config: SubjectConfig, subjects: Sequence[Subject]) -> list[float]:
    """Each subject's scale: its own, or the encoder's default for as many subjects as are not at 0.

    Raises:
        SSRError: as :func:`check_scale`.
    """
    default = config.default_scale(sum(subject.scale != 0 for subject in subjects))
    return [check_scale(default if subject.scale is None else subject.scale) for subject in subjects]


def check_scale(scale: float) -> float:
    """``scale`` itself, if it is a number in [0, 10].

    Raises:
        SSRError: nan, infinite, negative or above 10.
    """
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or not 0 <= scale <= MAX_SCALE:
        raise SSRError(f"the subject scale is {scale}; give a number from 0 to {MAX_SCALE:g}, usually 0.5 to 1.5")
    return float(scale)


def _check_steps(steps) -> tuple[float, float]:
    try:
        start, stop = (float(value) for value in steps)
    except (TypeError, ValueError):
        start = stop = math.nan
    if not 0 <= start < stop <= 1:
        raise SSRError(f"steps are {steps}; give 0 <= start < stop <= 1, e.g. (0, 0.6)")
    return start, stop


def _check_region(region) -> Tensor | tuple[float, float, float, float]:
    if isinstance(region, np.ndarray):
        region = torch.from_numpy(region.copy())
    if torch.is_tensor(region):
        values = region.float()
        if region.ndim != 2 or not region.numel() or not (values.isfinite().all() and 0 < values.max() <= 1):
            raise SSRError("the output region must be a mask (height, width) of values from 0 to 1, not all of them 0")
        return region
    try:
        x0, y0, x1, y1 = (float(value) for value in region)
    except (TypeError, ValueError):
        raise SSRError(f"the output region is {region!r}; give a mask (height, width) or x0, y0, x1, y1") from None
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise SSRError(f"the output region is {tuple(region)}; give x0, y0, x1, y1 as fractions of the picture, 0 to 1")
    return x0, y0, x1, y1


def _check_tensors(tensors: dict[str, Tensor]) -> None:
    tokens, unconditional, attention = (tensors[n] for n in ("tokens", "unconditional_tokens", "attention"))
    if tokens.ndim != 2 or tokens.shape != unconditional.shape or attention.ndim != 2:
        raise ValueError("tensors of another shape")
    if not all(value.isfinite().all() for value in (tokens, unconditional, attention)):
        raise ValueError("values that are not numbers")


# Anchors of a dark-to-bright map (black, violet, orange, pale yellow), interpolated to 256 entries.
_ANCHORS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)
_INFERNO = np.stack([np.interp(np.linspace(0, 4, 256), range(5), _ANCHORS[:, i]) for i in range(3)], axis=1)
