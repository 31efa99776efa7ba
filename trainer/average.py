"""A moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """An exponential moving average of the parameters, one update a step.

    Step n takes the factor min(decay, (1 + n) / (10 + n)), so that a short training is not ruled by its random start.
    The network's own parameters are swapped for the average and back, because a copy of the network would not take
    along what `choose_precision` did to its layers.

    Args:
        network: whose parameters are averaged.
        decay: in (0, 1).

    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.steps = 0
        self.weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, weight in self.network.named_parameters():
            self.weights[name].lerp_(weight.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the average for the time of a with block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.network.named_parameters():
            own = weight.detach().clone()
            weight.copy_(self.weights[name])
            self.weights[name] = own

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self.steps, "weights": self.weights}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.steps, self.weights = state["steps"], state["weights"]
