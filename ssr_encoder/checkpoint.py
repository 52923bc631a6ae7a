"""Weights in and out: our folders (safetensors and a JSON config), and the two files of the public release."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .aligner import SubjectConfig
from .errors import SSRError, first_line
from .files import write_json, written_beside
from .model import SubjectModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
RELEASED = ("pytorch_model.bin", "pytorch_model_1.bin")  # aligner, subject cross-attention layers

# The text cross-attentions of the Stable Diffusion 1.5 UNet in `attn_processors` order, with their widths: layer j of
# the release's second file has the index 2 j + 1, since self-attentions count too.
SD15_LAYERS = {
    f"{block}.attentions.{j}.transformer_blocks.0.attn2": width
    for block, count, width in (
        ("down_blocks.0", 2, 320), ("down_blocks.1", 2, 640), ("down_blocks.2", 2, 1280),
        ("up_blocks.1", 3, 1280), ("up_blocks.2", 3, 640), ("up_blocks.3", 3, 320), ("mid_block", 1, 1280),
    )
    for j in range(count)
}  # fmt: skip


def sd15_config() -> SubjectConfig:
    """The released encoder's sizes: Stable Diffusion 1.5 and CLIP ViT-L/14."""
    return SubjectConfig(layers=dict(SD15_LAYERS))


def released_names(config: SubjectConfig) -> dict[str, str]:
    """Our parameter name -> the release's, over both files (the second file's names begin with the layer index)."""
    names = {"aligner.norm.weight": "norm.weight", "aligner.norm.bias": "norm.bias"}
    names |= {f"aligner.{part}.weight": f"aligner.{part}.weight" for part in ("to_q", "to_k")}
    for k in range(len(config.hidden_layers)):
        for part in ("to_v", "to_out"):
            names[f"aligner.{part}.{k}.weight"] = f"aligner.processor.{part}.{k}.weight"
    for j, layer in enumerate(config.layers):
        for part in ("to_k", "to_v"):
            names[f"key_values.{part}.{layer.replace('.', '/')}.weight"] = f"{2 * j + 1}.{part}_SSR.weight"
    return names


def load_released(aligner_file: str | os.PathLike, layers_file: str | os.PathLike) -> SubjectModel:
    """The released checkpoint as a :class:`SubjectModel`.

    Pickles are read with ``weights_only``: no code in them runs.

    Raises:
        SSRError: a file is missing or damaged, or its tensors are not the release's.
    """
    config = sd15_config()
    state = {**read_tensors(aligner_file), **read_tensors(layers_file)}
    names = released_names(config)
    expected = {names[ours]: tensor.shape for ours, tensor in _empty(config).state_dict().items()}
    check_tensors(state, expected, f"{Path(aligner_file).name} and {Path(layers_file).name}")
    return _fill(config, {ours: state[theirs] for ours, theirs in names.items()})


def load_model(folder: str | os.PathLike) -> SubjectModel:
    """A :class:`SubjectModel` from a folder of ours, or from one with the two released files.

    Raises:
        SSRError: nothing there, damaged, or tensors missing, superfluous or misshapen: one line with the first few.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists() and all((folder / name).exists() for name in RELEASED):
        return load_released(*(folder / name for name in RELEASED))
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise SSRError(
            f"{folder} holds no subject encoder; it needs {CONFIG} and {WEIGHTS}, or {' and '.join(RELEASED)}"
        )
    try:
        values = json.loads((folder / CONFIG).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise SSRError(f"{folder / CONFIG} cannot be read ({str(error)[:60]}); fetch the folder again") from None
    if not isinstance(values, dict):
        raise SSRError(f"{folder / CONFIG} is not a JSON object; fetch the folder again")
    config = SubjectConfig.from_dict(values)
    state = read_tensors(folder / WEIGHTS)
    check_tensors(state, {k: v.shape for k, v in _empty(config).state_dict().items()}, str(folder / WEIGHTS))
    return _fill(config, state)


def save_model(model: SubjectModel, folder: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
    """Write ``config.json`` and ``model.safetensors``; each is whole or not there."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SSRError(f"cannot write to {folder} ({error.strerror}); choose another folder") from None
    state = {k: v.detach().to(dtype or v.dtype).cpu().contiguous() for k, v in model.state_dict().items()}
    with written_beside(folder / WEIGHTS) as path:
        save_file(state, path, {"format": "pt"})
    write_json(folder / CONFIG, model.config.to_dict())


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a PyTorch pickle, the latter with ``weights_only``.

    Raises:
        SSRError: not there, damaged or truncated, or a pickle with more than tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise SSRError(f"weights file {path} does not exist; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise SSRError(
            f"{path} is damaged, or holds more than tensors and was not loaded, as such a file can run any code; "
            "get a safetensors file"
        ) from None
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        reason = first_line(error, 80)
        raise SSRError(f"{path} is damaged or cut off ({reason}); fetch it again") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SSRError(f"{path} is not a dictionary of tensors; name the subject encoder's weights")
    return state


def check_tensors(state: dict[str, Tensor], expected: dict[str, torch.Size], where: str) -> None:
    """One message about everything that does not fit, with the first few names and shapes.

    Raises:
        SSRError: tensors are missing, superfluous or misshapen, or hold values that are not numbers.
    """
    missing = [f"{name} {tuple(shape)}" for name, shape in expected.items() if name not in state]
    extra = [f"{name} {tuple(value.shape)}" for name, value in state.items() if name not in expected]
    wrong = [
        f"{name} {tuple(state[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    parts = [
        f"{len(names)} {what} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("superfluous", extra), ("of another shape", wrong))
        if names
    ]
    if parts:
        raise SSRError(f"{where} does not fit this encoder: tensors {', '.join(parts)}; give files of the same model")
    bad = [name for name, value in state.items() if not torch.isfinite(value.float().sum())]
    if bad:
        raise SSRError(f"{where} has values that are not numbers in {bad[0]}; fetch it again")


def _empty(config: SubjectConfig) -> SubjectModel:
    with torch.device("meta"):
        return SubjectModel(config)


def _fill(config: SubjectConfig, state: dict[str, Tensor]) -> SubjectModel:
    model = _empty(config)
    model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return model.requires_grad_(False).eval()
