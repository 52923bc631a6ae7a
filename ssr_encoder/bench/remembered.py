"""What is computed once: references and prompts come again and again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from PIL import Image


class Remembered:
    """The latest ``most`` results by key."""

    def __init__(self, most: int):
        self.most, self._kept = most, OrderedDict()

    def __call__(self, key: Hashable, make: Callable[[], Any]):
        """What was made for the key, or is made now."""
        if key not in self._kept:
            self._kept[key] = make()
            if len(self._kept) > self.most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()


def digest(picture: Image.Image) -> str:
    """Names a picture by its pixels."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()
