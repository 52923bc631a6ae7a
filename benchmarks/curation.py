"""The data steps at scale on this machine: filtering many records, writing shards with more and more workers.

python benchmarks/curation.py [--records 10000000] [--samples 20000] [--workers 1,2] [--folder FOLDER]

Each measurement runs in a process of its own, whose peak memory (its own and its workers' resident set, as the
operating system counted it) is printed with it. Records are made first, outside the measured time; files are read from
the page cache if they fit there.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--kilobytes", type=int, default=50, help="of a picture")
    parser.add_argument("--workers", default="1,2", help="numbers of workers to compare")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        folder = Path(folder)
        if args.records:
            seconds, gigabytes, _ = measured(make_records, folder / "records", args.records, args.files)
            print(f"making {args.records:,} records in {args.files} files: {seconds:.1f} s, {gigabytes:.2f} GB")
            seconds, gigabytes, kept = measured(filter_all, folder / "records", folder / "kept", args.threads)
            print(
                f"filtering them with {args.threads} threads: {seconds:.1f} s, peak {gigabytes:.2f} GB, {kept:,} kept, "
                f"{args.records / seconds / 1e6:.1f} million records/s"
            )
        if args.samples:
            measured(make_shards, folder / "shards", args.samples, args.shards, args.kilobytes * 1000)
            size = sum(path.stat().st_size for path in (folder / "shards").iterdir()) / 1e9
            first = None
            for workers in map(int, args.workers.split(",")):
                out = folder / f"out{workers}"
                seconds, gigabytes, _ = measured(copy_all, folder / "shards", out, workers)
                first = first or seconds * workers
                print(
                    f"{args.samples:,} samples ({size:.1f} GB) through decoding, {workers} workers: {seconds:.1f} s, "
                    f"{args.samples / seconds:,.0f} samples/s, peak {gigabytes:.2f} GB, "
                    f"{first / seconds / workers:.0%} of linear"
                )


def measured(work, *args) -> tuple[float, float, object]:
    """Seconds, peak GB and result of ``work(*args)`` in a fresh process."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(there, work, args))
    process.start()
    there.close()
    result = here.recv()
    process.join()
    return result


def _measured(pipe, work, args) -> None:
    began = time.perf_counter()
    result = work(*args)
    seconds = time.perf_counter() - began
    own, largest = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    workers = args[2] if work is copy_all and args[2] > 1 else 0
    pipe.send((seconds, (own + workers * largest) * 1024 / 1e9, result))


def make_records(folder: Path, n: int, files: int) -> None:
    from ssr_encoder.curation.records import make_records

    make_records(folder, n, files)


def filter_all(source: Path, out: Path, threads: int) -> int:
    from ssr_encoder.curation.filter import filter_records

    where = "least(width, height) >= 512 AND punsafe < 0.5"
    return sum(report.kept for report in filter_records(source, out, where=where, threads=threads))


def make_shards(folder: Path, samples: int, shards: int, size: int) -> None:
    """Pictures of noise, of which a JPEG cannot save much: about ``size`` bytes each, eight different ones."""
    import io

    import numpy as np
    from PIL import Image

    from ssr_encoder.curation import Sample, write_shard

    folder.mkdir()
    side = int((size / 0.45) ** 0.5)
    pictures = []
    for seed in range(8):
        stream = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(stream, "JPEG", quality=50)
        pictures.append(stream.getvalue())
    for shard in range(shards):
        numbers = range(shard * samples // shards, (shard + 1) * samples // shards)
        write_shard(
            folder / f"{shard:06d}.tar",
            (Sample(f"{n:09d}", pictures[n % 8], "jpg", f"picture {n}", {"aesthetic": 6.5}) for n in numbers),
        )


class Decode:
    """What any step of pictures does at least: reads, decodes and writes them."""

    name = "decode"

    def parameters(self) -> dict:
        return {}

    def setup(self) -> None:
        pass

    def __call__(self, samples):
        import io

        from PIL import Image

        from ssr_encoder.curation import Outcome

        for sample in samples:
            sample.meta["size"] = Image.open(io.BytesIO(sample.image)).convert("RGB").size
        return Outcome(samples)


def copy_all(source: Path, out: Path, workers: int) -> int:
    from ssr_encoder.curation import run_step

    return sum(report.kept for report in run_step(Decode(), source, out, workers=workers))


if __name__ == "__main__":
    print(json.dumps({"cores": os.cpu_count()}))
    main()
