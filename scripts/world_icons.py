"""Icons and sprites of the mini world: which drawings it uses, and how they become premultiplied pixels."""

import io
import json
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

STYLES = {  # style name -> package below --packages
    "fluent": "fluent-emoji",
    "flat": "fluent-emoji-flat",
    "noto": "noto",
    "classic": "noto-v1",
    "twemoji": "twemoji",
}

# concept -> icon, where the two differ
_RENAMED = {
    "bee": "honeybee", "ladybug": "lady-beetle", "sheep": "ewe", "chick": "baby-chick", "whale": "spouting-whale",
    "fish": "tropical-fish", "camel": "two-hump-camel", "squirrel": "chipmunk", "car": "automobile",
    "plane": "airplane", "train": "locomotive", "boat": "sailboat", "burger": "hamburger", "donut": "doughnut",
    "cake": "birthday-cake", "apple": "red-apple", "corn": "ear-of-corn", "cheese": "cheese-wedge",
    "cone": "soft-ice-cream", "pumpkin": "jack-o-lantern", "bulb": "light-bulb", "book": "closed-book",
    "gift": "wrapped-gift", "ball": "soccer-ball", "shoe": "running-shoe", "cup": "hot-beverage", "phone": "telephone",
    "clover": "four-leaf-clover", "snowman": "snowman-without-snow", "santa": "santa-claus", "grandpa": "old-man",
    "grandma": "old-woman", "astronaut": "woman-astronaut", "chef": "man-cook", "farmer": "man-farmer",
}  # fmt: skip

PEOPLE = [
    "man",
    "woman",
    "boy",
    "girl",
    "baby",
    "grandpa",
    "grandma",
    "prince",
    "princess",
    "santa",
    "astronaut",
    "chef",
    "farmer",
    "guard",
]
# Heads that can carry a hat; other people wear their own, other animals have no head that the drawings show.
_BARE = PEOPLE[:7]
_ANIMALS = [
    "cat",
    "dog",
    "fox",
    "bear",
    "panda",
    "koala",
    "lion",
    "tiger",
    "frog",
    "monkey",
    "pig",
    "rabbit",
    "mouse",
    "hamster",
    "wolf",
    "elephant",
    "camel",
    "cow",
    "horse",
    "unicorn",
    "sheep",
    "deer",
    "crocodile",
    "turtle",
    "dragon",
    "whale",
    "dolphin",
    "fish",
    "octopus",
    "penguin",
    "owl",
    "duck",
    "rooster",
    "chick",
    "squirrel",
]
HATTED = _BARE + [a for a in _ANIMALS if a not in ["camel", "mouse", "crocodile", "turtle", "dolphin", "squirrel"]]
_REST = [
    "crab",
    "snail",
    "butterfly",
    "bee",
    "ladybug",
    "snake",
    "bus",
    "car",
    "ambulance",
    "tractor",
    "bicycle",
    "motorcycle",
    "train",
    "plane",
    "helicopter",
    "rocket",
    "boat",
    "pizza",
    "burger",
    "donut",
    "cake",
    "apple",
    "banana",
    "pear",
    "strawberry",
    "pineapple",
    "watermelon",
    "lemon",
    "carrot",
    "corn",
    "eggplant",
    "avocado",
    "cheese",
    "popcorn",
    "lollipop",
    "mushroom",
    "cone",
    "guitar",
    "violin",
    "trumpet",
    "drum",
    "camera",
    "bulb",
    "book",
    "key",
    "bell",
    "crown",
    "robot",
    "ball",
    "backpack",
    "television",
    "phone",
    "gift",
    "trophy",
    "snowman",
    "ghost",
    "alien",
    "shoe",
    "dress",
    "cup",
    "tent",
    "castle",
    "balloon",
    "clover",
    "rose",
    "tulip",
    "sunflower",
    "pumpkin",
    "umbrella",
]
CONCEPTS = PEOPLE + _ANIMALS + _REST
SKIN_TONES = ["light", "medium-light", "medium", "medium-dark", "dark"]


