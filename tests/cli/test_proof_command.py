"""What ``ssr proof`` leaves: when it is stopped, and of half of the work."""

import json
import re

from ssr_encoder.mini import proof


def test_a_proof_that_is_stopped_keeps_the_lines_that_it_finished(ssr, here, companions, monkeypatch):
    whole = proof.prove

    def stopped(*args):
        yield next(whole(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "prove", stopped)
    words = ("--seed", 2202, "--steps", 4, "--device", "cpu", "--quiet")
    assert ssr("proof", "-n", 2, "--model", companions, "--lines", "mask,box", *words).code != 0
    assert [path.name for path in here.iterdir()] == ["ssr-proof"]
    kept = json.loads((here / "ssr-proof" / "proof.json").read_text())
    assert list(kept["lines"]) == ["mask"] and kept["lines"]["mask"]["figures"]["shown"]["n"] == 2
    page = (here / "ssr-proof" / "proof.html").read_text()
    assert "<h2>Mask</h2>" in page and "<h2>Box</h2>" not in page


def test_without_scale_0_the_rest_is_the_same(ssr, here, companions):
    words = ("proof", "-n", 2, "--model", companions, "--lines", "mask", "--seed", 2202, "--steps", 2)
    words += ("--device", "cpu", "--quiet")
    first, second = ssr(*words, "-o", "whole"), ssr(*words, "-o", "half", "--no-scale-0")
    assert first.code == second.code == 0
    assert "scale 0" in first.out and "scale 0" not in second.out
    whole, half = (json.loads((here / name / "proof.json").read_text())["lines"]["mask"] for name in ("whole", "half"))
    assert half["figures"] == whole["figures"] and half["new_drawings"] == whole["new_drawings"]
    assert {figure["n"] for figure in half["scale_0"].values()} == {0}
    assert {figure["n"] for figure in whole["scale_0"].values()} == {2}
    pages = [(here / name / "proof.html").read_text() for name in ("whole", "half")]
    for words in ("without subject", "at subject scale 0", "<span>scale 0: "):
        assert words in pages[0] and words not in pages[1]


def test_subjects_have_the_strength_that_is_asked_for(ssr, here, companions):
    words = ("proof", "-n", 1, "--model", companions, "--lines", "mask", "--seed", 2202, "--steps", 2)
    assert ssr(*words, "--device", "cpu", "--quiet", "--scale", 0).code == 0
    proof = json.loads((here / "ssr-proof" / "proof.json").read_text())
    assert proof["subject_scale"] == proof["several_scale"] == 0
    page = (here / "ssr-proof" / "proof.html").read_text()
    made, plain = re.findall(r'src="(data:[^"]*)"', page)[-2:]
    assert made == plain, "the same as without subject"
