"""Bad pictures: exit code 2, one line that names the file and the mend, no file made, before any model is loaded."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import NOWHERE, check_refused, without_rights


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A real PNG, 1 bit a pixel and all black, with further chunks before its pixels."""
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def half(folder: Path, suffix: str) -> bytes:
    """The first half of a picture file."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / f"whole{suffix}")
    data = (folder / f"whole{suffix}").read_bytes()
    return data[: len(data) // 2]


def floats(folder: Path, value: float) -> bytes:
    """A floating-point TIFF with one odd pixel."""
    values = np.zeros((32, 32), dtype=np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(folder / "float.tiff")
    return (folder / "float.tiff").read_bytes()


BAD_PICTURES = {  # what makes the file's bytes, and what the message says of it
    "text.png": (lambda _: b"this is not a picture", "not a picture"),
    "cut.png": (lambda folder: half(folder, ".png"), "damaged"),
    "cut.jpg": (lambda folder: half(folder, ".jpg"), "damaged"),
    "cut.webp": (lambda folder: half(folder, ".webp"), "damaged|cannot be read"),
    "header-only.png": (lambda _: png(64, 64)[:40], "cannot be read|damaged|not a picture"),
    "zero.png": (lambda _: b"", "empty file"),
    "pixel.png": (lambda _: png(1, 1), "1 x 1"),
    "line.png": (lambda _: png(5000, 1), "5000 x 1"),
    "huge.png": (lambda _: png(20_000, 20_000), "million"),
    "large.png": (lambda _: png(12_000, 12_000), "12000 x 12000"),  # below the limit of Pillow itself
    "text-bomb.png": (
        lambda _: png(64, 64, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000)))),
        "cannot be read|damaged",
    ),
    "nan.tiff": (lambda folder: floats(folder, np.nan), "not numbers"),
    "inf.tiff": (lambda folder: floats(folder, np.inf), "not numbers"),
}


@pytest.fixture(scope="module")
def bad_pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    scrap = tmp_path_factory.mktemp("scrap")
    for name, (make, _) in BAD_PICTURES.items():
        (folder / name).write_bytes(make(scrap))
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    return folder


EVERY_BAD_PICTURE = {name: words for name, (_, words) in BAD_PICTURES.items()} | {
    "folder.png": "is a folder",
    "missing.png": "does not exist",
    "loop.png": "cannot be read|symbolic links",
    "pets.png/inside.png": "does not exist|Not a directory|cannot be read",
    "x" * 300 + ".png": "name too long|cannot be read",
}


@pytest.mark.parametrize("name", EVERY_BAD_PICTURE, ids=lambda name: name[:20])
@pytest.mark.parametrize("use", ["inspect", "encode", "generate", "subject", "mask"])
def test_bad_picture(ssr, here, pictures, bad_pictures, name, use):
    path = (pictures if name.startswith("pets") else bad_pictures) / name
    words = {
        "inspect": ("inspect", path, "--query", "cat"),
        "encode": ("encode", path, "--query", "cat", "-o", "cat.safetensors"),
        "generate": ("generate", path, "--query", "cat", "--prompt", "a cat"),
        "subject": ("generate", "--subject", f"{path}::cat", "--prompt", "a cat"),
        "mask": ("inspect", pictures / "pets.png", "--mask", path),
    }[use]
    result = ssr(*words, "--model", NOWHERE)
    check_refused(result, name[:100])
    assert any(word in result.err for word in EVERY_BAD_PICTURE[name].split("|")), result.err
    assert os.listdir(here) == []


def test_unreadable_picture(ssr):
    with without_rights() as folder:
        Image.new("RGB", (32, 32)).save(folder / "secret.png")
        (folder / "secret.png").chmod(0)
        result = ssr("inspect", "secret.png", "--query", "cat", "--model", NOWHERE)
        check_refused(result, "secret.png", "permission")
        assert os.listdir(folder) == ["secret.png"]


def test_picture_in_an_unreadable_folder(ssr):
    with without_rights() as folder:
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0)
        check_refused(ssr("inspect", "closed/a.png", "--query", "cat", "--model", NOWHERE), "closed/a.png", "ermission")


def test_mask_of_another_size_and_empty_mask(ssr, pictures):
    Image.new("L", (20, 20), 255).save("small.png")
    pets = pictures / "pets.png"
    check_refused(ssr("inspect", pets, "--mask", "small.png", "--model", NOWHERE), "small.png", "20 x 20", "48 x 32")
    empty = pictures / "empty-mask.png"
    check_refused(ssr("inspect", pets, "--mask", empty, "--model", NOWHERE), "empty-mask.png", "mark the subject")
