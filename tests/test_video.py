"""Clips as files, read back with another reader where there is one."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ssr_encoder import SSRError
from ssr_encoder.video import MAX_FPS, clip_bytes, save_clip


def clip(count: int = 16, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """A disc that crosses a still gradient."""
    frames = []
    for i in range(count):
        frame = Image.merge("RGB", [Image.linear_gradient("L").resize(size)] * 2 + [Image.new("L", size, 90)])
        x = 4 + i * (size[0] - 24) // count
        ImageDraw.Draw(frame).ellipse((x, 14, x + 16, 30), fill=(220, 40, 30))
        frames.append(frame)
    return frames


def pixels(frames) -> np.ndarray:
    return np.stack([np.asarray(frame.convert("RGB"), dtype=int) for frame in frames])


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_gif_and_webp_are_read_back(tmp_path, suffix):
    frames, path = clip(), tmp_path / f"clip{suffix}"
    save_clip(frames, path, fps=8)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    found, delays = [], []
    with Image.open(path) as file:
        assert file.n_frames == 16 and file.size == (64, 48) and file.info["loop"] == 0, "for ever"
        for i in range(16):
            file.seek(i)
            file.load()
            found.append(file.convert("RGB"))
            delays.append(file.info["duration"])
    assert sum(delays) == 2000 and max(delays) - min(delays) <= 10, "16 frames at 8 a second"
    assert abs(pixels(found) - pixels(frames)).mean() < 3


def test_what_stands_still_in_a_gif_does_not_flicker(tmp_path):
    frames = clip()
    save_clip(frames, tmp_path / "clip.gif")
    with Image.open(tmp_path / "clip.gif") as file:
        found = pixels([frame.copy() for frame in _each(file)])
    still = abs(np.diff(pixels(frames), axis=0)).max(-1) == 0
    assert still.any() and not still.all()
    assert abs(np.diff(found, axis=0)).max(-1)[still].max() == 0


def _each(file):
    for i in range(file.n_frames):
        file.seek(i)
        yield file.convert("RGB")


def test_mp4_is_read_back(tmp_path):
    av = pytest.importorskip("av")
    frames, path = clip(), tmp_path / "clip.mp4"
    save_clip(frames, path, fps=10)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        found = [frame.to_image() for frame in file.decode(stream)]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 10 and stream.duration * stream.time_base == pytest.approx(1.6)
    assert len(found) == 16 and abs(pixels(found) - pixels(frames)).mean() < 6
    assert clip_bytes(frames, ".MP4", 10)[4:8] == b"ftyp"


def test_mp4_without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SSRError, match=r'pip install "ssr-encoder\[video\]"'):
        clip_bytes(clip(2), ".mp4")
    assert clip_bytes(clip(2), ".gif")


@pytest.mark.parametrize(
    ("frames", "suffix", "fps", "words"),
    [
        (clip(2), ".avi", 8, ".avi; use .gif or .webp or .mp4"),
        (clip(2), "", 8, "without ending"),
        (clip(2), ".gif", 0, "fps is 0"),
        (clip(2), ".gif", MAX_FPS + 1, "fps is 51"),
        ([], ".gif", 8, "needs frames"),
        ([*clip(1), *clip(1, (32, 32))], ".gif", 8, "all of one size"),
    ],
)
def test_bad_clips(frames, suffix, fps, words):
    with pytest.raises(SSRError, match=words):
        clip_bytes(frames, suffix, fps)


def test_odd_sides_in_an_mp4():
    pytest.importorskip("av")
    with pytest.raises(SSRError, match="even.*33 x 48"):
        clip_bytes(clip(2, (33, 48)), ".mp4")
