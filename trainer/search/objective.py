"""What a search makes large: one number of a trial's curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Scores = Mapping[str, float | None]


def foreground_dice(row: Scores, labels: Sequence[str]) -> float:
    """Return the mean over the foreground labels of the pooled validation Dice of one epoch.

    Pooled: of the voxels of all validation patches at once (section 5 of the paper), since thirty patches are too few
    for a mean of single ones. The paper says "the dice scores of these networks on pancreas and cancer tissue".
    """
    values = [row[f"val_pooled_{name}"] for name in labels[1:]]
    return sum(value or 0.0 for value in values) / len(values)


def objective(curve: Sequence[Scores], labels: Sequence[str]) -> float:
    """Return the score of the best epoch so far, that whose network RUN/bundle holds."""
    return max(foreground_dice(row, labels) for row in curve)
