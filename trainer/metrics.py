"""Overlap scores, all computed from one confusion matrix: Dice, precision, sensitivity, volumes.

A confusion matrix is int64 (K, K): row = reference label, column = predicted label, entry = number of voxels.
Matrices of several patches or cases add up to the pooled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

VOXELS_AT_ONCE = (
    1 << 20
)  # bincount widens its input to int64: 8 MB instead of eight bytes for every voxel of a CT
SMALLEST_DENOMINATOR = 1e-7


def confusion_matrix(
    reference: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    classes: int,
    *,
    out: Counts | None = None,
) -> Counts:
    """Count the voxels of each (reference, predicted) pair of labels.

    Args:
        reference: label array of any shape, values 0 to classes - 1.
        prediction: label array of the same shape, values 0 to classes - 1.
        classes: K, the number of labels with the background.
        out: an int64 (K, K) matrix to add to; a new one otherwise.

    Returns:
        `out`, or the new matrix.

    Raises:
        ValueError: when the shapes differ or a value is outside the range.

    """
    if reference.shape != prediction.shape:
        raise ValueError(
            f"prediction must have the reference's shape {reference.shape}, got {prediction.shape}"
        )
    if out is None:
        out = np.zeros((classes, classes), dtype=np.int64)
    elif out.shape != (classes, classes) or out.dtype != np.int64:
        raise ValueError(f"out must be int64 of shape {(classes, classes)}, got {out.dtype} of {out.shape}")
    for name, labels in (("reference", reference), ("prediction", prediction)):
        if labels.size and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"{name} must lie in 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    reference, prediction = reference.reshape(-1), prediction.reshape(-1)
    for start in range(0, reference.size, VOXELS_AT_ONCE):
        part = slice(start, start + VOXELS_AT_ONCE)
        pairs = reference[part].astype(np.int64)
        pairs *= classes
        pairs += prediction[part]
        out += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return out


def paper_dice(confusion: Counts) -> npt.NDArray[np.float64]:
    """Return Dice per class as section 4.3 of the paper logs it in training: an absent class scores 0.

    2 |A and B| / (|A| + |B|), where the denominator has an extremely small lower bound. A batch without a
    class scores 0 for it even when nothing was predicted, which is why the mean over batches of two patches
    (0.43 for the paper's pancreas) lies far below the Dice of the summed matrix (0.63).

    Args:
        confusion: (..., K, K), one matrix a batch, or the sum of many.

    Returns:
        float64 (..., K) in [0, 1].

    """
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.asarray(2.0 * both / np.maximum(either, SMALLEST_DENOMINATOR))


@dataclass(frozen=True)
class Overlap:
    """How much of one structure the reference and the prediction share, in voxels."""

    both: int
    reference: int
    predicted: int

    @classmethod
    def of(cls, confusion: Counts, values: Sequence[int]) -> Overlap:
        """Read the structure made of the labels `values` (one label, or a union) off a confusion matrix."""
        chosen = list(values)
        return cls(
            both=int(confusion[np.ix_(chosen, chosen)].sum()),
            reference=int(confusion[chosen, :].sum()),
            predicted=int(confusion[:, chosen].sum()),
        )

    @property
    def dice(self) -> float | None:
        """2 |A and B| / (|A| + |B|), section 4.3 of the paper; None when the reference lacks the structure.

        That is the leaderboard's rule: such a case is missing from the mean, while a structure that the
        reference has and the prediction lacks counts 0.
        """
        return None if self.reference == 0 else 2.0 * self.both / (self.reference + self.predicted)

    @property
    def precision(self) -> float | None:
        """The share of the predicted voxels that is right; None when nothing was predicted."""
        return None if self.predicted == 0 else self.both / self.predicted

    @property
    def sensitivity(self) -> float | None:
        """The share of the reference's voxels that was found; None when the reference has none."""
        return None if self.reference == 0 else self.both / self.reference
