"""The gallery page: what is in it, and what it does when a person types, chooses and clicks in Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from results_made import METRICS, make_run

from ssr_encoder.bench.gallery import _places, gallery_page
from ssr_encoder.bench.results import Run, load_run
from ssr_encoder.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")

# Runs in the page after its own script: STEPS, then what a person would see is written where --dump-dom shows it.
DRIVER = """
<script>
const seen = [];
function look() {
  const cards = [...document.querySelectorAll('.card')].filter(card => card.getBoundingClientRect().height > 0);
  seen.push({keys: cards.map(card => card.id), count: document.querySelector('output').textContent,
    none: !document.getElementById('none').hidden, address: location.hash, order: order.textContent,
    captions: cards.length ? [...cards[0].querySelectorAll('.result figcaption')].map(c => c.textContent) : []});
}
function type(text) { words.value = text; words.dispatchEvent(new Event('input')); look(); }
function choose(select, value) { select.value = value; select.dispatchEvent(new Event('change')); look(); }
function click(element) { element.click(); look(); }
const loaded = image => new Promise(done => {
  image.loading = 'eager';
  if (image.complete) return done();
  image.onload = image.onerror = done;
});
(async () => {
  await Promise.all([...document.querySelectorAll('.row img')].map(loaded));
  look();
  STEPS
  const broken = [...document.querySelectorAll('.row img')].filter(i => !i.naturalWidth).length;
  const report = document.createElement('pre');
  report.id = 'seen';
  report.textContent = JSON.stringify({seen, broken, pictures: document.querySelectorAll('.row img').length,
    open: dialog.open, large: large.alt, marks: document.querySelectorAll('.frame svg rect').length});
  document.body.append(report);
})();
</script>"""


def browse(page: Path, profile: Path, steps: str = "", view: str = "") -> dict:
    """Opens the page at ``view`` (what stands behind #), does the steps, and returns what was seen."""
    driven = page.with_name(f"driven-{page.name}")
    driven.write_text(page.read_text().replace("</main>", f"</main>{DRIVER.replace('STEPS', steps)}"))
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    flags += "--disable-sync --virtual-time-budget=20000 --window-size=1300,900"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "--dump-dom", f"{driven.as_uri()}{view}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Eight subjects, three places; subject 2 has no lpips, the level of a subject is its number."""

    def values(s, i, n, metric):
        return None if metric == "lpips" and s == 2 else s / 10 + i / 100 + n / 1000

    folder = tmp_path_factory.mktemp("gallery") / "a run, 100 %"
    return load_run(make_run(folder, subjects=8, values=values))


@pytest.fixture(scope="module")
def page(run):
    path = run.folder.parent / "gallery.html"
    path.write_text(gallery_page(run, path))
    return path


def test_page_holds_every_item_and_nothing_from_afar(run, page):
    text = page.read_text()
    assert len(re.findall(r'<article class="card"', text)) == 24
    for item in run.items.values():
        assert f'id="{item["key"]}"' in text and item["prompt"].replace("&", "&amp;").split("<")[0] in text
    assert "snow & <ice>" not in text and "snow &amp; &lt;ice&gt;" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["pictures"]) == 8 + 8 + 48  # references and heat maps once, not once an item
    assert all(address.startswith("data:image/webp;base64,") for address in data["pictures"].values())
    shown = set(re.findall(r'data-picture="(\w+)"', text))
    assert shown == set(data["pictures"]) and not re.search(r'(src|href)="?(https?:)?//', text)
    for item, key in zip(data["items"], run.items, strict=True):
        assert item["scores"] == [run.scores[key][metric] for metric in METRICS]
    assert run.meta["hash"][:12] in text and "clip_t 0.36" in text and "no more" not in text


def test_links_are_relative_and_lead_to_the_files(run):
    page = run.folder.parent / "pages" / "gallery.html"
    page.parent.mkdir()
    data = json.loads(re.search(r'id="data">(.*?)</script>', gallery_page(run, page, inline=False), re.DOTALL)[1])
    assert len(data["pictures"]) == 64
    for address in data["pictures"].values():
        assert address.startswith("../a%20run%2C%20100%20%25/") and (page.parent / unquote(address)).is_file()


