"""One subject out of a busy picture, generated anywhere a prompt says: SSR-Encoder (CVPR 2024) for diffusers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aligner import SubjectConfig, TokenToPatchAligner
    from .attention import SubjectAttnProcessor
    from .checkpoint import load_released
    from .companions import control_pipeline, controlled_video_pipeline, fit_map, subjects_by_frame, video_pipeline
    from .encoder import SSREncoder
    from .errors import SSRError
    from .few_step import few_steps
    from .losses import denoising_loss, embedding_consistency_loss, snr_weight
    from .model import SubjectModel
    from .packing import SubjectKeyValues
    from .shared_noise import clip_noise
    from .subject import Subject
    from .trajectories import random_trajectories, trajectory
    from .version import __version__

# Imported when first asked for: torch and diffusers take seconds, and `ssr --help` needs neither.
_HOMES = {
    "SSREncoder": "encoder",
    "SSRError": "errors",
    "Subject": "subject",
    "SubjectAttnProcessor": "attention",
    "SubjectConfig": "aligner",
    "SubjectKeyValues": "packing",
    "SubjectModel": "model",
    "TokenToPatchAligner": "aligner",
    "__version__": "version",
    "clip_noise": "shared_noise",
    "control_pipeline": "companions",
    "controlled_video_pipeline": "companions",
    "denoising_loss": "losses",
    "embedding_consistency_loss": "losses",
    "few_steps": "few_step",
    "fit_map": "companions",
    "load_released": "checkpoint",
    "random_trajectories": "trajectories",
    "snr_weight": "losses",
    "subjects_by_frame": "companions",
    "trajectory": "trajectories",
    "video_pipeline": "companions",
}

__all__ = [
    "SSREncoder",
    "SSRError",
    "Subject",
    "SubjectAttnProcessor",
    "SubjectConfig",
    "SubjectKeyValues",
    "SubjectModel",
    "TokenToPatchAligner",
    "__version__",
    "clip_noise",
    "control_pipeline",
    "controlled_video_pipeline",
    "denoising_loss",
    "embedding_consistency_loss",
    "few_steps",
    "fit_map",
    "load_released",
    "random_trajectories",
    "snr_weight",
    "subjects_by_frame",
    "trajectory",
    "video_pipeline",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
