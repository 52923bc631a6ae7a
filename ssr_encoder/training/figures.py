"""What a run says of itself: losses by band of timesteps and by scale, gradients, memory."""

from __future__ import annotations

import resource

import torch
from accelerate import Accelerator

from .features import Features
from .objective import Losses

BANDS = 4  # of timesteps


class Figures:
    """Means over good samples since the last report: by band of timesteps, by scale. Summed on the device."""

    def __init__(self, accelerator: Accelerator, scales: int, timesteps: int):
        self.accelerator, self.scales, self.timesteps = accelerator, scales, timesteps
        self._clear()

    def _clear(self) -> None:
        device = self.accelerator.device
        self.bands = torch.zeros(2, BANDS, device=device, dtype=torch.float64)
        self.reg = torch.zeros(2, self.scales, device=device, dtype=torch.float64)
        self.loss = self.norm = 0.0
        self.steps = 0

    def add(self, found: Losses, features: Features) -> None:
        band = (found.timesteps * BANDS // self.timesteps).clamp(max=BANDS - 1)
        weight = features.weight.double()
        self.bands[0].index_add_(0, band, found.denoising.double() * weight)
        self.bands[1].index_add_(0, band, weight)
        weight = weight * features.asked.double()
        self.reg[0] += (found.regularisation.double() * weight[:, None]).sum(0)
        self.reg[1] += weight.sum()

    def count(self, loss: float, norm: float) -> None:
        self.loss, self.norm, self.steps = self.loss + loss, self.norm + norm, self.steps + 1

    def take(self) -> dict[str, float]:
        bands, reg = (self.accelerator.reduce(x, "sum") for x in (self.bands, self.reg))
        figures = {"loss": self.loss / self.steps, "gradient_norm": self.norm / self.steps}
        figures |= {"denoising": float(bands[0].sum() / bands[1].sum().clamp(min=1))}
        figures |= {"regularisation": float(reg[0].sum() / reg[1].sum().clamp(min=1))}
        for i, (total, count) in enumerate(bands.t().tolist()):
            if count:
                figures[f"denoising/band{i}"] = total / count
        for k, (total, count) in enumerate(reg.t().tolist()):
            if count:
                figures[f"regularisation/scale{k}"] = total / count
        self._clear()
        return figures


def peak_memory(device: torch.device) -> float:
    """In GB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
