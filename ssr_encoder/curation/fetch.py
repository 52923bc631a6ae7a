"""Fetching the pictures of records into shards, through img2dataset's downloader.

From img2dataset come the pool of threads, the check of ``X-Robots-Tag``, retries, hashes, a record of every failure.
Its main program is not used: it writes samples in the order in which they came, names all pictures alike, has no limit
by host, by size or on a body's time, repeats what was refused for good, opens ``file:`` addresses, and loses samples
whose columns JSON does not know. So its ``Downloader`` runs under our reports, gives us its samples to be sorted, and
its requests go through `polite.Opener`, which urllib lets one install.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import SSRError
from ..extras import need
from ..files import written_beside
from .polite import Opener
from .reports import ShardReport, once, run_jobs, separate
from .rows import Job, plan, read_job
from .shards import Sample, read_shard, write_shard

# Directives of X-Robots-Tag that opt a picture out of training; `noindex` and `noimageindex` as img2dataset has them.
OPT_OUT = ("noai", "noimageai", "noindex", "noimageindex")
_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Limits:
    """How politely and how long is asked.

    Attributes:
        threads: requests at once, in each worker.
        per_host: requests at once to one host, in each worker.
        retries: more attempts after one that failed, unless the answer was final (404, opted out, ...).
        timeout: seconds without a byte after which an attempt fails.
        deadline: seconds for all of one picture's body.
        max_bytes: of a picture.
        user_agent: a word that names the fetcher to the hosts, and in their X-Robots-Tag.
    """

    threads: int = 32
    per_host: int = 4
    retries: int = 2
    timeout: float = 10.0
    deadline: float = 60.0
    max_bytes: int = 32 << 20
    user_agent: str = "ssr-encoder"


def fetch(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    limits: Limits | None = None,
    samples_per_shard: int = 1000,
    engine: str = "local",
    address: str | None = None,
    workers: int = 1,
    strict: bool = False,
) -> Iterator[ShardReport]:
    """Fetches the pictures of Parquet records (columns url and caption) into shards, yielding reports; see `run_step`.

    A shard's samples are in the order of the records; their meta is the record, with the width, height and SHA-256 of
    what came. Beside ``NAME.tar``, ``NAME.failures.jsonl`` lists key, url, reason and message of what did not come. A
    shard that is done is not fetched again; delete its report to try its failures once more.

    Raises:
        SSRError: no records, no url column, another extra is missing; an unreadable file with ``strict``.
    """
    if samples_per_shard < 1:
        raise SSRError(f"{samples_per_shard} samples a shard are none; give 1 or more")
    jobs = plan(source, samples_per_shard)
    out = separate(source if Path(source).is_dir() else Path(source).parent, out)
    work = FetchWork(out, limits or Limits(), samples_per_shard)
    names = [f"{job.number:06d}.tar" for job in jobs]
    yield from run_jobs(work, jobs, names, out, engine=engine, address=address, workers=workers, strict=strict)


class FetchWork:
    """Fetching in one process: from a job to its report."""

    step_name = "fetch"

    def __init__(self, out: Path, limits: Limits, samples_per_shard: int):
        self.out, self.limits = out, limits
        # Nothing of the limits: they say how, and a shard that was fetched more slowly need not be fetched again.
        self.parameters = {"samples_per_shard": samples_per_shard}
        self.digits = len(str(max(2, samples_per_shard) - 1))  # of a sample's number in its key, as img2dataset counts

    def __call__(self, job: Job) -> ShardReport:
        target = self.out / f"{job.number:06d}.tar"
        report = ShardReport(target.name, self.step_name, self.parameters)
        records = []

        def fingerprint() -> str:
            records.extend(read_job(job))
            return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()

        return once(report, target, fingerprint, lambda: self._fetch(job, records, target, report))

    def _fetch(self, job: Job, records: list[dict], target: Path, report: ShardReport) -> None:
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}.", dir=self.out) as folder:
            answers, fetched = self._download(job.number, records, Path(folder))
            samples, failures = [], []
            for number, record in enumerate(records):
                key = f"{job.number:06d}{number:0{self.digits}d}"
                if number in fetched:
                    samples.append(_sample(key, record, fetched[number]))
                else:
                    message = answers[number]
                    report.drop(key, reason(message))
                    failures.append({"key": key, "url": record["url"], "reason": reason(message), "message": message})
        report.kept = len(samples)
        with written_beside(target.with_name(f"{target.stem}.failures.jsonl")) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in failures), encoding="utf-8")
        write_shard(target, samples)

    def _download(self, number: int, records: list[dict], folder: Path) -> tuple[dict[int, str], dict[int, Sample]]:
        """Messages of failures and samples as img2dataset wrote them, by row."""
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # img2dataset imports it; it would ask the web for news
        img2dataset = need("img2dataset.downloader", "data")
        writer = need("img2dataset.writer", "data").WebDatasetSampleWriter
        arrow, parquet = need("pyarrow", "data"), need("pyarrow.parquet", "data")
        # The caption and the other columns stay here: img2dataset loses samples whose values JSON does not know.
        table = arrow.table(
            {"url": [record["url"] or "" for record in records]}, schema=arrow.schema({"url": "string"})
        )
        with (
            arrow.OSFile(str(folder / "urls.feather"), "wb") as stream,
            arrow.ipc.new_file(stream, table.schema) as file,
        ):
            file.write_table(table)
        downloader = img2dataset.Downloader(
            sample_writer_class=writer,
            resizer=inspect_picture,
            thread_count=min(self.limits.threads, len(records)),
            save_caption=False,
            extract_exif=False,
            output_folder=str(folder),
            column_list=["url"],
            timeout=self.limits.timeout,
            number_sample_per_shard=10**self.digits,
            oom_shard_count=6,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=self.limits.retries,
            user_agent_token=self.limits.user_agent,
            disallowed_header_directives=OPT_OUT,
        )
        urllib.request.install_opener(Opener(self.limits))
        try:
            downloader.download_shard((number, str(folder / "urls.feather")))
        finally:
            urllib.request.install_opener(None)  # urllib makes its usual one again
        first = 10**self.digits * number
        answers = {
            int(row["key"]) - first: row["error_message"] or ""
            for row in parquet.read_table(
                folder / f"{number:06d}.parquet", columns=["key", "error_message"]
            ).to_pylist()
        }
        if len(answers) != len(records):  # it prints why and goes on
            raise SSRError(f"img2dataset failed on {len(records) - len(answers)} pictures; is the disk full? run again")
        fetched = {int(sample.key) - first: sample for sample in read_shard(folder / f"{number:06d}.tar")}
        return answers, fetched


def inspect_picture(stream: io.BytesIO, boxes=None) -> tuple:
    """In the place of img2dataset's resizer: the bytes as they are, if they begin like a JPEG, PNG or WebP picture.

    Returns (bytes, width, height, width, height, None), or five None and what is wrong.
    """
    from PIL import Image

    data = stream.getvalue()
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_FORMATS)) as picture:
            width, height = picture.size
    except Exception as error:  # Pillow raises many kinds for garbage
        kind = (
            "too many pixels" if isinstance(error, Image.DecompressionBombError) else "not a JPEG, PNG or WebP picture"
        )
        return None, None, None, None, None, f"{kind}: it begins with {data[:16]!r}"
    return data, width, height, width, height, None


def reason(message: str) -> str:
    """A failure's message in a few words, to count by."""
    for words, short in _REASONS:
        if words in message:
            return short
    if message.startswith("HTTP Error "):
        return f"HTTP {message[11:14]}"
    return "unreachable"


_REASONS = (
    ("X-Robots-Tag", "opted out"),
    ("not a JPEG, PNG or WebP", "not a picture"),
    ("too many pixels", "too many pixels"),
    ("infinite loop", "endless redirects"),
    ("IncompleteRead", "closed early"),
    ("closed connection without response", "closed early"),
    ("Connection reset", "closed early"),
    ("larger than", "too large"),
    ("not done after", "too slow"),
    ("timed out", "too slow"),
    ("unknown url type", "not a web address"),
)


def _sample(key: str, record: dict, fetched: Sample) -> Sample:
    from PIL import Image

    with Image.open(io.BytesIO(fetched.image), formats=tuple(_FORMATS)) as picture:
        extension = _FORMATS[picture.format]
    found = {name: fetched.meta[name] for name in ("width", "height", "sha256")}
    meta = {name: value for name, value in record.items() if name != "caption"}
    return Sample(key, fetched.image, extension, str(record.get("caption") or ""), {**meta, **found})
