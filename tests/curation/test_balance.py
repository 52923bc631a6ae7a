"""Who is kept, how likely, and that content alone draws the lot."""

import math

import pytest
from shards_made import read_folder, sample, write_folder

from ssr_encoder.curation import run_step
from ssr_encoder.curation.balance import BalanceStep, draw
from ssr_encoder.errors import SSRError

COUNTED = {"captions": 1000, "described": 1000, "frequencies": {"woman": 800, "dress": 200, "cat": 40, "axolotl": 2}}


def test_the_rarest_descriptor_decides():
    step = BalanceStep(COUNTED, share=0.05)
    assert step.probability(["woman"]) == pytest.approx(math.sqrt(0.05 / 0.8))
    assert step.probability(["woman", "dress"]) == pytest.approx(math.sqrt(0.05 / 0.2))
    assert step.probability(["woman", "cat"]) == step.probability(["axolotl"]) == 1
    assert step.probability([]) == step.probability(["never counted", "woman"]) == 1
    assert BalanceStep(COUNTED, cap=50).probability(["woman", "dress"]) == 0.25


def test_the_commonest_decides_if_asked():
    step = BalanceStep(COUNTED, cap=50, decides="commonest")
    assert step.probability(["woman", "axolotl"]) == 50 / 800
    assert step.probability([]) == 1


def test_the_draw_is_even_and_of_content_and_seed():
    draws = [draw(str(k).encode(), 0) for k in range(4000)]
    assert min(draws) >= 0 and max(draws) < 1
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.02)
    assert draw(b"a", 0) == draw(b"a", 0) != draw(b"a", 1)


def test_a_cap_comes_true_in_shards_whatever_their_order(tmp_path):
    samples = [sample(k, descriptors=["woman"] if k % 10 else ["woman", "cat"]) for k in range(300)]
    counted = {"captions": 300, "described": 300, "frequencies": {"woman": 300, "cat": 30}}
    step = BalanceStep(counted, cap=100)
    source = write_folder(tmp_path / "a", [samples[:150], samples[150:]])
    list(run_step(step, source, tmp_path / "out"))
    kept = read_folder(tmp_path / "out")
    assert {k for k, one in kept.items() if "cat" in one.meta["descriptors"]} == {f"{k:06}" for k in range(0, 300, 10)}
    assert 270 / 3 - 25 < len(kept) - 30 < 270 / 3 + 25
    backwards = write_folder(tmp_path / "b", [samples[::-1]])
    list(run_step(step, backwards, tmp_path / "out b"))
    assert read_folder(tmp_path / "out b") == kept


def test_parameters_tell_frequencies_apart():
    other = {**COUNTED, "frequencies": {**COUNTED["frequencies"], "cat": 41}}
    assert BalanceStep(COUNTED, share=0.1).parameters() == BalanceStep(COUNTED, share=0.1).parameters()
    assert BalanceStep(COUNTED, share=0.1).parameters() != BalanceStep(other, share=0.1).parameters()


@pytest.mark.parametrize(
    "options", [{}, {"share": 0.1, "cap": 3}, {"share": 0.0}, {"share": 2}, {"cap": 0}, {"cap": 1, "decides": "me"}]
)
def test_impossible_rules_are_refused(options):
    with pytest.raises(SSRError, match="; |give "):
        BalanceStep(COUNTED, **options)


def test_undescribed_shards_are_refused(tmp_path):
    source = write_folder(tmp_path / "in", [[sample(0, "a cat")]])
    with pytest.raises(SSRError, match="run `ssr data describe` on these shards first"):
        list(run_step(BalanceStep(COUNTED, cap=1), source, tmp_path / "out"))
