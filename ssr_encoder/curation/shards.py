"""Shards: tar files in webdataset's layout, KEY.jpg|png|webp, KEY.txt and KEY.json for each sample.

Read and written with the standard library's tarfile: webdataset itself takes torch along, seconds and some hundred
megabytes in each of many small workers, and like tarfile's streams it passes over damage (a test shows it).
"""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SSRError
from ..files import written_beside
from .reports import BadShard

EXTENSIONS = ("jpg", "png", "webp")
_ALIASES = {"jpeg": "jpg"}


@dataclass
class Sample:
    """One image and what is known about it.

    Attributes:
        key: names the sample within its folder; without ``.`` and ``/``.
        image: the file's bytes, as fetched.
        extension: "jpg", "png" or "webp".
        caption: text; empty where there is none.
        meta: JSON values (aesthetic, width, original_caption, ...).
    """

    key: str
    image: bytes
    extension: str
    caption: str = ""
    meta: dict = field(default_factory=dict)


def list_shards(folder: str | os.PathLike) -> list[Path]:
    """The shards of a folder, by name.

    Raises:
        SSRError: there is no such folder, or no ``*.tar`` in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SSRError(f"{folder} is not a folder of shards; give the folder that an `ssr data` step wrote")
    shards = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not shards:
        raise SSRError(f"no shards (*.tar) in {folder}; give the folder that an `ssr data` step wrote")
    return shards


def read_shard(path: str | os.PathLike) -> Iterator[Sample]:
    """The samples of a shard, in order.

    Raises:
        BadShard: the file is truncated or garbled, or holds a sample twice, without an image or with a wrong text.
    """
    seen = set()
    try:
        for key, members in itertools.groupby(_members(Path(path)), key=lambda member: member[0]):
            sample = _sample(key, members)
            if sample.key in seen:
                raise ValueError(f"{sample.key} is there twice")
            seen.add(sample.key)
            yield sample
    except BadShard:
        raise
    except (OSError, tarfile.TarError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else error.args[0] if error.args else ""
        )
        raise BadShard(f"bad shard {path} ({reason or type(error).__name__}); make it again or remove it") from None


def write_shard(path: str | os.PathLike, samples: Iterable[Sample]) -> int:
    """Writes a shard beside its place and renames it; equal samples give equal bytes. Returns how many there were.

    Raises:
        SSRError: a sample cannot be stored (its key, its meta), or the file cannot be written.
    """
    count = 0
    with written_beside(path) as temporary, open(temporary, "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in samples:
                for name, data in _parts(sample):
                    member = tarfile.TarInfo(name)  # of nobody, from 1970: nothing of this machine or moment
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                count += 1
        stream.flush()
        os.fsync(stream.fileno())  # a report that says "done" must not outlive the shard in a power cut
    return count


def _members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """The files of a tar: (key, lower-case extension, bytes). A name is cut at its first dot, as webdataset cuts it."""
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            key, dot, extension = name.partition(".")
            if member.isreg() and key and dot:
                key = f"{folder}/{key}" if folder else key
                yield key, extension.lower(), tar.extractfile(member).read()
        end = tar.offset
    with open(path, "rb") as stream:  # what tarfile takes for the end may be a damaged header
        stream.seek(end)
        rest = stream.read()
    if len(rest) < 512 or rest.count(0) != len(rest):
        raise BadShard(f"bad shard {path} (it ends early or is damaged at byte {end}); make it again or remove it")


def _sample(key: str, members: Iterable[tuple[str, str, bytes]]) -> Sample:
    parts: dict[str, bytes] = {}
    for _, extension, data in members:
        if extension in parts:
            raise ValueError(f"{key}.{extension} is there twice")
        parts[extension] = data
    images = [name for name in parts if _ALIASES.get(name, name) in EXTENSIONS]
    if len(images) != 1:
        raise ValueError(f"{key} has {len(images) or 'no'} images, not one of {', '.join(EXTENSIONS)}")
    try:
        meta = json.loads(parts.get("json", b"{}"))
    except ValueError:
        raise ValueError(f"{key}.json is not JSON") from None
    if not isinstance(meta, dict):
        raise ValueError(f"{key}.json is not a JSON object")
    try:
        caption = parts.get("txt", b"").decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{key}.txt is not UTF-8") from None
    return Sample(key, parts[images[0]], _ALIASES.get(images[0], images[0]), caption, meta)


def _parts(sample: Sample) -> list[tuple[str, bytes]]:
    """The files of a sample: (name, bytes)."""
    key = sample.key
    if not key or "." in key or "/" in key or len(key) > 80 or not key.isascii():
        raise SSRError(f"sample key {key[:80]!r} cannot be stored; use up to 80 ASCII characters without '.' and '/'")
    if sample.extension not in EXTENSIONS:
        raise SSRError(f"sample {key} has the extension {sample.extension!r}; use one of {', '.join(EXTENSIONS)}")
    try:
        meta = json.dumps(sample.meta, ensure_ascii=False, allow_nan=False, sort_keys=True).encode("utf-8")
        caption = sample.caption.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise SSRError(f"sample {key} cannot be stored ({error}); its meta must be JSON, its caption Unicode") from None
    return [(f"{key}.{sample.extension}", sample.image), (f"{key}.txt", caption), (f"{key}.json", meta)]
