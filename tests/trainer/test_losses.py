from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainer.losses import DiceCrossEntropy, SoftDice, WeightedCrossEntropy

WEIGHTS = (1.0, 10.0, 50.0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 3, (2, 4, 5, 6), generator=generator)
    return logits, target


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def test_weighted_cross_entropy_is_equation_1_averaged_over_all_voxels(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, target = batch
    x, total = logits.numpy(), 0.0
    for n, z, y, i in np.ndindex(*target.shape):
        label = int(target[n, z, y, i])
        voxel = x[n, :, z, y, i]
        total += WEIGHTS[label] * (-voxel[label] + np.log(np.exp(voxel).sum()))
    loss = WeightedCrossEntropy(WEIGHTS).double()(logits, target)
    assert float(loss) == pytest.approx(total / target.numel(), rel=1e-12)
    by_weight = torch.nn.functional.cross_entropy(logits, target, torch.tensor(WEIGHTS).double())
    assert float(loss) != pytest.approx(float(by_weight), rel=0.1)


def test_soft_dice_is_its_formula(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, target = batch
    p, t = softmax(logits.numpy()), target.numpy()
    dice = []
    for label in (1, 2):
        overlap = p[:, label][t == label].sum()
        dice.append((2 * overlap + 1) / (p[:, label].sum() + (t == label).sum() + 1))
    assert float(SoftDice()(logits, target)) == pytest.approx(1 - np.mean(dice), rel=1e-5)


def test_a_perfect_prediction_costs_nothing(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, target = batch
    logits = 50.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    assert float(DiceCrossEntropy((1.0, 1.0, 1.0)).double()(logits, target)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [WeightedCrossEntropy(WEIGHTS), DiceCrossEntropy((1.0, 1.0, 1.0))])
def test_gradients_agree_with_finite_differences(
    loss: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.Tensor, "float", lambda self: self
    )  # soft Dice works in float32; the check needs float64
    logits, target = batch[0][:, :, :2, :2, :2].clone().requires_grad_(), batch[1][:, :2, :2, :2]
    assert torch.autograd.gradcheck(lambda x: loss.double()(x, target), (logits,))
