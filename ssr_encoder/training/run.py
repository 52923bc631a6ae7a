"""A whole run: the loop with its logs, checkpoints and validation, and the feature cache before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from accelerate import PartialState

from ..checkpoint import save_model
from ..errors import SSRError
from .bases import load_base
from .cache import Cache
from .config import TrainingConfig
from .loop import Progress, Trainer
from .reader import Reader, list_urls, load_index
from .validation import Validator
from .watch import Watch


def train(config: TrainingConfig, note: Callable[[str], None] = lambda text: None) -> Iterator[Progress]:
    """Train as ``config`` says, going on from what is in ``run.out``; yields after every step.

    At the end the encoder is in ``run.out/encoder``. ``note`` gets a line for everything worth knowing.

    Raises:
        SSRError: see :class:`Trainer` and :meth:`Trainer.run`.
    """
    base, validator = load_base(config.base), None
    if config.run.validate_every:
        state = PartialState()
        if state.is_main_process:  # before a cache lets the trainer drop the encoders
            validator = Validator(base.to(state.device), config)
    trainer = Trainer(config, base)
    main = trainer.accelerator.is_main_process
    for line in trainer.notes if main else []:
        note(line)
    watch = Watch(trainer)
    try:
        if validator and not trainer.state.step:  # what training begins with, to compare with
            model = trainer.learned.averaged()
            watch.log(Progress(0, 0, validator.figures(model)))
            watch.show("selection", validator.grid(model), 0)
        for progress in trainer.run():
            every = config.run.validate_every
            if validator and (progress.step % every == 0 or progress.last):
                model = trainer.learned.averaged()
                progress.figures |= validator.figures(model)
                watch.show("selection", validator.grid(model), progress.step)
            watch.log(progress)
            if progress.step % config.run.save_every == 0 or progress.last:
                trainer.save()
            yield progress
        if main:
            save_model(trainer.learned.averaged(), trainer.out / "encoder")
    finally:
        watch.close()


def build_cache(config: TrainingConfig) -> Iterator[tuple[int, int]]:
    """Compute the feature cache in ``data.cache``; yields (files done, files in all) of this process's share."""
    state = PartialState()
    cache = _cache(config)
    cache.base.to(state.device)
    with state.main_process_first():  # the main process says what the folder is of
        pass
    yield from cache.build(config.optim.micro_batch, state.process_index, state.num_processes)


def estimate_cache(config: TrainingConfig) -> tuple[int, int]:
    """Bytes that the feature cache will take, and the number of samples."""
    cache = _cache(config)
    return cache.estimate(), sum(shard.count for shard in cache.index)


def _cache(config: TrainingConfig) -> Cache:
    if not config.data.cache:
        raise SSRError("data.cache is empty; name the folder of the feature cache")
    urls, fetched = list_urls(config.data.shards), Path(config.run.out) / "fetched"
    index = load_index(urls, Path(config.run.out) / "shards.json", fetched)
    return Cache(config.data.cache, load_base(config.base), Reader(urls, fetched), index, config.data)
