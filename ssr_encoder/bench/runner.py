"""Runs a method on a benchmark: pictures item by item, then scores, resumable at any moment.

What is there already and whole is left alone; kill a run whenever you like and start it again. Subjects go to processes
by their position (all items of a subject to one, since a method may fine-tune on it), every process computes with one
CPU thread, and an item is always made alone: the files are the same on any number of processes.
"""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import queue as queues
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ..errors import SSRError
from ..files import write_json
from ..provenance import commit, versions
from . import results
from .benchmark import Benchmark, Item
from .methods import Method
from .metrics import Case, Metric

AGAIN = "run the same command again to go on"


@dataclass(frozen=True)
class Progress:
    """One item is through a stage, "pictures" or "scores"; skipped: it was there already."""

    key: str
    stage: str
    skipped: bool = False


@dataclass
class Work:
    """What a process needs; everything in it can be sent to another one."""

    benchmark: Benchmark
    make_method: Callable[[], Method]
    make_metrics: Callable[[], list[Metric]] | None
    folder: Path
    hash: str
    shards: int

    def items(self, shard: int) -> list[Item]:
        """A shard's items."""
        mine = set(self.benchmark.subjects[shard :: self.shards])
        return [item for item in self.benchmark.items if item.subject in mine]


def run_benchmark(
    benchmark: Benchmark,
    make_method: Callable[[], Method],
    folder: Path | str,
    *,
    settings: dict | None = None,
    model: str = "",
    make_metrics: Callable[[], list[Metric]] | None = None,
    processes: int = 1,
    shard: tuple[int, int] | None = None,
) -> Iterator[Progress]:
    """Run, or go on with a run; yields as items are made and scored, in no order if there are several processes.

    Args:
        make_method: makes the method, here and in every other process (so it can be pickled if there are any).
        folder: a new one, or one of the same run.
        settings: more to tell in run.json and to count into its hash: seed, n, images, ...
        model: the model's name for reports; it does not count.
        make_metrics: makes the metrics; None leaves scores as they are. Other metrics than before: all is scored anew.
        processes: of this machine, of which this is one; they share out the GPUs.
        shard: (number, count): this process is one of several that somebody else has started (``accelerate launch``),
            and does its own part.

    Raises:
        SSRError: the folder is of another run (what differs is said), a process died, or what the method raises.
    """
    processes = max(1, min(processes, len(benchmark.subjects)))
    folder, (number, shards) = Path(folder), shard or (0, processes)
    with _repeatable():
        method = make_method()
        metrics = make_metrics() if make_metrics else None
        meta = describe_run(benchmark, method, settings or {}, model)
        found = results.begin(folder, meta)
        if metrics is not None:
            described = describe_metrics(metrics)
            if found["metrics"] != described:
                found |= {"metrics": described, "metrics_hash": results.digest_of(described)}
                write_json(folder / "run.json", found)
        if shard is None:
            results.sweep(folder)
        work = Work(benchmark, make_method, make_metrics, folder, meta["hash"], shards)
        own = _do(work, method, metrics, number)
        if shard is not None or processes == 1:
            yield from own
        else:
            yield from _together(work, own, processes)


def describe_run(benchmark: Benchmark, method: Method, settings: dict, model: str) -> dict:
    """run.json of a run, without metrics. Its hash leaves out what cannot change a picture: the model's name, the
    commit, Python's version."""
    described = dict(method.describe())
    settings = {**described.pop("settings", {}), **settings}
    of_software = versions()
    identity = {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "digest": benchmark.digest(),
        "method": method.name,
        "describe": described,
        "settings": settings,
        "versions": {name: version for name, version in of_software.items() if name != "python"},
    }
    meta = {
        "format": results.RUN_FORMAT,
        **identity,
        "versions": of_software,
        "hash": results.digest_of(identity),
        "model": model,
        "fingerprint": described.get("fingerprint"),
        "commit": commit(),
        **{field: getattr(benchmark, field) for field in ("title", "paper", "citation", "suite", "num_images")},
        "items": [item.key for item in benchmark.items],
        "metrics": {},
        "metrics_hash": None,
    }
    return json.loads(json.dumps(meta))  # as it will be read


def describe_metrics(metrics: list[Metric]) -> dict[str, dict]:
    """metric -> what it is, with its direction."""
    described = {metric.name: {"direction": metric.direction, **metric.describe()} for metric in metrics}
    return json.loads(json.dumps(described))  # as it will be read


def _do(work: Work, method: Method, metrics: list[Metric] | None, shard: int) -> Iterator[Progress]:
    """A shard's items, one after another."""
    mine = work.items(shard)
    yield from _make(work, method, mine)
    if metrics is not None:
        yield from _score(work, metrics, mine)


