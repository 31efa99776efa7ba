"""What an epoch has seen so far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.history import EpochScores
from trainer.metrics import paper_dice

T = TypeVar("T")


@dataclass
class Tally:
    """Each batch's loss and confusion matrix, left on the device, and the time spent waiting for data.

    A batch whose loss is not finite is counted among `batches` and `skipped`, and has no scores.
    """

    batches: int = 0
    skipped: int = 0
    losses: list[Tensor] = field(default_factory=list)
    confusions: list[Tensor] = field(default_factory=list)
    waited_s: float = 0.0
    spent_s: float = 0.0
    # What the first `_summed` batches add up to: a status each second must not add up the whole epoch anew.
    _summed: int = field(default=0, init=False)
    _loss: float = field(default=0.0, init=False)
    _confusion: NDArray[np.int64] | int = field(default=0, init=False)

    def waiting_for(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches and count the time that each is waited for."""
        source = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(source)
            except StopIteration:
                return
            self.waited_s += time.monotonic() - asked
            yield batch

    def scores(self) -> EpochScores:
        """Reduce to means; this is where results leave the device."""
        confusions: NDArray[np.int64] = torch.stack(self.confusions).cpu().numpy()
        return EpochScores.of(torch.stack(self.losses).cpu().numpy(), confusions)

    def voxels_per_s(self) -> float:
        """Return the rate of all processes together."""
        self._add_up()
        return float(np.sum(self._confusion)) / self.spent_s if self.spent_s else 0.0

    def describe(self, labels: Sequence[str]) -> str:
        """Return loss, pooled Dice of each foreground label and voxels/s so far, for a progress bar."""
        if not self.losses:
            return "no batch yet"
        self._add_up()
        dice = paper_dice(np.asarray(self._confusion))
        scores = ", ".join(f"{name} {value:.2f}" for name, value in zip(labels[1:], dice[1:], strict=True))
        return (
            f"loss {self._loss / self._summed:.4f}, Dice {scores}, {self.voxels_per_s() / 1e6:.2f} Mvoxel/s"
        )

    def _add_up(self) -> None:
        if len(self.losses) > self._summed:
            self._loss += float(torch.stack(self.losses[self._summed :]).sum())
            new: NDArray[np.int64] = torch.stack(self.confusions[self._summed :]).sum(dim=0).cpu().numpy()
            self._confusion = self._confusion + new
            self._summed = len(self.losses)

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors for a checkpoint."""
        return {
            "batches": self.batches,
            "skipped": self.skipped,
            "losses": self.losses,
            "confusions": self.confusions,
            "waited_s": self.waited_s,
            "spent_s": self.spent_s,
        }
