"""Cases for the metrics' tests: pictures of random pixels, scenes of the embedded world, tiny networks in folders."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from ssr_encoder.bench.metrics import Case
from ssr_encoder.images import picture_grid
from ssr_encoder.mini.models import make_tokenizer
from ssr_encoder.mini.world import sample_scenes

WORDS = ["a", "an", "photo", "of", "cat", "dog", "fox", "red", "in", "the", "snow", "beach", "."]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
CHANNELS = {"image_mean": MEAN, "image_std": STD}


def noise(size: tuple[int, int] = (48, 40), seed: int = 0) -> Image.Image:
    """A picture of (width, height) with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = rng.integers(-30, 30, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + fine).clip(0, 255).astype(np.uint8))


def noise_cases(n: int = 7, size: tuple[int, int] = (48, 40)) -> list[Case]:
    """Cases of random pixels; every reference but the first is shared by two."""
    prompts = ["a cat in the snow", "a red fox", "a dog on the beach"]
    return [
        Case(noise(size, 10 + i), noise(size, 90 + i // 2), prompts[i % 3], ("cat", "fox", "dog")[i % 3])
        for i in range(n)
    ]


def unchanged_by_company(metric, cases: list[Case]) -> None:
    """The same values alone, together, and together in another order, by a metric that remembers nothing of them."""
    forget(metric)
    together = metric(cases)
    forget(metric)
    backwards = metric(cases[::-1])[::-1]
    alone = []
    for case in cases:
        forget(metric)
        alone += metric([case])
    assert together == backwards == alone


def forget(metric) -> None:
    """Empty what a metric's parts remember, so that a second answer is a second computation."""
    for part in (getattr(metric, name, None) for name in ("backbone", "regions", "verdicts")):
        kept = getattr(part, "_kept", {})
        for each in kept.values() if part is getattr(metric, "backbone", None) else [kept]:
            each.clear()


def tiny_clip(folder) -> str:
    """A CLIP of the true architecture with random weights, 32 px in patches of 8, and how it wants its pictures."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(WORDS, 16)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_dim": 24}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = tower | {"image_size": 32, "patch_size": 8, "projection_dim": 24}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    for parameter in model.parameters():  # born so small that all pictures would be alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square, **CHANNELS).save_pretrained(folder)
    return str(folder)


def by_hand(picture: Image.Image, mean=MEAN, std=STD, side: int = 32) -> torch.Tensor:
    """Shorter side to ``side`` (bicubic), centre crop, normalised: (1, 3, side, side)."""
    scale = side / min(picture.size)
    resized = picture.resize(tuple(int(x * scale) for x in picture.size), Image.Resampling.BICUBIC)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    pixels = np.asarray(resized.crop((left, top, left + side, top + side)), np.float64) / 255
    return torch.tensor((pixels - mean) / std).permute(2, 0, 1)[None].float()


class Found:
    """Regions that are always the same."""

    def __init__(self, region):
        self.region = region

    def __call__(self, picture, name):
        return self.region

    def describe(self):
        return {"regions": "given"}


class Scenery:
    """A few subjects of the embedded world, references that show each with another, and what could come of them.

    Attributes:
        results: "right" shows the subject alone, "wrong" the other one alone, "both" both, "neither" an empty sky, and
            "twin" another drawing of the subject's class; pictures and places (indices), by case.
        references, masks: pictures of subject and other, and where the subject is.
    """

    def __init__(self, world, n: int, seed: int = 3):
        self.world, self.n = world, n
        self._generator = torch.Generator().manual_seed(seed)
        drawn_twice = (world.available.any(2).sum(1) > 1).nonzero()[:, 0]
        concepts = drawn_twice[torch.randperm(len(drawn_twice), generator=self._generator)[: 2 * n]]
        self.subject, self.other = (self._identity(part) for part in concepts.split(n))
        self.references, self.masks, _ = self._drawn(self.subject, self.other)
        drawn = {
            "right": self._drawn(self.subject),
            "wrong": self._drawn(self.other),
            "both": self._drawn(self.subject, self.other),
            "twin": self._drawn(self._identity(self.subject[0], not_style=self.subject[1])),
        }
        self.results = {name: (pictures, places) for name, (pictures, _, places) in drawn.items()}
        self.results["neither"] = [Image.new("RGB", (128, 128), (150, 170, 200))] * n, [None] * n

    def cases(self, name: str, masks: bool = True) -> list[Case]:
        pictures, places = self.results[name]
        rows = zip(*(part.tolist() for part in self.subject), self.other[0].tolist(), strict=True)
        names = self.world.concepts
        return [
            Case(
                pictures[i],
                self.references[i],
                f"a {names[c]}",
                names[c],
                (names[o],),
                self.masks[i] if masks else None,
                {"concept": c, "style": s, "colour": k, "place": places[i], "others": [o]},
            )
            for i, (c, s, k, o) in enumerate(rows)
        ]

    def _identity(self, concept, not_style=None):
        """The first drawing and colour of each concept that is not of a certain style."""
        rows = []
        for i, c in enumerate(concept.tolist()):
            free = self.world.available[c].clone()
            if not_style is not None:
                free[not_style[i]] = False
            rows.append(free.nonzero()[0])
        return concept, *torch.stack(rows).unbind(1)

    def _drawn(self, first, second=None):
        odds = (1.0, 0.0, 0.0) if second is None else (0.0, 1.0, 0.0)
        scenes = sample_scenes(
            self.world, self.n, self._generator, split="any", subjects=odds, first=first, second=second, plain=0.0
        )
        pictures, masks = self.world.render(scenes, 128)
        return [picture_grid(p[None], 1) for p in pictures], [m.numpy() for m in masks[:, 0]], scenes.place.tolist()
