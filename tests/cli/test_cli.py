"""The commands, on a tiny complete model: what they write, what they print, and that repeating them repeats it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from ssr_encoder.aligner import SubjectConfig
from ssr_encoder.checkpoint import RELEASED, load_model, released_names, sd15_config
from ssr_encoder.cli import COMMANDS
from ssr_encoder.encoder import SSREncoder
from ssr_encoder.subject import Subject

OURS = ("generate", "inspect", "encode", "convert", "info")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# -- help
def test_help_is_fast_and_imports_no_torch(here):
    code = (
        "import sys, time; from ssr_encoder.cli import main\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'rich'} & set(sys.modules)\n"
        "print('heavy:', heavy, time.process_time())"
    )
    times = []
    for _ in range(3):  # the best of three: another process may be busy
        root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
        out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        assert "heavy: set()" in out
        times.append(float(out.split()[-1]))
    assert min(times) < 0.3


def test_help_names_every_command(ssr):
    result = ssr("--help")
    assert result.code == 0
    assert {"demo", "proof"} <= set(COMMANDS)
    assert all(re.search(rf"^    {name}( |$)", result.out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", OURS)
def test_help_of_every_command_has_examples(ssr, command):
    result = ssr(command, "--help")
    assert result.code == 0
    assert result.out.split("examples:")[1].count(f"  ssr {command}") >= 2


def test_version(ssr):
    assert re.fullmatch(r"ssr \d+\.\d+\.\d+\n", ssr("--version").out)


# -- generate
def test_generate_writes_what_python_generates(ssr, here, model, pictures):
    pets = pictures / "pets.png"
    words = ("generate", pets, "--query", "cat", "--prompt", "a cat", "--model", model, "--steps", 2, "--seed", 5)
    result = ssr(*words, "--scale", 0.5, "-o", "cat.png")
    assert (result.code, result.out, result.err) == (0, "cat.png\n", "")
    encoder = SSREncoder.from_pretrained(model, device="cpu")
    subject = encoder.encode(pets, "cat").with_(scale=0.5)
    [expected] = encoder.generate("a cat", subject, num_inference_steps=2, seed=5)
    assert np.array_equal(pixels("cat.png"), np.asarray(expected))
    assert os.listdir(here) == ["cat.png"]


def test_generate_scale_zero_is_without_the_subject(ssr, model, pictures):
    words = ("--prompt", "a cat", "--model", model, "--steps", 2, "--seed", 5, "-o")
    pets = pictures / "pets.png"
    assert ssr("generate", pets, "--query", "cat", *words, "one.png").code == 0
    assert ssr("generate", pets, "--query", "cat", "--scale", 0, *words, "none.png").code == 0
    both = ("--subject", f"{pets}::cat", "--subject", f"{pets}::dog::0")
    assert ssr("generate", *both, *words, "both.png").code == 0
    assert np.array_equal(pixels("both.png"), pixels("one.png"))
    assert not np.array_equal(pixels("none.png"), pixels("one.png"))


def test_generate_several_prompts_and_images_as_json(ssr, here, model, pictures):
    result = ssr(
        "generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--prompt", "a dog",
        "--num-images", 2, "--steps", 1, "--seed", 3, "--negative-prompt", "snow", "--guidance-scale", 2,
        "--model", model, "--json",
    )  # fmt: skip
    assert result.code == 0 and result.err == ""
    rows = result.json["images"]
    assert [(row["file"], row["prompt"], row["seed"]) for row in rows] == [
        ("ssr-0001.png", "a cat", 3),
        ("ssr-0002.png", "a cat", 4),
        ("ssr-0003.png", "a dog", 3),
        ("ssr-0004.png", "a dog", 4),
    ]
    assert sorted(os.listdir(here)) == [row["file"] for row in rows]
    encoder = load_model(model)
    assert result.json["fingerprint"] == encoder.fingerprint()
    scale = encoder.config.subject_scale  # the model's own
    assert result.json["subjects"] == [{"reference": str(pictures / "pets.png"), "query": "cat", "scale": scale}]


def test_generate_without_a_seed_tells_the_seed_that_repeats_it(ssr, model, pictures):
    words = ("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--model", model, "--steps", 1)
    first = ssr(*words, "--json").json["images"][0]
    second = ssr(*words, "--json", "--seed", first["seed"]).json["images"][0]
    assert (first["file"], second["file"]) == ("ssr-0001.png", "ssr-0002.png")
    assert np.array_equal(pixels(first["file"]), pixels(second["file"]))


def test_generate_from_a_region(ssr, model, pictures):
    files = []
    for i, region in enumerate((("--mask", pictures / "mask.png"), ("--box", "-5,8,16,24"), ("--point", "3,3"))):
        words = ("--prompt", "a cat", "--model", model, "--steps", 1, "--seed", 1, "-o", f"{i}.png")
        result = ssr("generate", pictures / "pets.png", *region, *words)
        assert result.code == 0, result.err
        files.append(pixels(f"{i}.png"))
    assert np.array_equal(files[0], files[1])  # the box, cut at the edge, is the mask
    assert not np.array_equal(files[0], files[2])


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("cat.jpg", ["cat-0001.jpg", "cat-0002.jpg"]),
        ("{seed}-x.webp", ["7-x.webp", "8-x.webp"]),
        ("a{n}.png", ["a0001.png", "a0002.png"]),
        ("folder", ["folder/ssr-0013.png", "folder/ssr-0014.png"]),
    ],
)
def test_generate_output_names(ssr, here, model, pictures, output, names):
    (here / "folder").mkdir()
    (here / "folder" / "ssr-0012.png").write_text("taken")
    words = ("--num-images", 2, "--seed", 7, "--steps", 1, "--model", model, "-o", output)
    result = ssr("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", *words)
    assert result.out.split() == names
    assert all(Image.open(name).size == (32, 32) for name in names)
    assert (here / "folder" / "ssr-0012.png").read_text() == "taken"


def test_files_are_replaced_only_when_asked(ssr, here, model, pictures):
    (here / "cat.png").write_text("mine")
    words = ("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--model", model, "--steps", 1)
    result = ssr(*words, "-o", "cat.png")
    assert result.code == 2 and "cat.png exists already" in result.err and "--overwrite" in result.err
    assert (here / "cat.png").read_text() == "mine"
    assert ssr(*words, "-o", "cat.png", "--overwrite").code == 0
    assert Image.open(here / "cat.png").size == (32, 32)


def test_a_prompt_that_is_too_long_gets_a_note(ssr, model, pictures):
    words = ("generate", pictures / "pets.png", "--query", "cat", "--steps", 1, "--model", model)
    result = ssr(*words, "--prompt", "a cat in the snow " * 5)
    assert result.code == 0
    assert re.fullmatch(r"ssr: note: prompt .* has 27 tokens; the model reads 10\n", result.err)
    assert ssr(*words, "--prompt", "a cat in the snow " * 5, "--quiet").err == ""


# -- encode and subject files
def test_encode_then_generate_is_the_same_as_at_once(ssr, here, model, pictures):
    pets = pictures / "pets.png"
    result = ssr("encode", pets, "--query", "cat", "--scale", 0.7, "--model", model, "-o", "cat.safetensors")
    assert (result.code, result.out, result.err) == (0, "cat.safetensors\n", "")
    assert os.listdir(here) == ["cat.safetensors"]
    assert Subject.load("cat.safetensors").scale == 0.7
    words = ("--prompt", "a cat", "--model", model, "--steps", 2, "--seed", 5, "-o")
    assert ssr("generate", pets, "--query", "cat", "--scale", 0.7, *words, "a.png").code == 0
    assert ssr("generate", "cat.safetensors", *words, "b.png").code == 0
    assert ssr("generate", "--subject", "cat.safetensors", *words, "c.png").code == 0
    assert ssr("generate", "--subject", "cat.safetensors::cat::0.2", *words, "d.png").code == 0
    assert ssr("generate", "cat.safetensors", "--scale", 0.2, *words, "e.png").code == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png")) and np.array_equal(pixels("a.png"), pixels("c.png"))
    assert np.array_equal(pixels("d.png"), pixels("e.png")) and not np.array_equal(pixels("a.png"), pixels("e.png"))


def test_a_subject_of_another_model_is_refused(ssr, here, model, pictures, tmp_path_factory):
    assert ssr("encode", pictures / "pets.png", "--query", "cat", "--model", model, "-o", "a.safetensors").code == 0
    subject = Subject.load("a.safetensors").with_(fingerprint="0123456789abcdef")
    subject.save("b.safetensors")
    result = ssr("generate", "b.safetensors", "--prompt", "a cat", "--model", model, "--steps", 1)
    assert result.code == 2 and "0123456789abcdef" in result.err and "encode it again" in result.err
    assert sorted(os.listdir(here)) == ["a.safetensors", "b.safetensors"]


# -- inspect
def test_inspect_draws_picture_and_map_side_by_side(ssr, here, model, pictures):
    result = ssr("inspect", pictures / "pets.png", "--query", "cat", "--model", model)
    assert result.code == 0 and result.out.startswith("ssr-heat-0001.png ") and result.err == ""
    sheet = pixels("ssr-heat-0001.png")
    assert sheet.shape == (32, 2 * 48 + 8, 3)
    assert np.array_equal(sheet[:, :48], pixels(pictures / "pets.png"))
    assert not np.array_equal(sheet[:, -48:], sheet[:, :48])


def test_inspect_numbers_are_those_of_the_subject(ssr, here, model, pictures):
    mask = ("--mask", pictures / "mask.png")
    figures = ssr("inspect", pictures / "pets.png", "--query", "cat", *mask, "--model", model, "--json").json
    assert os.listdir(here) == []  # no picture was asked for
    subject = SSREncoder.from_pretrained(model, device="cpu").encode(
        pictures / "pets.png", "cat", mask=pictures / "mask.png"
    )
    assert np.allclose(figures["map"], subject.attention, atol=1e-6)
    assert figures["size"] == [48, 32] and figures["map_square"] == [0, -8, 48, 40]
    x, y = figures["peak"]
    assert 0 <= x < 20 and 4 <= y < 28  # in the mask, to within the interpolation of 12-pixel cells
    x0, y0, x1, y1 = figures["box"]
    assert 0 <= x0 <= x < x1 <= 24 and 0 <= y0 <= y < y1 <= 32
    assert 0 < figures["area"] < 0.5


def test_inspect_of_a_large_picture_gives_a_sheet_of_ordinary_size(ssr, here, model):
    Image.new("RGB", (6000, 2000)).save("wide.png")
    result = ssr("inspect", "wide.png", "--point", "5900,1000", "--model", model, "--json", "-o", "heat.png")
    assert result.code == 0, result.err
    assert Image.open("heat.png").size == (1024, 2 * 341 + 8)
    assert result.json["peak"][0] > 5000 and result.json["box"][2] <= 6000


def test_inspect_of_a_strip(ssr, here, model):
    """Its thumbnail would be thinner than pictures may be."""
    Image.new("RGB", (2400, 10)).save("strip.png")
    result = ssr("inspect", "strip.png", "--point", "2300,5", "--model", model, "--json", "-o", "heat.png")
    assert result.code == 0, result.err
    assert Image.open("heat.png").size == (1024, 2 * 8 + 8)
    assert result.json["size"] == [2400, 10] and result.json["box"][3] <= 10


def test_a_note_where_bfloat16_is_slow(ssr, model, pictures):
    words = ("inspect", pictures / "pets.png", "--query", "cat", "--model", model, "--device", "cpu", "--dtype")
    for dtype, slow in (("float32", False), ("bfloat16", torch.backends.cpu.get_cpu_capability() == "AVX2")):
        result = ssr(*words, dtype)
        assert result.code == 0 and ("40 times" in result.err) == slow


# -- info
def test_info_of_a_model(ssr, model):
    figures = ssr("info", model, "--json").json
    loaded = load_model(model)
    assert figures["fingerprint"] == loaded.fingerprint()
    assert figures["layers"] == loaded.config.layers
    assert sum(figures["parameters"].values()) == sum(p.numel() for p in loaded.parameters())
    assert figures["bytes"] == {"model.safetensors": os.path.getsize(f"{model}/model.safetensors")}
    assert figures["runs_on"]["torch"] == torch.__version__
    text = ssr("info", model).out
    assert loaded.fingerprint() in text and "mid_block.attentions.0" in text


def test_info_of_a_subject(ssr, model, pictures):
    assert ssr("encode", pictures / "pets.png", "--query", "cat", "--model", model, "-o", "a.safetensors").code == 0
    figures = ssr("info", "a.safetensors", "--json").json
    assert figures["query"] == "cat" and figures["picture_size"] == [48, 32] and figures["tokens"] == [20, 32]
    assert figures["fingerprint"] == load_model(model).fingerprint()


# -- convert
@pytest.mark.parametrize("form", ["folder", "files", "swapped"])
def test_convert(ssr, here, released, form):
    files = [released / name for name in RELEASED]
    words = {"folder": [released], "files": files, "swapped": files[::-1]}[form]
    result = ssr("convert", *words, "-o", "out", "--json")
    assert result.code == 0 and result.err == ""
    assert os.listdir(here) == ["out"]
    assert sorted(os.listdir(here / "out")) == ["config.json", "model.safetensors"]
    model = load_model("out")
    assert model.config == sd15_config()
    assert isinstance(model.config, SubjectConfig) and result.json["fingerprint"] == model.fingerprint()
    for i, ours in enumerate(released_names(model.config)):
        assert (model.state_dict()[ours] == i).all()


def test_convert_keeps_a_model_that_is_there(ssr, here, released):
    (here / "out").mkdir()
    (here / "out" / "README.md").write_text("mine")
    (here / "out" / "config.json").write_text("mine")
    result = ssr("convert", released, "-o", "out")
    assert result.code == 2 and "config.json exists already" in result.err
    assert ssr("convert", released, "-o", "out", "--overwrite").code == 0
    assert sorted(os.listdir(here / "out")) == ["README.md", "config.json", "model.safetensors"]
    assert load_model("out").config == sd15_config()


def test_convert_into_the_current_folder(ssr, here, released):
    result = ssr("convert", released, "-o", ".")
    assert result.code == 0, result.err
    assert sorted(os.listdir(here)) == ["config.json", "model.safetensors"]


# -- a terminal, and Ctrl-C
def test_progress_bars_and_interrupt_at_a_terminal(start, here, model, pictures):
    words = ("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--steps", 1000)
    master, slave = pty.openpty()
    process = start(*words, "--num-images", 100, "--model", model, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    seen = _read_until(master, r"generating.*?[1-9]\d*/25000")
    assert "loading" in seen
    process.send_signal(signal.SIGINT)
    seen = _read_until(master, "interrupted")
    assert process.wait(60) == 130
    assert process.stdout.read() == "" and "Traceback" not in seen
    assert os.listdir(here) == []
    os.close(master)


def _read_until(terminal: int, pattern: str, seconds: float = 120) -> str:
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            text += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the other side was closed
            break
        if re.search(pattern, text, re.DOTALL):
            return text
    raise AssertionError(f"{pattern!r} was not seen in {text[-2000:]!r}")
