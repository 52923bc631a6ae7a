"""Places that cannot be written, full disks and Ctrl-C: one line, exit code 2 or 130, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusal import NOWHERE, check_refused, files_below, without_rights

from ssr_encoder.checkpoint import RELEASED
from ssr_encoder.cli.outputs import PictureFiles
from ssr_encoder.errors import SSRError
from ssr_encoder.files import written_beside


def bad_places(folder: Path, suffix: str) -> dict[str, str]:
    """Places where nothing can be written, and what the message names."""
    (folder / "file").write_text("mine")
    (folder / f"taken{suffix}").write_text("mine")
    (folder / f"device{suffix}").symlink_to("/dev/full")
    (folder / f"folder{suffix}" / "x").mkdir(parents=True)
    return {
        f"file/out{suffix}": "file is not a folder",
        f"no/such/out{suffix}": "no/such does not exist",
        f"taken{suffix}": "--overwrite",
        f"device{suffix}": "not a regular file",
        f"/proc/out{suffix}": "/proc",
        f"out{suffix}x": "end in",
        "out": "end in",
        "/dev/null": "end in",
        "x" * 300 + suffix: "name too long",
    }


@pytest.mark.parametrize("command", ["generate", "inspect", "encode"])
def test_unwritable_output(ssr, here, pictures, command):
    suffix = ".safetensors" if command == "encode" else ".png"
    for place, name in bad_places(here, suffix).items():
        before = files_below(here)
        more = ["--prompt", "a cat"] if command == "generate" else []
        words = (command, pictures / "pets.png", "--query", "cat", *more, "--model", NOWHERE, "-o", place)
        result = ssr(*words)
        check_refused(result, place[:100].removesuffix(f"/out{suffix}"), name)
        assert files_below(here) == before
        assert (here / f"taken{suffix}").read_text() == "mine"
    if command == "generate":
        result = ssr(*words[:-1], "{seed}.png", "--prompt", "a dog")
        check_refused(result, "{seed}.png", "{n}")
        check_refused(ssr(*words[:-1], "no-folder/"), "no-folder", "make it first")


def test_folder_without_write_permission(ssr, pictures):
    with without_rights() as folder:
        Image.new("RGB", (32, 32)).save(folder / "pets.png")
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0o555)
        words = ("pets.png", "--query", "cat", "--model", NOWHERE, "-o", "closed/out.png")
        check_refused(ssr("inspect", *words), "closed", "Permission denied")
        assert os.listdir(folder / "closed") == []


def test_convert_of_something_else(ssr, here, released):
    first, second = (released / name for name in RELEASED)
    (here / "empty").mkdir()
    (here / "cut.bin").write_bytes(first.read_bytes()[:5000])
    (here / "zero.bin").write_bytes(b"")
    torch.save({"x": torch.zeros(3)}, here / "other.bin")
    before = files_below(here)
    for files, name in {
        ("empty",): "empty/pytorch_model.bin",
        ("missing",): "missing",
        (first,): first,
        (first, "missing.bin"): "missing.bin",
        (first, second, first): "both files",
        ("cut.bin", second): "cut.bin",
        ("zero.bin", second): "zero.bin",
        (first, "other.bin"): "other.bin",
        (first, first): "missing",
    }.items():
        check_refused(ssr("convert", *files, "-o", "out"), name)
        assert files_below(here) == before


def test_convert_to_an_unwritable_place(ssr, here, released):
    (here / "file").write_text("mine")
    for place, name in {"file": "file", "file/out": "file", "no/such/out": "no/such", "/proc/out": "/proc"}.items():
        before = files_below(here)
        check_refused(ssr("convert", released, "-o", place), name)
        assert files_below(here) == before


@contextlib.contextmanager
def full_disk(room: int):
    """Files cannot grow beyond ``room`` bytes; what a full disk looks like to the one that writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 200])
def test_full_disk(ssr, here, model, pictures, released, room):
    reference = (pictures / "pets.png", "--query", "cat", "--model", model)
    generate = ("generate", *reference, "--prompt", "a cat", "--steps", 1, "--num-images", 2)
    for words, name in {
        (*generate, "-o", "{n}.png"): "0001.png",
        (*generate, "-o", "{n}.jpg"): "0001.jpg",
        generate: "ssr-0001.png",
        ("inspect", *reference): "ssr-heat-0001.png",
        ("encode", *reference, "-o", "cat.safetensors"): "cat.safetensors",
        ("convert", released, "-o", "out"): "model.safetensors",
    }.items():
        with full_disk(room):
            result = ssr(*words)
        check_refused(result, name, "cannot write", "enough room")
        assert os.listdir(here) == []


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_full_disk_in_the_middle_of_several_pictures(here, suffix):
    """All pictures or none: the first one fits, the second does not."""
    black = Image.new("RGB", (32, 32))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    files = PictureFiles(f"{{n}}.{suffix}", [0, 1])
    with full_disk(1500), pytest.raises(SSRError, match=f"cannot write 0002.{suffix} .*enough room"):
        files.write([black, noise])
    assert os.listdir(here) == []
    assert [str(path) for path in files.write([black, noise])] == [f"0001.{suffix}", f"0002.{suffix}"]


def test_full_disk_behind_stdout(start):
    with open("/dev/full", "w") as full:
        process = start("--help", stdout=full, stderr=subprocess.PIPE)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.startswith("ssr: error: ") and error.count("\n") == 1 and "No space left" in error


def test_reader_that_has_gone(start):
    reader, writer = os.pipe()
    os.close(reader)
    process = start("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and error == ""


# -- Ctrl-C (in the middle of a generation: test_cli.py)
@contextlib.contextmanager
def interrupt_when(condition):
    """Send this process SIGINT as soon as the condition holds, unless the block has ended."""
    ended = threading.Event()

    def watch():
        while not condition():
            if ended.wait(0.001):
                return
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_interrupt_while_writing_a_file(here):
    (here / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), written_beside("a.txt") as path:
        path.write_text("ne")
        signal.raise_signal(signal.SIGINT)
    assert os.listdir(here) == ["a.txt"] and (here / "a.txt").read_text() == "old"


def test_a_place_that_is_no_folder_is_one_line(here):
    (here / "file").write_text("mine")
    with pytest.raises(SSRError, match="cannot write file/a.txt"), written_beside("file/a.txt") as path:
        path.write_text("new")
    assert (here / "file").read_text() == "mine"


def test_a_name_as_long_as_names_may_be(here):
    name = "x" * 251 + ".txt"
    with written_beside(name) as path:
        path.write_text("new")
        assert path.suffix == ".txt"
    assert os.listdir(here) == [name]


def test_interrupt_while_converting(start, here, released):
    process = start("convert", released, "-o", "out", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not os.listdir(here):  # the folder that will become "out", 100 MB later
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (130, "", "interrupted\n")
    assert os.listdir(here) == []


def test_interrupt_while_generating(ssr, here, model, pictures):
    began = time.monotonic()
    words = ("--query", "cat", "--prompt", "a cat", "--steps", 1000, "--num-images", 100, "--model", model)
    with interrupt_when(lambda: time.monotonic() > began + 1):
        result = ssr("generate", pictures / "pets.png", *words)
    assert (result.code, result.out, result.err) == (130, "", "interrupted\n")
    assert os.listdir(here) == []
