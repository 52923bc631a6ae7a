"""Forward and backward pass as one CUDA graph: a step of this small model is over 3000 kernels, and a GPU is done with
them sooner than Python has launched them one by one (137 ms a step of 512 on an H200, docs/log.md)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

WARM = 3  # steps before the capture: they compile, and choose among the ways to convolve


class GraphedBackward:
    """The gradients of a loss, captured once and then replayed on every further batch.

    Args:
        loss_of: from a batch to a loss and figures; without random numbers, and without waiting for the device.
        parameters: what learns, the same tensors all along.
    """

    def __init__(self, loss_of: Callable, parameters: list[nn.Parameter]):
        self.loss_of, self.parameters = loss_of, parameters
        self.batch: dict = {}
        self.seen, self.graph = 0, None

    def backward(self, batch: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Put the gradients of a batch in place of whatever was there.

        Args:
            batch: tensors, or dictionaries of them, of the same shapes every time.

        Returns:
            The loss and figures, without gradients; the next call writes over them.
        """
        if not self.batch:
            self.batch = _copy(batch)
        _fill(self.batch, batch)
        if self.graph is None and self.seen < WARM:
            self.seen += 1
            return self._run_beside()
        if self.graph is None:
            self._capture()
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.results

    def _learn(self) -> tuple[Tensor, dict[str, Tensor]]:
        for parameter in self.parameters:
            parameter.grad = None
        loss, figures = self.loss_of(self.batch)
        loss.backward()
        return loss.detach(), figures

    def _run_beside(self) -> tuple[Tensor, dict[str, Tensor]]:
        """On a stream of its own, as the capture will be."""
        now, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            results = self._learn()
        now.wait_stream(beside)
        return results

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.results = self._learn()
        self.gradients = [parameter.grad for parameter in self.parameters]
        self.graph = graph


def _copy(batch):
    return {key: _copy(value) if isinstance(value, dict) else value.clone() for key, value in batch.items()}


def _fill(batch: dict, values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _fill(batch[key], value)
        else:
            batch[key].copy_(value)
