"""Pictures in: anything a user may hand over to an RGB picture, and a picture onto the vision encoder's square.

A picture that is not square is padded, never cropped: nothing of it is lost, and the padding, which is zero after
normalisation, gets no attention. Tiling would keep more detail in long panoramas, but would cut subjects in two.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import SSRError, first_line

MAX_PIXELS = 100_000_000  # a picture of 10,000 x 10,000; more is refused before it is decoded
MIN_SIDE = 8  # pixels


def open_picture(source, what: str = "reference image", ground: str = "white") -> Image.Image:
    """An RGB picture from a path, a PIL image, an array (H, W[, C]) or a tensor ([C,] H, W).

    EXIF orientation is applied, transparency is composited over ``ground``, greyscale and 16-bit are converted. Arrays
    of floats are taken as [0, 1], integers as their type's full range.

    Raises:
        SSRError: not a picture, damaged, too small, too large, or with values that are not finite; names ``what``.
    """
    picture, name = _open(source, what)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise SSRError(
            f"{name} has {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million; scale it down first"
        )
    if min(width, height) < MIN_SIDE:
        raise SSRError(f"{name} has {width} x {height} pixels; give one of at least {MIN_SIDE} x {MIN_SIDE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the decoders think of a file that can be read all the same
            picture.load()
            return to_rgb(ImageOps.exif_transpose(picture), ground)
    except SSRError as error:
        raise SSRError(f"{name}: {error}") from None
    except Exception as error:  # decoders raise many kinds
        raise SSRError(f"{name} is damaged ({first_line(error, 80)}); give the whole file") from None


def open_mask(source, size: tuple[int, int]) -> np.ndarray:
    """A mask as float32 (H, W) in [0, 1], of the reference picture's size (width, height). Transparent is outside.

    Raises:
        SSRError: as :func:`open_picture`; also another size than the picture's, or nothing in it.
    """
    picture = open_picture(source, "mask", ground="black")
    if picture.size != tuple(size):
        raise SSRError(
            f"the mask has {picture.width} x {picture.height} pixels, the reference image {size[0]} x {size[1]}; "
            "give a mask of the same size"
        )
    mask = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    if mask.max() < 0.5:
        raise SSRError("the mask is empty; mark the subject in white")
    return mask


def to_rgb(picture: Image.Image, ground: str = "white") -> Image.Image:
    """Any PIL mode to RGB: 16-bit and float greyscale are scaled, transparency is composited over a colour."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture).astype(np.float64)
        if not np.isfinite(values).all():
            raise SSRError("the picture has pixels that are not numbers; write it again from clean data")
        top = 1.0 if picture.mode == "F" and values.max() <= 1 else 65535.0 if values.max() > 255 else 255.0
        return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture).convert("RGB")
    return picture.convert("RGB")


@dataclass(frozen=True)
class Frame:
    """Where a picture of (width, height) lies on the square that the vision encoder sees."""

    width: int
    height: int

    @property
    def side(self) -> int:
        return max(self.width, self.height)

    @property
    def left(self) -> int:
        return (self.side - self.width) // 2

    @property
    def top(self) -> int:
        return (self.side - self.height) // 2

    def pad(self, values: Tensor) -> Tensor:
        """(..., height, width) of any resolution with this shape to a square, zeros around."""
        height, width = values.shape[-2:]
        side = max(height, width)
        out = values.new_zeros(*values.shape[:-2], side, side)
        top, left = (side - height) // 2, (side - width) // 2
        out[..., top : top + height, left : left + width] = values
        return out


def to_pixels(picture: Image.Image, size: int, mean: list[float], std: list[float]) -> Tensor:
    """The vision encoder's input (1, 3, size, size): padded to a square with zeros, resized (bicubic), normalised."""
    scale = size / max(picture.size)
    small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resized = picture if picture.size == small else picture.resize(small, Image.Resampling.BICUBIC, reducing_gap=3.0)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    pixels = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return Frame(*small).pad(pixels)[None]


def picture_grid(pictures: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Pictures (n, 3, H, W) in [0, 1], row by row, as one picture with a white gap between them."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    canvas = torch.ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, picture in enumerate(pictures.float().cpu().clamp(0, 1)):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[:, y : y + height, x : x + width] = picture
    return Image.fromarray((canvas * 255).round().byte().permute(1, 2, 0).numpy())


def _open(source, what: str) -> tuple[Image.Image, str]:
    if isinstance(source, Image.Image):
        return source, f"the {what}"
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
        if source.ndim == 4 and len(source) == 1:
            source = source[0]
        source = source.transpose(1, 2, 0) if source.ndim == 3 and source.shape[0] in (1, 3, 4) else source
    if isinstance(source, np.ndarray):
        return _from_array(source, what), f"the {what}"
    try:
        path = Path(source)
    except TypeError:
        raise SSRError(
            f"the {what} is a {type(source).__name__}; give a path, a PIL image, an array or a tensor"
        ) from None
    name = f"{what} {str(path)[:200]}"
    try:
        if path.is_dir():
            raise SSRError(f"{name} is a folder; name a picture in it")
        if path.stat().st_size == 0:
            raise SSRError(f"{name} is an empty file; give a picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(path), name
    except FileNotFoundError:
        raise SSRError(f"{name} does not exist; check the path") from None
    except PermissionError:
        raise SSRError(f"{name} may not be read; check its permissions") from None
    except Image.DecompressionBombError:
        raise SSRError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels; scale it down first") from None
    except UnidentifiedImageError:
        raise SSRError(f"{name} is not a picture that can be read; give PNG, JPEG or WebP") from None
    except SSRError:
        raise
    except Exception as error:  # as above
        raise SSRError(f"{name} cannot be read ({first_line(error, 80)}); give PNG, JPEG or WebP") from None


def _from_array(array: np.ndarray, what: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or array.ndim == 3 and array.shape[2] not in (3, 4) or array.size == 0:
        raise SSRError(
            f"the {what} is an array of shape {array.shape}; give (height, width) or (height, width, 3 or 4)"
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise SSRError(f"the {what} has pixels that are not numbers (nan or inf); clean the array first")
        if array.min() < -1e-3 or array.max() > 1 + 1e-3:
            raise SSRError(f"the {what} has values from {array.min():.3g} to {array.max():.3g}; scale floats to 0..1")
        array = (array.clip(0, 1) * 255).round().astype(np.uint8)
    elif array.dtype.kind in "ui" and array.dtype != np.uint8:
        top = np.iinfo(array.dtype).max
        array = (array.astype(np.float64).clip(0) / top * 255).round().astype(np.uint8)
    elif array.dtype.kind == "b":
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        raise SSRError(f"the {what} is an array of {array.dtype}; give numbers")
    return Image.fromarray(array)
