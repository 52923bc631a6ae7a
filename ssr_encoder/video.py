"""Clips as files: GIF and animated WebP through Pillow, MP4 (H.264) through PyAV, the extra ``video``."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .errors import SSRError
from .extras import need
from .files import written_beside

SUFFIXES = (".gif", ".webp", ".mp4")
FPS = 8  # frames a second: AnimateDiff's clips are 16 frames at 8
MAX_FPS = 50  # a GIF cannot say more: its delays are hundredths of a second, and viewers slow down those of one


def save_clip(frames: Sequence[Image.Image], path: str | os.PathLike, fps: int = FPS) -> None:
    """Write a clip, whole or not at all, in the format that the file's ending names.

    Raises:
        SSRError: as :func:`clip_bytes`, or the place cannot be written.
    """
    data = clip_bytes(frames, Path(path).suffix, fps)
    with written_beside(path) as temporary:
        temporary.write_bytes(data)


def clip_bytes(frames: Sequence[Image.Image], suffix: str, fps: int = FPS) -> bytes:
    """A clip as the bytes of a file; GIF and WebP loop for ever.

    Args:
        frames: PIL pictures of one size.
        suffix: one of :data:`SUFFIXES`.
        fps: frames a second, 1 to :data:`MAX_FPS`.

    Raises:
        SSRError: another ending, no frames, frames of several sizes, a rate out of range, PyAV is not installed, or
            an odd side in an MP4.
    """
    suffix = suffix.lower()
    if suffix not in SUFFIXES:
        raise SSRError(f"a clip cannot be written as {suffix or 'a file without ending'}; use {' or '.join(SUFFIXES)}")
    if not 1 <= fps <= MAX_FPS:
        raise SSRError(f"fps is {fps}; give a number from 1 to {MAX_FPS}, usually {FPS}")
    if len({frame.size for frame in frames}) != 1:
        raise SSRError("a clip needs frames, all of one size; resize them first")
    frames = [frame.convert("RGB") for frame in frames]
    write = {".gif": _gif, ".webp": _webp, ".mp4": _mp4}[suffix]
    data = io.BytesIO()
    write(frames, data, fps)
    return data.getvalue()


def _delays(count: int, fps: int, unit: int) -> list[int]:
    """Milliseconds of each frame, multiples of ``unit``, that add up to the clip's length: at 8 frames a second a
    GIF's are 120 and 130 in turn."""
    ends = [round(i * 1000 / fps / unit) * unit for i in range(count + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def _gif(frames: list[Image.Image], data: io.BytesIO, fps: int) -> None:
    # One palette for the whole clip, made of all its frames: with one a frame, still parts flicker. Of Pillow's ways
    # the octree was nearest to a clip of the embedded world, and without dithering what stands still stays still
    # (with it the colours of still pixels changed by 0.4 a frame) in half the bytes.
    width, height = frames[0].size
    strip = Image.new("RGB", (width, height * len(frames)))
    for i, frame in enumerate(frames):
        strip.paste(frame, (0, i * height))
    palette = strip.quantize(256, Image.Quantize.FASTOCTREE)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    delays = _delays(len(frames), fps, 10)
    first.save(data, "GIF", save_all=True, append_images=rest, duration=delays, loop=0, optimize=False)


def _webp(frames: list[Image.Image], data: io.BytesIO, fps: int) -> None:
    first, *rest = frames
    delays = _delays(len(frames), fps, 1)
    first.save(data, "WEBP", save_all=True, append_images=rest, duration=delays, loop=0, quality=90, method=4)


def _mp4(frames: list[Image.Image], data: io.BytesIO, fps: int) -> None:
    av = need("av", "video")
    width, height = frames[0].size
    if width % 2 or height % 2:
        raise SSRError(f"an MP4's sides must be even, the frames are {width} x {height}; write a GIF or a WebP")
    with av.open(data, "w", format="mp4") as container:
        # yuv420p is what browsers and phones play. The bytes differ a little from run to run: the conversion's last
        # bits depend on where the frames lie in memory.
        stream = container.add_stream("libx264", rate=fps, options={"crf": "14", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
