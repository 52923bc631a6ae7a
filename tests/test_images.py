"""Pictures of every kind in, and one clear line about everything that is not a picture."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssr_encoder import SSRError
from ssr_encoder.images import Frame, open_mask, open_picture, picture_grid, to_pixels

RED, GREY = (200, 40, 40), (100, 100, 100)


@pytest.fixture
def photo() -> Image.Image:
    """16 x 12, red on the left and grey on the right."""
    image = Image.new("RGB", (16, 12), GREY)
    image.paste(RED, (0, 0, 8, 12))
    return image


def png(width: int, height: int, data: bytes = b"", *extra: bytes) -> bytes:
    """A PNG file with any header and data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def refused(source, match: str, what: str = "reference image") -> None:
    with pytest.raises(SSRError, match=match) as error:
        open_picture(source, what)
    message = str(error.value)
    assert "\n" not in message and what in message and len(message) < 400


# -- modes
def test_colour_modes(photo):
    for mode in ("RGB", "RGBA", "P", "YCbCr", "HSV", "RGBX"):
        found = open_picture(photo.quantize() if mode == "P" else photo.convert(mode))
        assert found.mode == "RGB" and found.size == (16, 12)
        assert np.abs(np.asarray(found, dtype=int) - np.asarray(photo, dtype=int)).max() <= 4, mode
    ink = Image.new("CMYK", (16, 12), (0, 255, 255, 0))
    assert open_picture(ink).getpixel((3, 3)) == (255, 0, 0)


