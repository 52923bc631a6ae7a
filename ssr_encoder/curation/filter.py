"""Filtering image-text records: Parquet files in the layout of LAION, by aesthetic score and by an SQL expression."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import SSRError
from ..extras import need
from ..files import written_beside
from .reports import BadShard, ShardReport, once, run_jobs, separate, sha256

# Our name of a column -> what releases of LAION call it; the case does not matter.
COLUMNS = {
    "url": ("url",),
    "caption": ("caption", "text", "top_caption"),
    "aesthetic": ("aesthetic", "aesthetic_score", "prediction"),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "punsafe": ("punsafe",),
    "pwatermark": ("pwatermark",),
    "hash": ("hash",),
}


def filter_records(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    aesthetic: float | None = 6.0,
    where: str | None = None,
    columns: Mapping[str, str] | None = None,
    memory: str = "2GB",
    threads: int | None = None,
    engine: str = "local",
    address: str | None = None,
    workers: int = 1,
    strict: bool = False,
) -> Iterator[ShardReport]:
    """Filters every Parquet file of ``source`` into one of the same name in ``out``, yielding reports; see `run_step`.

    A record is kept if it has a url, its aesthetic score is above ``aesthetic`` and ``where`` is true. All columns are
    kept; those that are known under another name (``COLUMNS``) get ours, which is also what ``where`` calls them.

    Args:
        source: a folder of ``*.parquet``, or one such file.
        aesthetic: the score to be above (the paper: 6.0); None takes records without a score too.
        where: an SQL expression of DuckDB's dialect. It sees the record, and no file but the one that is read.
        columns: our name -> the files' name, for other layouts.
        memory: how much DuckDB may use in each worker before it works on disk.
        threads: of DuckDB in each worker; default: the cores shared among the workers.

    Raises:
        SSRError: no files, a wrong expression, a missing column, no room; a bad file with ``strict``.
    """
    files = list_records(source)
    unknown = set(columns or {}) - set(COLUMNS)
    if unknown:
        raise SSRError(f"no column {sorted(unknown)[0]!r} to map; use some of {', '.join(COLUMNS)}")
    out = separate(source if Path(source).is_dir() else Path(source).parent, out)
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    work = FilterWork(out, aesthetic, where, dict(columns or {}), memory, threads)
    for path in files:  # a wrong expression is told before anything is written
        try:
            work.check(path)
        except BadShard:
            continue
        break
    names = [path.name for path in files]
    yield from run_jobs(work, files, names, out, engine=engine, address=address, workers=workers, strict=strict)


def list_records(source: str | os.PathLike) -> list[Path]:
    """The Parquet files of a folder, by name, or the one that is given.

    Raises:
        SSRError: there is none.
    """
    source = Path(source)
    if source.is_dir():
        files = sorted(path for path in source.glob("*.parquet") if not path.name.startswith("."))
    else:
        files = [source] if source.suffix == ".parquet" and source.exists() else []
    if not files:
        raise SSRError(f"no Parquet records at {source}; give a folder of *.parquet files, or one of them")
    return files


class FilterWork:
    """The filter in one process: from a Parquet file's path to its report."""

    step_name = "filter"

    def __init__(self, out: Path, aesthetic: float | None, where: str | None, columns: dict, memory: str, threads: int):
        self.out, self.memory, self.threads = out, memory, threads
        self.aesthetic, self.where, self.columns = aesthetic, where, columns
        self.parameters = {"aesthetic": aesthetic, "where": where, "columns": columns}

    def __call__(self, path: Path) -> ShardReport:
        report = ShardReport(path.name, self.step_name, self.parameters)
        target = self.out / path.name
        return once(report, target, lambda: sha256(path), lambda: self._filter(path, target, report))

    def check(self, path: Path) -> None:
        """Raises SSRError if the file or the expression will not do."""
        with self._connect(path, []) as connection:
            self._conditions(connection, path)

    def _filter(self, path: Path, target: Path, report: ShardReport) -> None:
        duckdb = need("duckdb", "data")
        with written_beside(target) as temporary, self._connect(path, [temporary]) as connection:
            conditions = self._conditions(connection, path)
            # A record is counted under the first condition that it fails.
            case = " ".join(f"WHEN NOT ({test}) THEN {_text(reason)}" for reason, test in conditions.items())
            keep = " AND ".join(f"({test})" for test in conditions.values())
            try:
                counts = connection.execute(f"SELECT CASE {case} END AS r, count(*) FROM records GROUP BY r ORDER BY r")
                for reason, count in counts.fetchall():
                    if reason is None:
                        report.kept = count
                    else:
                        report.dropped[reason] = count
                kept = f"SELECT * FROM records WHERE {keep}"
                connection.execute(f"COPY ({kept}) TO {_text(temporary)} (FORMAT parquet, COMPRESSION zstd)")
            except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
                raise SSRError(f"--where fails on {path}: {_line(error)}; try_cast() gives null instead") from None
            except duckdb.OutOfMemoryException:
                raise SSRError(f"{path} needs more than --memory {self.memory}; give more, or less --workers") from None
            except duckdb.Error as error:
                if "No space left" in str(error) or "ould not write" in str(error):
                    raise SSRError(f"cannot write {target} ({_line(error)}); make room and run again") from None
                if self.where is not None and self._readable(connection):
                    raise SSRError(f"--where fails on {path}: {_line(error)}; mend the expression") from None
                raise BadShard(f"bad records {path} ({_line(error)}); make them again or remove them") from None

    def _readable(self, connection) -> bool:
        """Whether every value of the records can be read; the error of a query was then its expression's."""
        duckdb = need("duckdb", "data")
        try:
            connection.execute("SELECT max(hash(records)) FROM records").fetchall()
        except duckdb.Error:
            return False
        return True

    def _connect(self, path: Path, writable: list[Path]):
        """A database in memory with the view ``records``, which can read this file, write those, and nothing else."""
        duckdb = need("duckdb", "data")
        connection = duckdb.connect()
        try:
            connection.execute(f"SET threads = {int(self.threads)}")
            connection.execute(f"SET memory_limit = {_text(self.memory)}")
            connection.execute(f"SET temp_directory = {_text(self.out / f'.report.duckdb.{os.getpid()}')}")
        except duckdb.Error as error:
            connection.close()
            raise SSRError(f"bad --memory {self.memory!r} ({_line(error)}); give for example 2GB") from None
        try:
            connection.execute(f"CREATE VIEW files AS SELECT * FROM read_parquet({_text(_literal(path))})")
            names = [row[0] for row in connection.execute("DESCRIBE files").fetchall()]
        except duckdb.Error as error:
            connection.close()
            raise BadShard(f"bad records {path} ({_line(error)}); make them again or remove them") from None
        try:
            ours = ", ".join(f"{_name(name)} AS {_name(new)}" for name, new in self._renamed(path, names).items())
            connection.execute(f"CREATE VIEW records AS SELECT {ours} FROM files")
            # The expression is the user's, perhaps copied from somewhere: it may not write, attach, install or load.
            allowed = ", ".join(_text(file) for file in [path, _literal(path), *writable])
            connection.execute(f"SET allowed_paths = [{allowed}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except BaseException:
            connection.close()
            raise
        return connection

    def _renamed(self, path: Path, names: list[str]) -> dict[str, str]:
        """The files' column -> our name for it, for every column."""
        renamed = {name: name for name in names}
        for ours, usual in COLUMNS.items():
            wanted = (self.columns[ours],) if ours in self.columns else usual
            found = next((n for u in wanted for n in names if n.lower() == u.lower()), None)
            if found is None and ours in self.columns:
                raise SSRError(f"{path} has no column {self.columns[ours]!r}; it has {', '.join(names)}")
            if found is not None:
                for name in names:  # another column of our name steps aside
                    if name != found and name.lower() == ours:
                        renamed[name] = f"{name}_other"
                renamed[found] = ours
        needed = ["url"] + ["aesthetic"] * (self.aesthetic is not None)
        for ours in needed:
            if ours not in renamed.values():
                raise SSRError(f"{path} has no column for {ours}; name it with --{ours}-column ({', '.join(names)})")
        return renamed

    def _conditions(self, connection, path: Path) -> dict[str, str]:
        """Reason -> SQL that is true, never null, for records without it."""
        duckdb = need("duckdb", "data")
        conditions = {"no url": "coalesce(url <> '', false)"}
        if self.aesthetic is not None:
            score = "try_cast(aesthetic AS double)"  # NaN counts as above everything
            conditions["aesthetic"] = f"coalesce({score} > {float(self.aesthetic)!r} AND NOT isnan({score}), false)"
        if self.where is not None:
            conditions["where"] = f"coalesce(cast((\n{self.where}\n) AS boolean), false)"
            try:
                statements = connection.extract_statements(f"SELECT {conditions['where']} FROM records LIMIT 0")
                if len(statements) != 1:
                    raise SSRError(f"--where {self.where!r} is several statements; give one SQL expression")
                connection.execute(statements[0])
            except duckdb.Error as error:
                names = ", ".join(row[0] for row in connection.execute("DESCRIBE records").fetchall())
                raise SSRError(f"bad --where for {path}: {_line(error)}; give an SQL expression over {names}") from None
        return conditions


def _text(value) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    """A path that DuckDB does not take for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))


def _line(error: Exception) -> str:
    """DuckDB's reason without the picture of the statement."""
    return str(error).split("\n\nLINE")[0].split("\n")[0].rstrip(".")
