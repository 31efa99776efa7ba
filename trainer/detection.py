"""Detection of a label in a patient: the curve of true and false alarms, and two numbers of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def roc_points(present: NDArray[np.bool_], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ROC curve: float64 (n, 3), rows of false positive rate, true positive rate, threshold.

    From (0, 0, inf) on, one row for each different score, highest first. A patient is called positive at or above a
    threshold; equal scores change sides together.

    Args:
        present: bool (patients,), with at least one of each kind.
        score: float (patients,), larger where the label is more probable.

    """
    order = np.argsort(-score, kind="stable")
    present, score = present[order], score[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    true, false = np.cumsum(present)[last], np.cumsum(~present)[last]
    rows = np.stack([false / false[-1], true / true[-1], score[last]], axis=1)
    return np.concatenate([[[0.0, 0.0, np.inf]], rows])


def roc_auc(present: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative, ties counting half."""
    false, true, _ = roc_points(present, score).T
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))


def average_precision(present: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Return the sum over thresholds of precision times the recall that is gained, without interpolation."""
    order = np.argsort(-score, kind="stable")
    present, score = present[order], score[order]
    last = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    true = np.cumsum(present)[last]
    gained = np.diff(true, prepend=0) / true[-1]
    return float(np.sum(gained * true / (last + 1)))


def describe_detection(
    present: Sequence[bool], called: Sequence[bool], score: Sequence[float], *, by: str
) -> dict[str, Any]:
    """Return what scores.json says of a label's detection; null where a kind of patient is missing.

    Args:
        present: whether each patient's reference has the label.
        called: whether each patient's prediction has it.
        score: by what patients are ranked.
        by: what the score is, "probability" or "prediction_ml".

    """
    truth, labelled, scores = np.array(present, bool), np.array(called, bool), np.array(score, np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    both = positives > 0 and negatives > 0
    return {
        "score": by,
        "patients_with": positives,
        "patients_without": negatives,
        "sensitivity": float(labelled[truth].mean()) if positives else None,
        "specificity": float((~labelled[~truth]).mean()) if negatives else None,
        "roc_auc": roc_auc(truth, scores) if both else None,
        "average_precision": average_precision(truth, scores) if both else None,
        "roc": roc_points(truth, scores)[:, :2].tolist() if both else None,
    }
