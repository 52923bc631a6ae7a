"""Checkpoints: folders that are whole or not there, with a hash of every file.

checkpoints/step-00001234/
    config.json, model.safetensors    the encoder as one would use it (averaged weights, if there are any):
                                      SSREncoder.from_pretrained takes the folder as it is
    training.safetensors              weights, optimiser moments and averaged weights as training goes on from them
    state.json                        step, position in the stream of samples, counts, the config
    manifest.json                     sha256 of each of them
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..checkpoint import save_model
from ..errors import SSRError
from ..files import file_sha256
from ..model import SubjectModel

NAME = re.compile(r"step-(\d{8,})")


@dataclass
class State:
    """Where a run is, beside its tensors."""

    step: int = 0  # steps done
    position: int = 0  # of the next sample in the stream
    bad: int = 0  # samples that could not be used, all steps together
    seconds: float = 0.0  # of training, all lives together
    scaler: dict = field(default_factory=dict)  # of fp16's gradient scaler
    config: dict = field(default_factory=dict)


def save(folder: Path, state: State, tensors: dict[str, Tensor], model: SubjectModel, keep: int) -> Path:
    """Write ``step-N`` beside its place, rename it, and drop all but the last ``keep``.

    Args:
        tensors: what :func:`load` shall give back.
        model: in the form to use, with averaged weights.

    Raises:
        SSRError: the disk is full or the folder cannot be written; earlier checkpoints are as they were.
    """
    path = folder / f"step-{state.step:08d}"
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        temporary.mkdir()
        save_model(model, temporary)
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary / "training.safetensors",
        )
        (temporary / "state.json").write_text(json.dumps(asdict(state), indent=1) + "\n")
        sums = {file.name: file_sha256(file) for file in sorted(temporary.iterdir())}
        (temporary / "manifest.json").write_text(json.dumps(sums, indent=1) + "\n")
        for file in temporary.iterdir():
            _sync(file)
        if path.exists():  # written by an earlier life from an older checkpoint, or damaged
            shutil.rmtree(path)
        temporary.rename(path)
        _sync(folder)
    except (OSError, SafetensorError, SSRError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        last = find(folder)
        raise SSRError(
            f"cannot write checkpoint {path} ({reason}); make room and run the same command: it goes on from "
            f"{last[-1].name if last else 'the beginning'}"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in find(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def find(folder: Path) -> list[Path]:
    """Checkpoints by step, the latest last."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(NAME.fullmatch(path.name)[1]))


def load_latest(folder: Path) -> tuple[State, dict[str, Tensor], list[str]] | None:
    """The newest checkpoint that is whole: its state and tensors, and a line for each newer one that is not. None if
    there are no checkpoints.

    Raises:
        SSRError: there are some, and all are damaged.
    """
    notes = []
    for path in reversed(find(folder)):
        try:
            return *load(path), notes
        except SSRError as error:
            notes.append(str(error))
    if notes:
        raise SSRError(f"{notes[0]}; no other checkpoint is whole: remove {folder} to begin anew")
    return None


def load(path: Path) -> tuple[State, dict[str, Tensor]]:
    """One checkpoint.

    Raises:
        SSRError: it is damaged.
    """
    try:
        sums = json.loads((path / "manifest.json").read_text())
        wrong = [name for name, expected in sums.items() if file_sha256(path / name) != expected]
        if wrong:
            raise ValueError(f"{wrong[0]} is not what was written")
        if not {"training.safetensors", "state.json"} <= set(sums):
            raise ValueError("its manifest is not complete")
        return State(**json.loads((path / "state.json").read_text())), load_file(path / "training.safetensors")
    except (OSError, ValueError, TypeError, AttributeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:80]
        raise SSRError(f"checkpoint {path} is damaged ({reason})") from None


def _sweep(folder: Path) -> None:
    """Remove what a killed life left half written."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """To the disk, so that a power cut after the rename finds the content too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
