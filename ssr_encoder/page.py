"""Pages that a person opens in a browser: one file, its style and pictures inside, nothing loaded from afar."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

STYLE = """
:root { --paper: #f4f3ef; --panel: #fff; --ink: #1c1c20; --soft: #6d6d76; --line: #e2e0da; --accent: #c94a1c;
  --code: #f4f2ee; --good: #1c7c4c; --shade: 0 1px 2px rgba(30, 25, 15, .05), 0 8px 28px rgba(30, 25, 15, .05); }
@media (prefers-color-scheme: dark) { :root { --paper: #141416; --panel: #1d1d21; --ink: #f0eff2; --soft: #a0a0aa;
  --line: #303037; --accent: #ff9466; --code: #151518; --good: #6fd49d; --shade: none; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; color-scheme: light dark; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: clamp(28px, 6vw, 76px) clamp(14px, 4vw, 44px) 56px; }
h1 { font-size: clamp(2.1rem, 6vw, 3.5rem); line-height: 1.06; letter-spacing: -.03em; margin: 0 0 .35em;
  text-wrap: balance; }
h2 { font-size: clamp(1.25rem, 3vw, 1.6rem); letter-spacing: -.015em; line-height: 1.2; margin: 0 0 .2em; }
h3 { font-size: 1.02rem; margin: 0 0 .6em; }
p { margin: 0 0 1em; max-width: 68ch; }
.lead { font-size: clamp(1.02rem, 2.2vw, 1.2rem); color: var(--soft); margin-bottom: 2.2em; }
.soft { color: var(--soft); }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 22px; box-shadow: var(--shade);
  padding: clamp(16px, 3vw, 34px); margin: 0 0 28px; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; aspect-ratio: 1; border-radius: 14px; background: var(--code); }
figcaption { font-size: .86rem; line-height: 1.35; color: var(--soft); padding: .55em .15em 0; text-wrap: balance; }
figcaption b { color: var(--ink); font-weight: 600; }
pre { margin: 0; font: .8rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-x: auto;
  background: var(--code); border: 1px solid var(--line); border-radius: 12px; padding: .85em 1.1em; }
details { margin-top: 16px; } summary { cursor: pointer; color: var(--soft); font-size: .86rem; padding: .2em 0; }
summary:hover { color: var(--accent); } details[open] summary { margin-bottom: .5em; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .9em; }
footer { color: var(--soft); font-size: .86rem; padding: 8px 4px; }
"""


def data_uri(picture: Image.Image, quality: int = 92) -> str:
    """A picture as WebP inside an address, for ``src``."""
    data = io.BytesIO()
    picture.convert("RGB").save(data, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def figure(picture: Image.Image, caption: str, alt: str) -> str:
    """A picture with its caption (HTML) and what a screen reader says instead (text)."""
    return (
        f'<figure><img src="{data_uri(picture)}" alt="{escape(alt)}" loading="lazy">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def document(title: str, style: str, body: str) -> str:
    """A whole page; ``style`` is added to the common one."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body><main>{body}</main></body></html>\n"
    )
