"""What learns in a run, and its tensors by name: weights, the optimiser's moments, averaged weights."""

from __future__ import annotations

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor

from ..model import SubjectModel
from .config import OptimConfig

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW


class Learned:
    """A model, its optimiser and its averaged weights.

    Attributes:
        ema: None if ``optim.ema_decay`` is 0.
    """

    def __init__(self, model: SubjectModel, optim: OptimConfig, device: torch.device):
        self.model, self.parameters = model, list(model.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=optim.learning_rate,
            betas=tuple(optim.betas),
            weight_decay=optim.weight_decay,
            fused=device.type in ("cuda", "cpu"),
        )
        self.ema = None
        if optim.ema_decay:
            foreach = device.type == "cuda"
            self.ema = EMAModel(
                self.parameters, decay=optim.ema_decay, use_ema_warmup=True, power=0.75, foreach=foreach
            )

    def average(self, step: int) -> None:
        """Take the weights after ``step`` steps into the averaged ones."""
        if self.ema is not None:
            self.ema.optimization_step = step
            self.ema.step(self.parameters)

    @torch.no_grad()
    def averaged(self) -> SubjectModel:
        """A copy of the model with the averaged weights, if there are any: what is exported and validated."""
        model = SubjectModel(self.model.config).to(self.parameters[0].device)
        values = self.parameters if self.ema is None else self.ema.shadow_params
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)
        return model.eval().requires_grad_(False)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training goes on from, by name."""
        named = dict(self.model.named_parameters())
        tensors = {f"model/{name}": value for name, value in named.items()}
        for name, parameter in named.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state.get(parameter, {}).items()}
        if self.ema is not None:
            tensors |= {f"ema/{name}": value for name, value in zip(named, self.ema.shadow_params, strict=True)}
        return tensors

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from :meth:`tensors` after ``step`` steps; averaged weights that are not there begin at the weights.

        Raises:
            ValueError: they are of another model; says which tensor differs.
        """
        named = dict(self.model.named_parameters())
        for name, value in named.items():
            if getattr(tensors.get(f"model/{name}"), "shape", None) != value.shape:
                raise ValueError(f"{name} differs")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(tensors[f"model/{name}"])
        states = {}
        for i, name in enumerate(named):
            states[i] = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {i: s for i, s in states.items() if s}, "param_groups": groups})
        if self.ema is not None:
            shadows = [tensors.get(f"ema/{name}", tensors[f"model/{name}"]) for name in named]
            self.ema.shadow_params = [value.to(self.parameters[0].device).clone() for value in shadows]
            self.ema.optimization_step = step
