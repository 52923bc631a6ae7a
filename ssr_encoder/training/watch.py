"""What is seen of a run: metrics.jsonl always, TensorBoard or wandb through accelerate, and the list of bad samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..errors import SSRError
from ..extras import need
from ..files import written_beside
from .loop import Progress, Trainer

METRICS, BAD = "metrics.jsonl", "bad_samples.jsonl"


class Watch:
    """Logs of a run's main process; a life that goes on from step n drops what an earlier one logged beyond it."""

    def __init__(self, trainer: Trainer):
        self.main = trainer.accelerator.is_main_process
        self.folder, self.shards = trainer.out, trainer.index
        self.trackers = []
        if not self.main:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, BAD):
            _keep_until(self.folder / name, trainer.state.step)
        with written_beside(self.folder / "config.yaml") as path:
            path.write_text(trainer.config.to_yaml())
        self.trackers = [_tracker(name, trainer) for name in trainer.config.run.log_with]

    def log(self, progress: Progress, **figures: float) -> None:
        """The figures of a step, if there are any, and its bad samples."""
        if not self.main:
            return
        for shard, index, reason in progress.bad:
            entry = {"step": progress.step, "shard": self.shards[shard].url, "index": index, "reason": reason}
            _append(self.folder / BAD, entry)
        figures = {**progress.figures, **figures}
        if figures:
            _append(self.folder / METRICS, {"step": progress.step, **figures})
            for tracker in self.trackers:
                tracker.log(figures, step=progress.step)

    def show(self, name: str, picture, step: int) -> None:
        """A picture, as NAME-STEP.png in ``validation/`` and in the trackers."""
        if not self.main:
            return
        folder = self.folder / "validation"
        folder.mkdir(exist_ok=True)
        with written_beside(folder / f"{name}-{step:08d}.png") as path:
            picture.save(path)
        for tracker in self.trackers:
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: np.asarray(picture)[None]}, step=step, **options)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.finish()


def _tracker(name: str, trainer: Trainer):
    from accelerate import tracking

    need(name, "train")
    config = trainer.config.to_dict()
    if name == "wandb":
        tracker = tracking.WandBTracker("ssr-encoder", dir=str(trainer.out))
    else:
        tracker = tracking.TensorBoardTracker("tensorboard", logging_dir=str(trainer.out))
        config = {f"{s}.{k}": str(v) for s, values in config.items() for k, v in values.items()}
    if hasattr(tracker, "start"):
        tracker.start()
    if name == "wandb":
        tracker.store_init_configuration(config)
    return tracker


def _append(path: Path, entry: dict) -> None:
    try:
        with open(path, "a") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise SSRError(f"cannot write {path} ({error.strerror}); make room and run the same command to go on") from None


def _keep_until(path: Path, step: int) -> None:
    """Only lines of steps up to ``step``, none at the beginning; a line that a killed life left unfinished goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if step and json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with written_beside(path) as temporary:
        temporary.write_text("".join(kept))