def test_a_script_cannot_hide_in_a_prompt(tmp_path):
    run = load_run(make_run(tmp_path / "run", subjects=1, places=("</script><script>alert(1)</script>",)))
    text = gallery_page(run, tmp_path / "page.html")
    assert text.count("</script>") == 2 and "alert(1)</script>" not in text


def test_a_run_that_has_not_ended(tmp_path, capsys):
    folder = make_run(tmp_path / "run", subjects=2, heat_maps=False)
    for path in [*sorted((folder / "scores").iterdir())[:2], sorted((folder / "items").glob("*.json"))[-1]]:
        path.unlink()
    page = tmp_path / "page.html"
    assert main(["bench", "gallery", str(folder), "-o", str(page)]) == 0
    assert page.as_uri() in capsys.readouterr().err
    text = page.read_text()
    assert "5 items of 2 subjects" in text and "1 more to be made" in text and text.count("<b>–</b>") == 4
    assert main(["bench", "gallery", str(folder), "-o", str(page)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["bench", "gallery", str(tmp_path), "-o", str(tmp_path / "x.html")]) == 2
    assert not (tmp_path / "x.html").exists()


@browser
def test_it_filters_sorts_and_shows(run, page, tmp_path):
    steps = """
    type('JUNGLE fox');
    type('the word “dog”');
    type('nothing like it');
    type('');
    choose(tag, 'object');
    choose(tag, '');
    choose(sort, 'clip_t');
    click(order);
    choose(sort, 'lpips');
    click(order);
    click(document.querySelector('#dog-1-0 .tag'));
    document.querySelector('#dog-1-0 .result img').click();
    dialog.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
    """
    found = browse(page, tmp_path / "profile", steps)
    keys, seen = list(run.items), found["seen"]
    start, jungle, query, nothing, everything, objects, _, worst, best, lower, lower_worst, tagged = seen
    assert start["keys"] == keys and start["count"] == "24 items" and start["captions"] == ["", ""]
    assert jungle["keys"] == ["fox-0-0"] and jungle["count"] == "1 of 24 items"
    assert query["keys"] == ["dog-1-0", "dog-1-1", "dog-1-2"]
    assert nothing["keys"] == [] and nothing["none"] and not start["none"]
    assert everything["keys"] == keys and everything["address"] == ""
    assert objects["keys"] == [key for key in keys if "object" in run.items[key]["tags"]]
    assert worst["keys"] == keys and worst["order"] == "worst first"  # made so that the first are the worst
    assert worst["captions"] == ["0.000", "0.001"]
    assert best["keys"] == keys[::-1] and best["address"] == "#sort=clip_t&order=best"
    unscored = [key for key in keys if run.items[key]["subject"] == "cup-2"]
    scored = [key for key in keys if key not in unscored]
    assert lower["keys"] == scored + unscored  # best first, and less is better
    assert lower_worst["keys"] == scored[::-1] + unscored and lower_worst["captions"] == ["0.720", "0.721"]
    assert tagged["address"] == "#tag=live&sort=lpips"
    assert {run.items[key]["tags"][0] for key in tagged["keys"]} == {"live"}
    assert found["pictures"] == 24 * 4 and found["broken"] == 0 and found["marks"] == 12 * 2
    assert found["open"] and found["large"] == "a dog in the jungle, picture 2"


@browser
def test_an_address_keeps_the_view_and_links_show(run, tmp_path):
    page = run.folder.parent / "linked.html"
    page.write_text(gallery_page(run, page, inline=False))
    found = browse(page, tmp_path / "profile", view="#q=beach&tag=live&sort=clip_t&order=best")
    (start,) = found["seen"]
    wanted = [key for key, item in run.items.items() if "beach" in item["prompt"] and "live" in item["tags"]]
    assert start["keys"] == wanted[::-1] and found["broken"] == 0


def test_a_bar_is_full_at_the_best_score_and_empty_at_the_worst():
    scores = [[1.0, 0.2, None, 3.0], [4.0, 0.2, None, 1.0], [2.0, 0.2, 0.5, None]]
    directions = {"a": "higher", "b": "higher", "c": "lower", "d": "lower"}
    meta = {"metrics": {name: {"direction": direction} for name, direction in directions.items()}}
    found = _places(Run(Path(), meta, {}, {}), scores)
    assert found == [[0.0, None, None, 0.0], [1.0, None, None, 1.0], [pytest.approx(1 / 3), None, None, None]]
