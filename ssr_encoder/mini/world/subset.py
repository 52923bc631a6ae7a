"""The part of the world that a model was trained on, as a file beside its weights."""

import json
from pathlib import Path

from .atlas import World

FILE = "world.json"


def load_world(device, folder: Path | None = None) -> World:
    """The world, restricted to what ``world.json`` in ``folder`` lists (concepts and styles), if it is there."""
    world = World.load(device)
    if folder is not None and (folder / FILE).exists():
        listed = json.loads((folder / FILE).read_text())
        world.restrict(listed["concepts"], listed["styles"])
    return world
