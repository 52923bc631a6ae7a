"""Random access to samples in webdataset shards, on disk or behind a URL.

A tar file is not compressed: one pass over its headers tells where every file begins, and a sample is then read in
any order. A remote shard is fetched whole into a folder of the run and dropped when newer ones need the room.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import SSRError
from ..extras import need
from ..files import written_beside

IMAGES = ("jpg", "jpeg", "png", "webp")


class BadSample(Exception):
    """A sample that cannot be used; the text is the reason. The run goes on without it."""


@dataclass
class Raw:
    """A sample as stored. ``extra`` holds its other files by extension (``mask.png``)."""

    key: str
    image: bytes
    caption: str
    meta: dict
    extra: dict[str, bytes]


@dataclass
class Shard:
    """One shard of the index.

    Attributes:
        url: path or URL.
        count: samples in it.
        size: bytes of a local file, -1 of a remote one.
        damage: what was wrong with it when it was indexed; the samples from there on are lost.
    """

    url: str
    count: int
    size: int = -1
    damage: str = ""


@dataclass
class _Table:
    """Where the samples of a shard are: for each its key and ``{extension: (offset, size)}``."""

    path: Path
    samples: list[tuple[str, dict[str, tuple[int, int]]]]
    damage: str


def list_urls(shards: str) -> list[str]:
    """Shards named by a folder, a glob or webdataset's URL notation (braces, "::" between several).

    Raises:
        SSRError: nothing there.
    """
    path = Path(shards)
    if not shards:
        raise SSRError("data.shards is empty; give a folder with *.tar, or URLs")
    if path.is_dir():
        found = sorted(str(p) for p in path.glob("*.tar") if not p.name.startswith("."))
    elif "*" in shards and "://" not in shards:
        found = sorted(str(p) for p in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    else:
        found = list(need("webdataset.shardlists", "train").expand_urls(shards))
        missing = [url for url in found if _is_local(url) and not Path(url).is_file()]
        if missing:
            raise SSRError(f"shard {missing[0]} does not exist; check data.shards")
    if not found:
        raise SSRError(f"data.shards {shards} has no *.tar; check the folder")
    return found


class Reader:
    """Samples of shards by number.

    Args:
        urls: the shards.
        fetched: folder for remote shards.
        keep: remote shards kept there, and tables of contents kept in memory.
    """

    def __init__(self, urls: list[str], fetched: Path, keep: int = 32):
        self.urls, self.fetched, self.keep = urls, fetched, keep
        self._tables: OrderedDict[int, _Table] = OrderedDict()

    def sample(self, shard: int, index: int) -> Raw:
        """One sample.

        Raises:
            BadSample: the shard ends before it or is damaged there, or it has no picture or a wrong text.
        """
        table = self._table(shard)
        if index >= len(table.samples):
            raise BadSample(f"bad shard: {table.damage or 'it ends before this sample'}")
        key, parts = table.samples[index]
        try:
            self._local(self.urls[shard])  # another loader process may have dropped a remote one
            with open(table.path, "rb") as file:
                read = {extension: _read(file, *part) for extension, part in parts.items()}
        except OSError as error:
            raise BadSample(f"cannot be read ({error.strerror or error})") from None
        images = [read.pop(extension) for extension in list(read) if extension.lower() in IMAGES]
        if len(images) != 1:
            raise BadSample(f"{key} has {len(images) or 'no'} picture files")
        try:
            caption = read.pop("txt", b"").decode().strip()
            meta = json.loads(read.pop("json", b"{}"))
        except ValueError:
            raise BadSample(f"{key} has a caption or meta that is not UTF-8 or JSON") from None
        return Raw(key, images[0], caption, meta if isinstance(meta, dict) else {}, read)

    def count(self, shard: int) -> Shard:
        """The index entry of a shard. A report of ``ssr data`` beside a shard says what a damaged one has lost."""
        url = self.urls[shard]
        size = Path(url).stat().st_size if _is_local(url) else -1
        reported = _reported(url)
        if size < 0 and reported is not None:  # nothing is fetched only to be counted
            return Shard(url, reported)
        try:
            table = self._table(shard)
        except BadSample as error:
            return Shard(url, reported or 0, size, str(error))
        count = len(table.samples)
        return Shard(url, max(count, reported or 0) if table.damage else count, size, table.damage)

    def _table(self, shard: int) -> _Table:
        if shard in self._tables:
            self._tables.move_to_end(shard)
            return self._tables[shard]
        table = _scan(self._local(self.urls[shard]))
        self._tables[shard] = table
        while len(self._tables) > self.keep:
            number, old = self._tables.popitem(last=False)
            if not _is_local(self.urls[number]):
                old.path.unlink(missing_ok=True)
        return table

    def _local(self, url: str) -> Path:
        if _is_local(url):
            return Path(url)
        path = self.fetched / f"{hashlib.sha256(os.fsencode(url)).hexdigest()[:16]}.tar"
        if path.is_file():
            return path
        self.fetched.mkdir(parents=True, exist_ok=True)
        for wait in (1, 5, None):  # seconds before the next try
            try:
                with written_beside(path) as temporary, open(temporary, "wb") as target:
                    for block in _blocks(url):
                        target.write(block)
                return path
            except BadSample:
                if wait is None:
                    raise
                time.sleep(wait)


def load_index(urls: list[str], path: Path, fetched: Path) -> list[Shard]:
    """The index of a run: counted once and kept in ``path``, so that the order of samples stays what it was.

    Raises:
        SSRError: the shards are not those that the run began with.
    """
    if path.is_file():
        try:
            shards = [Shard(**entry) for entry in json.loads(path.read_text())["shards"]]
        except (ValueError, TypeError, KeyError):
            raise SSRError(f"{path} is damaged; remove it to count the shards again") from None
        now = [Path(url).stat().st_size if _is_local(url) and Path(url).exists() else -1 for url in urls]
        if [shard.url for shard in shards] != urls:
            raise SSRError(f"data.shards are not those that this run began with ({path}); choose another run.out")
        changed = [s.url for s, size in zip(shards, now, strict=True) if s.size >= 0 and size >= 0 and size != s.size]
        if changed:
            raise SSRError(
                f"shard {changed[0]} has changed since this run began ({path}); put it back or choose another run.out"
            )
        return shards
    reader = Reader(urls, fetched)
    shards = [reader.count(number) for number in range(len(urls))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps({"shards": [asdict(shard) for shard in shards]}, indent=0) + "\n")
    return shards


def _scan(path: Path) -> _Table:
    """One pass over the headers. tarfile takes garbage between two files for the end, so what follows is looked at."""
    base_plus_ext = need("webdataset.tariterators", "train").base_plus_ext
    samples: list[tuple[str, dict]] = []
    damage, end = "", 0
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, extension = base_plus_ext(member.name)
                if not member.isreg() or key is None:
                    continue
                if member.offset_data + member.size > size:
                    damage = "it is cut off"
                    break
                if not samples or samples[-1][0] != key:
                    samples.append((key, {}))
                samples[-1][1][extension] = (member.offset_data, member.size)
            end = tar.offset
        if not damage:
            with open(path, "rb") as file:
                file.seek(end)
                block = file.read(512)
            if len(block) < 512 or block.strip(b"\0"):
                damage = f"it is damaged at byte {end}"
    except (OSError, tarfile.TarError) as error:
        damage = f"it cannot be read ({str(error)[:60] or type(error).__name__})"
    return _Table(path, samples, damage)


def _read(file, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise BadSample("bad shard: it is cut off")
    return data


def _is_local(url: str) -> bool:
    return "://" not in url and not url.startswith("pipe:")


def _blocks(url: str) -> Iterator[bytes]:
    """The content of ``pipe:COMMAND`` through webdataset, of other URLs through fsspec (s3, gs, http, ...)."""
    try:
        if url.startswith("pipe:"):
            source = need("webdataset.gopen", "train").gopen(url)
        else:
            source = need("fsspec", "train").open(url, "rb").open()
        with source:
            while block := source.read(1 << 20):
                yield block
    except SSRError:
        raise
    except Exception as error:  # every store has its own kinds
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise BadSample(f"bad shard: {url} cannot be fetched ({reason})") from None


def _reported(url: str) -> int | None:
    """The number of samples by the report that ``ssr data`` writes beside a shard; None without one."""
    if url.startswith("pipe:") or not url.endswith(".tar"):
        return None
    place = url.removesuffix(".tar") + ".report.json"
    try:
        text = Path(place).read_bytes() if _is_local(url) else b"".join(_blocks(place))
        return int(json.loads(text)["kept"])
    except (ValueError, TypeError, KeyError, OSError, BadSample):
        return None
