"""Draws the reference pictures of ``ssr demo`` and writes the list of what it asks of them.

    python scripts/make_demo_pictures.py

Every subject is an identity that no training stage has seen. Boxes, points and masks come from the drawing itself.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image

from ssr_encoder.demo.scenes import REFERENCES, SCENES_VERSION
from ssr_encoder.mini.control import layout_map
from ssr_encoder.mini.world import Scenes, World, boxes

SIDE = 128

FROG_PROMPTS = [
    "a frog on the beach",
    "a frog in the library",
    "a frog in the forest",
    "a frog on the stage",
]

# Subjects: concept, drawing, colour, centre x, y, size, flip, angle; then how it is asked for, and for what.
PICTURES = [
    {
        "file": "garden.png",
        "title": "Three in a garden",
        "place": ("garden", 3, (0.5, 0.6)),
        "subjects": [
            {
                "look": ("fox", "fluent", "as drawn", 0.26, 0.66, 0.46, False, 0.0),
                "ask": ("text", "fox"),
                "prompts": [
                    "a fox in the snow",
                    "a fox on the beach",
                    "a fox in space",
                    "a fox in the library",
                ],
            },
            {
                "look": ("penguin", "noto", "yellow", 0.74, 0.67, 0.48, True, 0.0),
                "ask": ("mask",),
                "prompts": [
                    "a penguin in the mountains",
                    "a penguin in the kitchen",
                    "a penguin in the desert",
                    "a penguin on the grass",
                ],
            },
            {
                "look": ("balloon", "fluent", "blue", 0.52, 0.25, 0.42, False, 0.06),
                "ask": ("text", "the balloon"),
                "prompts": [
                    "a balloon in the forest",
                    "a balloon at night",
                    "a balloon on the stage",
                    "a balloon in the mountains",
                ],
            },
        ],
    },
    {
        "file": "frogs.png",
        "title": "Two frogs, told apart by place",
        "place": ("snow", 9, (0.4, 0.7)),
        "subjects": [
            {
                "look": ("frog", "fluent", "red", 0.28, 0.62, 0.52, False, 0.0),
                "ask": ("box",),
                "prompts": FROG_PROMPTS,
            },
            {
                "look": ("frog", "noto", "blue", 0.75, 0.60, 0.50, True, 0.0),
                "ask": ("point",),
                "prompts": FROG_PROMPTS,
            },
        ],
    },
    {
        "file": "city.png",
        "title": "Waiting for the bus",
        "place": ("city", 8, (0.5, 1.0)),
        "subjects": [
            {
                "look": ("umbrella", "twemoji", "purple", 0.27, 0.62, 0.52, False, 0.0),
                "ask": ("text", "an umbrella"),
                "prompts": [
                    "an umbrella in the garden",
                    "an umbrella in the snow",
                    "an umbrella in the mountains",
                    "an umbrella in space",
                ],
            },
            {
                "look": ("bus", "noto", "yellow", 0.72, 0.63, 0.54, False, 0.0),
                "ask": ("text and box", "bus"),
                "prompts": [
                    "a bus in the desert",
                    "a bus in the snow",
                    "a bus at night",
                    "a bus near the volcano",
                ],
            },
        ],
    },
]
COMPOSED = {
    "title": "Two subjects of two pictures",
    "subjects": [["garden.png", 0], ["frogs.png", 1]],
    "prompts": [
        "a fox and a frog on the beach",
        "a frog and a fox in the mountains",
        "a fox and a frog in the library",
        "a frog and a fox on the stage",
    ],
}
# The map's subject is the reference's own, elsewhere, larger and turned round: x, y, size, flip, angle.
LAYOUT = {
    "title": "Layout from a map",
    "subject": ["garden.png", 0],
    "map": "layout-fox.png",
    "prompts": ["a fox on the beach", "a fox in the snow"],
}
LAYOUT_POSE = (0.6, 0.56, 0.6, True, -0.12)
CLIP = {
    "title": "In motion",
    "subject": ["city.png", 0],
    "prompt": "an umbrella in the garden",
    "frames": 16,
}


def scene_of(world: World, picture: dict) -> Scenes:
    """The composition of one picture as a scene (n = 1)."""
    place, variant, crop = picture["place"]
    looks = [subject["look"] for subject in picture["subjects"]]
    empty = 3 - len(looks)
    concept = [world.concepts.index(look[0]) for look in looks]
    style = [world.styles.index(look[1]) for look in looks]
    colour = [
        next(k for k in range(len(world.colours)) if world.colour_name(c, k) == look[2])
        for c, look in zip(concept, looks, strict=True)
    ]
    for identity in zip(concept, style, colour, strict=True):
        assert world.holdout[identity], f"{looks[concept.index(identity[0])]} is not held out"

    def slots(values, filler, dtype):
        return torch.tensor([list(values) + [filler] * empty], dtype=dtype)

    return Scenes(
        concept=slots(concept, -1, torch.long),
        style=slots(style, 0, torch.long),
        colour=slots(colour, 0, torch.long),
        hat=torch.zeros(1, 3, dtype=torch.bool),
        centre=torch.tensor([[look[3:5] for look in looks] + [(0.5, 0.5)] * empty]),
        size=slots([look[5] for look in looks], 0.3, torch.float),
        flip=slots([look[6] for look in looks], False, torch.bool),
        angle=slots([look[7] for look in looks], 0.0, torch.float),
        depth=torch.tensor([[0.3, 0.2, 0.1]]),
        place=torch.tensor([world.places.index(place)]),
        variant=torch.tensor([variant]),
        crop=torch.tensor([crop]),
        mirror=torch.zeros(1, dtype=torch.bool),
        brightness=torch.ones(1),
        hue=torch.zeros(1),
    )


def query_of(ask: tuple, mask: torch.Tensor, mask_file: str) -> dict:
    """Arguments of ``SSREncoder.encode``; a mask by its file's name."""
    kind, *text = ask
    query = {"query": text[0]} if text else {}
    if kind == "mask":
        query["mask"] = mask_file
    if "box" in kind:
        query["box"] = [round(v) for v in (boxes(mask[None, None])[0, 0] * SIDE).tolist()]
    if kind == "point":
        inside = (mask > 0.9).nonzero().float()
        y, x = inside[(inside - inside.mean(0)).norm(dim=1).argmin()].long().tolist()
        query["point"] = [x, y]
    return query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=REFERENCES)
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    world = World.load()
    listed = []
    for picture in PICTURES:
        image, masks = world.render(scene_of(world, picture), SIDE)
        image = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(image).save(folder / picture["file"], optimize=True)
        subjects = []
        for i, subject in enumerate(picture["subjects"]):
            name = subject["look"][0]
            mask_file = f"{Path(picture['file']).stem}-{name}-mask.png"
            query = query_of(subject["ask"], masks[0, i], mask_file)
            if "mask" in query:
                white = ((masks[0, i] > 0.5) * 255).byte().numpy()
                Image.fromarray(white).save(folder / mask_file, optimize=True)
            subjects.append({"name": name, "query": query, "prompts": subject["prompts"]})
        listed.append({"file": picture["file"], "title": picture["title"], "subjects": subjects})
    file, index = LAYOUT["subject"]
    subject = next(picture for picture in PICTURES if picture["file"] == file)["subjects"][index]
    look = (*subject["look"][:3], *LAYOUT_POSE)
    _, masks = world.render(scene_of(world, {"place": ("snow", 0, (0.5, 0.5)), "subjects": [{"look": look}]}), SIDE)
    white = (layout_map(masks)[0, 0] * 255).round().byte().numpy()
    Image.fromarray(white).save(folder / LAYOUT["map"], optimize=True)
    scenes = {"pictures": listed, "composed": COMPOSED, "layout": LAYOUT, "clip": CLIP}
    text = json.dumps({"version": SCENES_VERSION} | scenes, indent=1)
    (folder / "scenes.json").write_text(text + "\n")
    print(f"{len(listed)} pictures in {folder}")


if __name__ == "__main__":
    main()
