"""Training the subject encoder at full scale: ``ssr train``, or ``accelerate launch -m ssr_encoder.training``."""

from .config import TrainingConfig
from .loop import Progress, Trainer
from .run import build_cache, estimate_cache, train

__all__ = ["Progress", "Trainer", "TrainingConfig", "build_cache", "estimate_cache", "train"]