def test_transparency_is_composited_over_white(photo):
    clear = photo.convert("RGBA")
    clear.putalpha(Image.new("L", photo.size, 0))
    assert open_picture(clear).getpixel((3, 3)) == (255, 255, 255)
    half = photo.convert("RGBA")
    half.putalpha(Image.new("L", photo.size, 128))
    assert open_picture(half).getpixel((3, 3)) == pytest.approx((227, 147, 147), abs=2)
    assert open_picture(Image.new("LA", (16, 12), (0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(Image.new("LA", (16, 12), (90, 255))).getpixel((0, 0)) == (90, 90, 90)
    palette = photo.quantize()
    palette.info["transparency"] = palette.getpixel((12, 3))
    found = open_picture(palette)
    assert found.getpixel((12, 3)) == (255, 255, 255) and found.getpixel((3, 3)) == pytest.approx(RED, abs=4)
    keyed = photo.copy()
    keyed.info["transparency"] = GREY
    assert open_picture(keyed).getpixel((12, 3)) == (255, 255, 255)


def test_greyscale_of_every_depth(tmp_path):
    ramp = np.linspace(0, 1, 16)[None].repeat(12, 0)
    grey = [
        Image.fromarray((ramp * 255).round().astype(np.uint8)),
        Image.fromarray((ramp * 65535).round().astype(np.uint16)),
        Image.fromarray((ramp * 65535).round().astype(np.int32)),
        Image.fromarray(ramp.astype(np.float32)),
        Image.fromarray((ramp * 255).astype(np.float32)),
    ]
    assert [picture.mode for picture in grey] == ["L", "I;16", "I", "F", "F"]
    expected = (ramp * 255).round().astype(int)
    for i, picture in enumerate(grey):
        path = tmp_path / f"{i}.tif"
        picture.save(path)
        for source in (picture, path):
            found = np.asarray(open_picture(source), dtype=int)
            assert np.abs(found - expected[..., None]).max() <= 1, (picture.mode, source)
    bits = open_picture(Image.fromarray(ramp > 0.5))
    assert bits.getpixel((0, 0)) == (0, 0, 0) and bits.getpixel((15, 0)) == (255, 255, 255)
    grey[1].save(tmp_path / "deep.png")
    assert np.abs(np.asarray(open_picture(tmp_path / "deep.png"), dtype=int) - expected[..., None]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photo, tmp_path, orientation):
    photo.putpixel((0, 0), (0, 255, 0))  # no symmetry is left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that a viewer must see undone
    stored = photo if orientation == 1 else photo.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    found = open_picture(tmp_path / "x.png")
    assert found.size == photo.size and np.array_equal(np.asarray(found), np.asarray(photo))


# -- arrays and tensors
def test_arrays_and_tensors(photo):
    array = np.asarray(photo)
    for source in (
        array,
        array / 255,
        (array / 255).astype(np.float16),
        array.astype(np.uint16) * 257,
        torch.from_numpy(array.copy()),
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        torch.from_numpy(array / 255).permute(2, 0, 1)[None].bfloat16(),
        torch.from_numpy(array.copy()).permute(2, 0, 1).float().div(255).requires_grad_(),
    ):
        found = np.asarray(open_picture(source), dtype=int)
        assert found.shape == array.shape and np.abs(found - array).max() <= 1, (source.dtype, source.shape)
    flat = open_picture(array[..., 0])
    assert flat.mode == "RGB" and flat.getpixel((3, 3)) == (200, 200, 200)
    assert np.array_equal(np.asarray(open_picture(torch.from_numpy(array[..., :1].copy()))), np.asarray(flat))
    assert open_picture(np.ones((9, 9), bool)).getpixel((4, 4)) == (255, 255, 255)
    clear = np.zeros((9, 9, 4))
    assert open_picture(clear).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    "source, match",
    [
        (np.full((9, 9, 3), np.nan), "nan or inf"),
        (torch.full((3, 9, 9), float("inf")), "nan or inf"),
        (np.full((9, 9), 7.0), "values from 7 to 7"),
        (np.full((9, 9), -0.5), "scale floats to 0..1"),
        (np.zeros((9, 9, 2)), "shape"),
        (np.zeros((2, 9, 9, 3)), "shape"),
        (np.zeros(9), "shape"),
        (np.zeros((0, 9, 3)), "shape"),
        (np.zeros((9, 9), complex), "complex128"),
        (np.full((9, 9), None), "object"),
        (None, "NoneType"),
        (b"GIF89a", "bytes"),
        (np.zeros((4, 9)), "9 x 4 pixels; give one of at least 8"),
    ],
)
def test_bad_arrays(source, match):
    refused(source, match)


def test_nan_pixels_in_a_file(tmp_path):
    values = np.zeros((12, 16), np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    refused(tmp_path / "nan.tif", "not numbers")


# -- files that are no pictures
def test_files_that_are_no_pictures(tmp_path, photo):
    files = {
        "empty.png": (b"", "empty file"),
        "text.png": (b"hello, I am not a picture" * 9, "not a picture"),
        "page.jpg": (b"<html></html>", "not a picture"),
        "huge.png": (png(20000, 20000), "million"),
        "large.png": (png(12000, 9000), "12000 x 9000 pixels, more than 100 million"),
        "endless.png": (png(2**31 - 1, 2**31 - 1), "million"),
        "point.png": (png(1, 1, zlib.compress(b"\0\1\2\3")), "1 x 1 pixels"),
        "line.png": (png(400, 3, zlib.compress(bytes(3 * 1201))), "400 x 3 pixels"),
        "nothing.png": (png(0, 0), "cannot be read|not a picture|damaged"),
        "hollow.png": (png(64, 64, b""), "damaged"),
        "short.png": (png(64, 64, zlib.compress(bytes(1000))), "damaged"),
        "wrong.png": (png(64, 64, b"not compressed at all"), "damaged"),
    }
    for name, (data, match) in files.items():
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, match)
        refused(str(tmp_path / name), name)
    refused(tmp_path, "is a folder")
    refused(tmp_path / "missing.png", "does not exist")
    refused("x" * 5000, "cannot be read")
    refused("nul\0.png", "cannot be read|does not exist")
    refused(tmp_path / "empty.png" / "below.png", "cannot be read|does not exist")


def test_a_bomb_in_a_comment(tmp_path):
    """A PNG whose text chunk unpacks to 100 MB: refused, or read without the text, but never unpacked."""
    body = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    rows = zlib.compress(bytes(16 * 49))
    (tmp_path / "bomb.png").write_bytes(png(16, 16, rows, chunk))
    refused(tmp_path / "bomb.png", "cannot be read|damaged")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_truncated(tmp_path, suffix):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = tmp_path / f"x.{suffix}"
    noise.save(path)
    assert open_picture(path).size == (64, 64)
    data = path.read_bytes()
    for share in (0.3, 0.7):
        path.write_bytes(data[: int(len(data) * share)])
        refused(path, "damaged|cannot be read|not a picture")


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF"]), data=st.data())
def test_damaged_files_are_read_or_refused(kind, data, tmp_path_factory):
    """Whatever bytes are changed: a picture or an SSRError, no other exception."""
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    Image.radial_gradient("L").resize((24, 24)).convert("RGB").save(
        path, kind, **({"exif": exif} if kind != "GIF" else {})
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert open_picture(path).mode == "RGB"
    except SSRError as error:
        assert "\n" not in str(error)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path, photo):
    photo.save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    refused(tmp_path / "x.png", "permissions")


def test_unreadable_as_root(tmp_path):
    """What even root cannot read: a link to itself."""
    (tmp_path / "x.png").symlink_to(tmp_path / "x.png")
    refused(tmp_path / "x.png", "cannot be read|does not exist")


# -- onto the encoder's square
@pytest.mark.parametrize("size", [(64, 64), (200, 20), (20, 200), (9, 1000), (1001, 333)])
def test_nothing_is_cropped(size):
    """Every picture lies whole, in its proportions, in the middle of zeros."""
    image = Image.new("RGB", size, (255, 255, 255))
    pixels = to_pixels(image, 56, [0.5] * 3, [0.25] * 3)
    assert pixels.shape == (1, 3, 56, 56)
    covered = pixels[0, 0] != 0
    torch.testing.assert_close(pixels[0][:, covered], torch.full((3, int(covered.sum())), 2.0))
    rows, columns = covered.any(1), covered.any(0)
    assert torch.equal(covered, rows[:, None] & columns[None])
    width, height = size
    assert abs(int(columns.sum()) - max(1, 56 * width / max(size))) <= 0.5
    assert abs(int(rows.sum()) - max(1, 56 * height / max(size))) <= 0.5
    for line in (rows, columns):
        before, after = int(line.int().argmax()), int(line.flip(0).int().argmax())
        assert abs(before - after) <= 1


def test_corners_stay_in_the_picture():
    image = Image.new("RGB", (120, 40), (0, 0, 0))
    for x in (0, 112):
        image.paste((255, 255, 255), (x, 0, x + 8, 40))
    pixels = to_pixels(image, 60, [0.0] * 3, [1.0] * 3)[0, 0]
    assert (pixels[21:39, :3] > 0.9).all() and (pixels[21:39, -3:] > 0.9).all() and (pixels[:19] == 0).all()


@settings(deadline=None, max_examples=40)
@given(width=st.integers(1, 60), height=st.integers(1, 60))
def test_frame(width, height):
    values = torch.rand(height, width) + 1
    square = Frame(width, height).pad(values)
    frame = Frame(width, height)
    assert square.shape == (frame.side, frame.side)
    part = square[frame.top : frame.top + height, frame.left : frame.left + width]
    assert torch.equal(part, values) and square.sum() == pytest.approx(float(values.sum()), rel=1e-5)


# -- masks
def test_masks(photo, tmp_path):
    white = np.zeros((12, 16), np.uint8)
    white[2:6, 3:9] = 255
    clear = Image.new("RGBA", (16, 12), (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (3, 2, 9, 6))
    Image.fromarray(white).save(tmp_path / "mask.png")
    for source in (
        white,
        white == 255,
        white / 255,
        torch.from_numpy(white),
        torch.from_numpy(white == 255),
        Image.fromarray(white),
        Image.fromarray(white).convert("1"),
        tmp_path / "mask.png",
        clear,  # what is cut out counts, not what is transparent around it
    ):
        found = open_mask(source, (16, 12))
        assert found.dtype == np.float32 and np.array_equal(found, white / 255)
    half = open_mask(white / 255 * 0.6, (16, 12))
    assert half.max() == pytest.approx(0.6, abs=0.01) and half.min() == 0


@pytest.mark.parametrize(
    "mask, match",
    [
        (np.zeros((12, 16)), "empty"),
        (np.full((12, 16), np.nan), "not numbers"),
        (np.ones((16, 12)), "12 x 16 pixels, the reference image 16 x 12"),
        (np.ones((12, 16, 2)), "shape"),
        ("missing.png", "mask missing.png does not exist"),
    ],
)
def test_bad_masks(mask, match):
    with pytest.raises(SSRError, match=match):
        open_mask(mask, (16, 12))


def test_picture_grid():
    grid = picture_grid(torch.stack([torch.zeros(3, 4, 6), torch.full((3, 4, 6), 0.5), torch.ones(3, 4, 6)]), 2)
    assert grid.size == (14, 10)
    assert [grid.getpixel(at) for at in ((0, 0), (6, 0), (8, 0), (0, 9))] == [
        (0,) * 3,
        (255,) * 3,
        (128,) * 3,
        (255,) * 3,
    ]
