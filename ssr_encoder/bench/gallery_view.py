"""The style and the script of the gallery page."""

STYLE = """
main { max-width: 1680px; padding-top: clamp(20px, 3vw, 44px); } h1 { font-size: clamp(1.7rem, 4vw, 2.5rem); }
.lead { margin-bottom: 1em; max-width: none; font-size: 1rem; }
.bar { position: sticky; top: 0; z-index: 2; display: flex; gap: 10px; align-items: center; flex-wrap: wrap;
  background: var(--paper); padding: 12px 0; border-bottom: 1px solid var(--line); margin-bottom: 18px; }
.bar input, .bar select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 10px; padding: .4em .7em; } .bar input { flex: 1 1 16em; max-width: 26em; min-width: 0; }
.bar output { margin-left: auto; color: var(--soft); font-variant-numeric: tabular-nums; }
#order { font: inherit; border: 0; border-radius: 10px; padding: .45em 1em; background: var(--accent); color: #fff;
  cursor: pointer; } #order[hidden] { display: none; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 18px; box-shadow: var(--shade);
  padding: 16px 20px 14px; margin: 0 0 16px; content-visibility: auto; contain-intrinsic-size: auto 330px; }
.card[hidden] { display: none; } .card h2 { font-size: 1.12rem; }
.card header p { margin: 0 0 .8em; font-size: .86rem; max-width: none; }
.tag { font: inherit; font-size: .78rem; color: var(--soft); background: var(--code); border: 1px solid var(--line);
  border-radius: 99px; padding: 0 .7em; margin-left: .35em; cursor: pointer; } .tag:hover { color: var(--accent); }
.row { display: flex; flex-wrap: wrap; gap: 14px 26px; align-items: flex-start; }
.given, .made { display: flex; flex-wrap: wrap; gap: 10px; }
.given { padding-right: 26px; border-right: 1px solid var(--line); }
.row figure { width: 150px; } .frame { position: relative; display: block; }
.row figure img { object-fit: contain; border-radius: 10px; cursor: zoom-in; width: 150px; height: 150px; }
.frame svg { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; fill: none;
  stroke: #fff; } .frame svg * { vector-effect: non-scaling-stroke; stroke-width: 2px; }
.frame svg .edge * { stroke: rgba(20, 20, 24, .75); stroke-width: 5px; }
.row figcaption { padding: .35em .1em 0; min-height: 1.7em; font-size: .8rem; font-variant-numeric: tabular-nums; }
.scores { list-style: none; display: flex; flex-wrap: wrap; gap: 6px 24px; margin: 10px 0 0; padding: 10px 0 0;
  border-top: 1px solid var(--line); font-size: .84rem; }
.scores li { display: flex; gap: .5em; align-items: center; font-variant-numeric: tabular-nums; color: var(--soft); }
.scores b { color: var(--ink); font-weight: 600; } .scores .sorted span { color: var(--accent); font-weight: 600; }
.scores i { width: 54px; height: 5px; border-radius: 3px; background: linear-gradient(90deg, var(--good) var(--at),
  var(--line) var(--at)); }
dialog { border: 0; border-radius: 18px; padding: 14px; background: var(--panel); color: var(--ink); max-width: 94vw; }
dialog::backdrop { background: rgba(10, 10, 12, .72); }
dialog img { width: min(84vmin, 768px); height: auto; object-fit: contain; aspect-ratio: auto; cursor: zoom-out; }
@media (max-width: 640px) { .given { border: 0; padding: 0; } .row figure, .row figure img { width: 128px; }
  .row figure img { height: 128px; } }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById('data').textContent);
const $ = id => document.getElementById(id), holder = $('cards'), cards = [...holder.children];
const words = $('words'), tag = $('tag'), sort = $('sort'), order = $('order');
const output = document.querySelector('output');
let worst = true;
for (const image of document.querySelectorAll('img[data-picture]')) image.src = data.pictures[image.dataset.picture];

function show() {
  const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const column = data.metrics.findIndex(metric => metric.name === sort.value), metric = data.metrics[column];
  const places = data.items.map((_, i) => i);
  if (metric) {
    const sign = (metric.direction === 'higher') === worst ? 1 : -1;
    places.sort((a, b) => {
      const x = data.items[a].means[column], y = data.items[b].means[column];
      return x === null || y === null ? (x === null) - (y === null) || a - b : sign * (x - y) || a - b;
    });
  }
  let count = 0;
  for (const i of places) {
    const item = data.items[i], card = cards[i];
    card.hidden = !(wanted.every(word => item.text.includes(word)) && (!tag.value || item.tags.includes(tag.value)));
    count += !card.hidden;
    card.querySelectorAll('.result figcaption').forEach((caption, n) => {
      const value = metric ? item.scores[column][n] : undefined;
      caption.textContent = value === undefined ? '' : value === null ? 'no score' : value.toFixed(3);
    });
    for (const score of card.querySelectorAll('.scores li'))
      score.classList.toggle('sorted', score.dataset.metric === sort.value);
  }
  holder.append(...places.map(i => cards[i]));
  order.hidden = !metric;
  order.textContent = worst ? 'worst first' : 'best first';
  order.title = worst ? 'show the best first' : 'show the worst first';
  output.textContent = count === cards.length ? count + ' items' : count + ' of ' + cards.length + ' items';
  $('none').hidden = count > 0;
}
function keep() {  // the view in the address, so that it can be passed on
  const view = new URLSearchParams();
  if (words.value) view.set('q', words.value);
  if (tag.value) view.set('tag', tag.value);
  if (sort.value) { view.set('sort', sort.value); if (!worst) view.set('order', 'best'); }
  try { history.replaceState(null, '', view.size ? '#' + view : location.pathname); } catch (error) {}
}
function read() {
  const view = new URLSearchParams(location.hash.slice(1));
  words.value = view.get('q') || '';
  tag.value = view.get('tag') || '';
  sort.value = view.get('sort') || '';
  for (const select of [tag, sort]) if (select.selectedIndex < 0) select.selectedIndex = 0;
  worst = view.get('order') !== 'best';
  show();
}
function change() { show(); keep(); }
words.addEventListener('input', change);
for (const select of [tag, sort]) select.addEventListener('change', change);
order.addEventListener('click', () => { worst = !worst; change(); });
addEventListener('hashchange', read);

const dialog = document.querySelector('dialog'), large = dialog.querySelector('img');
let row = [], at = 0;
function enlarge(step) {
  at = (at + step + row.length) % row.length;
  large.src = row[at].src;
  large.alt = row[at].alt;
  dialog.querySelector('figcaption').textContent = row[at].alt;
  if (!dialog.open) dialog.showModal();
}
holder.addEventListener('click', event => {
  if (event.target.matches('.tag')) { tag.value = event.target.textContent; change(); scrollTo(0, 0); }
  if (!event.target.matches('.row img')) return;
  row = [...event.target.closest('.row').querySelectorAll('img')];
  at = row.indexOf(event.target);
  enlarge(0);
});
holder.addEventListener('keydown', event => {
  if (event.key === 'Enter' && event.target.matches('.row img')) event.target.click();
});
dialog.addEventListener('click', () => dialog.close());
dialog.addEventListener('keydown', event => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (step) enlarge(step);
});
read();
"""
