"""Records to try the steps on: many synthetic ones, and ones whose pictures exist, from the embedded world."""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections import deque
from pathlib import Path

from ..errors import SSRError
from ..extras import need
from ..files import written_beside

# What becomes of a record of the world, and how often: all flaws that the steps are there to find.
FLAWS = {
    "good": 0.72,
    "low aesthetic": 0.10,  # filter
    "missing": 0.03,  # fetch: no such file
    "wrong type": 0.03,  # fetch: a page under the name of a picture
    "corrupt": 0.03,  # check: the second half is gone
    "duplicate": 0.05,  # check: another record's picture, stored anew under another address
    "unsafe": 0.04,  # filter or check: punsafe
}


def make_records(out: str | os.PathLike, n: int, files: int = 1, seed: int = 0) -> list[Path]:
    """Writes ``n`` synthetic records into ``files`` Parquet files; their urls lead nowhere.

    Columns: url, caption, aesthetic (near a normal distribution with mean 5 and standard deviation 1), width, height
    (256 to 1279), punsafe, pwatermark (squares of uniform ones), hash (63 bits). The same seed and
    DuckDB give the same records.
    """
    duckdb = need("duckdb", "data")
    out = _folder(out)
    if not 1 <= files <= n:
        raise SSRError(f"{n} records cannot be in {files} files; ask for 1 to {n} files")
    paths = []
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '2GB'")
        for number in range(files):
            paths.append(out / f"{number:05d}.parquet")
            rows = f"range({number * n // files}, {(number + 1) * n // files})"
            with written_beside(paths[-1]) as temporary:
                query = _SYNTHETIC.format(first=int(seed) * 1_000_000_007, rows=rows)
                connection.execute(f"COPY ({query}) TO '{_quoted(temporary)}' (FORMAT parquet, COMPRESSION zstd)")
    return paths


_SYNTHETIC = """
    SELECT 'https://pictures.invalid/' || h % 997 || '/' || printf('%016x', h) || '.jpg' AS url,
        'a ' || ['photo', 'drawing', 'picture'][1 + u1 % 3] || ' of a ' || ['red', 'small', 'happy', 'old'][1 + u2 % 4]
        || ' ' || ['cat', 'dog', 'house', 'tree', 'car', 'woman', 'bird', 'boat'][1 + u3 % 8] AS caption,
        round(5 + (u1 % 1000 + u2 % 1000 + u3 % 1000 + u4 % 1000 - 1998) / 577.35, 3)::FLOAT AS aesthetic,
        256 + (u5 % 1024)::INTEGER AS width, 256 + (u6 % 1024)::INTEGER AS height,
        round((u7 % 1000 / 1000.0) ** 2, 4)::FLOAT AS punsafe, round((u8 % 1000 / 1000.0) ** 2, 4)::FLOAT AS pwatermark,
        h AS hash
    FROM (SELECT h, h // 7 AS u1, h // 7013 AS u2, h // 7027013 AS u3, h // 7041067027 AS u4,
            g // 7 AS u5, g // 7013 AS u6, g // 7027013 AS u7, g // 7041067027 AS u8
        FROM (SELECT (hash(i + {first}::BIGINT) // 2)::BIGINT AS h,
                (hash(-1 - i - {first}::BIGINT) // 2)::BIGINT AS g
            FROM {rows} t(i)))
"""


def world_records(
    out: str | os.PathLike, images: str | os.PathLike, n: int, seed: int = 0, base_url: str = "http://127.0.0.1:8000",
    size: int = 128,
) -> list[Path]:  # fmt: skip
    """Draws ``n`` scenes of the embedded world as PNG files into ``images`` and writes their records to ``out``.

    A record's url is ``base_url`` and the file's name: serve ``images`` there, for example with ``python -m
    http.server``. Every record's column ``flaw`` says what is wrong with it, in the shares of ``FLAWS``; ``subjects``
    are the things in the picture. The same seed gives the same files.
    """
    import torch

    from ..mini.models import weights_dir
    from ..mini.world import captions, load_world, sample_scenes

    pa, parquet = need("pyarrow", "data"), need("pyarrow.parquet", "data")
    if n < 1:
        raise SSRError(f"{n} records are none; ask for 1 or more")
    out, images = _folder(out), _folder(images)
    world = load_world("cpu", weights_dir())
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    rows, good = [], deque(maxlen=256)  # good ones to repeat
    for start in range(0, n, 64):
        scenes = sample_scenes(world, min(64, n - start), generator)
        texts = captions(world, scenes, rng)
        pictures = (world.render(scenes, size)[0].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for offset, (text, picture, concepts) in enumerate(zip(texts, pictures, scenes.concept.tolist(), strict=True)):
            subjects = ", ".join(world.concepts[c] for c in concepts if c >= 0)
            row, data = _world_record(start + offset, text, subjects, _png(picture), good, rng)
            rows.append(row)
            if data is not None:
                with written_beside(images / row["name"]) as temporary:
                    temporary.write_bytes(data)
            if row["flaw"] == "good":
                good.append((row, data))
    for row in rows:
        row.update(url=f"{base_url.rstrip('/')}/{row.pop('name')}", width=size, height=size)
    path = out / "00000.parquet"
    with written_beside(path) as temporary:
        parquet.write_table(pa.Table.from_pylist(rows), temporary)
    return [path]


def _world_record(number: int, caption: str, subjects: str, png: bytes, others: deque, rng: random.Random):
    """One record and the bytes that its url gives (None: nothing); ``others`` are good ones before it."""
    [flaw] = rng.choices(list(FLAWS), list(FLAWS.values()))
    if flaw == "duplicate" and not others:
        flaw = "good"
    name = hashlib.sha256(f"{number} {png[:4096]!r}".encode()).hexdigest()[:16] + ".png"
    data = {
        "missing": lambda: None,
        "wrong type": lambda: b"<!doctype html><title>moved</title><p>This picture is no longer here.",
        "corrupt": lambda: png[: len(png) // 2],
    }.get(flaw, lambda: png)()
    row = {
        "name": name,
        "caption": caption,
        "aesthetic": round(rng.uniform(3.0, 5.9) if flaw == "low aesthetic" else rng.uniform(6.05, 8.0), 3),
        "punsafe": round(rng.uniform(0.9, 1.0) if flaw == "unsafe" else rng.uniform(0, 0.1), 4),
        "pwatermark": round(rng.uniform(0, 0.3), 4),
        "hash": int(hashlib.sha256(name.encode()).hexdigest()[:15], 16),
        "subjects": subjects,
        "flaw": flaw,
    }
    if flaw == "duplicate":
        original, data = rng.choice(others)
        row.update(caption=original["caption"], subjects=original["subjects"])
        data = _stored_anew(data)
    return row, data


def _png(pixels) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _stored_anew(png: bytes) -> bytes:
    """The same picture as a JPEG: other bytes, nearly the same pixels."""
    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _folder(path) -> Path:
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SSRError(f"cannot make the folder {path} ({error.strerror or error}); choose another place") from None
    return path


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
