"""``--candidates`` of ``ssr generate`` and ``ssr proof``."""

import json

import numpy as np
from PIL import Image
from refusal import check_refused

from ssr_encoder.likeness import candidate_seeds


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_one_of_the_candidates_is_written(ssr, here, model, pictures):
    words = ("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--model", model, "--steps", 2)
    ran = ssr(*words, "--seed", 5, "--candidates", 3, "--json", "-o", "best.png")
    assert ran.code == 0
    assert json.loads(ran.out)["candidates"] == 3 and len(list(here.glob("*.png"))) == 1
    for number, seed in enumerate(candidate_seeds(5, 3)):
        assert ssr(*words, "--seed", seed, "-o", f"{number}.png").code == 0
    distances = [np.abs(pixels("best.png") - pixels(f"{number}.png")).max() for number in range(3)]
    assert min(distances) <= 1 and sorted(distances)[1] > 8


def test_bad_candidates_are_refused(ssr, here, model, pictures):
    words = ("generate", pictures / "pets.png", "--query", "cat", "--prompt", "a cat", "--model", model)
    check_refused(ssr(*words, "--candidates", 0), "--candidates")
    check_refused(ssr(*words, "--candidates", 2, "--frames", 16), "--candidates", "--frames")


def test_a_proof_says_how_many_candidates_there_were(ssr, here, companions):
    words = ("proof", "-n", 2, "--model", companions, "--lines", "mask", "--device", "cpu", "--quiet", "--steps", 1)
    shown = []
    for count in (1, 3):
        assert ssr(*words, "--candidates", count).code == 0
        proof = json.loads((here / "ssr-proof" / "proof.json").read_text())
        assert proof["candidates"] == count
        shown.append(proof["lines"]["mask"]["scale_0"])
    assert shown[0] == shown[1], "without subjects there is nothing to choose by"
