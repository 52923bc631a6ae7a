"""What ``ssr proof`` leaves when it is stopped."""

import json

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
