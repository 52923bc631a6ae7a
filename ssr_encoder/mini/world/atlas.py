"""The artwork of the world as tensors: sprites, backdrops, and which identities exist and are held out.

`art/` is made by `scripts/build_world.py`; its pictures are lossy WebP, its lists JSON.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .plain import plain_backdrops
from .splits import load_splits
from .tint import COLOURS, TONES, free_tones, tint

ART = Path(__file__).parent / "art"
VERSION = 1
CROP = 0.8  # a scene shows this part of a backdrop's side


class World:
    """The drawings, places and splits of the embedded model's world, on one device.

    Attributes:
        concepts, styles, places: names; the last place is "plain".
        colours: names of recolourings; index 0 is "as drawn". A person's index means a skin tone: see `colour_name`.
        person, hatted: BoolTensor (concepts,), who is a person and who can wear a hat.
        available: BoolTensor (concepts, styles, colours), the distinct identities.
        holdout: BoolTensor like `available`, identities that no training stage sees.
        new_drawing: BoolTensor (concepts, styles), drawings of which no colour is trained.
        holdout_place: BoolTensor (concepts, places), pairs that no training stage sees.
        tones: BoolTensor (concepts, tones), which of the nameless colours that only training uses (tint.py) suit a
            concept: none that shows a colour of it that is held out in any drawing, none for people.
        extent: (sprites, 4) left, top, right, bottom of each drawing in its square, in [-0.5, 0.5].
        hat_seat: (sprites, 2) where a hat's base sits in the square, same units.
    """

    def __init__(self, meta: dict, sprites: torch.Tensor, backdrops: torch.Tensor, splits: dict | None, device="cpu"):
        """`sprites`: premultiplied RGBA uint8 (n, 4, 96, 96); `backdrops`: uint8 (places, variants, 3, 160, 160)."""
        self.device = torch.device(device)
        self.concepts, self.styles, self.places = meta["concepts"], meta["styles"], meta["places"]
        self.colours, self.skin_tones = list(COLOURS), meta["skin_tones"]
        people, hatted = set(meta["people"]), set(meta["hatted"])
        self.person = torch.tensor([c in people for c in self.concepts], device=self.device)
        self.hatted = torch.tensor([c in hatted for c in self.concepts], device=self.device)
        self.hat_size, self.shadow = meta["hat_size"], torch.tensor(meta["shadow"], device=self.device)
        self.sprites, self.backdrops = sprites.to(self.device), backdrops.to(self.device)
        self.extent = torch.tensor(meta["extent"], device=self.device)
        self.hat_seat = torch.tensor(meta["hat_seat"], device=self.device)
        self.luminance = torch.tensor(meta["luminance"], device=self.device)
        self.index, self.hat_index = (t.to(self.device) for t in self._number_sprites())
        self.available = torch.tensor(meta["available"], dtype=torch.bool, device=self.device)
        masks = load_splits(self, splits) if splits else self._no_splits()
        self.holdout, self.new_drawing, self.holdout_place = (m.to(self.device) for m in masks)
        self.tones = self._find_tones()
        self._mips: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._scaled: dict[int, torch.Tensor] = {}

    @classmethod
    def load(cls, device="cpu", art: Path = ART) -> "World":
        """Decodes the shipped artwork (or that in `art`) onto a device."""
        meta = json.loads((art / "atlas.json").read_text())
        if meta["version"] != VERSION:
            raise ValueError(f"{art / 'atlas.json'} has version {meta['version']}, expected {VERSION}: build it again")
        cells = _cells(art / "sprites.webp", meta["sprite_side"], "RGBA", meta["sprite_count"]).float()
        alpha = cells[:, 3:] / 255
        sprites = torch.cat([cells[:, :3] * alpha, cells[:, 3:]], 1).round().byte()
        count = (len(meta["places"]) - 1, meta["variants"])
        drawn = _cells(art / "places.webp", meta["place_side"], "RGB", count[0] * count[1]).unflatten(0, count)
        backdrops = torch.cat([drawn, plain_backdrops(count[1], meta["place_side"])[None]])
        splits_file = art.parent / "splits.json" if art == ART else art / "splits.json"
        splits = json.loads(splits_file.read_text()) if splits_file.exists() else None
        return cls(meta, sprites, backdrops, splits, device)

    def _number_sprites(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Sprite number of each (concept, style, colour or tone), and of each style's hat: the order of the atlas."""
        index = torch.zeros(len(self.concepts), len(self.styles), len(self.colours) + TONES, dtype=torch.long)
        number = 0
        for concept, person in enumerate(self.person.tolist()):
            for style in range(len(self.styles)):
                index[concept, style] = number
                tones = len(self.skin_tones) if person else 0
                index[concept, style, 1 : tones + 1] = torch.arange(number + 1, number + tones + 1)
                number += tones + 1
        return index, torch.arange(number, number + len(self.styles))

    def _find_tones(self) -> torch.Tensor:
        drawn = self.sprites[self.index[:, :, 0]].sum((-1, -2), dtype=torch.float32)  # premultiplied
        means = (drawn[..., :3] / drawn[..., 3:]).masked_fill(~self.available.any(-1, keepdim=True), torch.nan)
        return free_tones(self.holdout.any(1), means) & ~self.person[:, None]

    def _no_splits(self):
        nothing = torch.zeros_like(self.available)
        return nothing, nothing[..., 0], torch.zeros(len(self.concepts), len(self.places), dtype=torch.bool)

    def to(self, device) -> "World":
        """Moves every tensor, in place."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        self.device, self._mips, self._scaled = torch.device(device), {}, {}
        return self

    def restrict(self, concepts: list[str], styles: list[str]) -> "World":
        """Makes only these concepts in these drawing styles available, in place: a smaller world with the same
        numbers for everything, for training on little compute.

        Raises:
            ValueError: a name is not of this world.
        """
        unknown = [n for n in concepts if n not in self.concepts] + [n for n in styles if n not in self.styles]
        if unknown:
            raise ValueError(f"no {', '.join(unknown)} in this world")
        keep = torch.zeros_like(self.available)
        numbers = [self.concepts.index(n) for n in concepts], [self.styles.index(n) for n in styles]
        keep[torch.tensor(numbers[0])[:, None], torch.tensor(numbers[1])] = True
        self.available &= keep
        self.holdout &= keep
        self.tones = self._find_tones()
        return self

    def colour_name(self, concept: int, colour: int) -> str:
        """ "as drawn", a tint's name, or a person's skin tone."""
        if colour and self.person[concept]:
            return self.skin_tones[colour - 1] if colour <= len(self.skin_tones) else "none"
        return self.colours[colour]

    def paint(self, texture: torch.Tensor, concept: torch.Tensor, style: torch.Tensor, colour: torch.Tensor):
        """Recolours premultiplied RGBA float textures (n, 4, h, w) of these identities; people stay as they are."""
        sprite = self.index[concept, style, colour]
        return tint(texture, torch.where(self.person[concept], 0, colour), self.luminance[sprite])

    def portraits(self, concept: torch.Tensor, style: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        """The drawings of identities (n,), premultiplied RGBA float32 in [0, 1], (n, 4, 96, 96)."""
        texture = self.sprites[self.index[concept, style, colour]].float() / 255
        return self.paint(texture, concept, style, colour)

    def render(self, scenes, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws scenes: images (n, 3, size, size) in [0, 1] and the visible coverage of each slot, same shape."""
        from .render import render

        return render(self, scenes, size)

    def mips(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sprites prefiltered for pictures of `size`: textures uint8 (sprites, 4, h, w), levels (4, 3).

        A texture holds four scales of a drawing, sqrt(2) apart, each in a transparent gutter of one pixel, so that one
        bilinear fetch neither aliases nor bleeds. A level's row is its x, y and side in the texture, in pixels.
        """
        if size not in self._mips:
            base = min(self.sprites.shape[-1], max(8, round(self.sprites.shape[-1] * size / 128)))
            sides = [max(4, round(base * 0.5 ** (k / 2))) for k in range(4)]
            xs = [1, sides[0] + 3, sides[0] + sides[1] + 5, sides[0] + sides[1] + 5]
            ys = [1, 1, 1, sides[2] + 3]
            shape = (len(self.sprites), 4, max(sides[0], sides[2] + sides[3] + 2) + 2, xs[2] + sides[2] + 1)
            textures = torch.zeros(shape, dtype=torch.uint8, device=self.device)
            for start in range(0, len(self.sprites), 64):
                part = self.sprites[start : start + 64].float()
                for x, y, side in zip(xs, ys, sides, strict=True):
                    textures[start : start + 64, :, y : y + side, x : x + side] = _resize(part, side)
            self._mips[size] = textures, torch.tensor([xs, ys, sides], device=self.device).T.float()
        return self._mips[size]

    def scaled_backdrops(self, size: int) -> torch.Tensor:
        """All backdrops for pictures of `size`: uint8 (places, variants, 3, side, side) with side = size / CROP."""
        if size not in self._scaled:
            side = round(size / CROP)
            parts = [_resize(place.float(), side) for place in self.backdrops]
            self._scaled[size] = torch.stack(parts)
        return self._scaled[size]


def _resize(images: torch.Tensor, side: int) -> torch.Tensor:
    if images.shape[-1] != side:
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return images.round().clamp(0, 255).byte()


def _cells(path: Path, side: int, mode: str, count: int) -> torch.Tensor:
    """Cuts an atlas picture into its first `count` square cells, row by row: uint8 (count, channels, side, side)."""
    picture = torch.from_numpy(np.array(Image.open(path).convert(mode)))
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    cells = picture.view(rows, side, columns, side, -1).permute(0, 2, 4, 1, 3)
    return cells.reshape(rows * columns, -1, side, side)[:count].contiguous()
