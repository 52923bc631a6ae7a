"""The feature cache: what the frozen encoders make of every sample, computed once.

A folder of safetensors files, each with the features of some samples of one shard in every variant that training can
ask for (mirrored or not, each of the crops), and a JSON file beside it with what belongs to which sample.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import SSRError
from ..files import written_beside
from .bases import Base
from .config import DataConfig
from .data import choose, cut, descriptors, open_raw, views_of
from .features import Blank, make_blank
from .order import Order
from .reader import BadSample, Reader, Shard

FILE_BYTES = 512 << 20  # of a cache file, about


class Cache:
    """A folder of cached features for the shards of an index.

    Args:
        folder: where it is or will be.
        base: whose encoders make the features.
        reader, index: of the shards.
        config: the resolution, flips, crops and number format of the features.
    """

    def __init__(self, folder: str | Path, base: Base, reader: Reader, index: list[Shard], config: DataConfig):
        self.folder, self.base, self.reader, self.index, self.config = Path(folder), base, reader, index, config
        self.dtype = getattr(torch, config.cache_dtype)
        self.flips = 2 if config.flip else 1
        self.variants = config.crops * self.flips
        self.sizes = _sizes(base, config)
        self.per_file = max(1, min(4096, FILE_BYTES // self._bytes(1)))
        self.meta = {
            "format": "ssr-features-1", "encoders": base.encoders_fingerprint(), "resolution": config.resolution,
            "crops": config.crops, "flips": self.flips, "dtype": config.cache_dtype, "samples_per_file": self.per_file,
            "hidden_layers": list(base.config.hidden_layers),
        }  # fmt: skip

    def estimate(self) -> int:
        """Bytes of the whole cache, from the index and the texts of the first samples. Reads at most 64 of them."""
        total = sum(shard.count for shard in self.index)
        texts, seen = 0, 0
        for number, shard in enumerate(self.index[:4]):
            for i in range(min(16, shard.count)):
                try:
                    texts += 1 + len(set(descriptors(self.reader.sample(number, i))))
                    seen += 1
                except BadSample:
                    continue
        return int(total * self._bytes(texts / max(1, seen)))

    def _bytes(self, texts: float) -> int:
        picture = sum(_count(self.sizes[name]) for name in ("mean", "std", "hidden")) * self.variants
        text = _count(self.sizes["text"]) + _count(self.sizes.get("pooled", (0,)))
        return int((picture + text * texts) * self.dtype.itemsize)

    def files(self) -> list[tuple[int, int]]:
        """(shard, first sample) of every file."""
        return [(n, first) for n, shard in enumerate(self.index) for first in range(0, shard.count, self.per_file)]

    def path(self, shard: int, first: int) -> Path:
        return self.folder / f"{shard:06d}-{first:06d}.safetensors"

    def build(self, batch: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[int, int]]:
        """Write the files that are not there; yields (done, all) after each. Each rank takes its share.

        Raises:
            SSRError: the folder holds features of something else, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if rank == 0 and not (self.folder / "meta.json").exists():
            blank = make_blank(self.base)
            tensors = {"text": blank.text, "hidden": blank.hidden} | (
                {"pooled": blank.pooled} if self.base.sdxl else {}
            )
            with written_beside(self.folder / "blank.safetensors") as path:
                save_file({k: v.float().cpu().contiguous() for k, v in tensors.items()}, path)
            with written_beside(self.folder / "meta.json") as path:
                path.write_text(json.dumps(self.meta) + "\n")
        if rank == 0:
            self.check(complete=False)
        mine = self.files()[rank::ranks]
        for done, (shard, first) in enumerate(mine):
            if not self._is_done(shard, first):
                self._write(shard, first, batch)
            yield done + 1, len(mine)

    def check(self, complete: bool = True) -> None:
        """Whether the folder is of these encoders and settings, and whole.

        Raises:
            SSRError: it is not.
        """
        try:
            found = json.loads((self.folder / "meta.json").read_text())
        except (OSError, ValueError):
            raise SSRError(f"{self.folder} is no feature cache; make it with `ssr train CONFIG --cache`") from None
        differ = [key for key in self.meta if found.get(key) != self.meta[key]]
        if differ:
            raise SSRError(
                f"the features in {self.folder} are of another {', '.join(differ)}; choose another data.cache folder"
            )
        missing = [file for file in self.files() if complete and not self._is_done(*file)]
        if missing:
            raise SSRError(
                f"{len(missing)} of {len(self.files())} files of the feature cache {self.folder} are missing; "
                "run `ssr train CONFIG --cache` again"
            )

    def blank(self) -> Blank:
        tensors = load_file(self.folder / "blank.safetensors")
        return Blank(tensors["text"], tensors["hidden"], tensors.get("pooled"))

    def _is_done(self, shard: int, first: int) -> bool:
        path = self.path(shard, first)
        try:
            note = json.loads(path.with_suffix(".json").read_text())
            return note["url"] == self.index[shard].url and note["bytes"] == path.stat().st_size
        except (OSError, ValueError, KeyError):
            return False

    def _write(self, shard: int, first: int, batch: int) -> None:
        count = min(self.per_file, self.index[shard].count - first)
        shapes = {name: (count * self.variants, *self.sizes[name]) for name in ("mean", "std", "hidden")}
        tensors = {name: torch.zeros(shape, dtype=self.dtype) for name, shape in shapes.items()}
        time_ids = torch.zeros(count * self.variants, 6)
        samples, texts, pending = [], {}, []
        for i in range(count):
            try:
                raw = self.reader.sample(shard, first + i)
                picture = open_raw(raw)
            except BadSample as error:
                samples.append({"bad": str(error)})
                continue
            row = lambda text: texts.setdefault(text, len(texts))  # noqa: E731
            samples.append({"caption": row(raw.caption), "descriptors": [row(t) for t in descriptors(raw)]})
            for crop in range(self.config.crops):
                for flip in range(self.flips):
                    square, ids = cut(picture, raw.key, crop, bool(flip), self.config.resolution)
                    at = (i * self.config.crops + crop) * self.flips + flip
                    time_ids[at] = ids
                    pending.append((at, views_of(square, self.base.views)))
            if len(pending) >= batch:
                self._encode(pending, tensors)
                pending = []
        if pending:
            self._encode(pending, tensors)
        tensors |= self._encode_texts(list(texts) or [""], batch)
        path = self.path(shard, first)
        with written_beside(path) as temporary:
            save_file(tensors | {"time_ids": time_ids}, temporary)
        note = {"url": self.index[shard].url, "bytes": path.stat().st_size, "samples": samples}
        with written_beside(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(note))

    def _encode(self, pending: list, tensors: dict[str, Tensor]) -> None:
        rows = [at for at, _ in pending]
        device = self.base.device
        mean, std = self.base.encode_targets(torch.stack([v["target"] for _, v in pending]).to(device))
        hidden = self.base.encode_references(torch.stack([v["reference"] for _, v in pending]).to(device))
        for name, value in (("mean", mean), ("std", std), ("hidden", hidden)):
            tensors[name][rows] = value.to(self.dtype).cpu()

    def _encode_texts(self, texts: list[str], batch: int) -> dict[str, Tensor]:
        parts = [self.base.encode_texts(texts[i : i + batch]) for i in range(0, len(texts), batch)]
        made = {"text": torch.cat([embeds for embeds, _ in parts]).to(self.dtype).cpu()}
        if self.base.sdxl:
            made["pooled"] = torch.cat([pooled for _, pooled in parts]).to(self.dtype).cpu()
        return made


