"""The world that the embedded model is trained on: scenes of emoji subjects in illustrated places, drawn in batches."""

from .atlas import World
from .captions import caption_words, captions, query_texts
from .render import boxes
from .scenes import Scenes, random_identities, sample_scenes
from .subset import load_world

__all__ = [
    "Scenes",
    "World",
    "boxes",
    "caption_words",
    "captions",
    "load_world",
    "query_texts",
    "random_identities",
    "sample_scenes",
]
