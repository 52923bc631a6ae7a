"""The illustrated places of the mini world, outdoors; `PLACES` lists all sixteen."""

from world_interiors import kitchen, library, room, stage
from world_painter import SIDE, Painter, shade
from world_wonders import sea, space, volcano


def snow(p: Painter) -> None:
    top, low = p.rng.choice([("#8fc3ea", "#eaf6ff"), ("#a9b8e8", "#f6e8f4"), ("#9fd3e6", "#f3fbff")])
    p.rect(0, 0, SIDE, SIDE, (top, low))
    p.hills(p.u(62, 72), 16, "#d5e6f5", 1.2)
    p.row(["evergreen-tree"], 78, 86, 20, 13)
    p.hills(86, 10, ("#f4faff", "#dceaf8"), 1.0)
    for _ in range(3):
        x, y = p.u(0, SIDE), p.u(96, 108)
        p.icon("evergreen-tree", x, y, p.u(30, 42))
        p.ellipse(x, y, 12, 3, "#ffffff")
    p.hills(112, 8, ("#ffffff", "#d9e8f7"), 0.8)
    p.hills(138, 7, ("#ffffff", "#cfe2f4"), 1.1)
    for _ in range(70):
        p.circle(p.u(0, SIDE), p.u(0, SIDE), p.u(0.5, 1.7), "#ffffff", p.u(0.6, 1))


def beach(p: Painter) -> None:
    top, low = p.rng.choice([("#4fb8f0", "#d4f3ff"), ("#58c4ea", "#fff3d6"), ("#77c5f5", "#e9fbff")])
    p.rect(0, 0, SIDE, 70, (top, low))
    p.circle(p.u(15, 145), p.u(14, 30), 10, "#fff2a8")
    for _ in range(3):
        p.cloud(p.u(0, SIDE), p.u(14, 45), p.u(18, 34))
    p.rect(0, 56, SIDE, 50, ("#1e9ad0", "#5fd6dd"))
    for _ in range(14):
        x, y = p.u(0, SIDE), p.u(60, 86)
        p.path(f"M{x:.1f} {y:.1f} q3 -1.6 6 0 q3 1.6 6 0", stroke="#ffffff", width=0.8, opacity=0.6)
    p.hills(90, 5, "#ffffff", 1.3, opacity=0.85)
    p.hills(93, 5, ("#f9e2a9", "#edc67c"), 1.3)
    for _ in range(40):
        p.circle(p.u(0, SIDE), p.u(102, SIDE), p.u(0.4, 0.9), "#d3a65c", 0.7)
    for x in (p.u(4, 26), p.u(134, 156)):
        p.icon("palm-tree", x, p.u(104, 120), p.u(58, 74))
    for _ in range(5):
        p.icon(["spiral-shell", "coconut"], p.u(4, 156), p.u(122, 158), p.u(7, 10))


def forest(p: Painter) -> None:
    green = p.rng.choice(["#2f7d4a", "#3a8243", "#27705a"])
    p.rect(0, 0, SIDE, SIDE, (shade(green, 0.30), shade(green, 0.12)))
    for _ in range(4):
        x = p.u(0, SIDE)
        p.polygon([(x, 0), (x + 14, 0), (x - 18, 120), (x - 44, 120)], "#ffffe0", 0.10)
    for layer, light in enumerate((0.14, 0.06, -0.02)):
        for k in range(9):
            x, w = k * 20 + p.u(-8, 8), 4 + 2 * layer
            p.rect(x - w / 2, 0, w, 120, (shade("#6b4a2f", 0.16 - 0.08 * layer), shade("#5a3d28", 0.1 - 0.07 * layer)))
        for k in range(12):
            p.circle(k * 15 + p.u(-6, 6), p.u(-4, 12) + 6 * (2 - layer), p.u(13, 20), shade(green, light))
    p.row(["evergreen-tree", "deciduous-tree"], 92, 106, 44, 26)
    p.hills(104, 8, (shade(green, -0.02), shade(green, -0.13)), 1.2)
    p.tufts(60, 112, 160, shade(green, 0.12), 5)
    for _ in range(6):
        p.icon(
            ["herb", "fallen-leaf", "leaf-fluttering-in-wind", "wood", "rock"], p.u(0, SIDE), p.u(118, 158), p.u(9, 14)
        )