class Cached(Dataset):
    """Samples by position from a cache; items as :class:`data.Pictures`' with features in place of pictures."""

    def __init__(self, cache: Cache, order: Order, config: DataConfig, seed: int):
        self.folder, self.per_file, self.flips, self.sizes = cache.folder, cache.per_file, cache.flips, cache.sizes
        self.order, self.config, self.seed = order, config, seed
        self._open: OrderedDict = OrderedDict()

    def __getitem__(self, position: int) -> dict:
        place, choices = self.order[position], choose(self.config, self.seed, position)
        item = {"position": position, "place": place, "weight": 1.0, "bad": ""}
        item |= {"no_prompt": choices.no_prompt, "no_subject": choices.no_subject}
        first = place.index // self.per_file * self.per_file
        path = self.folder / f"{place.shard:06d}-{first:06d}.safetensors"
        try:
            file, samples = self._file(path)
            sample = samples[place.index - first]
            if "bad" in sample:
                raise BadSample(sample["bad"])
            row = ((place.index - first) * self.config.crops + choices.crop) * self.flips + choices.flip
            item |= {n: file.get_slice(n)[row : row + 1][0] for n in ("mean", "std", "hidden", "time_ids")}
            found, fraction = sample["descriptors"], choices.descriptor
            query = found[int(fraction * len(found))] if fraction < 1 and found else sample["caption"]
            caption = sample["caption"]
            item |= {name: file.get_slice("text")[r : r + 1][0] for name, r in (("prompt", caption), ("query", query))}
            if "pooled" in self.sizes:
                item["pooled"] = file.get_slice("pooled")[caption : caption + 1][0]
            return item
        except BadSample as error:
            reason = str(error)
        except (OSError, SafetensorError, ValueError, LookupError) as error:
            reason = f"cache file {path.name} is damaged ({str(error)[:60]})"
        names = {"mean": "mean", "std": "std", "hidden": "hidden", "prompt": "text", "query": "text"}
        names |= {"pooled": "pooled"} if "pooled" in self.sizes else {}
        blank = {name: torch.zeros(self.sizes[size]) for name, size in names.items()}
        return item | blank | {"time_ids": torch.zeros(6), "weight": 0.0, "bad": reason}

    def _file(self, path: Path):
        if path not in self._open:
            note = json.loads(path.with_suffix(".json").read_text())
            self._open[path] = (safe_open(path, "pt"), note["samples"])
            while len(self._open) > 64:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]


@torch.no_grad()
def _sizes(base: Base, config: DataConfig) -> dict[str, tuple[int, ...]]:
    """Shape of one sample's features by name; found by encoding nothing once."""
    blank = make_blank(base)
    mean, _ = base.encode_targets(torch.zeros(1, 3, config.resolution, config.resolution, device=base.device))
    sizes = {"mean": mean.shape[1:], "std": mean.shape[1:], "hidden": blank.hidden.shape[1:]}
    sizes |= {"text": blank.text.shape[1:]} | ({"pooled": blank.pooled.shape[1:]} if base.sdxl else {})
    return {name: tuple(size) for name, size in sizes.items()}


def _count(size: tuple[int, ...]) -> int:
    return int(torch.Size(size).numel())
