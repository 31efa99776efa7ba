"""Losses over logits (n, K, z, y, x) and integer targets (n, z, y, x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class WeightedCrossEntropy(nn.Module):
    """The mean over all voxels of w_C times the cross entropy (paper, section 4.2.1, equation 1).

    `torch.nn.CrossEntropyLoss(weight=…)` divides by the sum of the targets' weights instead of the number of
    voxels, so that its value and gradient depend on how much tumour a batch holds; the paper's text does not.
    """

    weights: Tensor

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        return functional.cross_entropy(logits, target, weight=self.weights, reduction="none").mean()


class SoftDice(nn.Module):
    """One minus the mean soft Dice of the foreground classes, summed over the batch.

    Soft Dice is (2 Σ p t + s) / (Σ p + Σ t + s), that of Isensee et al. 2017 but for s = `smooth`, with which a class
    that is neither there nor predicted scores 1. Sums run over the whole batch, so that a class absent from one
    patch does not drive its probability to zero by itself.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        probabilities = torch.softmax(logits.float(), dim=1)
        one_hot = functional.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
        voxels = (0, 2, 3, 4)
        overlap = (probabilities * one_hot).sum(voxels)
        total = probabilities.sum(voxels) + one_hot.sum(voxels)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        return 1 - dice[1:].mean()


class DiceCrossEntropy(nn.Module):
    """The sum of `SoftDice` and `WeightedCrossEntropy`."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.dice = SoftDice()
        self.cross_entropy = WeightedCrossEntropy(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        total: Tensor = self.dice(logits, target) + self.cross_entropy(logits, target)
        return total
