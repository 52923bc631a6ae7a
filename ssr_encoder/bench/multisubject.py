"""The multi-subject bench of the supplement's section H, in the folder that ``ssr data bench-candidates`` writes.

::

    DATA/bench.json   {"format": "ssr-multi-subject-bench-1", "rule": {...}, "items": [
                        {"key": "000012", "image": "images/000012.jpg", "subjects": ["cat", "hat"], ...}, ...]}
    DATA/images/...

Go over bench.json by hand: in every item leave in "subjects" what can be asked for (at least two; places that slipped
in go), and add, if you like, "masks": {"cat": "masks/000012-cat.png"} (white on the subject, for the masked scores)
and "prompts": {"cat": ["a {} in the snow", ...]} (else the card's, of which the paper shows some and lists none).
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import SSRError
from .benchmark import FileReference, Item, slug
from .dreambench import HUMANS

FORMAT = "ssr-multi-subject-bench-1"
COUNTS = {2: "two-subjects", 3: "three-subjects"}


def items(card: dict, data: Path, world_seed: int, reference: int | None) -> list[Item]:
    """An item for each prompt for each subject of each picture.

    Raises:
        SSRError: no bench.json, an item of it that is not as described above, or a file that is missing.
    """
    made = []
    for entry in _entries(data / "bench.json"):
        subjects = _subjects(entry, data)
        picture = _file(data, entry["image"])
        for word in subjects:
            human = word.split()[-1] in HUMANS
            sort = "live" if human or word.split()[-1] in card["live"] else "object"
            mask = entry.get("masks", {}).get(word)
            own = entry.get("prompts", {}).get(word)
            subject = slug(f"{entry['key']}-{word}")
            for k, template in enumerate(_prompts(card, sort, word) if own is None else own):
                if not isinstance(template, str) or template.count("{}") != 1:
                    raise SSRError(
                        f'prompt {template!r} of {entry["key"]} has no "{{}}"; put it where the subject goes'
                    )
                made.append(
                    Item(
                        key=f"{subject}-{k:02d}",
                        subject=subject,
                        reference=FileReference(picture, None if mask is None else _file(data, mask)),
                        query={"query": word},
                        class_name=word,
                        template=template,
                        others=tuple(other for other in subjects if other != word),
                        tags=(sort, COUNTS.get(len(subjects), "many-subjects"), *(["human"] if human else [])),
                    )
                )
    return made


def _prompts(card: dict, sort: str, word: str) -> list[str]:
    """The card's templates, with "an" where the word begins with a vowel."""
    templates = card["prompts"][sort]
    if word[0].lower() in "aeiou":
        templates = [f"an {{}}{t.removeprefix('a {}')}" if t.startswith("a {}") else t for t in templates]
    return templates


def _entries(path: Path) -> list[dict]:
    try:
        bench = json.loads(path.read_text(encoding="utf-8"))
        entries = bench["items"] if bench["format"] == FORMAT else None
        ignored = set((bench.get("rule") or {}).get("ignored") or ())
    except OSError:
        raise SSRError(f"{path} is not there; give the folder that `ssr data bench-candidates` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        entries, ignored = None, set()
    good = isinstance(entries, list) and all(
        isinstance(e, dict) and {"key", "image", "subjects"} <= e.keys() and isinstance(e["subjects"], list)
        for e in entries
    )
    if not good or not entries:
        raise SSRError(f"{path} is no multi-subject bench; make it again with `ssr data bench-candidates --ticked`")
    return [{**e, "subjects": [word for word in e["subjects"] if word not in ignored]} for e in entries]


def _subjects(entry: dict, data: Path) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in entry["subjects"] if isinstance(word, str) and word.strip()))
    if len(words) < 2:
        raise SSRError(
            f"item {entry['key']} of {data / 'bench.json'} has fewer than two subjects; name another one, or remove it"
        )
    return words


def _file(data: Path, name: str) -> Path:
    path = data / str(name)
    if not path.is_file():
        raise SSRError(f"{path} is missing, a file that bench.json names; restore it, or remove its item")
    return path
