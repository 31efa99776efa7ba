"""Detection in patients, against answers on paper and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from trainer.detection import average_precision, describe_detection, roc_auc, roc_points


def test_four_patients_on_paper() -> None:
    present, score = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    # of four pairs of a patient with and one without, three are in the right order
    assert roc_auc(present, score) == pytest.approx(3 / 4)
    # the first is found at precision 1, the second at 2/3
    assert average_precision(present, score) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_points(present, score)[:, :2].tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]


def test_equal_scores_are_half_right() -> None:
    present = np.array([True, False, True, False])
    assert roc_auc(present, np.ones(4)) == pytest.approx(0.5)
    assert average_precision(present, np.ones(4)) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(30))
def test_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    present = rng.random(count) < 0.5
    present[:2] = True, False
    score = np.round(rng.random(count), int(rng.integers(1, 4)))  # with ties
    assert roc_auc(present, score) == pytest.approx(roc_auc_score(present, score))
    assert average_precision(present, score) == pytest.approx(average_precision_score(present, score))
    false, true, _ = roc_curve(present, score, drop_intermediate=False)
    np.testing.assert_allclose(roc_points(present, score)[:, :2], np.stack([false, true], axis=1))


def test_one_kind_of_patient_has_no_curve() -> None:
    told = describe_detection([True, True], [True, False], [0.9, 0.2], by="probability")
    assert told["sensitivity"] == 0.5
    assert told["specificity"] is told["roc_auc"] is told["average_precision"] is told["roc"] is None
    told = describe_detection([False], [False], [0.0], by="prediction_ml")
    assert (told["sensitivity"], told["specificity"]) == (None, 1.0)
