"""The shipped reference pictures and what the demonstration asks of them (``references/scenes.json``).

The pictures are made by ``scripts/make_demo_pictures.py`` from identities that no training stage has seen.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..images import open_picture

SCENES_VERSION = 2
REFERENCES = Path(__file__).parent / "references"


@dataclass(frozen=True)
class DemoSubject:
    """One subject of one picture: arguments of ``SSREncoder.encode`` (a mask by its path) and the prompts."""

    name: str
    picture: DemoPicture
    query: dict
    prompts: list[str]

    def options(self) -> list[str]:
        """The query as options of ``ssr generate`` and ``ssr encode``."""
        options = []
        for key, value in self.query.items():
            words = ",".join(f"{v:g}" for v in value) if key in ("box", "point") else str(value)
            options += [f"--{key}", f"references/{Path(words).name}" if key == "mask" else words]
        return options


@dataclass(frozen=True)
class DemoPicture:
    """A reference picture with its subjects."""

    path: Path
    title: str
    subjects: list[DemoSubject]

    def open(self) -> Image.Image:
        return open_picture(self.path)

    @property
    def name(self) -> str:
        """Where the demonstration copies it to, relative to the output folder."""
        return f"references/{self.path.name}"


@dataclass(frozen=True)
class Composition:
    """Subjects of several pictures in one."""

    title: str
    subjects: list[DemoSubject]
    prompts: list[str]


@dataclass(frozen=True)
class Layout:
    """A subject in scenes whose layout a map draws."""

    title: str
    subject: DemoSubject
    map: Path
    prompts: list[str]

    @property
    def option(self) -> str:
        """As :meth:`DemoSubject.options`."""
        return f"--control references/{self.map.name}"


@dataclass(frozen=True)
class Clip:
    """A subject in motion."""

    title: str
    subject: DemoSubject
    prompt: str
    frames: int

    @property
    def option(self) -> str:
        """As :meth:`DemoSubject.options`."""
        return f"--frames {self.frames}"


def load_scenes(folder: Path = REFERENCES) -> tuple[list[DemoPicture], Composition]:
    """The pictures and the composition of ``folder``."""
    listed, pictures = _listed(folder), {}
    for entry in listed["pictures"]:
        picture = DemoPicture(folder / entry["file"], entry["title"], [])
        for subject in entry["subjects"]:
            query = dict(subject["query"])
            if "mask" in query:
                query["mask"] = folder / query["mask"]
            picture.subjects.append(DemoSubject(subject["name"], picture, query, subject["prompts"]))
        pictures[entry["file"]] = picture
    composed = listed["composed"]
    subjects = [pictures[file].subjects[index] for file, index in composed["subjects"]]
    return list(pictures.values()), Composition(composed["title"], subjects, composed["prompts"])


def load_companions(pictures: list[DemoPicture], folder: Path = REFERENCES) -> tuple[Layout, Clip]:
    """What the ControlNet and the motion adapter are shown with: subjects of ``pictures`` from the same folder."""
    listed = _listed(folder)

    def subject(entry: dict) -> DemoSubject:
        file, index = entry["subject"]
        return next(picture for picture in pictures if picture.path.name == file).subjects[index]

    layout, clip = listed["layout"], listed["clip"]
    return (
        Layout(layout["title"], subject(layout), folder / layout["map"], layout["prompts"]),
        Clip(clip["title"], subject(clip), clip["prompt"], clip["frames"]),
    )


def generate_command(
    subject: DemoSubject, prompts: list[str], steps: int, seed: int, model: str, more: str = ""
) -> list[str]:
    """The lines of the command that makes a subject's pictures, to be run in the output folder; ``more`` options."""
    first = ["ssr generate", subject.picture.name, *map(shlex.quote, subject.options())]
    lines = [" ".join(first), *(_prompt(p) for p in prompts), *([more] if more else [])]
    return [*lines, _settings(steps, seed, model)]


def compose_commands(composed: Composition, steps: int, seed: int, model: str) -> list[list[str]]:
    """The commands that make the composed pictures: subjects not asked for by text alone are encoded to files first."""
    commands, parts = [], ["ssr generate"]
    chosen = f" --model {shlex.quote(model)}" if model != "mini" else ""
    for subject in composed.subjects:
        if set(subject.query) == {"query"}:
            parts.append(f'--subject "{subject.picture.name}::{subject.query["query"]}"')
            continue
        file = f"{subject.name}.safetensors"
        asked = " ".join(map(shlex.quote, subject.options()))
        commands.append([f"ssr encode {subject.picture.name} {asked}{chosen} -o {file}"])
        parts.append(f"--subject {file}")
    commands.append([" ".join(parts), *(_prompt(p) for p in composed.prompts), _settings(steps, seed, model)])
    return commands


def _listed(folder: Path) -> dict:
    listed = json.loads((folder / "scenes.json").read_text())
    if listed["version"] != SCENES_VERSION:
        raise ValueError(f"scenes.json has version {listed['version']}, expected {SCENES_VERSION}: make it again")
    return listed


def _prompt(text: str) -> str:
    return f'--prompt "{text}"'


def _settings(steps: int, seed: int, model: str) -> str:
    chosen = f" --model {shlex.quote(model)}" if model != "mini" else ""
    return f"--steps {steps} --seed {seed}{chosen}"
