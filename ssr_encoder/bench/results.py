"""The results folder of a run: what is in it, how it is written, and :func:`load_run`, which reads it.

::

    OUT/run.json                what was run: benchmark, method, settings, versions, and the hash of all of it
    OUT/references/SUBJECT.png  the reference picture, as the method got it
    OUT/maps/SUBJECT.png        where the method looked in it, if it can say so
    OUT/items/KEY.json, KEY-0.png, KEY-1.png, ...
    OUT/scores/KEY.json         {metric: a value or null for each picture}

Every file is written beside and renamed, and every JSON file carries the run's hash, so that nothing half written and
nothing of another run is ever read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import SSRError
from ..files import file_sha256, write_json, written_beside

RUN_FORMAT = "ssr-bench-run-1"
ITEM_FORMAT = "ssr-bench-item-1"
SCORES_FORMAT = "ssr-bench-scores-1"
FOLDERS = ("items", "references", "maps", "scores")
# What `hash` is made of, in the order in which a difference is looked for.
IDENTITY = ("benchmark", "version", "method", "settings", "describe", "versions", "digest")


def digest_of(value) -> str:
    """sha256 of a JSON value, the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_json(path: Path, form: str) -> dict | None:
    """The JSON object of a file of this ``format``; None if it is not there or damaged, or is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("format") == form else None


def write_picture(path: Path, picture: Image.Image) -> None:
    """A PNG file, whole or not at all."""
    with written_beside(path) as temporary:
        picture.save(temporary, "PNG")


# -- writing
def begin(folder: Path, meta: dict) -> dict:
    """Writes run.json into a new folder, or checks that the folder is of the same run; returns what is there now.

    Raises:
        SSRError: the folder holds another run (the line says what differs), or things that no run has made.
    """
    path = folder / "run.json"
    if path.exists():
        found = read_json(path, RUN_FORMAT)
        if found is None:
            raise SSRError(f"{path} is damaged or of another version of this package; choose another folder")
        if found.get("hash") != meta["hash"]:
            raise SSRError(
                f"{folder} holds another run ({difference(found, meta)}); choose another folder, or remove that one"
            )
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
        return found
    others = folder.is_dir() and any(not inside.name.startswith(".") for inside in folder.iterdir())
    if folder.exists() and (others or not folder.is_dir()) and not path.exists():
        raise SSRError(f"{folder} is there already and holds no run; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, meta)  # first, so that another process of this run finds a run
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    return meta


def difference(there: dict, here: dict) -> str:
    """What two runs differ in, in a few words: "settings.steps: 20 there, 12 here"."""
    for name in IDENTITY:
        for key, one, other in _differing(name, there.get(name), here.get(name)):
            if name == "digest":
                return "the benchmark's prompts or reference pictures have changed"
            return f"{key}: {_short(one)} there, {_short(other)} here"
    return "its hash is not that of its own content"


def _differing(name: str, there, here):
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted((there.keys() | here.keys()) - {"python"}):  # which is told, and changes nothing
            yield from _differing(f"{name}.{key}", there.get(key), here.get(key))
    elif there != here:
        yield name, there, here


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}..."


def sweep(folder: Path) -> None:
    """Removes what killed processes left half written beside the files."""
    for name in (".", *FOLDERS):
        for path in (folder / name).glob(".*"):
            if re.search(r"\.\d+\.(png|json)$", path.name):
                path.unlink(missing_ok=True)


def finished_item(folder: Path, key: str, run_hash: str) -> dict | None:
    """The item's record if it, its reference and all of its pictures are whole and of this run."""
    record = read_json(folder / "items" / f"{key}.json", ITEM_FORMAT)
    if record is None or record.get("hash") != run_hash or record.get("key") != key:
        return None
    try:
        whole = [file_sha256(folder / "items" / name) for name in record["images"]] == record["sha256"]
        reference = file_sha256(folder / "references" / f"{record['subject']}.png") == record["reference_sha256"]
    except (OSError, KeyError, TypeError):
        return None
    return record if whole and reference else None


