"""The illustrated places of the mini world that few have been to: the sea's ground, space, a volcano."""

import math

from world_painter import SIDE, Painter, shade


def sea(p: Painter) -> None:
    top, low = p.rng.choice([("#5fd4ee", "#0b5a9c"), ("#58c9d8", "#0a4f86"), ("#74dcf2", "#134a9a")])
    p.rect(0, 0, SIDE, SIDE, (top, "#1d90c9", low))
    for _ in range(5):
        x = p.u(-10, SIDE)
        p.polygon([(x, 0), (x + 12, 0), (x + 36, 150), (x + 2, 150)], ("#ffffff", low), 0.14)
    p.hills(132, 14, shade(low, 0.03), 1.4)
    p.hills(146, 8, ("#e6cf95", "#c8a96b"), 1.1)
    for _ in range(9):
        x, y, h = p.u(0, SIDE), p.u(146, 158), p.u(24, 60)
        c = p.rng.choice(["#1f9e6a", "#2bb673", "#137a5c", "#5fae3c"])
        d = f"M{x:.1f} {y:.1f} q-6 {-h / 4:.1f} 0 {-h / 2:.1f} q6 {-h / 4:.1f} 0 {-h / 2:.1f}"
        p.path(d, stroke=c, width=3.4)
    for _ in range(5):
        x, y, c = p.u(0, SIDE), p.u(146, 157), p.rng.choice(["#ff6f91", "#ff9671", "#c34a9e", "#ff5d5d"])
        for k in range(5):
            a = math.radians(-150 + 30 * k)
            p.path(f"M{x:.1f} {y:.1f} l{12 * math.cos(a):.1f} {14 * math.sin(a):.1f}", stroke=c, width=3)
    for _ in range(3):
        p.icon(["spiral-shell", "rock"], p.u(0, SIDE), p.u(152, 159), p.u(8, 11))
    for _ in range(26):
        x, y, r = p.u(0, SIDE), p.u(6, 140), p.u(0.8, 3)
        p.circle(x, y, r, "#d8f6ff", 0.45)
        p.circle(x - r * 0.3, y - r * 0.3, r * 0.35, "#ffffff", 0.9)


def space(p: Painter) -> None:
    deep, glow = p.rng.choice([("#0a0420", "#7a2fb0"), ("#050818", "#a02a7a"), ("#08051c", "#2f4fc0")])
    p.rect(0, 0, SIDE, SIDE, (deep, shade(deep, 0.05)))
    for _ in range(4):
        c = shade(glow, 0.05, p.u(-0.08, 0.08))
        p.ellipse(p.u(0, SIDE), p.u(0, SIDE), p.u(40, 70), p.u(25, 50), (c + "b0", c + "00"), radial=True)
    p.stars(150)
    for _ in range(10):
        x, y, s = p.u(0, SIDE), p.u(0, SIDE), p.u(2, 4.5)
        p.path(f"M{x:.1f} {y - s:.1f} Q{x:.1f} {y:.1f} {x + s:.1f} {y:.1f} Q{x:.1f} {y:.1f} {x:.1f} {y + s:.1f} "
               f"Q{x:.1f} {y:.1f} {x - s:.1f} {y:.1f} Q{x:.1f} {y:.1f} {x:.1f} {y - s:.1f} Z", "#fff7d0")  # fmt: skip
    spots = [
        (p.u(12, 50), p.u(14, 50)),
        (p.u(110, 148), p.u(14, 60)),
        (p.u(12, 60), p.u(110, 148)),
        (p.u(100, 148), p.u(106, 148)),
    ]
    for x, y in spots:
        c, r = p.rng.choice(["#ff9e5e", "#5ec8ff", "#ff7aa8", "#8be38b", "#ffd35e", "#b58cff"]), p.u(8, 17)
        if p.rng.random() < 0.45:
            p.icon("ringed-planet", x, y + r, 2.7 * r)
            continue
        p.circle(x, y, r, (shade(c, 0.10), shade(c, -0.16)))
        for _ in range(3):
            a, d = p.u(0, 6.3), p.u(0, 0.6) * r
            p.circle(x + d * math.cos(a), y + d * math.sin(a), r * p.u(0.12, 0.24), shade(c, -0.10), 0.7)


def volcano(p: Painter) -> None:
    p.rect(0, 0, SIDE, SIDE, p.rng.choice([("#3a0f1e", "#b5341f", "#f08a35"), ("#2a1026", "#8f2a2e", "#f2793a")]))
    for _ in range(5):
        p.cloud(p.u(0, SIDE), p.u(8, 34), p.u(30, 50), "#4a2530", 0.8)
    x, peak = p.u(60, 100), p.u(40, 52)
    p.circle(x, peak, 40, ("#ffd35ecc", "#ff6a2a00"), radial=True)
    for k in range(9):
        a = math.radians(-150 + 15 * k)
        d = p.u(16, 30)
        p.circle(x + d * math.cos(a), peak + d * math.sin(a), p.u(1, 2.6), p.rng.choice(["#ffcf4a", "#ff8a2a"]))
    p.polygon([(x - 78, 130), (x - 16, peak), (x + 16, peak), (x + 78, 130)], ("#5b3238", "#2c1a22"))
    p.polygon([(x - 16, peak), (x + 16, peak), (x + 13, peak + 5), (x - 13, peak + 5)], "#ffb02e")
    for dx, w in ((-9, 5), (0, 7), (9, 4)):
        p.path(
            f"M{x + dx:.1f} {peak + 2:.1f} q{dx * 0.6:.1f} 20 {dx:.1f} 36 t{dx * 1.4:.1f} 44", stroke="#ff5a1f", width=w
        )
        p.path(
            f"M{x + dx:.1f} {peak + 2:.1f} q{dx * 0.6:.1f} 20 {dx:.1f} 36 t{dx * 1.4:.1f} 44",
            stroke="#ffc23d",
            width=w * 0.4,
        )
    p.hills(118, 12, ("#3b2229", "#241319"), 1.4)
    p.hills(134, 7, ("#ff9a2e", "#f0431c"), 1.2)
    for _ in range(12):
        y = p.u(138, 152)
        p.ellipse(p.u(0, SIDE), y, p.u(4, 10), 1.3, "#ffd24a", 0.8)
    p.hills(150, 7, "#1d0f15", 1.6)
    for _ in range(8):
        q, y, r = p.u(0, SIDE), p.u(122, 136), p.u(4, 9)
        p.polygon([(q - r, y), (q - r * 0.5, y - r), (q + r * 0.4, y - r * 0.8), (q + r, y)], "#2a171e")
    for _ in range(25):
        p.circle(p.u(0, SIDE), p.u(0, 130), p.u(0.4, 1.1), "#ffb347", 0.9)
