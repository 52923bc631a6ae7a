"""The page on which a person ticks the images of the multi-subject bench: one file, nothing loaded from afar."""

from __future__ import annotations

import hashlib
import json
from html import escape

from ..page import data_uri, document
from .candidates import BENCH_SIZE
from .pictures import decode
from .shards import Sample

STYLE = """
.bar { position: sticky; top: 0; z-index: 1; display: flex; gap: 14px; align-items: center; flex-wrap: wrap;
  background: var(--paper); padding: 12px 2px; border-bottom: 1px solid var(--line); margin-bottom: 22px; }
.bar output { font-weight: 600; min-width: 8em; } .bar .message { color: var(--accent); }
.bar input { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 10px; padding: .4em .8em; min-width: 16em; }
button { font: inherit; border: 0; border-radius: 10px; padding: .45em 1.1em; background: var(--accent); color: #fff;
  cursor: pointer; } button:disabled { opacity: .4; cursor: default; }
.grid { display: grid; gap: 18px; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }
.card { display: block; background: var(--panel); border: 2px solid var(--line); border-radius: 16px; padding: 10px;
  cursor: pointer; } .card:has(:checked) { border-color: var(--good); }
.card:has(:focus-visible) { outline: 3px solid var(--accent); } .card[hidden] { display: none; }
.card img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--code);
  border-radius: 10px; } .card p { font-size: .86rem; line-height: 1.35; margin: .6em 0 .2em; }
.card small { color: var(--soft); }
"""

SCRIPT = """
const most = MOST, page = PAGE, boxes = [...document.querySelectorAll('.card input')];
const output = document.querySelector('output'), message = document.querySelector('.message');
const save = document.querySelector('button');
const ticked = () => boxes.filter(box => box.checked).map(box => box.value);
function count() {
  const keys = ticked();
  output.textContent = keys.length + ' of ' + most + ' ticked';
  save.disabled = !keys.length;
  try { localStorage.setItem(page, JSON.stringify(keys)); } catch (error) {}
}
for (const box of boxes) box.addEventListener('change', () => {
  const full = ticked().length > most;
  if (full) box.checked = false;
  message.textContent = full ? 'That would be more than ' + most + '; untick another first.' : '';
  count();
});
save.addEventListener('click', () => {
  const link = document.createElement('a');
  const text = JSON.stringify({format: 'ssr-ticked-1', page: page, keys: ticked()}, null, 1);
  link.href = URL.createObjectURL(new Blob([text + '\\n'], {type: 'application/json'}));
  link.download = 'ticked.json';
  link.click();
});
document.querySelector('.bar input').addEventListener('input', event => {
  const words = event.target.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const card of document.querySelectorAll('.card'))
    card.hidden = !words.every(word => card.textContent.toLowerCase().includes(word));
});
try {
  const kept = new Set(JSON.parse(localStorage.getItem(page) || '[]'));
  for (const box of boxes) box.checked = kept.has(box.value);
} catch (error) {}
count();
"""


def review_page(candidates: list[Sample], total: int, rule: dict) -> str:
    """The page for these candidates, of ``total`` there are, and the parameters of their :class:`CandidateStep`; ticks
    are remembered by the browser."""
    cards = "\n".join(_card(sample, rule["aesthetic"]) for sample in candidates)
    asked = (
        f"captions with at least {rule['min_subjects']} subjects, CLIP score ({rule['clip']}) from {rule['min_clip']:g}"
    )
    if rule["min_aesthetic"] is not None:
        asked += f", aesthetic score from {rule['min_aesthetic']:g}"
    shown = "" if len(candidates) == total else f" The {len(candidates)} with the highest CLIP scores are shown."
    page = hashlib.sha256("\n".join(sample.key for sample in candidates).encode()).hexdigest()[:16]
    script = SCRIPT.replace("MOST", str(BENCH_SIZE)).replace("PAGE", json.dumps(f"ssr-bench-{page}"))
    body = f"""
<h1>Which of these make the bench?</h1>
<p class="lead">{total} candidates for the multi-subject bench ({escape(asked)}).{shown} Tick up to {BENCH_SIZE} good
pictures whose caption is right, save, and give the file to
<code>ssr data bench-candidates ... --ticked ticked.json</code>.</p>
<div class="bar"><output aria-live="polite"></output><button type="button">Save ticked.json</button>
<input type="search" placeholder="show only captions with ..." aria-label="show only captions with these words">
<span class="message" role="status"></span></div>
<div class="grid">
{cards}
</div>
<script>{script}</script>"""
    return document("Bench candidates", STYLE, body)


def _card(sample: Sample, aesthetic: str) -> str:
    picture = decode(sample.image)
    picture.thumbnail((256, 256))
    score = sample.meta.get(aesthetic)
    beauty = f" · aesthetic {score:.1f}" if isinstance(score, (int, float)) else ""
    key, caption = escape(sample.key, quote=True), escape(sample.caption)
    return (
        f'<label class="card"><img src="{data_uri(picture, 80)}" alt="" loading="lazy"><p>'
        f'<input type="checkbox" value="{key}" autocomplete="off"> {caption}</p>'
        f"<small>{key} · CLIP {sample.meta['clip_score']:.2f}{beauty}<br>"
        f"{escape(', '.join(sample.meta['descriptors']))}</small></label>"
    )
