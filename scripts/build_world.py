"""Builds the artwork of the mini world from the emoji icon packages.

    python scripts/build_world.py --packages node_modules/@iconify-json -o ssr_encoder/mini/world/art

writes sprites.webp, places.webp and atlas.json into the folder, and `splits.json` beside it (`--keep-splits`: not).
"""

import argparse
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from world_anchors import extents, hat_seats, luminance_ends
from world_distance import available_identities
from world_icons import CONCEPTS, HATTED, PEOPLE, SKIN_TONES, STYLES, Icons, bleed, rasterise, shrink, sprite
from world_painter import SIDE as PLACE_SIDE
from world_painter import Painter
from world_places import PLACES, SHADOW

from ssr_encoder.mini.world import World
from ssr_encoder.mini.world.atlas import VERSION
from ssr_encoder.mini.world.splits import draw_splits
from ssr_encoder.mini.world.tint import COLOURS

SPRITE_SIDE = 96
VARIANTS = 14
HAT_SIZE = 0.46  # a hat's side as a fraction of its wearer's


def draw_sprites(icons: Icons) -> np.ndarray:
    """All drawings in the order in which `World` numbers them, premultiplied float32 (n, side, side, 4)."""
    pictures = []
    for concept in CONCEPTS:
        for style in STYLES:
            for tone in range(1 + len(SKIN_TONES) * (concept in PEOPLE)):
                pictures.append(sprite(icons.concept(style, concept, tone), SPRITE_SIDE))
    pictures += [sprite(icons.body(style, "top-hat"), SPRITE_SIDE) for style in STYLES]
    return np.stack(pictures)


def draw_places(icons: Icons, seed: int) -> np.ndarray:
    """VARIANTS pictures of each place, uint8 (n, side, side, 3)."""
    pictures = []
    for name, draw in PLACES.items():
        for variant in range(VARIANTS):
            painter = Painter(icons, random.Random(f"{seed} {name} {variant}"))
            draw(painter)
            picture = shrink(rasterise(painter.svg(), 2 * PLACE_SIDE), 2)
            pictures.append(np.round(picture[..., :3].clip(0, 1) * 255).astype(np.uint8))
    return np.stack(pictures)


def write_atlas(path: Path, cells: np.ndarray, quality: int) -> None:
    """Lays square cells (n, side, side, channels) row by row into one lossy WebP."""
    n, side, _, channels = cells.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * columns, side, side, channels), np.uint8)
    sheet[:n] = cells
    sheet = sheet.reshape(rows, columns, side, side, channels).swapaxes(1, 2).reshape(rows * side, columns * side, -1)
    Image.fromarray(sheet).save(path, quality=quality, alpha_quality=90, method=6, exact=True)
    print(f"{path.name}: {n} cells, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder that holds the five icon packages")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the places' variants and of the splits")
    parser.add_argument("--keep-splits", action="store_true", help="leave splits.json as it is")
    parser.add_argument("--keep-sprites", action="store_true", help="draw only the places anew")
    parser.add_argument("--keep-places", action="store_true", help="draw only the sprites anew")
    args = parser.parse_args()
    icons = Icons(args.packages)
    args.out.mkdir(parents=True, exist_ok=True)
    listing = args.out / "atlas.json"
    old = json.loads(listing.read_text()) if listing.exists() else {}
    places = [*PLACES, "plain"]
    meta = {
        "version": VERSION, "packages": icons.versions, "sprite_side": SPRITE_SIDE, "place_side": PLACE_SIDE,
        "variants": VARIANTS, "hat_size": HAT_SIZE, "concepts": CONCEPTS, "styles": list(STYLES),
        "people": PEOPLE, "hatted": HATTED, "skin_tones": SKIN_TONES, "places": places,
        "shadow": [SHADOW[name] for name in places],
    }  # fmt: skip
    if not args.keep_places:
        write_atlas(args.out / "places.webp", draw_places(icons, args.seed), quality=88)
    if args.keep_sprites:
        keys = ("sprite_count", "extent", "hat_seat", "luminance", "available")
        meta |= {key: old[key] for key in keys}
    else:
        sprites = draw_sprites(icons)
        write_atlas(args.out / "sprites.webp", np.stack([bleed(s) for s in sprites]), quality=90)
        meta |= {
            "sprite_count": len(sprites),
            "extent": extents(sprites),
            "hat_seat": hat_seats(sprites),
            "luminance": luminance_ends(sprites),
        }
        everything = torch.ones(len(CONCEPTS), len(STYLES), len(COLOURS), dtype=torch.bool)
        everything[: len(PEOPLE), :, len(SKIN_TONES) + 1 :] = False
        listing.write_text(json.dumps(meta | {"available": everything.tolist()}))
        meta["available"] = available_identities(World.load(art=args.out), everything).int().tolist()
    listing.write_text(_compact(meta))
    world = World.load(art=args.out)
    print(f"{len(CONCEPTS)} concepts, {int(world.available.sum())} identities, {len(places)} places")
    if not args.keep_splits:
        splits = draw_splits(world, args.seed)
        (args.out.parent / "splits.json").write_text(_compact(splits))
        print({key: len(value) for key, value in splits.items() if isinstance(value, list)})


def _compact(data: dict) -> str:
    """JSON with one top-level key a line, and a line for each item of a list of lists."""
    lines = []
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], list):
            text = "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