def night(p: Painter) -> None:
    top, low = p.rng.choice([("#0b1038", "#33408f"), ("#120c3a", "#4a3a8c"), ("#071a3c", "#2a5088")])
    p.rect(0, 0, SIDE, SIDE, (top, low))
    p.stars(90, "#fffbe0", 110)
    for _ in range(7):
        p.icon("star", p.u(4, 156), p.u(10, 80), p.u(4, 7), "flat")
    x, y = p.u(24, 136), p.u(22, 44)
    p.circle(x, y, 32, ("#fff6c055", "#fff6c000"), radial=True)
    p.circle(x, y, 13, "#fff3b8")
    p.circle(x + 6, y - 3, 11, shade(top, 0.05))
    p.hills(112, 16, shade(low, -0.10), 1.3)
    for _ in range(5):
        x, y = p.u(0, SIDE), p.u(116, 126)
        for k in range(3):
            s = 9 - 2 * k
            p.polygon([(x - s, y - 6 * k), (x + s, y - 6 * k), (x, y - 14 - 6 * k)], shade(low, -0.18))
    p.hills(128, 10, shade(low, -0.22), 1.0)
    for _ in range(3):
        x, y = p.u(8, 150), p.u(122, 132)
        p.rect(x - 6, y - 8, 12, 10, "#141a44")
        p.polygon([(x - 8, y - 8), (x + 8, y - 8), (x, y - 15)], "#0d1233")
        p.rect(x - 2.4, y - 5.5, 4.8, 4.5, "#ffd75e", r=0.5)
    p.hills(146, 6, "#0a0f30", 1.4)


def city(p: Painter) -> None:
    top, low = p.rng.choice([("#7fc4f2", "#e8f6fd"), ("#8fb6f0", "#fde9d9"), ("#9fd8ee", "#f7fbf0")])
    p.rect(0, 0, SIDE, SIDE, (top, low))
    for _ in range(3):
        p.cloud(p.u(0, SIDE), p.u(10, 40), p.u(20, 36))
    x = -6
    while x < SIDE:
        w, h = p.u(14, 24), p.u(50, 92)
        p.rect(x, 118 - h, w, h, shade("#a9bcd4", p.u(-0.03, 0.06)))
        x += w
    x = -4
    while x < SIDE:
        w, h = p.u(20, 30), p.u(34, 74)
        wall = p.rng.choice(["#e2725b", "#f0a35a", "#5b8fb9", "#8a7fb5", "#d9c7a5", "#6aa79a", "#c9637b"])
        p.rect(x, 122 - h, w - 1.5, h, (shade(wall, 0.05), wall))
        p.rect(x - 0.8, 120 - h, w + 0.1, 3.2, shade(wall, -0.15))
        for wy in range(int(128 - h), 112, 10):
            for k in range(3):
                glass = "#ffe9a3" if p.rng.random() < 0.3 else "#d9f0fb"
                p.rect(x + 3 + k * (w - 5) / 3, wy, (w - 5) / 3 - 2.5, 6, glass, r=0.5)
        p.rect(x + w / 2 - 3, 113, 6, 9, shade(wall, -0.22), r=0.6)
        x += w
    p.rect(0, 120, SIDE, 12, ("#cfd2d8", "#b9bdc6"))
    p.rect(0, 131, SIDE, 29, ("#5f6672", "#4a505c"))
    for k in range(6):
        p.rect(k * 32 + p.u(-2, 2), 145, 16, 2.4, "#f5f0d0", r=1)
    for _ in range(3):
        p.icon("deciduous-tree", p.u(4, 156), 126, p.u(22, 28))


