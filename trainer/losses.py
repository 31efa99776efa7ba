"""Losses over logits (n, K, z, y, x) and integer targets (n, z, y, x)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class WeightedCrossEntropy(nn.Module):
    """The mean over all voxels of w_C times the cross entropy (paper, section 4.2.1, equation 1).

    `torch.nn.CrossEntropyLoss(weight=…)` divides by the sum of the targets' weights instead of the number of
    voxels, so that its value and gradient depend on how much tumour a batch holds; the paper's text does not.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        return functional.cross_entropy(logits, target, weight=self.weights, reduction="none").mean()


class SoftDice(nn.Module):
    """One minus the mean soft Dice of the foreground classes, summed over the batch.

    Soft Dice is (2 Σ p t + s) / (Σ p + Σ t + s), that of Isensee et al. 2017 but for s = `smooth`, with which a class
    that is neither there nor predicted scores 1. Sums run over the whole batch, so that a class absent from one
    patch does not drive its probability to zero by itself.

    Args:
        smooth: s.
        of_each_patch: the mean of the Dice of each patch and class that it holds, so that a small lesion counts as
            much as a large one; the thought of the blob loss (Kofler et al., IPMI 2023) where a patch has one lesion.
            A class that a patch lacks is left to the cross entropy.

    """

    def __init__(self, smooth: float = 1.0, *, of_each_patch: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        self.of_each_patch = of_each_patch

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        wide = torch.promote_types(logits.dtype, torch.float32)
        probabilities = torch.softmax(logits, dim=1, dtype=wide)
        one_hot = functional.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
        voxels = (2, 3, 4) if self.of_each_patch else (0, 2, 3, 4)
        overlap, held = (probabilities * one_hot).sum(voxels), one_hot.sum(voxels)
        dice = (2 * overlap + self.smooth) / (probabilities.sum(voxels) + held + self.smooth)
        if not self.of_each_patch:
            return 1 - dice[1:].mean()
        counts = (held[:, 1:] > 0).to(dice.dtype)
        total: Tensor = ((1 - dice[:, 1:]) * counts).sum() / counts.sum().clamp_min(1)
        return total


class TopKCrossEntropy(nn.Module):
    """The mean of the largest voxel losses of equation (1), over a share of all voxels (paper, section 4.2.2).

    The share is exact, whatever the batch, and voxels that tie at its edge take equal parts of what is left of it,
    so that value and gradient do not depend on an order. The paper has equal weights; its search tried others.

    Args:
        weights: w_C of equation (1).
        share: of all voxels, in (0, 1]; 0.05 in the paper. At least one voxel counts.

    """

    weights: Tensor

    def __init__(self, weights: Sequence[float], share: float = 0.05) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.share = share

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        losses = functional.cross_entropy(logits, target, weight=self.weights, reduction="none").flatten()
        count = max(1, round(self.share * losses.numel()))
        edge = losses.detach().topk(count, sorted=False).values.min()
        above, at_edge = losses > edge, losses == edge
        rest = (count - above.sum()) / at_edge.sum()
        total: Tensor = (losses * above).sum() + rest * (losses * at_edge).sum()
        return total / count


class DiceCrossEntropy(nn.Module):
    """The sum of `SoftDice` and `WeightedCrossEntropy`."""

    def __init__(self, weights: Sequence[float], *, of_each_patch: bool = False) -> None:
        super().__init__()
        self.dice = SoftDice(of_each_patch=of_each_patch)
        self.cross_entropy = WeightedCrossEntropy(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        total: Tensor = self.dice(logits, target) + self.cross_entropy(logits, target)
        return total


class DiceTopK(nn.Module):
    """The sum of `SoftDice` and `TopKCrossEntropy`."""

    def __init__(self, weights: Sequence[float], share: float = 0.05, *, of_each_patch: bool = False) -> None:
        super().__init__()
        self.dice = SoftDice(of_each_patch=of_each_patch)
        self.top_k = TopKCrossEntropy(weights, share)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar."""
        total: Tensor = self.dice(logits, target) + self.top_k(logits, target)
        return total


class DeepSupervision(nn.Module):
    """One loss on the logits of every scale, each coarser one with half the weight; the weights sum to one.

    As in nnU-Net (Isensee et al., Nature Methods 18, 2021); the network of the paper sums its scales and needs none.
    A coarse target takes one voxel of each of its cells, so that it keeps to whole labels.

    Args:
        loss: of one scale.

    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, scales: Sequence[Tensor], target: Tensor) -> Tensor:
        """Return a scalar; `scales` are logits (n, K, …) from the size of `target` downwards."""
        weights = [0.5**level for level in range(len(scales))]
        losses = [
            weight * self.loss(logits, shrunk(target, logits))
            for weight, logits in zip(weights, scales, strict=True)
        ]
        return torch.stack(losses).sum() / math.fsum(weights)


def shrunk(target: Tensor, logits: Tensor) -> Tensor:
    """Return labels (n, …) on the grid of `logits` (n, K, …), of whose sizes those of `target` are multiples."""
    steps = [have // want for have, want in zip(target.shape[1:], logits.shape[2:], strict=True)]
    return target[(slice(None), *(slice(step // 2, None, step) for step in steps))]
