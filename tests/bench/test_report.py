"""``ssr bench report``: figures against the files themselves, bold only with evidence, nothing mixed, three formats."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from results_made import METRICS, make_run

from ssr_encoder.bench.groups import find_groups, group_blocks
from ssr_encoder.bench.report import clusters, compare, labels
from ssr_encoder.bench.results import load_run
from ssr_encoder.bench.tables import Cell, Facts, Heading, Paragraph, Picture, Table, render
from ssr_encoder.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs on ten subjects: "close" is as good as "ssr" but for noise, "text" is far behind."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "a", "ssr", quality=0.7, subjects=10),
        make_run(folder / "b", "text", quality=0.4, subjects=10, heat_maps=False),
        make_run(folder / "c", "close", quality=0.7, subjects=10),
    ]


@pytest.fixture
def ssr(capsys):
    """Run ``ssr bench``; returns the exit code, stdout and stderr."""

    def run(*argv):
        capsys.readouterr()
        code = main(["bench", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def means_of(folder, metric) -> dict[str, float]:
    """Subject -> mean, from the files."""
    values = {}
    for path in (folder / "items").glob("*.json"):
        item, scores = json.loads(path.read_text()), json.loads((folder / "scores" / path.name).read_text())
        values.setdefault(item["subject"], []).extend(scores["values"][metric])
    return {subject: float(np.mean(found)) for subject, found in values.items()}


def refused(result, *names) -> None:
    code, out, err = result
    assert code == 2 and out == "" and err.startswith("ssr: error: ") and err.count("\n") == 1 and "; " in err
    for name in names:
        assert str(name) in err


def test_figures_agree_with_the_files(runs, ssr):
    code, out, _ = ssr("report", *runs, "--json")
    assert code == 0
    found = json.loads(out)
    assert [run["label"] for run in found["runs"]] == ["ssr", "text", "close"]
    for folder, run in zip(runs, found["runs"], strict=True):
        for metric in METRICS:
            means = list(means_of(folder, metric).values())
            figures = run["scores"][metric]
            assert figures["mean"] == pytest.approx(np.mean(means))
            assert (figures["subjects"], figures["pictures"]) == (10, 60)
            rng = np.random.default_rng(11)
            drawn = rng.choice(means, size=(20_000, 10)).mean(1)
            plain = np.quantile(drawn, [0.025, 0.975])
            assert figures["low"] < plain[0] < plain[1] < figures["high"]
            assert figures["high"] - figures["low"] < 1.4 * (plain[1] - plain[0])


def test_comparisons_agree_with_enumeration_and_holm(runs, ssr):
    found = json.loads(ssr("report", *runs, "--json")[1])
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    by_pair = {}
    for entry in found["comparisons"]:
        if entry["metric"] != "clip_t":
            continue
        one, two = (means_of(runs[["ssr", "text", "close"].index(entry[k])], "clip_t") for k in ("first", "second"))
        differences = np.array([one[subject] - two[subject] for subject in sorted(one)])
        assert entry["mean"] == pytest.approx(differences.mean())
        p = (np.abs((signs * differences).mean(1)) >= abs(differences.mean()) - 1e-12).mean()
        assert entry["p"] == pytest.approx(p)
        by_pair[entry["first"], entry["second"]] = entry
    smallest, middle, largest = sorted(by_pair.values(), key=lambda e: e["p"])
    assert smallest["p_holm"] == pytest.approx(3 * smallest["p"])
    assert middle["p_holm"] == pytest.approx(max(3 * smallest["p"], 2 * middle["p"]))
    assert largest["p_holm"] == pytest.approx(max(middle["p_holm"], largest["p"]))
    assert by_pair["ssr", "text"]["p_holm"] < 0.05 < by_pair["ssr", "close"]["p_holm"]


def test_bold_only_where_the_paired_test_supports_it(runs, ssr):
    assert "**" not in ssr("report", *runs)[1]  # two are as good as each other
    out = ssr("report", runs[0], runs[1])[1]
    row = next(line for line in out.splitlines() if line.startswith("| ssr |"))
    assert row.count("**") == 4  # more of clip_t, less of lpips
    assert next(line for line in out.splitlines() if line.startswith("| text |")).count("**") == 0
    assert "**" not in ssr("report", runs[0])[1]  # nothing to be better than


def test_few_subjects_are_never_bold(tmp_path, ssr):
    one = make_run(tmp_path / "a", "ssr", quality=0.9, subjects=4)
    two = make_run(tmp_path / "b", "text", quality=0.1, subjects=4)
    out = ssr("report", one, two)[1]  # the least p of four subjects is 2 / 16
    assert "**" not in out and "p = 0.125" in out and "Below five subjects" in out


def test_against_one_method(runs, ssr):
    out = ssr("report", *runs, "--against", "text")[1]
    assert "| ssr − text |" in out and "| close − text |" in out and "ssr − close" not in out
    assert "over 2 comparisons" in out
    refused(ssr("report", *runs, "--against", "best"), "best", "ssr, text, close")


def test_markdown_names_what_made_it(runs, ssr):
    out = ssr("report", *runs)[1]
    meta = json.loads((runs[0] / "run.json").read_text())
    for text in ("clip_t ↑", "lpips ↓", "version 1", meta["digest"], meta["hash"][:12], meta["commit"][:12], "seed 0",
                 "torch 2.14.1", "mini-clip", "64 px, bicubic", "torchmetrics 1.9"):  # fmt: skip
        assert text in out, text
    tables = re.findall(r"(?:^\|.*\n)+", out, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    row = next(line for line in out.splitlines() if line.startswith("| ssr |"))
    assert re.fullmatch(r"\| ssr \| 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] \| 0\.\d{3} \[.*\] \| 10 \| 60 \|", row)


def test_missing_scores_are_counted_and_said(tmp_path, ssr):
    def values(s, i, n, metric):
        if metric == "lpips":
            return None if (s == 0 or n == 0) else 0.25
        return float("nan") if (s, i, n) == (1, 0, 0) else 0.5 + 0.1 * s

    out = ssr("report", make_run(tmp_path / "a", subjects=5, values=values))[1]
    assert "ssr: 18 of 30 pictures by lpips" in out and "ssr: 1 of 30 pictures by clip\\_t" in out.replace(
        "clip_t", "clip\\_t"
    )
    found = json.loads(ssr("report", tmp_path / "a", "--json")[1])["runs"][0]["scores"]
    assert found["lpips"]["subjects"] == 4 and found["lpips"]["pictures"] == 12
    assert found["clip_t"]["mean"] == pytest.approx(0.7)


def test_runs_that_do_not_belong_together_are_refused(tmp_path, runs, ssr):
    other = make_run(tmp_path / "digest", "other", subjects=10, digest="e2" * 32)
    refused(ssr("report", runs[0], other), runs[0], other, "digest")
    newer = make_run(tmp_path / "version", "other", subjects=10, version=2)
    refused(ssr("report", runs[0], newer), newer, "version 1 and 2")
    changed = {**METRICS, "clip_t": {**METRICS["clip_t"], "backbone": "other-clip"}}
    measured = make_run(tmp_path / "metric", "other", subjects=10, metrics=changed)
    refused(ssr("report", runs[0], measured), "clip_t", "backbone: mini-clip and other-clip", measured)
    refused(ssr("report", runs[0], runs[0]), "same run")
    bare = make_run(tmp_path / "bare", "other", subjects=10, metrics={})
    refused(ssr("report", bare), bare, "no scores")
    refused(ssr("report", tmp_path), tmp_path)


def test_files_of_another_run_are_refused(tmp_path, ssr):
    one = make_run(tmp_path / "a", subjects=2)
    two = make_run(tmp_path / "b", subjects=2, quality=0.6)
    path = next((one / "scores").iterdir())
    path.write_bytes((two / "scores" / path.name).read_bytes())
    refused(ssr("report", one), one, path.stem)
    path.unlink()
    refused(ssr("report", one), one, path.stem)
    code, out, _ = ssr("report", one, "--partial")
    assert code == 0 and "2 of 12 pictures by lpips" in out


def test_a_metric_that_only_one_run_has(tmp_path, ssr):
    less = {"clip_t": METRICS["clip_t"]}
    one, two = make_run(tmp_path / "a", subjects=6), make_run(tmp_path / "b", "text", subjects=6, metrics=less)
    out = ssr("report", one, two)[1]
    assert "text: not measured by lpips" in out
    assert re.search(r"^\| text \| 0\.\d+ \[.*\] \| – \| 6 \| 36 \|$", out, re.MULTILINE)


def test_labels_tell_runs_of_one_method_apart(tmp_path):
    scales = [{"steps": 12, "subject_scale": scale} for scale in (0.5, 1.0)]
    made = [load_run(make_run(tmp_path / f"{i}", subjects=2, settings=s)) for i, s in enumerate(scales)]
    assert labels(made) == ["ssr (subject_scale 0.5)", "ssr (subject_scale 1.0)"]
    trained = [load_run(make_run(tmp_path / f"f{i}", subjects=2, fingerprint=c * 16)) for i, c in enumerate("ab")]
    assert labels(trained) == ["ssr (fingerprint aaaaaaaa)", "ssr (fingerprint bbbbbbbb)"]


def test_scores_against_frequency(tmp_path, ssr):
    rises = make_run(tmp_path / "run", subjects=16, values=lambda s, i, n, metric: 0.2 * (s % 4) + 0.01 * i + 0.001 * s)
    code, _, err = ssr("report", rises, "--by", "frequency", "-o", tmp_path / "rare.md")
    assert code == 0, err
    text = (tmp_path / "rare.md").read_text()
    assert [re.search(rf"\| frequency {10**k} \| (\S+) \[.*\| 4 \|", text)[1] for k in range(4)] == [
        "0.016", "0.217", "0.418", "0.619",
    ]  # fmt: skip
    rho = re.search(r"\| ssr \| \+(0\.\d\d) p = (0\.\d\d\d) ", text)
    assert float(rho[1]) > 0.9 and float(rho[2]) < 0.01
    assert "(rare-frequency.png)" in text
    assert (tmp_path / "rare-frequency.png").read_bytes().startswith(b"\x89PNG")
    refused(ssr("report", rises, "--by", "colour"), "colour", "frequency, live, object")
    refused(ssr("report", rises, "--by", "frequency", "-o", tmp_path / "rare.md"), "rare.md exists")


def test_groups_of_many_numbers_and_of_a_plain_tag(tmp_path):
    run = load_run(make_run(tmp_path / "run", subjects=6))
    for s, key in enumerate(run.items):
        run.items[key]["tags"] = [f"frequency:{s + 1}"] + ["live"] * (s % 2)
        run.items[key]["subject"] = key
    groups = find_groups(run, "frequency")
    assert [len(group.keys) for group in groups] == [3] * 6 and [g.name for g in groups][0] == "frequency 1–3"
    assert [group.place for group in groups] == sorted(group.place for group in groups)
    live, others = find_groups(run, "live")
    assert len(live.keys) == len(others.keys) == 9 and not live.keys & others.keys
    blocks = group_blocks(compare([run]), "live", "x.png")
    assert not any(isinstance(block, Picture) for block in blocks)


BLOCKS = [
    Heading("A & b"),
    Paragraph("50 % of S* <dog> \\x_1"),
    Facts([("commit", "a_b")]),
    Table(["method", "m|n ↑"], [["x_y", Cell("0.5", "[0.4, 0.6]", True)], ["z", "–"]], "Caption $5", 1),
]


def test_markdown_escapes():
    text = render("T", BLOCKS, ".md")
    assert r"S\* \<dog>" in text and r"| method | m\|n ↑ |" in text and "| x_y | **0.5** [0.4, 0.6] |" in text


def test_latex_is_balanced_and_escaped():
    text = render("T", BLOCKS, ".tex")
    assert r"50 \% of S* $<$dog$>$ \textbackslash{}x\_1" in text and r"Caption \$5" in text
    assert r"x\_y & \textbf{0.5} {\scriptsize {[}0.4, 0.6{]}} \\" in text and r"m$|$n $\uparrow$" in text
    begun = re.findall(r"\\begin{(\w+)}", text)
    assert sorted(begun) == sorted(re.findall(r"\\end{(\w+)}", text)) and "tabular" in begun
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert {line.count(" & ") for line in text.splitlines() if line.endswith(r"\\")} == {1}
    assert not re.search(r"(?<!\\)[%#](?! needs)", text)
    assert all(ord(sign) < 128 for sign in text)


def test_latex_fits_the_page():
    """Compiled with pdfTeX once: ten metrics fit a page, and long definitions are set in lines."""
    text = render("T", [Table(["metric", "definition"], [["a", "words " * 20]], "", 2)], ".tex")
    assert r"\begin{tabular}{lp{.3\linewidth}}" in text and r"\resizebox{\ifdim\width>\linewidth" in text
    assert r"\begin{tabular}{lr}" in render("T", BLOCKS, ".tex")


def test_html_is_a_whole_page_with_the_chart_inside(runs, ssr, tmp_path):
    code, _, err = ssr("report", *runs, "--by", "frequency", "-o", tmp_path / "report.html")
    assert code == 0 and "report.html" in err

    class Counter(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.seen, self.images = [], [], []

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)
            if tag not in ("meta", "img"):
                self.open.append(tag)
            else:
                self.images += [value for name, value in attrs if name == "src"]

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Counter()
    parser.feed((tmp_path / "report.html").read_text())
    assert parser.open == [] and parser.seen.count("table") == 6
    assert len(parser.images) == 1 and parser.images[0].startswith("data:image/webp;base64,")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_clusters_keep_subjects_and_pictures_apart(runs):
    run = load_run(runs[0])
    found = clusters(run, "clip_t")
    assert len(found) == 10 and all(len(of_subject) == 6 for of_subject in found.values())
