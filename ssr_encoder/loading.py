"""Where an encoder and its parts come from: the shipped folder, other folders, single files, the hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from diffusers import ModelMixin, StableDiffusionPipeline
from diffusers.utils import logging
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from .errors import SSRError, first_line
from .files import may_be_hub_id

DAMAGED = (OSError, ValueError, RuntimeError, SafetensorError)  # what loading a model raises


def best_device() -> torch.device:
    """CUDA, else MPS, else CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve(name: str | os.PathLike, revision: str | None = None) -> Path:
    """The folder of an encoder: "mini", a folder, or a hub id (downloaded)."""
    if str(name) == "mini":
        return Path(__file__).parent / "mini" / "weights"
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists() or not may_be_hub_id(str(name)):
        raise SSRError(f'model {str(name)!r} is not a folder; give "mini", a folder, or a hub id like name/model')
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(str(name), revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt"])
        )
    except Exception as error:  # the hub client raises many kinds
        raise SSRError(
            f"model {str(name)!r} could not be fetched ({first_line(error, 80)}); check the name and the network"
        ) from None


def beside(folder: Path, where: str) -> str:
    """A path in a config that begins with "." is relative to the config's folder."""
    return str((folder / where).resolve()) if where == "." or where.startswith("./") else where


def load_whole(kind, where: str, **extra):
    """A model by its class's ``from_pretrained``, with every tensor: diffusers and transformers fill missing ones with
    random numbers.

    Raises:
        ValueError: tensors are missing. Also what ``from_pretrained`` raises: all are in ``DAMAGED``.
    """
    model, found = kind.from_pretrained(where, output_loading_info=True, **extra)
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{len(missing)} tensors are missing, such as {missing[0]}")
    return model


def load_part(kind, where: str, subfolder: str | None, dtype: torch.dtype | None = None, **extra):
    """One component or pipeline by its class's ``from_pretrained``, quietly.

    Raises:
        SSRError: nothing there, damaged, of other sizes or of another kind.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        if subfolder:
            extra["subfolder"] = subfolder
        if dtype is not None:
            extra["dtype"] = dtype
        if issubclass(kind, (ModelMixin, PreTrainedModel)):
            return load_whole(kind, where, **extra)
        return kind.from_pretrained(where, **extra)
    except DAMAGED as error:
        part = f"{subfolder} of {where}" if subfolder else where
        raise SSRError(f"cannot load {part} ({first_line(error)}); check base= and image_encoder=") from None
    finally:
        logging.set_verbosity(verbosity)


def load_single_file(path: str, dtype: torch.dtype):
    """The pipeline of a single-file checkpoint."""
    if not Path(path).is_file():
        raise SSRError(f"base checkpoint {path} does not exist; check the path")
    try:
        return StableDiffusionPipeline.from_single_file(path, dtype=dtype, safety_checker=None)
    except Exception as error:  # diffusers lets through what the file, the hub and the parts raise
        raise SSRError(
            f"base checkpoint {path} cannot be loaded ({first_line(error)}); give a Stable Diffusion file"
        ) from None


def fingerprint(model: nn.Module) -> str:
    """sha256 of a network's weights, whatever file they came from."""
    total = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        total.update(key.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
