"""A batch that threads share: on the CPU a step is many small operations, which two cores working on one after the
other do not speed up twofold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn


class Streams:
    """``n`` threads, which start with the first batch and have the cores evenly."""

    def __init__(self, n: int):
        self.n = n
        self._threads: ThreadPoolExecutor | None = None

    def backward(
        self, loss_of: Callable, batch: dict, rows: int, parameters: list[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Learn from a part of the batch in each thread.

        Args:
            loss_of: from a part of ``batch`` to a loss and figures.
            rows: of every tensor in ``batch``.
            parameters: to which the gradients are added, in the parts' order, so that runs stay repeatable.

        Returns:
            The means of the parts' losses and figures, without gradients.
        """
        if self._threads is None:
            share = max(1, torch.get_num_threads() // self.n)
            self._threads = ThreadPoolExecutor(self.n, initializer=torch.set_num_threads, initargs=(share,))
        parts = [part_of(batch, some) for some in torch.arange(rows).chunk(self.n)]

        def learn(part):
            loss, figures = loss_of(part)
            return torch.autograd.grad(loss / len(parts), parameters, allow_unused=True), loss, figures

        results = list(self._threads.map(learn, parts))
        for gradients, _, _ in results:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        figures = {key: _mean([found[key] for _, _, found in results]) for key in results[0][2]}
        return _mean([loss for _, loss, _ in results]), figures


def part_of(batch, rows: Tensor):
    """Some rows of every tensor in a dictionary of them, which may hold dictionaries."""
    return {key: part_of(value, rows) if isinstance(value, dict) else value[rows] for key, value in batch.items()}


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack([value.detach() for value in values]).mean(0)