class Icons:
    """The five icon sets, by style; `body(style, name)` gives an icon's SVG body and its box (width, height)."""

    def __init__(self, packages: Path):
        self.sets = {s: json.loads((packages / p / "icons.json").read_text()) for s, p in STYLES.items()}
        self.versions = {p: json.loads((packages / p / "package.json").read_text())["version"] for p in STYLES.values()}

    def has(self, style: str, name: str) -> bool:
        return name in self.sets[style]["icons"] or name in self.sets[style].get("aliases", {})

    def body(self, style: str, name: str) -> tuple[str, float, float]:
        data = self.sets[style]
        if name in data["icons"]:
            icon = data["icons"][name]
            return icon["body"], icon.get("width", data["width"]), icon.get("height", data["height"])
        alias = data["aliases"][name]
        body, width, height = self.body(style, alias["parent"])
        if alias.get("hFlip"):
            body = f'<g transform="translate({width} 0) scale(-1 1)">{body}</g>'
        return body, width, height

    def concept(self, style: str, concept: str, tone: int = 0) -> tuple[str, float, float]:
        """The drawing of a concept; tone 0 is as drawn, 1 to 5 a person's skin tone, light to dark."""
        name = _RENAMED.get(concept, concept)
        if tone:
            suffix = SKIN_TONES[tone - 1]
            name += f"-{suffix}" if style in ("fluent", "flat") else f"-{suffix}-skin-tone"
        return self.body(style, name)

    def has_concept(self, concept: str, tone: int = 0) -> bool:
        try:
            return all(self.concept(s, concept, tone) for s in STYLES)
        except KeyError:
            return False


def rasterise(svg: str, width: int) -> np.ndarray:
    """An SVG as premultiplied RGBA float32 in [0, 1], (height, width, 4)."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True)
    rgba = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Box-filters (height, width, channels) by a whole factor."""
    h, w, c = image.shape
    return image.reshape(h // factor, factor, w // factor, factor, c).mean((1, 3))


def sprite(icon: tuple[str, float, float], side: int, margin: int = 2, supersample: int = 4) -> np.ndarray:
    """An icon filling a square of `side` pixels up to a margin, premultiplied RGBA float32 (side, side, 4).

    The sets pad their drawings differently; filling the square makes a subject's `size` mean the same in all of them.
    """
    body, width, height = icon
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    probe = rasterise(f'{head}viewBox="0 0 {width} {height}">{body}</svg>', 256)[..., 3] > 0.02
    scale = width / 256
    rows, columns = np.flatnonzero(probe.any(1)) * scale, np.flatnonzero(probe.any(0)) * scale
    top, bottom, left, right = rows[0], rows[-1] + scale, columns[0], columns[-1] + scale
    box = max(bottom - top, right - left) * side / (side - 2 * margin)
    x, y = (left + right - box) / 2, (top + bottom - box) / 2
    svg = f'{head}viewBox="{x} {y} {box} {box}">{body}</svg>'
    return shrink(rasterise(svg, side * supersample), supersample)


def bleed(premultiplied: np.ndarray, rounds: int = 24) -> np.ndarray:
    """Straight RGBA uint8 whose colours continue outside the drawing, so that lossy chroma leaves no dark rim."""
    rgb, alpha = premultiplied[..., :3].copy(), premultiplied[..., 3:].copy()
    weight = alpha.copy()
    for _ in range(rounds):
        pad_rgb, pad_w = (np.pad(a, ((1, 1), (1, 1), (0, 0))) for a in (rgb, weight))
        h, w = weight.shape[:2]
        shifts = [(i, j) for i in range(3) for j in range(3)]
        near_rgb = sum(pad_rgb[i : i + h, j : j + w] for i, j in shifts)
        near_w = sum(pad_w[i : i + h, j : j + w] for i, j in shifts)
        empty = weight < 0.02
        rgb = np.where(empty, near_rgb / np.maximum(near_w, 1e-6) * (near_w > 1e-4), rgb)
        weight = np.where(empty, near_w > 1e-4, weight).astype(np.float32)
    straight = np.concatenate([np.clip(rgb / np.maximum(weight, 1e-6), 0, 1), alpha], -1)
    return np.round(straight * 255).astype(np.uint8)
