"""The illustrated places of the mini world, indoors."""

from world_painter import SIDE, Painter, shade

_BOOKS = ["#c0392b", "#2e86ab", "#e0a030", "#3d8b57", "#7d4f9e", "#d96c3f", "#2c5f78", "#b54a6a", "#e8d5b0", "#4a6b3a"]


def library(p: Painter) -> None:
    wood = p.rng.choice(["#7a4a2a", "#6b3f2a", "#85552f"])
    p.rect(0, 0, SIDE, SIDE, (shade(wood, -0.10), shade(wood, -0.14)))
    bay = p.u(48, 60)
    shift = p.u(-30, 0)
    for shelf in range(5):
        y = 4 + shelf * 26
        p.rect(0, y, SIDE, 24, shade(wood, -0.18))
        x = shift - 20
        while x < SIDE:
            if p.rng.random() < 0.06:
                p.icon(
                    ["globe-showing-americas", "hourglass-not-done", "potted-plant", "framed-picture", "amphora"],
                    x + 7,
                    y + 22,
                    14,
                )
                x += 15
                continue
            w, h, c = p.u(3, 6.5), p.u(14, 20), p.rng.choice(_BOOKS)
            p.rect(x, y + 22 - h, w - 0.4, h, (shade(c, 0.10), shade(c, -0.03)), r=0.5, across=True)
            p.rect(x + 0.6, y + 22 - h * 0.8, w - 1.6, 1.1, "#f5e3a8", opacity=0.85)
            x += w
        p.rect(0, y + 22, SIDE, 4, (shade(wood, 0.14), shade(wood, -0.02)))
    for k in range(5):
        p.rect(shift + k * bay - 3, 0, 6, 134, (shade(wood, 0.05), shade(wood, 0.14), shade(wood, -0.02)), across=True)
    p.rect(0, 132, SIDE, 28, ("#a86f3c", "#8a5730"))
    p.ellipse(80, 150, 86, 12, "#8f2f3a")
    p.ellipse(80, 150, 78, 9.5, "#b5434d")
    p.ellipse(80, 150, 70, 7.5, "#a33843")
    for x in (p.u(6, 22), p.u(138, 154)):
        p.icon("books", x, p.u(140, 150), 24, p.rng.choice(("flat", "noto", "twemoji")))
    for x in (p.u(20, 60), p.u(100, 140)):
        p.circle(x, 16, 34, ("#ffe9a870", "#ffe9a800"), radial=True)


def room(p: Painter) -> None:
    wall = p.rng.choice(["#f3d9c4", "#d9e5d0", "#e3d5ea", "#f5e2b8", "#cfe3ea"])
    p.rect(0, 0, SIDE, 118, (shade(wall, 0.02), shade(wall, -0.05)))
    for k in range(11):
        p.rect(k * 16 + 3, 0, 7, 118, shade(wall, 0.04), opacity=0.6)
    p.rect(0, 113, SIDE, 6, "#fffaf2")
    p.rect(0, 118, SIDE, 42, ("#c98f5c", "#a9703f"))
    for y in (126, 136, 147):
        p.rect(0, y, SIDE, 0.8, "#8f5c32", opacity=0.6)
        for _ in range(4):
            p.rect(p.u(0, SIDE), y, 0.8, 10, "#8f5c32", opacity=0.6)
    x = p.u(52, 72)
    cloth = p.rng.choice(["#d9586a", "#4f8fc0", "#e0a63f", "#5aa27c"])
    p.rect(x - 3, 17, 46, 54, "#ffffff", r=1)
    p.rect(x, 20, 40, 48, ("#8fd3f7", "#eafaff"))
    p.cloud(x + 15, 40, 16)
    p.circle(x + 30, 66, 9, "#7cc26a")
    p.circle(x + 16, 68, 8, "#69b058")
    p.rect(x, 62, 40, 6, "#69b058")
    p.rect(x + 19, 20, 2, 48, "#ffffff")
    p.rect(x, 43, 40, 2, "#ffffff")
    for side in (-9, 37):
        p.path(f"M{x + side} 13 h12 q-2 30 {3 if side < 0 else -1} 62 h-13 q-1 -32 {1 if side < 0 else 2} -62 Z",
               (shade(cloth, 0.08), shade(cloth, -0.05)))  # fmt: skip
    p.rect(x - 13, 11, 66, 3, "#8a5a34", r=1.5)
    for fx in (p.u(16, 30), p.u(132, 142)):
        w, h, y = p.u(17, 22), p.u(15, 24), p.u(24, 36)
        p.rect(fx - w / 2 - 2, y - 2, w + 4, h + 4, "#9c6b3f", r=0.8)
        p.rect(
            fx - w / 2, y, w, h, p.rng.choice([("#ffd9a0", "#f08a6a"), ("#a8e0d0", "#4f9fb0"), ("#d0c0f0", "#8070c0")])
        )
        p.circle(fx + p.u(-3, 3), y + h * 0.5, 3.4, "#fff5d0")
    p.icon("couch-and-lamp", p.u(18, 34), 128, 54)
    p.icon("potted-plant", p.u(128, 146), 128, 40)
    rug = p.rng.choice(["#c75b6b", "#5b86b8", "#6aa084", "#b58abf"])
    p.ellipse(p.u(72, 92), 143, 52, 11, rug)
    p.ellipse(82, 143, 42, 8, shade(rug, 0.12))
    p.ellipse(82, 143, 32, 5.4, shade(rug, 0.04))


