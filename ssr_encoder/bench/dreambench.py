"""DreamBench: the DreamBooth dataset's folder, read as it is published.

::

    DATA/prompts_and_classes.txt   a table subject_name,class and two lists of prompts, for objects and live subjects
    DATA/SUBJECT/00.jpg, ...       pictures of each subject

A folder of your own subjects in this layout works as well, as long as the prompts are the dataset's.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import SSRError
from .benchmark import FileReference, Item, slug
from .results import digest_of

TABLE = "prompts_and_classes.txt"
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# Words for people, by which the slice "humans" is cut.
HUMANS = frozenset((
    "man", "woman", "boy", "girl", "person", "people", "child", "baby", "face", "lady", "guy", "men", "women",
    "children", "kid", "bride", "groom", "player", "actor", "actress", "grandpa", "grandma", "prince", "princess",
))  # fmt: skip
_PROMPT = re.compile(r"""^\s*(['"])(.*)\1\.format\(unique_token, class_token\),?\s*$""")


def items(card: dict, data: Path, world_seed: int, reference: int | None) -> list[Item]:
    """The items of a folder: every subject with the prompts of its sort.

    Which subjects are live the dataset does not say; the card does, by class: its paper counts cats and dogs.

    Raises:
        SSRError: files are missing or the prompts are not those of the card's version.
    """
    classes, prompts = read_table(data / TABLE)
    expected = card.get("prompts_sha256")
    if expected and digest_of(prompts) != expected:
        raise SSRError(
            f"the prompts in {data / TABLE} are not those of {card['name']} version {card['version']}; "
            "restore the dataset's own file"
        )
    number = card.get("reference", 0) if reference is None else reference
    strangers = sorted(p.name for p in data.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in classes)
    if strangers:
        raise SSRError(f"folder {data / strangers[0]} has no class; add it to the table in {TABLE}, or remove it")
    made = []
    for name, class_name in classes.items():
        pictures = _pictures(data / name)
        if number >= len(pictures):
            raise SSRError(f"{data / name} has {len(pictures)} pictures; reference {number} is not there (from 0)")
        human = class_name in HUMANS
        sort = "live" if human or class_name in card["live"] else "object"
        for k, template in enumerate(prompts[sort]):
            made.append(
                Item(
                    key=f"{slug(name)}-{k:02d}",
                    subject=slug(name),
                    reference=FileReference(pictures[number]),
                    query={"query": class_name},
                    class_name=class_name,
                    template=template,
                    tags=(sort, *(["human"] if human else [])),
                )
            )
    return made


def read_table(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """{subject: class} and {"object": templates, "live": templates} of the dataset's prompt file.

    Raises:
        SSRError: it is not there or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SSRError(f"{path} is not there; give the folder of the DreamBooth dataset (--data FOLDER)") from None
    parts = re.split(r"^(Classes|Object Prompts|Live Subject Prompts)\s*$", text, flags=re.MULTILINE)
    section = dict(zip(parts[1::2], parts[2::2], strict=False))
    classes = {}
    for line in section.get("Classes", "").splitlines():
        name, comma, class_name = (part.strip() for part in line.partition(","))
        if comma and name != "subject_name":
            classes[name] = class_name
    prompts = {
        "object": _templates(section.get("Object Prompts", "")),
        "live": _templates(section.get("Live Subject Prompts", "")),
    }
    if not classes or not all(classes.values()) or not all(prompts.values()):
        raise SSRError(f"{path} is not the DreamBooth dataset's prompt file; restore the dataset's own")
    return classes, prompts


def _templates(text: str) -> list[str]:
    """ "a {0} {1} in the jungle" as "a {} in the jungle": the class's name, or a method's own word and it."""
    lines = [match[2] for match in map(_PROMPT.match, text.splitlines()) if match]
    return [line.replace("{0} {1}", "{}") for line in lines if "{0} {1}" in line]


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SSRError(f"{folder} is missing, a subject of the table in {TABLE}; restore the dataset's folder")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise SSRError(f"{folder} has no pictures; restore the dataset's folder")
    return found
