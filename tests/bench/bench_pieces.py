"""A small folder in DreamBench's layout, a method that paints, and a metric that one can check by hand."""

from __future__ import annotations

import json
import multiprocessing.util
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

# The prompts of the DreamBooth dataset (Ruiz et al., CVPR 2023; Creative Commons Attribution 4.0), in its own order.
BOTH = (
    "in the jungle", "in the snow", "on the beach", "on a cobblestone street", "on top of pink fabric",
    "on top of a wooden floor", "with a city in the background", "with a mountain in the background",
    "with a blue house in the background", "on top of a purple rug in a forest",
)  # fmt: skip
OBJECT = (
    "with a wheat field in the background", "with a tree and autumn leaves in the background",
    "with the Eiffel Tower in the background", "floating on top of water", "floating in an ocean of milk",
    "on top of green grass with sunflowers around it", "on top of a mirror",
    "on top of the sidewalk in a crowded street", "on top of a dirt road", "on top of a white rug",
)  # fmt: skip
LIVE = (
    "wearing a red hat", "wearing a santa hat", "wearing a rainbow scarf", "wearing a black top hat and a monocle",
    "in a chef outfit", "in a firefighter outfit", "in a police outfit", "wearing pink glasses",
    "wearing a yellow shirt", "in a purple wizard outfit",
)  # fmt: skip
PROPERTIES = ("red", "purple", "shiny", "wet", "cube shaped")


def prompt_file(classes: dict[str, str]) -> str:
    """prompts_and_classes.txt as the dataset has it, with these subjects."""

    def listed(own):
        lines = [f"'a {{0}} {{1}} {text}'.format(unique_token, class_token)" for text in (*BOTH, *own)]
        lines += [f"'a {text} {{0}} {{1}}'.format(unique_token, class_token)" for text in PROPERTIES]
        return "prompt_list = [\n" + ",\n".join(lines) + "\n]\n"

    table = "\n".join(f"{name},{class_name}" for name, class_name in classes.items())
    return (
        f"Classes\n\nsubject_name,class\n{table}\n\nPrompts\n\nObject Prompts\n\n{listed(OBJECT)}\n"
        f"Live Subject Prompts\n\n{listed(LIVE)}"
    )


def make_dreambench(folder: Path, classes: dict[str, str] | None = None, pictures: int = 2) -> Path:
    """A folder in the dataset's layout: by default a dog, which is live, and a can, which is not."""
    classes = classes or {"dog2": "dog", "can": "can"}
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(classes):
        (folder / name).mkdir(exist_ok=True)
        for i in range(pictures):
            noise = np.random.default_rng(10 * k + i).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i:02d}.png")
    (folder / "prompts_and_classes.txt").write_text(prompt_file(classes))
    return folder


def make_multi_subject(folder: Path, prompts: int = 2) -> Path:
    """A multi-subject bench of two pictures with two subjects each, and its own few prompts."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    items = []
    for k, words in enumerate((["cat", "dog"], ["fox", "cat"])):
        noise = np.random.default_rng(k).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"{k}.png")
        own = {word: ["a {} in the snow", "a {} on the beach", "a red {}"][:prompts] for word in words}
        items.append({"key": f"{k}", "image": f"images/{k}.png", "subjects": words, "prompts": own})
    bench = {"format": "ssr-multi-subject-bench-1", "rule": {}, "n": 2, "items": items}
    (folder / "bench.json").write_text(json.dumps(bench))
    return folder


class Paint:
    """A picture of 16 x 16 from the reference's mean colour, the prompt and the seed; ``pause`` seconds each."""

    name = "paint"

    def __init__(self, strength: float = 0.5, pause: float = 0.0, log: Path | None = None, **rest):
        self.strength, self.pause, self.log = strength, pause, log

    def describe(self) -> dict:
        return {"fingerprint": "paint", "settings": {"strength": self.strength}}

    def personalise(self, reference_image, query, class_name):
        if self.log:
            with open(self.log, "a") as stream:
                stream.write(f"{class_name}\n")
        return np.asarray(reference_image).mean((0, 1)), class_name

    def generate(self, subject, template, seeds):
        colour, class_name = subject
        prompt = template.replace("{}", class_name)
        pictures = []
        for seed in seeds:
            time.sleep(self.pause)
            noise = np.random.default_rng([seed, len(prompt)]).integers(0, 256, (16, 16, 3))
            mixed = self.strength * colour + (1 - self.strength) * noise
            pictures.append(Image.fromarray(mixed.round().astype(np.uint8)))
        return pictures


class PaintThenDie(Paint):
    """In any process but the one named by the environment it ends without a word."""

    def generate(self, subject, template, seeds):
        if os.environ["PAINT_ALIVE"] != str(os.getpid()):
            os._exit(3)
        return super().generate(subject, template, seeds)


class PaintThenTidy(Paint):
    """A process other than the one named by the environment takes its time to end, then says so beside its log."""

    def __init__(self, **settings):
        super().__init__(**settings)
        if os.environ["PAINT_ALIVE"] != str(os.getpid()):
            multiprocessing.util.Finalize(None, self._tidy, exitpriority=1)

    def _tidy(self):
        time.sleep(0.5)
        self.log.with_suffix(".tidy").touch()


class Brightness:
    """Mean of a picture's values over 255; None where the reference shows something else too, if ``alone``."""

    direction = "higher"

    def __init__(self, name: str = "brightness", alone: bool = False):
        self.name, self.alone = name, alone

    def describe(self) -> dict:
        return {"backbone": "none", "alone": self.alone}

    def __call__(self, cases):
        return [None if self.alone and c.others else float(np.asarray(c.image).mean() / 255) for c in cases]


def brightness() -> list[Brightness]:
    return [Brightness()]


def two_brightnesses() -> list[Brightness]:
    return [Brightness(), Brightness("alone", alone=True)]


def contents(folder: Path) -> dict:
    """Every file of a results folder, hidden ones too; how long it took left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            value = path.read_bytes()
            if path.suffix == ".json":
                value = json.loads(value)
                value.pop("seconds", None)
            found[str(path.relative_to(folder))] = value
    return found
