"""``ssr proof``: its cases, its judge, its figures, its report."""

import json
import re

import numpy as np
import pytest
import torch

from ssr_encoder import SSREncoder
from ssr_encoder.cli import main
from ssr_encoder.cli.proof import LINES as COMMAND_LINES
from ssr_encoder.mini.judge import Verdict
from ssr_encoder.mini.proof import (
    LINES,
    METRICS,
    PAIRS,
    by_concept,
    count_steps,
    make_cases,
    make_pictures,
    summarise,
    wilson,
)
from ssr_encoder.mini.proof_report import ranked, says
from ssr_encoder.mini.world import World

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world() -> World:
    return World.load()


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)
    mirrored = wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-4)


def test_wilson_of_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("line", LINES)
def test_cases(world, line):
    cases = make_cases(world, line, 40, seed=3)
    assert len(cases) == 40
    for case in cases:
        assert len(case.concepts) == len(case.references) == len(case.queries) == (2 if line in PAIRS else 1)
        for concept, (style, colour) in zip(case.concepts, case.identities, strict=True):
            assert world.holdout[concept, style, colour] and world.available[concept, style, colour]
            assert world.concepts[concept] in case.prompt.split()
        assert len(set(case.concepts)) == len(case.concepts)
        assert not set(case.others) & set(case.concepts)
        assert case.others or line == "twin"
        assert 0 <= case.place < len(world.places) - 1, "a place that can be named"
        assert case.new_drawing == any(
            world.new_drawing[c, s] for c, (s, _) in zip(case.concepts, case.identities, strict=True)
        )
        assert (case.twin is not None) == (line == "twin")
        if case.twin:
            assert case.twin != case.identities[0] and world.available[case.concepts[0]][case.twin]
    again = make_cases(world, line, 40, seed=3)
    assert [c.prompt for c in again] == [c.prompt for c in cases]
    assert np.array_equal(np.asarray(again[5].references[0]), np.asarray(cases[5].references[0]))
    assert [c.prompt for c in make_cases(world, line, 40, seed=4)] != [c.prompt for c in cases]


def test_regions_lie_on_the_subject(world):
    masks, box_cases, points, texts = (make_cases(world, line, 40, seed=1) for line in ("mask", "box", "point", "text"))
    for with_mask, with_box, with_point, with_text in zip(masks, box_cases, points, texts, strict=True):
        prompts = {case.prompt for case in (with_mask, with_box, with_point, with_text)}
        assert len(prompts) == 1, "the same subjects, asked for in four ways"
        assert np.array_equal(np.asarray(with_mask.references[0]), np.asarray(with_text.references[0]))
        mask = with_mask.queries[0]["mask"]
        x0, y0, x1, y1 = with_box.queries[0]["box"]
        rows, columns = mask.nonzero()
        assert x0 <= columns.min() and columns.max() < x1 and y0 <= rows.min() and rows.max() < y1
        assert (x1 - x0) * (y1 - y0) <= 2 + (np.ptp(columns) + 2) * (np.ptp(rows) + 2), "tight"
        x, y = with_point.queries[0]["point"]
        assert mask[int(y), int(x)]
        assert world.concepts[with_text.concepts[0]] in with_text.queries[0]["query"]


def test_pairs_are_the_same_asked_for_in_two_ways(world):
    for by_words, boxed in zip(*(make_cases(world, line, 20, seed=1) for line in PAIRS), strict=True):
        assert by_words.prompt == boxed.prompt and by_words.identities == boxed.identities
        for word, both, picture, same in zip(
            by_words.queries, boxed.queries, by_words.references, boxed.references, strict=True
        ):
            assert set(word) == {"query"} and set(both) == {"query", "box"} and both["query"] == word["query"]
            assert np.array_equal(np.asarray(picture), np.asarray(same))
            x0, y0, x1, y1 = both["box"]
            assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128


def verdict(**changes) -> Verdict:
    values = {"shown": 1.0, "identity": 1.0, "other": 0.0, "place": 1.0, "likeness": 0.9}
    return Verdict(**{**values, "picture": torch.zeros(3, 8, 8), **changes})


def test_summary():
    figures = summarise([verdict(), verdict(shown=0.0, other=None), verdict(identity=0.0, other=1.0), verdict()])
    assert set(figures) == set(METRICS)
    assert figures["shown"]["value"] == 0.75 and figures["shown"]["n"] == 4
    assert figures["other"]["value"] == pytest.approx(1 / 3) and figures["other"]["n"] == 3, "nothing else to show"
    assert (figures["place"]["low"], figures["place"]["high"]) == wilson(4, 4)
    two = summarise([verdict(shown=0.5), verdict(told_apart=1.0)], subjects=2)
    assert two["shown"]["value"] == 0.75 and two["shown"]["n"] == 4 and two["place"]["n"] == 2
    assert two["told_apart"] == {"value": 1.0, "low": wilson(1, 1)[0], "high": 1.0, "n": 1}
    pairs = summarise([verdict(identity=x) for x in (1.0, 1.0, 0.5, 0.0)], subjects=2)
    assert pairs["identity"]["value"] == 0.625 and pairs["identity"]["n"] == 8
    assert pairs["all_right"] == {"value": 0.5, "low": wilson(2, 4)[0], "high": wilson(2, 4)[1], "n": 4}
    assert summarise([])["shown"]["n"] == 0


