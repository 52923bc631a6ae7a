"""The rows of Parquet records, cut into the shards that they will become."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import SSRError, first_line
from ..extras import need
from .filter import list_records
from .reports import BadShard


@dataclass(frozen=True)
class Job:
    """One shard's records: of each file (path, first row, end)."""

    number: int
    pieces: tuple[tuple[str, int, int], ...]


def plan(source: str | os.PathLike, samples_per_shard: int) -> list[Job]:
    """Cuts the records of all files, in order, into shards.

    Raises:
        SSRError: a file is no Parquet, has no url, or there is no record at all.
    """
    parquet = need("pyarrow.parquet", "data")
    arrow = need("pyarrow", "data")
    jobs, pieces, room = [], [], samples_per_shard
    for path in list_records(source):
        try:
            with parquet.ParquetFile(path) as file:
                rows, names = file.metadata.num_rows, file.schema_arrow.names
        except (arrow.ArrowException, OSError) as error:
            raise SSRError(f"bad records {path} ({first_line(error)}); make them again or remove them") from None
        if "url" not in names:
            raise SSRError(f"{path} has no column url (it has {', '.join(names)}); run `ssr data filter` on it first")
        start = 0
        while start < rows:
            end = min(rows, start + room)
            pieces.append((str(path), start, end))
            room -= end - start
            start = end
            if not room:
                jobs.append(Job(len(jobs), tuple(pieces)))
                pieces, room = [], samples_per_shard
    if pieces:
        jobs.append(Job(len(jobs), tuple(pieces)))
    if not jobs:
        raise SSRError(f"no records in {source}; filter less strictly")
    return jobs


def read_job(job: Job) -> list[dict]:
    """The job's records with values that JSON knows: what is not finite is None, dates are text.

    Raises:
        BadShard: a file cannot be read.
    """
    parquet = need("pyarrow.parquet", "data")
    arrow = need("pyarrow", "data")
    records = []
    for path, start, end in job.pieces:
        try:
            with parquet.ParquetFile(path) as file:
                row = 0
                for batch in file.iter_batches(batch_size=8192):
                    first, last = max(start - row, 0), min(end - row, len(batch))
                    if first < last:
                        records += batch.slice(first, last - first).to_pylist()
                    row += len(batch)
                    if row >= end:
                        break
        except (arrow.ArrowException, OSError) as error:
            raise BadShard(f"bad records {path} ({first_line(error)}); make them again or remove them") from None
    return [{name: _json_value(value) for name, value in record.items()} for record in records]


def _json_value(value):
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # not infinite, not NaN
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    return str(value)