def write_item(folder: Path, record: dict, reference: Image.Image, pictures: list[Image.Image]) -> dict:
    """Writes an item's reference and pictures, then its record with their names and digests, which it returns."""
    beneath = folder / "references" / f"{record['subject']}.png"
    write_picture(beneath, reference)
    names = [f"{record['key']}-{i}.png" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        write_picture(folder / "items" / name, picture)
    digests = [file_sha256(folder / "items" / name) for name in names]
    found = {"images": names, "sha256": digests, "reference_sha256": file_sha256(beneath)}
    record = {"format": ITEM_FORMAT, **record, **found}
    write_json(folder / "items" / f"{record['key']}.json", record)
    return record


def finished_scores(folder: Path, item: dict, metrics_hash: str) -> dict | None:
    """The scores of an item's record if they are of these metrics and of these pictures."""
    record = read_json(folder / "scores" / f"{item['key']}.json", SCORES_FORMAT)
    wanted = (item["hash"], metrics_hash, item["sha256"])
    return record if record and tuple(map(record.get, ("hash", "metrics_hash", "sha256"))) == wanted else None


def write_scores(folder: Path, item: dict, metrics_hash: str, values: dict[str, list[float | None]]) -> None:
    """Writes {metric: a value or None for each picture} of an item's record."""
    record = {"format": SCORES_FORMAT, "hash": item["hash"], "metrics_hash": metrics_hash, "sha256": item["sha256"]}
    write_json(folder / "scores" / f"{item['key']}.json", {**record, "values": values})


# -- reading
@dataclass
class Run:
    """A results folder as read.

    Attributes:
        folder: where it is.
        meta: run.json.
        items: key -> items/KEY.json, in the benchmark's order.
        scores: key -> {metric: a value or None for each picture}; empty if the run has not been scored.
    """

    folder: Path
    meta: dict
    items: dict[str, dict]
    scores: dict[str, dict[str, list[float | None]]]

    @property
    def name(self) -> str:
        """The method's name."""
        return self.meta["method"]

    @property
    def metrics(self) -> dict[str, dict]:
        """metric -> {"direction", "backbone", ...}, those that the scores are of."""
        return self.meta["metrics"]

    def pictures(self, key: str) -> list[Path]:
        """Paths of an item's pictures."""
        return [self.folder / "items" / name for name in self.items[key]["images"]]

    def reference(self, key: str) -> Path:
        """Path of an item's reference picture."""
        return self.folder / "references" / f"{self.items[key]['subject']}.png"

    def heat_map(self, key: str) -> Path | None:
        """Path of the heat map over an item's reference picture, if its method has one."""
        path = self.folder / "maps" / f"{self.items[key]['subject']}.png"
        return path if path.is_file() else None


def load_run(folder: str | Path, *, partial: bool = False) -> Run:
    """Reads a results folder, and checks that all of it belongs together and is whole.

    Args:
        partial: take a run that has not ended, with the items and scores that are there.

    Raises:
        SSRError: no run, one that has not ended (``partial`` aside), or files of another run or half written.
    """
    folder = Path(folder)
    meta = read_json(folder / "run.json", RUN_FORMAT)
    if meta is None:
        raise SSRError(f"{folder} holds no results (no run.json that can be read); make them with `ssr bench run`")
    again = "finish it with the same `ssr bench run`"
    items, scores = {}, {}
    for key in meta["items"]:
        path = folder / "items" / f"{key}.json"
        if not path.exists():
            if partial:
                continue
            raise SSRError(f"the run in {folder} has not ended (item {key} is missing); {again}")
        record = finished_item(folder, key, meta["hash"])
        if record is None:
            raise SSRError(f"item {key} in {folder} is half written or of another run; {again}")
        items[key] = record
        if not meta["metrics"]:
            continue
        scored = finished_scores(folder, record, meta["metrics_hash"])
        if scored is not None:
            scores[key] = scored["values"]
        elif not partial:
            raise SSRError(f"item {key} in {folder} has no scores of the run's metrics; {again}")
    return Run(folder, meta, items, scores)