def test_each_concept_has_its_share(world):
    cases = make_cases(world, "text", 30, 0)
    verdicts = [verdict(shown=float(i % 3 > 0)) for i in range(30)]
    parts = by_concept(world, cases, verdicts)
    assert len(parts) > 3 and list(parts) == sorted(parts) and set(parts) <= set(world.concepts)
    assert sum(part["shown"]["n"] for part in parts.values()) == 30
    assert sum(part["shown"]["n"] * part["shown"]["value"] for part in parts.values()) == pytest.approx(20)
    name = world.concepts[cases[0].concepts[0]]
    mine = [v.shown for v, case in zip(verdicts, cases, strict=True) if name in case.prompt.split()]
    assert parts[name]["shown"]["value"] == pytest.approx(sum(mine) / len(mine))
    assert by_concept(world, make_cases(world, "composed", 2, 0), verdicts[:2]) == {}


def test_ranking_and_words(world):
    case = make_cases(world, "text", 1, 0)[0]
    result = {"verdicts": [verdict(likeness=x) for x in (0.3, 0.9, 0.1, 0.5, 0.7, 0.2)]}
    assert ranked(result) == {"best": [1, 4], "median": [3, 0], "worst": [5, 2]}
    tied = {"verdicts": [verdict(likeness=0.5, shown=0.0), verdict(likeness=0.5), verdict(likeness=0.1)]}
    assert ranked(tied) == {"best": [1], "median": [0], "worst": [2]}
    assert [good for _, good in says(case, verdict())] == [True] * (5 + case.new_drawing)
    words = dict(says(case, verdict(shown=0.0, other=1.0, place=0.0)))
    assert not words["subject not shown"] and not words["another subject leaked in"] and not words["place wrong"]


def test_pictures_are_those_that_a_user_gets(world):
    ssr = SSREncoder.from_pretrained("mini", device="cpu")
    cases = make_cases(world, "mask", 3, seed=2)
    subjects = [[ssr.encode(c.references[0], **c.queries[0])] for c in cases]
    with_subject = list(make_pictures(ssr, cases, subjects, steps=2, seed=11, batch=2))
    without = list(make_pictures(ssr, cases[:1], None, steps=2, seed=11))
    for i in (0, 2):
        (mine,) = ssr.generate(cases[i].prompt, subjects[i], num_inference_steps=2, seed=11 + i)
        mine = torch.from_numpy(np.array(mine)).permute(2, 0, 1) / 255
        assert (mine - with_subject[i]).abs().max() < 3 / 255
    assert (without[0] - with_subject[0]).abs().max() > 5 / 255, "the subject acts"
    unguided = list(make_pictures(ssr, cases, subjects, steps=2, seed=11, guidance_scale=1.0))
    (mine,) = ssr.generate(cases[2].prompt, subjects[2], num_inference_steps=2, seed=13, guidance_scale=1.0)
    mine = torch.from_numpy(np.array(mine)).permute(2, 0, 1) / 255
    assert (mine - unguided[2]).abs().max() < 3 / 255 and (mine - with_subject[2]).abs().max() > 5 / 255


def test_proof(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The judge draws all identities of the concepts in question: this seed's have few.
    argv = ["proof", "-n", "4", "--steps", "2", "--seed", "2202", "--lines", "text,mask", "--device", "cpu", "--json"]
    assert main(argv) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "ssr-proof" / "proof.json").read_text())
    assert printed == written
    assert (
        written["format"] == "ssr-proof-1" and written["n"] == 4 and written["steps"] == 2 and written["seed"] == 2202
    )
    assert {"torch", "diffusers", "ssr-encoder"} <= set(written["versions"]) and "commit" in written
    assert list(written["lines"]) == ["text", "mask"]
    text, mask = written["lines"].values()
    assert text["scale_0"] == mask["scale_0"], "the same prompts and noise"
    assert 0 < text["chance_identity"] < 0.15
    for line in (text, mask):
        for figures in (line["figures"], line["scale_0"]):
            assert all(0 <= f["low"] <= f["value"] <= f["high"] <= 1 and f["n"] == 4 for f in figures.values())
    assert written["judge"]["place"] > 0.7 and written["judge"]["concept_shown"] > 0.7
    page = (tmp_path / "ssr-proof" / "proof.html").read_text()
    assert len(re.findall(r"<article>", page)) == 2 * 3 and len(re.findall(r"<img ", page)) == 2 * 3 * 3
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", page), "nothing is loaded from elsewhere"


def test_lines_and_steps(capsys):
    assert COMMAND_LINES == LINES
    assert count_steps(300, 20, LINES, 16) == 19 * 20 * 10
    assert count_steps(300, 20, LINES, 16, scale_0=False) == 19 * 20 * 7
    assert main(["proof", "--lines", "text,smell"]) == 2
    assert "smell" in capsys.readouterr().err