def desert(p: Painter) -> None:
    top, low = p.rng.choice([("#f7a94f", "#fde9b8"), ("#f4895f", "#fbd9a0"), ("#68c0e8", "#fdf0c8")])
    p.rect(0, 0, SIDE, 100, (top, low))
    x = p.u(20, 140)
    p.circle(x, p.u(26, 42), 15, "#fff7cf")
    base = p.u(84, 90)
    for _ in range(2):
        x, w, h = p.u(0, SIDE), p.u(24, 40), p.u(20, 34)
        p.polygon([(x - w / 2, base), (x - w / 2.6, base - h), (x + w / 2.6, base - h * 0.95), (x + w / 2, base)],
                  ("#c8643c", "#dd8a55"))  # fmt: skip
    p.hills(86, 12, ("#e8a350", "#dc8f3e"), 1.0)
    for _ in range(4):
        p.icon("cactus", p.u(0, SIDE), p.u(92, 102), p.u(16, 24))
    p.hills(104, 14, ("#f2b863", "#e29b45"), 0.8)
    for x in (p.u(4, 40), p.u(110, 156)):
        p.icon("cactus", x, p.u(118, 138), p.u(34, 46))
    p.hills(134, 10, ("#f7c676", "#e8a750"), 1.1)
    for _ in range(8):
        x, y = p.u(0, SIDE), p.u(112, 154)
        p.path(f"M{x:.1f} {y:.1f} q8 -3 16 0 t16 0", stroke="#cf8636", width=0.9, opacity=0.55)
    for _ in range(3):
        p.ellipse(p.u(0, SIDE), p.u(140, 157), p.u(3, 6), p.u(2, 3), "#b9713a")


def grass(p: Painter) -> None:
    top, low = p.rng.choice([("#5cb8f5", "#dff4ff"), ("#74c3f2", "#f4fbe9"), ("#69b4ee", "#eaf3ff")])
    p.rect(0, 0, SIDE, SIDE, (top, low))
    p.circle(p.u(14, 146), p.u(12, 26), 9, "#fff6b5")
    for _ in range(4):
        p.cloud(p.u(0, SIDE), p.u(14, 48), p.u(20, 38))
    p.hills(72, 14, ("#9bd86a", "#7cc24e"), 1.2)
    p.hills(86, 12, ("#86d052", "#5fb33c"), 0.9)
    p.hills(108, 8, ("#79c945", "#4a9e33"), 1.1)
    p.tufts(150, 84, 160, "#3f8f2c", 5)
    p.tufts(70, 84, 160, "#a4e070", 5)
    for _ in range(14):
        x, y = p.u(0, SIDE), p.u(96, 158)
        p.circle(x, y, 1.5, "#ffffff")
        p.circle(x, y, 0.6, "#ffd23f")


def mountains(p: Painter) -> None:
    top, low = p.rng.choice([("#6aa5e0", "#e6f1fb"), ("#8a9fe0", "#fbe3dc"), ("#77b8dc", "#f3f7e8")])
    p.rect(0, 0, SIDE, SIDE, (top, low))
    for _ in range(2):
        p.cloud(p.u(0, SIDE), p.u(14, 34), p.u(22, 34))
    for layer, (base, rock) in enumerate(((96, "#8fa3c4"), (108, "#63759b"))):
        for k in range(4):
            x, h, w = k * 48 + p.u(-14, 14), p.u(58, 76) - 14 * layer, p.u(38, 50)
            peak = base - h
            p.polygon([(x - w, base), (x, peak), (x + w, base)], rock)
            p.polygon([(x, peak), (x + w, base), (x + w * 0.15, base)], shade(rock, -0.07))
            t = 0.34
            cap = [(x, peak), (x + w * t, peak + h * t), (x + w * t * 0.5, peak + h * t * 0.75),
                   (x + w * 0.05, peak + h * t * 1.1), (x - w * t * 0.45, peak + h * t * 0.78),
                   (x - w * t, peak + h * t)]  # fmt: skip
            p.polygon(cap, "#ffffff")
    p.hills(104, 10, ("#5e8f6b", "#4c7d5c"), 1.2)
    p.row(["evergreen-tree"], 112, 120, 17, 12)
    p.hills(120, 8, ("#7aa86a", "#5a8a52"), 0.9)
    for _ in range(7):
        x, y, r = p.u(0, SIDE), p.u(130, 157), p.u(4, 8)
        p.polygon([(x - r, y), (x - r * 0.6, y - r * 0.8), (x + r * 0.3, y - r), (x + r, y - r * 0.2), (x + r, y)],
                  ("#b5bcc9", "#858d9e"))  # fmt: skip
    p.tufts(30, 126, 160, "#45733f", 4)