def _make(work: Work, method: Method, mine: list[Item]) -> Iterator[Progress]:
    subject, picture, personalised = None, None, None
    for item in mine:
        if results.finished_item(work.folder, item.key, work.hash):
            yield Progress(item.key, "pictures", skipped=True)
            continue
        if item.subject != subject:
            picture = item.reference.open()
            personalised = method.personalise(picture, dict(item.query), item.class_name)
            subject = item.subject
            heat_map = personalised.heat_map() if hasattr(personalised, "heat_map") else None
            if heat_map is not None:
                results.write_picture(work.folder / "maps" / f"{subject}.png", heat_map)
        begin = time.monotonic()
        pictures = method.generate(personalised, item.template, item.seeds)
        if len(pictures) != item.num_images:
            raise SSRError(f"method {method.name} made {len(pictures)} pictures of {item.num_images} seeds; mend it")
        record = {
            "hash": work.hash,
            "key": item.key,
            "subject": item.subject,
            "class_name": item.class_name,
            "prompt": item.prompt,
            "query": item.query,
            "tags": list(item.tags),
            "others": list(item.others),
            "seed": item.seed,
            "seconds": round(time.monotonic() - begin, 3),
        }
        results.write_item(work.folder, record, picture, pictures)
        yield Progress(item.key, "pictures")


def _score(work: Work, metrics: list[Metric], mine: list[Item]) -> Iterator[Progress]:
    metrics_hash = results.digest_of(describe_metrics(metrics))
    for item in mine:
        record = results.finished_item(work.folder, item.key, work.hash)
        if record is None:
            raise SSRError(f"item {item.key} in {work.folder} was changed while it was scored; {AGAIN}")
        if results.finished_scores(work.folder, record, metrics_hash):
            yield Progress(item.key, "scores", skipped=True)
            continue
        cases = list(_cases(work.folder, item, record))
        values = {metric.name: [_number(value) for value in metric(cases)] for metric in metrics}
        results.write_scores(work.folder, record, metrics_hash, values)
        yield Progress(item.key, "scores")


def _cases(folder: Path, item: Item, record: dict) -> Iterator[Case]:
    reference = _open(folder / "references" / f"{item.subject}.png")
    mask = item.mask()
    for name in record["images"]:
        image = _open(folder / "items" / name)
        yield Case(image, reference, item.prompt, item.class_name, item.others, mask, item.truth)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# -- processes
def _together(work: Work, own: Iterator[Progress], processes: int) -> Iterator[Progress]:
    """This process's own shard beside those of ``processes - 1`` fresh ones."""
    # Forking would copy the locks of torch's threads in whatever state they are, and no CUDA.
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    children = [spawn.Process(target=_child, args=(work, n, queue), daemon=True) for n in range(1, processes)]
    for child in children:
        child.start()
    try:
        running = len(children)
        for progress in own:
            yield progress
            while not queue.empty():
                running -= yield from _report(queue.get())
        while running:
            try:
                running -= yield from _report(queue.get(timeout=1))
            except queues.Empty:
                if any(child.exitcode for child in children):
                    raise SSRError(f"a process died, perhaps for lack of memory; {AGAIN}") from None
        for child in children:  # stopped in its last breath it would leave what it shares with others behind
            child.join(30)
    finally:
        for child in children:
            child.terminate()
            child.join()


def _report(message):
    """Yields a child's progress or raises its error; returns 1 if it was its last word, else 0."""
    if isinstance(message, Progress):
        yield message
        return 0
    if message:
        raise SSRError(message)
    return 1


def _child(work: Work, number: int, queue) -> None:
    _silence()
    parent = multiprocessing.parent_process()
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(number % torch.cuda.device_count())
        with _repeatable():
            metrics = work.make_metrics() if work.make_metrics else None
            for progress in _do(work, work.make_method(), metrics, number):
                if not parent.is_alive():  # it was killed; another run may be at work already
                    return
                queue.put(progress)
        queue.put("")
    except SSRError as error:
        queue.put(str(error))
    except Exception as error:  # whatever a method or metric raises ends the run, in one line
        queue.put(f"a process failed ({type(error).__name__}: {error}); mend it, then {AGAIN}")


def _silence() -> None:
    """The libraries' bars and warnings, which would garble the one bar of the process that a person looks at."""
    import logging
    import warnings

    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")


@contextlib.contextmanager
def _repeatable():
    """One thread, since sums over several differ in their last bits, and only repeatable convolutions on a GPU."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = deterministic
