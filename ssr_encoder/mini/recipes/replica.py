"""What learns, in bfloat16, and its step as one CUDA graph.

Autocast casts every weight in every step and keeps the norms in float32, and Python needs longer to launch the 3400
kernels of a step than a GPU to run them (docs/log.md, session 18). So forward and backward passes go through a copy of
the model that is bfloat16 throughout, recorded once and then launched as a whole; weights, optimiser and averages stay
float32 (mixed precision with master weights: Micikevicius et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...errors import SSRError


class Replica:
    """A bfloat16 copy of a module.

    Args:
        copy: takes the values of ``module``'s parameters, in their order, at every step.
    """

    def __init__(self, copy: nn.Module, module: nn.Module):
        self.copy = copy.to(torch.bfloat16)
        self.masters = [p for p in module.parameters() if p.requires_grad]
        self.halves = []
        with torch.no_grad():
            for half, master in zip(self.copy.parameters(), module.parameters(), strict=True):
                half.copy_(master)
                half.requires_grad_(master.requires_grad)
                self.halves += [half] * master.requires_grad
        self.gradients = [torch.zeros_like(master) for master in self.masters]
        self.graph: torch.cuda.CUDAGraph | None = None

    def backward(self, loss_of: Callable, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Learn from a batch: the module's parameters have the gradients afterwards.

        Args:
            loss_of: from a batch and the copy to a loss and figures. It must not wait for the device.
            batch: dictionary of tensors and dictionaries, of the same sizes at every step.

        Raises:
            SSRError: the step cannot be recorded.
        """
        if self.masters[0].device.type != "cuda":
            loss, figures = self._learn(loss_of, batch)
        else:
            if self.graph is None:
                self._record(loss_of, batch)
            _fill(self.batch, batch)
            self.graph.replay()
            loss, figures = self.loss.clone(), {name: value.clone() for name, value in self.figures.items()}
        for master, gradient in zip(self.masters, self.gradients, strict=True):
            master.grad = gradient
        return loss, figures

    def _learn(self, loss_of: Callable, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        for half in self.halves:
            half.grad = None
        with torch.no_grad():
            torch._foreach_copy_(self.halves, self.masters)
        loss, figures = loss_of(batch, self.copy)
        loss.backward()
        with torch.no_grad():
            torch._foreach_copy_(self.gradients, [half.grad for half in self.halves])
        return loss.detach(), {name: value.detach() for name, value in figures.items()}

    def _record(self, loss_of: Callable, batch: dict) -> None:
        """Run the step thrice, as kernels are chosen and compiled in the first ones, then record it. All on one stream
        beside the default one, which a recording must not wait for."""
        self.batch = _copied(batch)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._learn(loss_of, self.batch)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self.loss, self.figures = self._learn(loss_of, self.batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise SSRError(f"the step cannot be recorded ({str(error).splitlines()[0]}); give --no-graph") from error
        self.graph = graph


def _copied(batch: dict) -> dict:
    return {key: _copied(x) if isinstance(x, dict) else x.clone() for key, x in batch.items()}


def _fill(kept: dict, batch: dict) -> None:
    for key, value in batch.items():
        if isinstance(value, dict):
            _fill(kept[key], value)
        else:
            kept[key].copy_(value)
