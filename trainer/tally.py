"""What an epoch has seen so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.history import EpochScores
from trainer.metrics import paper_dice


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

    def scores(self) -> EpochScores:
        """Reduce to means; this is where results leave the device."""
        confusions: NDArray[np.int64] = torch.stack(self.confusions).cpu().numpy()
        return EpochScores.of(torch.stack(self.losses).cpu().numpy(), confusions)

    def voxels_per_s(self) -> float:
        """Return the rate of all processes together."""
        voxels = sum(int(confusion.sum()) for confusion in self.confusions)
        return voxels / self.spent_s if self.spent_s else 0.0

    def describe(self, labels: Sequence[str]) -> str:
        """Return loss, pooled Dice of each foreground label and voxels/s so far, for a progress bar."""
        if not self.losses:
            return "no batch yet"
        loss = float(torch.stack(self.losses).mean())
        dice = paper_dice(torch.stack(self.confusions).sum(dim=0).cpu().numpy())
        scores = ", ".join(f"{name} {value:.2f}" for name, value in zip(labels[1:], dice[1:], strict=True))
        return f"loss {loss:.4f}, Dice {scores}, {self.voxels_per_s() / 1e6:.2f} Mvoxel/s"

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
