"""Bad words, numbers, models and subject files: exit code 2, one line that names it and the mend, no file made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from refusal import NOWHERE, check_refused
from safetensors.torch import load_file, save_file

BAD_WORDS = [  # the words after REF, and what the message names
    (["--query", ""], "query"),
    (["--query", "  \t"], "query"),
    ([], "query"),
    (["--query", "\udcff"], "--query"),
    (["--query", "cat", "--box", "1,2,3"], "1,2,3"),
    (["--query", "cat", "--box", "a,b,c,d"], "a,b,c,d"),
    (["--box", "0,0,nan,9"], "nan"),
    (["--box", "0,0,inf,9"], "inf"),
    (["--point", "3"], "--point"),
    (["--point", "-inf,3"], "--point"),
    (["--point", "3,3", "--box", "0,0,9,9"], "not allowed with"),
    (["--query", "cat", "--nonsense"], "--nonsense"),
    (["--query", "cat", "--dtype", "int8"], "int8"),
    (["--query", "cat", "--overw"], "--overw"),
]
BAD_SCALES = ["nan", "inf", "-inf", "-1", "1e9", "-1e-9", "abc", ""]
BAD_GENERATE = [
    *(["--scale", scale] for scale in BAD_SCALES),
    *(["--steps", steps] for steps in ("0", "-1", "1.5", "nan", "1e9", "1001", "9" * 5000)),
    *(["--num-images", count] for count in ("0", "-3", "x", "100000")),
    *(["--seed", seed] for seed in ("-1", "1.5", "x", str(2**64))),
    *(["--guidance-scale", value] for value in ("nan", "inf", "-1", "1e9")),
    *(["--subject-guidance", value] for value in ("nan", "-1", "11", "much")),
    ["--prompt", ""],
    ["--prompt", "\n "],
    ["--negative-prompt", "\udcff"],
]


@pytest.mark.parametrize(("words", "name"), BAD_WORDS, ids=lambda value: " ".join(value)[:30])
@pytest.mark.parametrize("command", ["inspect", "encode", "generate"])
def test_bad_words(ssr, here, pictures, command, words, name):
    more = {"inspect": [], "encode": ["-o", "x.safetensors"], "generate": ["--prompt", "a cat"]}[command]
    check_refused(ssr(command, pictures / "pets.png", *words, *more, "--model", NOWHERE), name)
    assert os.listdir(here) == []


@pytest.mark.parametrize("words", BAD_GENERATE, ids=lambda words: " ".join(words)[:30])
def test_bad_numbers(ssr, here, pictures, words):
    good = ("--query", "cat", "--prompt", "a cat", "--model", NOWHERE)
    check_refused(ssr("generate", pictures / "pets.png", *good, *words), words[0].strip("-").split("-")[-1])
    assert os.listdir(here) == []


@pytest.mark.parametrize("scale", BAD_SCALES)
def test_bad_scale_of_a_repeated_subject(ssr, here, pictures, scale):
    spec = f"{pictures / 'pets.png'}::cat::{scale}"
    check_refused(ssr("generate", "--subject", spec, "--prompt", "a cat", "--model", NOWHERE), "scale", f"{scale!r}")
    assert os.listdir(here) == []


@pytest.mark.parametrize("spec", ["", "::", "pets.png", "pets.png::", "::cat", "pets.png:: ", "a::b::1::2"])
def test_bad_form_of_a_subject(ssr, here, spec):
    check_refused(ssr("generate", "--subject", spec, "--prompt", "a cat", "--model", NOWHERE), repr(spec), "REF::query")


def test_no_subject_at_all_and_words_about_a_missing_reference(ssr, pictures):
    check_refused(ssr("generate", "--prompt", "a cat", "--model", NOWHERE), "no subject")
    subject = f"{pictures / 'pets.png'}::cat"
    words = ("--subject", subject, "--prompt", "a cat", "--model", NOWHERE)
    check_refused(ssr("generate", *words, "--mask", "m.png", "--scale", "1"), "--mask and --scale", "REF")


def test_ten_thousand_words(ssr, here, model, pictures):
    words = " ".join(["cat"] * 10_000)
    for command in (("inspect",), ("generate", "--prompt", "a cat"), ("encode", "-o", "x.safetensors")):
        result = ssr(command[0], pictures / "pets.png", "--query", words, *command[1:], "--model", model)
        check_refused(result, "10000 words", "name the subject in a word or two")
        assert len(result.err) < 300
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    ("region", "name"),
    [
        (("--box", "100,100,200,200"), "outside the picture of 48 x 32"),
        (("--box", "-20,-20,-5,-5"), "outside the picture of 48 x 32"),
        (("--box", "9,9,9,20"), "9, 9, 9, 20"),
        (("--box", "20,20,10,10"), "x0 < x1"),
        (("--point", "48,3"), "48, 3"),
        (("--point", "-1,3"), "-1, 3"),
    ],
)
def test_region_off_the_picture(ssr, here, model, pictures, region, name):
    check_refused(ssr("inspect", pictures / "pets.png", *region, "--model", model), name)
    assert os.listdir(here) == []


@pytest.mark.parametrize("words", [(), ("nonsense",), ("--nonsense",), ("encode", "a.png"), ("generate", "a.png")])
def test_bad_command_lines(ssr, words):
    check_refused(ssr(*words), "see `ssr")


# -- models, subject files, checkpoints
def test_model_that_is_not_there(ssr, here, pictures):
    for words in (("info", NOWHERE), ("inspect", pictures / "pets.png", "--query", "cat", "--model", NOWHERE)):
        result = ssr(*words)
        assert result.code == 2 and result.err.count("\n") == 1
        assert NOWHERE in result.err and "give" in result.err
    (here / "empty").mkdir()
    check_refused(ssr("info", "empty"), "empty holds no subject encoder")
    (here / "file.txt").write_text("x")
    check_refused(ssr("info", "file.txt"), "file.txt", "give")


def test_damaged_model_and_missing_parts(ssr, here, model, pictures):
    words = ("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--steps", 1, "-o", "a.png")
    shutil.copytree(model, here / "copy")
    weights = here / "copy" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    check_refused(ssr(*words, "--model", "copy"), "model.safetensors", "damaged or cut off")
    weights.write_bytes(whole)
    shutil.rmtree(here / "copy" / "unet")
    check_refused(ssr(*words, "--model", "copy"), "copy")
    shutil.rmtree(here / "copy" / "text_encoder")
    check_refused(ssr(*words, "--model", "copy"), "text_encoder")
    assert os.listdir(here) == ["copy"]


@pytest.mark.parametrize("part", ["text_encoder", "image_encoder"])
def test_damaged_parts_of_the_base_model(ssr, here, model, pictures, part):
    """Cut off, of other sizes, or without a tensor that transformers would fill with random numbers."""
    words = ("inspect", pictures / "pets.png", "--query", "cat", "--model", "copy", "-o", "a.png")
    shutil.copytree(model, here / "copy")
    weights = here / "copy" / part / "model.safetensors"
    tensors = load_file(weights)
    name = max(tensors, key=lambda key: tensors[key].numel())
    weights.write_bytes(weights.read_bytes()[:-100])
    check_refused(ssr(*words), part, "check base=")
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, weights, {"format": "pt"})
    check_refused(ssr(*words), part, "check base=")
    save_file({key: value for key, value in tensors.items() if key != name}, weights, {"format": "pt"})
    check_refused(ssr(*words), part, "1 tensors are missing")
    save_file(tensors, weights, {"format": "pt"})
    assert ssr(*words).code == 0


def test_a_query_that_is_not_text(ssr, pictures):
    words = ("--prompt", "a cat", "--model", NOWHERE)
    check_refused(ssr("generate", "--subject", f"{pictures / 'pets.png'}::c\udcff", *words), "pets.png", "not UTF-8")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", "cpu:x"])
def test_device_that_is_not_there(ssr, model, pictures, device):
    result = ssr("inspect", pictures / "pets.png", "--query", "cat", "--model", model, "--device", device)
    check_refused(result, device, "--device cpu")


def test_base_that_is_not_there(ssr, model, pictures):
    words = ("inspect", pictures / "pets.png", "--query", "cat", "--model", model, "--base")
    check_refused(ssr(*words, "./nowhere"), "./nowhere")
    check_refused(ssr(*words, "nowhere.safetensors"), "nowhere.safetensors")


def test_bad_subject_files(ssr, here, model, pictures):
    words = ("--prompt", "a cat", "--model", NOWHERE)
    check_refused(ssr("generate", "missing.safetensors", *words), "missing.safetensors", "ssr encode")
    check_refused(ssr("info", "missing.safetensors"), "missing.safetensors", "ssr encode")
    assert ssr("encode", pictures / "pets.png", "--query", "cat", "--model", model, "-o", "a.safetensors").code == 0
    whole = Path("a.safetensors").read_bytes()
    for name, data in {"zero": b"", "text": b"this is text", "cut": whole[: len(whole) // 2]}.items():
        Path(f"{name}.safetensors").write_bytes(data)
        check_refused(ssr("generate", f"{name}.safetensors", *words), name, "encode the subject again")
        check_refused(ssr("generate", "--subject", f"{name}.safetensors", *words), name)
        check_refused(ssr("info", f"{name}.safetensors"), name)
    other = Path(model) / "model.safetensors"
    check_refused(ssr("generate", other, *words), "model.safetensors", "not a subject file")
    check_refused(ssr("generate", "a.safetensors", "--box", "0,0,9,9", *words), "--box", "encoded already")
    check_refused(ssr("generate", "a.safetensors", "--scale", "11", *words), "11")


def test_a_subject_file_is_known_by_its_ending_in_capitals_too(ssr, here, model, pictures):
    assert ssr("encode", pictures / "pets.png", "--query", "cat", "--model", model, "-o", "A.SAFETENSORS").code == 0
    words = ("--prompt", "a cat", "--steps", 1, "--model", model)
    assert ssr("generate", "A.SAFETENSORS", *words, "-o", "a.png").code == 0
    assert ssr("generate", "--subject", "A.SAFETENSORS::0.5", *words, "-o", "b.png").code == 0


@pytest.mark.parametrize(
    "words, named",
    [
        (("tau", "--model", "other"), "--model"),
        (("tau", "--base", "other"), "--base"),
        (("lambda", "--scratch"), "--scratch"),
        (("lambda", "--train-steps", "300"), "--train-steps"),
        (("lambda", "--batch", "4"), "--batch"),
        (("lambda", "--bfloat16"), "--bfloat16"),
    ],
)
def test_an_ablation_refuses_what_would_do_nothing(ssr, words, named):
    check_refused(ssr("ablate", *words), named, "leave it out")
