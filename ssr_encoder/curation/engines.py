"""Where the files of a step are worked on: here, in processes of this machine, or on Ray."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict

from ..errors import SSRError
from ..extras import need


def engine(name: str) -> Callable[..., Iterator]:
    """The engine of a name: (work, jobs, workers, address) -> what ``work`` gives for every job.

    Raises:
        SSRError: there is none.
    """
    if name not in ENGINES:
        raise SSRError(f"no engine {name!r}; use one of {', '.join(ENGINES)}")
    return ENGINES[name]


def local(work, jobs: list, workers: int, address: str | None) -> Iterator:
    """In this process, or in ``workers`` fresh ones; reports come in the order of the jobs."""
    if address is not None:
        raise SSRError(f"the local engine has no address ({address}); add --engine ray or leave it out")
    workers = min(workers, len(jobs))
    if workers == 1:
        yield from map(work, jobs)
        return
    # Forking would copy the locks of torch's and DuckDB's threads in whatever state they are.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(work,))
    try:
        yield from pool.map(_work, jobs)
    except BrokenProcessPool:
        raise SSRError("a worker died, perhaps for lack of memory; run again with fewer --workers to go on") from None
    finally:
        pool.shutdown(cancel_futures=True)


def on_ray(work, jobs: list, workers: int, address: str | None) -> Iterator:
    """On ``workers`` actors of Ray Data, which must see the same folders; reports come as they are ready."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = need("ray", "ray")
    data = need("ray.data", "ray")
    started = not ray.is_initialized()
    if started:
        _start_ray(ray, address, workers)
    try:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        numbers = data.range(len(jobs), override_num_blocks=len(jobs))
        actors = data.ActorPoolStrategy(size=min(workers, len(jobs)))
        reports = numbers.map(_Actor, fn_constructor_args=(os.getcwd(), work, jobs), compute=actors)
        for row in reports.iter_rows():
            if row["failure"]:
                raise SSRError(row["failure"])
            yield _parsed(row["report"])
    finally:
        if started:
            ray.shutdown()


def _start_ray(ray, address: str | None, workers: int) -> None:
    """Joins a cluster, or starts one on this machine whose processes can import what this one can."""
    if address and ":" in address:  # Ray itself would try for minutes
        host, _, port = address.rpartition("/")[2].rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            raise SSRError(f"no Ray cluster at {address} ({error}); check --address") from None
    here = {} if address else {"include_dashboard": False, "num_cpus": max(workers, os.cpu_count() or 1)}
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SSRError(f"no Ray cluster at {address or 'this machine'} ({error}); check --address") from None
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


ENGINES = {"local": local, "ray": on_ray}

_current = None  # the work of this process


def _start_worker(work) -> None:
    global _current
    _current = work
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # every worker would repeat its remarks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job):
    return _current(job)


class _Actor:
    """Ray's side of a worker. Errors for the user travel as values: Ray would wrap them in its own traceback."""

    def __init__(self, folder: str, work, jobs: list):
        os.chdir(folder)  # paths may be relative to it
        self.work, self.jobs = work, jobs

    def __call__(self, row: dict) -> dict:
        try:
            return {"report": json.dumps(asdict(self.work(self.jobs[row["id"]]))), "failure": ""}
        except SSRError as error:
            return {"report": "", "failure": str(error)}


def _parsed(text: str):
    from .reports import parsed  # which imports this module

    return parsed(text)
