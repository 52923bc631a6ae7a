"""Decoding what was fetched: bytes of unknown quality to RGB pictures. No torch: workers that decode start fast."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000  # a picture of 10,000 x 10,000; more may be a decompression bomb and is not decoded
FORMATS = ("JPEG", "PNG", "WEBP")  # nothing else can be in a shard, and few decoders are few risks


class BadPicture(ValueError):
    """An image that is not used; the message is the reason for dropping it."""


def decode(image: bytes) -> Image.Image:
    """The whole picture in RGB, upright (EXIF), transparency over white.

    Raises:
        BadPicture: "corrupt", or "too many pixels" (which is said without decoding).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MAX_PIXELS is stricter than Pillow's bomb warning
            picture = Image.open(io.BytesIO(image), formats=FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise BadPicture("too many pixels")
            picture.load()
            return _rgb(ImageOps.exif_transpose(picture))
    except BadPicture:
        raise
    except Image.DecompressionBombError:
        raise BadPicture("too many pixels") from None
    except Exception:  # decoders raise many kinds
        raise BadPicture("corrupt") from None


def encode(picture: Image.Image, kind: str = "WEBP", quality: int = 80) -> bytes:
    """A picture as the bytes of a file."""
    data = io.BytesIO()
    picture.save(data, kind, quality=quality)
    return data.getvalue()


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if picture.mode.startswith("I"):  # 16 bits a pixel
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    return picture.convert("RGB")
