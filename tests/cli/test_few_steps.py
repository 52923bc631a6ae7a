"""``--few-steps`` of ``ssr generate`` and ``ssr proof``."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image
from refusal import NOWHERE, check_refused

from ssr_encoder.encoder import SSREncoder
from ssr_encoder.few_step import FEW_STEPS, few_steps


@pytest.fixture
def asked(pictures, companions):
    return (
        "generate",
        pictures / "pets.png",
        "--query",
        "cat",
        "--prompt",
        "a cat",
        "--seed",
        5,
        "--model",
        companions,
    )


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_few_steps_write_what_python_generates(ssr, here, asked, pictures, companions):
    result = ssr(*asked, "--few-steps", "-o", "few.png", "--json")
    assert result.code == 0, result.err
    assert result.json["steps"] == FEW_STEPS
    encoder = SSREncoder.from_pretrained(companions, device="cpu")
    subject = encoder.encode(pictures / "pets.png", "cat")
    with few_steps(encoder) as settings:
        [expected] = encoder.generate("a cat", subject, seed=5, **settings)
    assert np.array_equal(pixels("few.png"), np.asarray(expected))
    assert ssr(*asked, "--steps", FEW_STEPS, "--guidance-scale", 1, "-o", "plain.png").code == 0
    assert abs(pixels("few.png") - pixels("plain.png")).max() > 1, "the LoRA acts"


def test_steps_guidance_and_a_lora_may_be_given(ssr, here, asked, companions):
    lora = f"{companions}/few_step"
    result = ssr(*asked, "--few-steps", "--few-step-lora", lora, "--steps", 4, "--guidance-scale", 2, "--json")
    assert result.code == 0 and result.json["steps"] == 4, result.err


def test_with_a_map(ssr, here, asked, pictures):
    result = ssr(*asked, "--few-steps", "--control", pictures / "mask.png", "-o", "cat.png", "--json")
    assert result.code == 0 and result.json["steps"] == FEW_STEPS, result.err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--few-step-lora", "a/b"], ["--few-step-lora", "--few-steps"]),
        (["--few-steps", "--few-step-lora", "./nowhere"], ["LoRA './nowhere'"]),
        (["--few-steps", "--frames", "4"], ["--few-steps", "--frames"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_words(ssr, here, asked, words, names):
    check_refused(ssr(*asked[:-1], NOWHERE, *words), *names)
    assert os.listdir(here) == []


def test_a_base_without_a_lora_and_one_that_does_not_fit(ssr, here, asked, model):
    check_refused(ssr(*asked[:-1], model, "--few-steps"), "of its own", "--few-step-lora")
    (here / "pytorch_lora_weights.safetensors").write_bytes(b"not a LoRA")
    check_refused(ssr(*asked[:-1], model, "--few-steps", "--few-step-lora", here), "cannot use the LoRA", "made for")
    assert os.listdir(here) == ["pytorch_lora_weights.safetensors"]


def test_a_proof_says_that_it_was_in_few_steps(ssr, here, companions):
    """Of a model whose UNet is tiny; what the judge says of its noise does not matter."""
    words = ("--lines", "mask", "--seed", 2202, "--device", "cpu", "--quiet")  # a seed with few identities to judge
    result = ssr("proof", "-n", 2, "--few-steps", "--model", companions, *words)
    assert result.code == 0, result.err
    proof = json.loads((here / "ssr-proof" / "proof.json").read_text())
    assert (proof["steps"], proof["guidance_scale"], proof["few_steps"]) == (FEW_STEPS, 1.0, "own")
    assert proof["subject_guidance"] == 0.0