def garden(p: Painter) -> None:
    top, low = p.rng.choice([("#9adcf7", "#f1fbff"), ("#b6e3f7", "#fff3f6"), ("#a5d8f8", "#fffbe8")])
    p.rect(0, 0, SIDE, SIDE, (top, low))
    leaf = p.rng.choice(["#4aa05a", "#5aa84a", "#3f9568"])
    for k in range(10):
        p.circle(k * 18 + p.u(-4, 4), p.u(50, 58), p.u(13, 18), shade(leaf, p.u(-0.06, 0.04)))
    p.rect(0, 54, SIDE, 40, shade(leaf, -0.05))
    bloom = ["#ff7eb6", "#ffd23f", "#ff6b6b", "#c77dff", "#ffffff", "#ff9f5a"]
    for _ in range(40):
        x, y, c = p.u(0, SIDE), p.u(44, 84), p.rng.choice(bloom)
        p.circle(x, y, p.u(1.4, 2.6), c)
    p.rect(0, 74, SIDE, 3, "#f7efe2")
    p.rect(0, 90, SIDE, 3, "#f7efe2")
    for k in range(17):
        x = k * 10
        p.polygon([(x, 100), (x, 69), (x + 3, 65), (x + 6, 69), (x + 6, 100)], ("#ffffff", "#e9ddcb"))
    p.hills(102, 4, ("#8ed65f", "#5cb04a"), 1.2)
    for low, size in ((112, 17), (158, 24)):
        p.row(
            ["blossom", "hibiscus", "cherry-blossom", "hyacinth", "lotus", "white-flower"],
            low - 5,
            low + 1,
            size * 0.75,
            15,
        )
    path = "M60 160 Q80 130 74 100 L88 100 Q104 130 104 160 Z"
    p.path(path, ("#ead9b8", "#d9bf92"))
    for _ in range(12):
        p.ellipse(p.u(72, 98), p.u(108, 158), p.u(2.5, 4), p.u(1.2, 2), "#c8aa7a", 0.8)
    for low in (128, 142):
        for side in ((0, 58), (106, 160)):
            for _ in range(4):
                p.icon(
                    ["blossom", "hibiscus", "cherry-blossom", "seedling", "hyacinth"],
                    p.u(*side),
                    low + p.u(-5, 5),
                    p.u(12, 17),
                )


PLACES = {
    "snow": snow,
    "beach": beach,
    "forest": forest,
    "library": library,
    "night": night,
    "city": city,
    "desert": desert,
    "grass": grass,
    "room": room,
    "sea": sea,
    "mountains": mountains,
    "space": space,
    "volcano": volcano,
    "garden": garden,
    "kitchen": kitchen,
    "stage": stage,
}
# How dark the shadow is that a subject throws on the ground there.
SHADOW = dict.fromkeys(PLACES, 0.34) | {"space": 0.0, "sea": 0.12, "night": 0.30, "volcano": 0.30, "plain": 0.26}
