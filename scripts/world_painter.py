"""A small painter of layered SVG scenery: gradients, hills, blobs, and icons of the emoji sets, in units of pixels."""

import colorsys
import math
import random
import re

SIDE = 160


def shade(colour: str, lightness: float = 0.0, hue: float = 0.0) -> str:
    """A hex colour, lighter or darker by `lightness` and turned by `hue` turns."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    h, li, s = colorsys.rgb_to_hls(r, g, b)
    rgb = colorsys.hls_to_rgb((h + hue) % 1, min(1, max(0, li + lightness)), s)
    return "#" + "".join(f"{round(v * 255):02x}" for v in rgb)


class Painter:
    """Collects the shapes of one picture, back to front."""

    def __init__(self, icons, rng: random.Random):
        self.icons, self.rng = icons, rng
        self.style = rng.choice(("flat", "flat", "noto", "twemoji", "fluent"))
        self.parts: list[str] = []
        self.serial = 0

    def svg(self) -> str:
        head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        return f'{head}viewBox="0 0 {SIDE} {SIDE}">' + "".join(self.parts) + "</svg>"

    def u(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def add(self, part: str) -> None:
        self.parts.append(part)

    def fill(self, colour: str | tuple, across: bool = False, radial: bool = False) -> str:
        """A paint: a colour, or a gradient of several colours (top to bottom, left to right, or from the middle)."""
        if isinstance(colour, str):
            return colour
        self.serial += 1
        name, stops = f"paint{self.serial}", len(colour) - 1
        inner = "".join(
            f'<stop offset="{k / stops:.3f}" stop-color="{c[:7]}" stop-opacity="{int(c[7:] or "ff", 16) / 255:.3f}"/>'
            for k, c in enumerate(colour)
        )
        if radial:
            self.add(f'<radialGradient id="{name}">{inner}</radialGradient>')
        else:
            end = 'x2="1" y2="0"' if across else 'x2="0" y2="1"'
            self.add(f'<linearGradient id="{name}" x1="0" y1="0" {end}>{inner}</linearGradient>')
        return f"url(#{name})"

    def rect(self, x, y, w, h, colour, r=0.0, opacity=1.0, **kind) -> None:
        paint = self.fill(colour, **kind)
        self.add(f'<rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}" rx="{r}" fill="{paint}" '
                 f'opacity="{opacity:.3f}"/>')  # fmt: skip

    def ellipse(self, x, y, rx, ry, colour, opacity=1.0, **kind) -> None:
        paint = self.fill(colour, **kind)
        self.add(f'<ellipse cx="{x:.2f}" cy="{y:.2f}" rx="{rx:.2f}" ry="{ry:.2f}" fill="{paint}" '
                 f'opacity="{opacity:.3f}"/>')  # fmt: skip

    def circle(self, x, y, r, colour, opacity=1.0, **kind) -> None:
        self.ellipse(x, y, r, r, colour, opacity, **kind)

    def polygon(self, points, colour, opacity=1.0) -> None:
        path = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self.add(f'<polygon points="{path}" fill="{self.fill(colour)}" opacity="{opacity:.3f}"/>')

    def path(self, d: str, colour="none", stroke="none", width=1.0, opacity=1.0) -> None:
        self.add(f'<path d="{d}" fill="{self.fill(colour)}" stroke="{stroke}" stroke-width="{width}" '
                 f'stroke-linecap="round" stroke-linejoin="round" opacity="{opacity:.3f}"/>')  # fmt: skip

    def hills(self, y, height, colour, waves=2.0, opacity=1.0, bottom=SIDE):
        """A rolling band from about y down to `bottom`; returns its outline as a function of x."""
        terms = [(self.u(0.6, 1.0) / k, waves * k * self.u(0.8, 1.2), self.u(0, 6.3)) for k in (1, 2.1)]

        def outline(x):
            return y + height / 2 * sum(a * math.sin(f * x / SIDE * 6.283 + p) for a, f, p in terms)

        top = " ".join(f"L{x} {outline(x):.2f}" for x in range(0, SIDE + 4, 4))
        self.path(f"M0 {bottom} {top} L{SIDE} {bottom} Z", colour, opacity=opacity)
        return outline

    def cloud(self, x, y, w, colour="#ffffff", opacity=0.9) -> None:
        h = w * 0.2
        self.rect(x - w / 2, y - h, w, h, colour, r=h / 2, opacity=opacity)
        for dx, r in ((-0.18, 0.17), (0.05, 0.24), (0.26, 0.13)):
            self.circle(x + dx * w, y - h * 0.75, r * w, colour, opacity)

    def icon(self, names, x, bottom, size, style=None, opacity=1.0, angle=0.0) -> None:
        """An icon of `size`, standing on (x, bottom); `names` is one or several to choose from."""
        name = names if isinstance(names, str) else self.rng.choice(names)
        style = style or self.style
        style = style if self.icons.has(style, name) else "noto" if self.icons.has("noto", name) else "flat"
        body, w, h = self.icons.body(style, name)
        self.serial += 1
        for found in sorted(set(re.findall(r'\bid="([^"]+)"', body)), key=len, reverse=True):
            body = re.sub(rf'(id="|#){re.escape(found)}(?=["\')])', rf"\g<1>i{self.serial}{found}", body)
        k = size / max(w, h)
        flip = self.rng.random() < 0.5
        move = f"translate({x:.2f} {bottom:.2f}) rotate({angle:.1f}) scale({-k if flip else k:.4f} {k:.4f})"
        self.add(f'<g transform="{move} translate({-w / 2} {-h})" opacity="{opacity:.3f}">{body}</g>')

    def row(self, names, low, high, size, step, style=None, jitter=0.3) -> None:
        """Icons side by side across the picture, standing between heights `low` and `high`, the nearer the later."""
        xs = [k * step + self.u(-jitter, jitter) * step for k in range(int(SIDE / step) + 2)]
        places = sorted((self.u(low, high), x) for x in xs)
        for y, x in places:
            self.icon(names, x, y, size * self.u(0.8, 1.2), style)

    def stars(self, count, colour="#ffffff", height=SIDE) -> None:
        for _ in range(count):
            self.circle(self.u(0, SIDE), self.u(0, height), self.u(0.35, 1.1), colour, self.u(0.5, 1))

    def tufts(self, count, low, high, colour, size=4.0) -> None:
        """Small blades of grass, larger when nearer."""
        for _ in range(count):
            x, y = self.u(0, SIDE), self.u(low, high)
            s = size * (0.5 + 0.8 * (y - low) / max(1, high - low))
            for dx in (-0.5, 0, 0.5):
                self.path(f"M{x + dx * s * 0.4:.1f} {y:.1f} q{dx * s * 0.3:.1f} {-s * 0.6:.1f} {dx * s:.1f} {-s:.1f}",
                          stroke=colour, width=0.9)  # fmt: skip
