"""What a difference or a mean of few cases is worth: bootstrap intervals and a test of paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 9_999
SEED = 0
CONFIDENCE = 0.95
FEWEST_CASES = 3  # resamples of two cases are three numbers
AT_ONCE = 1_000


def interval_of_mean(values: Sequence[float] | NDArray[np.float64]) -> list[float] | None:
    """Return the 95 % percentile bootstrap interval of the mean over cases; None for fewer than three.

    The resamples are drawn with a fixed seed: the same cases give the same interval.
    """
    from scipy.stats import bootstrap  # takes a second to load

    if len(values) < FEWEST_CASES:
        return None
    found = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=AT_ONCE,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",  # BCa has no answer where all cases are equal
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return [float(found.low), float(found.high)]


@dataclass(frozen=True)
class Paired:
    """Differences of the same cases under two methods.

    Attributes:
        cases: how many both have.
        mean: of the differences.
        interval: of that mean, 95 %, from a bootstrap over cases; None for fewer than three.
        p: of a mean that far from 0, either way, if each difference could as well have the other sign.
        p_wilcoxon: of the signed-rank test, which asks for the ranks instead of the mean.

    """

    cases: int
    mean: float
    interval: list[float] | None
    p: float
    p_wilcoxon: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> Paired:
        """Test differences (cases,), of which there is at least one.

        The sign-flip test is exact where 13 differences at most are not 0, else 9,999 draws of a fixed seed.
        """
        from scipy.stats import wilcoxon

        values = np.asarray(differences, np.float64)
        if not values.any():
            return cls(len(values), 0.0, interval_of_mean(values), 1.0, 1.0)
        if len(values) == 1:
            return cls(1, float(values[0]), None, 1.0, 1.0)
        ranked = wilcoxon(values, zero_method="zsplit", method="approx" if len(values) > 10 else "auto")
        return cls(
            cases=len(values),
            mean=float(values.mean()),
            interval=interval_of_mean(values),
            p=_sign_flip_p(values),
            p_wilcoxon=float(ranked.pvalue),
        )


def _sign_flip_p(values: NDArray[np.float64]) -> float:
    """Return how often the mean of values with random signs is as far from 0 as theirs."""
    values = values[values != 0.0]  # the sign of 0 changes nothing
    count = len(values)
    if 2**count <= RESAMPLES:
        signs = 1 - 2 * ((np.arange(2**count)[:, np.newaxis] >> np.arange(count)) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(SEED).integers(0, 2, (RESAMPLES, count), np.int8)
    observed = abs(values.sum())
    # sums of equal terms in another order differ by rounding
    as_far = int(np.count_nonzero(np.abs(signs @ values) >= observed * (1 - 1e-12)))
    if 2**count <= RESAMPLES:
        return as_far / len(signs)
    return (as_far + 1) / (len(signs) + 1)  # the observed signs are one of the draws


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979): the chance that any test cries wolf stays below 5 %."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return [float(p) for p in adjusted]
