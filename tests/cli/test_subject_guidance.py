"""``--subject-guidance`` of ``ssr generate`` and ``ssr proof``."""

import json

import numpy as np
from PIL import Image
from refusal import check_refused

from ssr_encoder.encoder import SSREncoder
from ssr_encoder.mini.models import weights_dir
from ssr_encoder.mini.proof import make_cases
from ssr_encoder.mini.proof_pictures import make_pictures
from ssr_encoder.mini.world import load_world


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_subject_guidance_is_an_option(ssr, here, model, pictures):
    words = ("--query", "cat", "--prompt", "a cat", "--model", model, "--steps", 8, "--seed", 5)
    for name, strength in (("plain", ()), ("off", ("--subject-guidance", 0)), ("on", ("--subject-guidance", 1))):
        assert ssr("generate", pictures / "pets.png", *words, *strength, "-o", f"{name}.png").code == 0
    assert np.array_equal(pixels("off.png"), pixels("plain.png"))
    assert not np.array_equal(pixels("on.png"), pixels("plain.png"))


def test_a_proof_says_how_subjects_were_guided(ssr, here, companions):
    words = ("proof", "-n", 2, "--model", companions, "--lines", "mask", "--seed", 2202, "--device", "cpu", "--quiet")
    for strength in ((), ("--subject-guidance", 4)):
        assert ssr(*words, "--steps", 4, *strength).code == 0
        proof = json.loads((here / "ssr-proof" / "proof.json").read_text())
        assert proof["subject_guidance"] == (strength or (0, 0.0))[1]
    check_refused(ssr(*words, "--few-steps", "--subject-guidance", 1), "--few-steps", "--subject-guidance")


def test_a_proofs_pictures_have_the_encoders_subject_guidance(companions):
    encoder, world = SSREncoder.from_pretrained(companions, device="cpu"), load_world("cpu", weights_dir())
    cases = make_cases(world, "mask", 1, 2202)
    subjects = [[encoder.encode(cases[0].references[0], **cases[0].queries[0])]]

    def picture(strength, guidance_scale):
        encoder.config.subject_guidance = strength
        return next(make_pictures(encoder, cases, subjects, steps=4, seed=0, guidance_scale=guidance_scale))

    assert (picture(4.0, 3.0) - picture(0.0, 3.0)).abs().max() > 1e-3
    assert (picture(4.0, 1.0) - picture(0.0, 1.0)).abs().max() == 0, "none without guidance"


def test_a_proofs_pairs_have_the_encoders_strength_of_several(companions):
    encoder, world = SSREncoder.from_pretrained(companions, device="cpu"), load_world("cpu", weights_dir())
    cases = make_cases(world, "composed", 1, 2202)
    case = cases[0]
    pair = [encoder.encode(picture, **query) for picture, query in zip(case.references, case.queries, strict=True)]

    def picture(subjects, several_scale=None):
        encoder.config.several_scale = several_scale
        return next(make_pictures(encoder, cases, subjects, steps=2, seed=0, guidance_scale=1.0))

    plain = picture(None)
    assert (picture([pair], 0.0) - plain).abs().max() < 1e-4 < 1e-3 < (picture([pair]) - plain).abs().max()
