from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trainer.losses import (
    DeepSupervision,
    DiceCrossEntropy,
    DiceTopK,
    SoftDice,
    TopKCrossEntropy,
    WeightedCrossEntropy,
)

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


def test_soft_dice_of_each_patch_counts_what_the_patch_holds(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, target = batch[0], batch[1].clone()
    target[0][target[0] == 2] = 0  # the first patch holds one label, the second both
    p, t = softmax(logits.numpy()), target.numpy()
    costs = [
        1 - (2 * p[n, k][t[n] == k].sum() + 1) / (p[n, k].sum() + (t[n] == k).sum() + 1)
        for n, k in ((0, 1), (1, 1), (1, 2))
    ]
    assert float(SoftDice(of_each_patch=True)(logits, target)) == pytest.approx(np.mean(costs), rel=1e-5)
    assert float(SoftDice(of_each_patch=True)(logits, torch.zeros_like(target))) == 0


def test_a_small_lesion_costs_as_much_as_a_large_one_in_dice_of_each_patch() -> None:
    target = torch.zeros(2, 8, 8, 8, dtype=torch.long)
    target[0, 0, 0, :2], target[1, :6] = 1, 1
    perfect = 50.0 * torch.nn.functional.one_hot(target, 2).movedim(-1, 1).double()
    missed = [perfect.clone(), perfect.clone()]
    for patch in (0, 1):
        missed[patch][patch, 0], missed[patch][patch, 1] = 50.0, -50.0
    alike = [float(SoftDice(1e-3, of_each_patch=True)(logits, target)) for logits in missed]
    assert alike == pytest.approx([0.5, 0.5], abs=1e-3)
    pooled = [float(SoftDice(1e-3)(logits, target)) for logits in missed]
    assert pooled[0] < 0.01 < 0.9 < pooled[1]


def test_a_perfect_prediction_costs_nothing(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, target = batch
    logits = 50.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    assert float(DiceCrossEntropy((1.0, 1.0, 1.0)).double()(logits, target)) == pytest.approx(0, abs=1e-6)


def voxel_losses(logits: NDArray[np.float64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return equation (1) of every voxel by NumPy, flat."""
    chosen = np.take_along_axis(softmax(logits), target[:, np.newaxis], axis=1)[:, 0]
    result: NDArray[np.float64] = (-np.log(chosen) * np.take(WEIGHTS, target)).ravel()
    return result


@pytest.mark.parametrize("share", [1e-9, 0.05, 0.5, 1.0])
def test_top_k_is_the_mean_of_the_largest_losses(
    batch: tuple[torch.Tensor, torch.Tensor], share: float
) -> None:
    logits, target = batch
    ordered = np.sort(voxel_losses(logits.numpy(), target.numpy()))[::-1]
    count = max(1, round(share * len(ordered)))
    loss = TopKCrossEntropy(WEIGHTS, share).double()(logits, target)
    assert float(loss) == pytest.approx(ordered[:count].mean(), rel=1e-12)


def test_top_k_of_all_voxels_is_the_weighted_cross_entropy(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    everything = TopKCrossEntropy(WEIGHTS, 1.0).double()(*batch)
    assert float(everything) == pytest.approx(
        float(WeightedCrossEntropy(WEIGHTS).double()(*batch)), rel=1e-12
    )


def test_only_the_largest_losses_get_a_gradient_and_ties_share_theirs() -> None:
    logits = torch.zeros(1, 2, 1, 1, 10)
    logits[0, 0, 0, 0, :2] = torch.tensor([-3.0, -2.0])  # the two voxels that are furthest from label 0
    logits.requires_grad_()
    TopKCrossEntropy((1.0, 1.0), 0.4)(logits, torch.zeros(1, 1, 1, 10, dtype=torch.long)).backward()
    assert logits.grad is not None
    gradient = logits.grad[0, 0, 0, 0].abs().numpy()
    # two whole voxels, and the other two of four shared by the eight that tie
    expected = [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-2)), *[0.5 * 2 / 8] * 8]
    np.testing.assert_allclose(gradient, np.array(expected) / 4, rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        TopKCrossEntropy(WEIGHTS, share)


def top_k(losses: NDArray[np.float64], share: float) -> float:
    count = max(1, round(share * losses.size))
    return float(np.sort(losses.reshape(-1))[::-1][:count].mean())


def soft_dice(logits: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    p = softmax(logits)
    dice = [
        (2 * p[:, label][target == label].sum() + 1) / (p[:, label].sum() + (target == label).sum() + 1)
        for label in range(1, p.shape[1])
    ]
    return float(1 - np.mean(dice))


def test_sums_of_losses_are_sums(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, t = batch[0].numpy(), batch[1].numpy()
    losses = voxel_losses(x, t)
    assert float(DiceCrossEntropy(WEIGHTS).double()(*batch)) == pytest.approx(
        soft_dice(x, t) + losses.mean(), rel=1e-12
    )
    assert float(DiceTopK(WEIGHTS, 0.1).double()(*batch)) == pytest.approx(
        soft_dice(x, t) + top_k(losses, 0.1), rel=1e-12
    )


def test_deep_supervision_weighs_the_scales() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (2, 8, 8, 4), generator=generator)
    scales = [
        torch.randn(2, 3, 8 // n, 8 // n, 4 // n, generator=generator, dtype=torch.float64) for n in (1, 2, 4)
    ]
    t = target.numpy()
    parts = [
        voxel_losses(logits.numpy(), reference).mean()
        for logits, reference in zip(scales, (t, t[:, 1::2, 1::2, 1::2], t[:, 2::4, 2::4, 2::4]), strict=True)
    ]
    loss = DeepSupervision(WeightedCrossEntropy(WEIGHTS)).double()
    assert float(loss(scales, target)) == pytest.approx(np.dot(parts, (4 / 7, 2 / 7, 1 / 7)), rel=1e-12)
    assert float(loss(scales[:1], target)) == pytest.approx(parts[0], rel=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        WeightedCrossEntropy(WEIGHTS),
        TopKCrossEntropy(WEIGHTS, 0.3),
        SoftDice(),
        SoftDice(of_each_patch=True),
        DiceCrossEntropy(WEIGHTS),
        DiceTopK(WEIGHTS, 0.3),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_gradients_agree_with_finite_differences(
    loss: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, target = batch[0][:, :, :2, :2, :2].clone().requires_grad_(), batch[1][:, :2, :2, :2]
    assert torch.autograd.gradcheck(lambda x: loss.double()(x, target), (logits,))


def test_gradients_of_deep_supervision_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, 3, (1, 4, 4, 4), generator=generator)
    scales = [
        torch.randn(1, 3, n, n, n, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (4, 2)
    ]
    loss = DeepSupervision(DiceTopK(WEIGHTS, 0.3)).double()
    assert torch.autograd.gradcheck(lambda *inputs: loss(inputs, target), tuple(scales))
