"""Reports as blocks (headings, paragraphs, lists of facts, tables, pictures), written as Markdown, LaTeX or HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image

from ..page import data_uri, document


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Facts:
    """Names with their values, in order."""

    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what stands smaller behind it, and whether it is the best of its column."""

    text: str
    detail: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows as long as ``heads``; the first ``names`` columns are words, the others numbers."""

    heads: list[str]
    rows: list[list[Cell | str]]
    caption: str
    names: int = 1


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption; pages hold it, texts name the file ``name``, which their writer puts beside them."""

    name: str
    png: bytes = field(repr=False)
    caption: str


LONG = 40  # characters of a cell's words, from which on they are set in lines
Block = Heading | Paragraph | Facts | Table | Picture
SUFFIXES = (".md", ".tex", ".html")


def render(title: str, blocks: list[Block], suffix: str) -> str:
    """The whole text: ``.md`` (GitHub's tables), ``.tex`` (a fragment to \\input) or ``.html`` (a page)."""
    return {".md": markdown, ".tex": latex, ".html": html}[suffix](title, blocks)


def pictures_beside(path: Path, blocks: list[Block]) -> dict[Path, bytes]:
    """The files that the text at ``path`` needs beside it; none for a page, which holds its pictures."""
    if path.suffix.lower() == ".html":
        return {}
    return {path.with_name(block.name): block.png for block in blocks if isinstance(block, Picture)}


# -- Markdown
def markdown(title: str, blocks: list[Block]) -> str:
    return "\n\n".join([f"# {_md(title)}", *(_MARKDOWN[type(block)](block) for block in blocks)]) + "\n"