def kitchen(p: Painter) -> None:
    tile, unit = p.rng.choice(
        [("#bfe8e4", "#3f9aa0"), ("#d2ecd8", "#57a56f"), ("#cfe6f5", "#3d7fb5"), ("#bdeade", "#d9664f")]
    )
    p.rect(0, 0, SIDE, SIDE, tile)
    for row in range(9):
        for k in range(12):
            p.rect(k * 14 + 0.6 - 7 * (row % 2), row * 11.5 + 0.6, 12.8, 10.3, shade(tile, p.u(-0.02, 0.05)), r=0.8)
    x = p.u(-40, -20)
    while x < SIDE:
        p.rect(x, -2, 33, 32, (shade(unit, 0.06), unit), r=1)
        p.rect(x + 3, 1, 27, 26, shade(unit, 0.10), r=1)
        p.circle(x + 27, 22, 1.3, "#fff3cf")
        x += 34
    p.rect(0, 52, SIDE, 3.4, "#a9703f")
    k = p.u(4, 12)
    while k < SIDE:
        p.icon(["teapot", "honey-pot", "amphora", "potted-plant", "jar", "canned-food", "salt"], k, 52.5, p.u(13, 16))
        k += p.u(15, 22)
    for _ in range(4):
        x = p.u(4, 156)
        p.path(f"M{x:.1f} 56 v5", stroke="#7a7f88", width=0.8)
        p.icon(["spoon", "cooking", "fork-and-knife"], x, 76, 15)
    p.rect(0, 98, SIDE, 6, ("#f7f1e6", "#d9cdb8"))
    x = p.u(-36, -10)
    first = True
    while x < SIDE:
        if first and x > 8:
            first = False
            p.rect(x, 104, 44, 34, ("#e4e7ec", "#b4bac4"), r=1)
            p.rect(x + 5, 114, 34, 19, ("#3a3f4a", "#5b4338"), r=2)
            for k in range(5):
                p.circle(x + 7 + 7.5 * k, 109, 1.8, "#5b616e")
            p.icon("pot-of-food", x + 13, 99, 22)
            p.icon("shallow-pan-of-food", x + 33, 99, 18)
            x += 45
            continue
        p.rect(x, 104, 30, 34, (shade(unit, 0.04), shade(unit, -0.04)), r=1)
        p.rect(x + 3, 107, 24, 28, shade(unit, 0.08), r=1)
        p.rect(x + 10, 110, 10, 1.8, "#fff3cf", r=0.9)
        x += 31
    for row in range(3):
        for k in range(-1, 14):
            tone = "#f6f3ec" if (row + k) % 2 else shade(unit, 0.22)
            y, h = 138 + row * 7.5, 7.6
            s0, s1 = 1 + row * 0.12, 1 + (row + 1) * 0.12
            c = [
                (80 + (k * 13 - 80) * s0, y),
                (80 + (k * 13 - 67) * s0, y),
                (80 + (k * 13 - 67) * s1, y + h),
                (80 + (k * 13 - 80) * s1, y + h),
            ]
            p.polygon(c, tone)


def stage(p: Painter) -> None:
    red = p.rng.choice(["#b3122e", "#a8102f", "#c01838"])
    p.rect(0, 0, SIDE, SIDE, (shade(red, -0.16), shade(red, -0.08)))
    x = 0.0
    while x < SIDE:
        w = p.u(7, 11)
        p.rect(x, 0, w, 122, (shade(red, -0.15), shade(red, 0.03), shade(red, -0.15)), across=True)
        x += w
    p.rect(0, 118, SIDE, 42, ("#d99b55", "#a9672f"))
    for k in range(-4, 16):
        p.path(f"M{80 + (k * 14 - 80) * 0.8:.1f} 118 L{80 + (k * 14 - 80) * 1.25:.1f} 160", stroke="#8a5226", width=0.7)
    for x, lean in ((p.u(20, 50), p.u(10, 36)), (p.u(110, 140), p.u(-36, -10))):
        p.polygon([(x - 4, 0), (x + 4, 0), (x + lean + 30, 136), (x + lean - 30, 136)], ("#fff8d0", "#e08a60"), 0.30)
        p.ellipse(x + lean, 138, 32, 8, "#fff0b8", 0.55)
    for side in (0, 1):
        for k in range(3):
            px = (k * 9 - 3) if not side else SIDE - 6 - k * 9
            p.path(f"M{px} 0 h9 q{-6 if not side else 6} 60 0 122 h-9 Z", (shade(red, 0.10), shade(red, -0.04)))
        tx = 20 if not side else 140
        p.rect(tx - 18, 76, 26 if not side else 36, 3, "#f5c542", r=1.5)
    for k in range(8):
        cx = k * 23
        p.path(f"M{cx - 13} 0 h26 v12 q-13 20 -26 0 Z", (shade(red, 0.02), shade(red, 0.12)))
        p.path(f"M{cx - 13} 12 q13 20 26 0", stroke="#f7cf52", width=1.8)
    p.rect(0, 0, SIDE, 5, ("#f7d668", "#d9a030"))
    for k in range(11):
        p.circle(k * 16 + 4, 156, 4.4, ("#fff6c8", "#ffd25e"))
        p.circle(k * 16 + 4, 156, 8, ("#fff6c890", "#fff6c800"), radial=True)
    for _ in range(16):
        p.circle(p.u(0, SIDE), p.u(20, 150), p.u(0.5, 1.2), "#ffe9a0", 0.8)