def _md(text: str) -> str:
    text = re.sub(r"([\\`*|]|<(?=[A-Za-z/!?])|(?<=\])\()", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word GitHub takes it as it is


def _md_cell(cell: Cell | str) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    text = f"**{_md(cell.text)}**" if cell.best else _md(cell.text)
    return f"{text} {_md(cell.detail)}".rstrip()


def _md_table(table: Table) -> str:
    rule = [":---" if i < table.names else "---:" for i in range(len(table.heads))]
    rows = [[_md(head) for head in table.heads], rule, *([_md_cell(cell) for cell in row] for row in table.rows)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{_md(table.caption)}\n\n{lines}" if table.caption else lines


_MARKDOWN: dict[type, Callable] = {
    Heading: lambda block: f"## {_md(block.text)}",
    Paragraph: lambda block: _md(block.text),
    Facts: lambda block: "\n".join(f"- {_md(name)}: {_md(value)}" for name, value in block.pairs),
    Table: _md_table,
    Picture: lambda block: f"![{_md(block.caption)}]({block.name.replace(' ', '%20')})\n\n{_md(block.caption)}",
}


# -- LaTeX
def latex(title: str, blocks: list[Block]) -> str:
    head = "% needs \\usepackage{booktabs} and \\usepackage{graphicx}; UTF-8"
    return "\n\n".join([head, f"\\section*{{{_tex(title)}}}", *(_LATEX[type(block)](block) for block in blocks)]) + "\n"


_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "[": "{[}",  # after \\ it would be taken for its argument
    "]": "{]}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "·": r"$\cdot$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "“": "``",
    "”": "''",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in " ".join(text.split()))


def _tex_cell(cell: Cell | str) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    text = f"\\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
    return f"{text} {{\\scriptsize {_tex(cell.detail)}}}" if cell.detail else text


# A table of many metrics is wider than a page: it is made smaller, and only then.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"


def _tex_table(table: Table) -> str:
    columns = "".join(_tex_column(table, i) for i in range(len(table.heads)))
    rows = [" & ".join(map(_tex, table.heads)), *(" & ".join(map(_tex_cell, row)) for row in table.rows)]
    head, *body = (f"{row} \\\\" for row in rows)
    lines = [rf"{_FITTED}{{\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    caption = [f"\\caption{{{_tex(table.caption)}}}", r"\medskip"] if table.caption else []
    return "\n".join([r"\begin{table}", r"\centering\small", *caption, *lines, r"\end{table}"])


def _tex_column(table: Table, column: int) -> str:
    """Words that are long are set in lines."""
    if column >= table.names:
        return "r"
    cells = [row[column] for row in table.rows]
    long = any(len(cell.text if isinstance(cell, Cell) else cell) > LONG for cell in cells)
    return r"p{.3\linewidth}" if long else "l"


def _tex_facts(block: Facts) -> str:
    items = "\n".join(f"\\item {_tex(name)}: {_tex(value)}" for name, value in block.pairs)
    return f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"


_LATEX: dict[type, Callable] = {
    Heading: lambda block: f"\\subsection*{{{_tex(block.text)}}}",
    Paragraph: lambda block: _tex(block.text),
    Facts: _tex_facts,
    Table: _tex_table,
    Picture: lambda block: (
        f"\\begin{{figure}}\n\\centering\n\\includegraphics[width=\\linewidth]{{{block.name}}}\n"
        f"\\caption{{{_tex(block.caption)}}}\n\\end{{figure}}"
    ),
}


# -- HTML
STYLE = """
h1 { font-size: clamp(1.7rem, 4vw, 2.5rem); }
.wide { overflow-x: auto; margin: 0 0 6px; } table { border-collapse: collapse; font-size: .92rem; min-width: 100%; }
caption { caption-side: top; text-align: left; color: var(--soft); padding: 0 0 .8em; max-width: 90ch; }
th, td { padding: .45em .9em .45em 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  white-space: nowrap; font-variant-numeric: tabular-nums; } th { font-weight: 600; }
.number { text-align: right; padding: .45em 0 .45em .9em; } tbody th { font-weight: 400; }
td small { display: block; color: var(--soft); font-size: .78rem; } td b { color: var(--good); }
td.long { white-space: normal; min-width: 24ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3em 1.4em; margin: 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; } section > h2 { margin-bottom: .7em; }
section > * + * { margin-top: 1em; } main { max-width: 1560px; }
.wide + .wide, p + .wide, dl + .wide { margin-top: 2em; }
section p { margin-bottom: 0; max-width: 90ch; }
.chart img { aspect-ratio: auto; height: auto; background: #fff; }
"""


def html(title: str, blocks: list[Block]) -> str:
    """Each heading begins a panel."""
    parts, opened = [f"<h1>{escape(title)}</h1>"], False
    for block in blocks:
        if isinstance(block, Heading) or not opened:
            parts.append("</section><section>" if opened else "<section>")
            opened = True
        parts.append(_HTML[type(block)](block))
    return document(title, STYLE, "\n".join([*parts, "</section>" if opened else ""]))


def _html_table(table: Table) -> str:
    heads = "".join(f'<th scope="col"{_number(table, i)}>{escape(head)}</th>' for i, head in enumerate(table.heads))
    rows = "\n".join(
        "<tr>" + "".join(_html_cell(table, i, cell) for i, cell in enumerate(row)) + "</tr>" for row in table.rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(table.caption)}</caption><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _number(table: Table, column: int) -> str:
    return ' class="number"' if column >= table.names else ""


def _html_cell(table: Table, column: int, cell: Cell | str) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    detail = f"<small>{escape(cell.detail)}</small>" if cell.detail else ""
    if column == 0:
        return f'<th scope="row">{text}{detail}</th>'
    kind = ' class="long"' if column < table.names and len(cell.text) > LONG else _number(table, column)
    return f"<td{kind}>{text}{detail}</td>"


def _html_picture(block: Picture) -> str:
    with Image.open(io.BytesIO(block.png)) as picture:
        address = data_uri(picture)
    caption = escape(block.caption)
    return f'<figure class="chart"><img src="{address}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


_HTML: dict[type, Callable] = {
    Heading: lambda block: f"<h2>{escape(block.text)}</h2>",
    Paragraph: lambda block: f"<p>{escape(block.text)}</p>",
    Facts: lambda block: (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in block.pairs) + "</dl>"
    ),
    Table: _html_table,
    Picture: _html_picture,
}
