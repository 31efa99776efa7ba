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
MOST_EXACT = 40  # differences whose 2^n signs are all counted: 2^20 sums of either half


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

        The sign-flip test is exact where 40 differences at most are not 0, else 9,999 draws of a fixed seed.
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
    # sums of equal terms in another order differ by rounding
    observed = abs(values.sum()) - 1e-12 * np.abs(values).sum()
    if observed <= 0.0:
        return 1.0
    if len(values) <= MOST_EXACT:
        # Every sum is one of the first half's and one of the second's: 2^20 of either stand for all 2^40.
        first, second = (_signed_sums(half) for half in np.array_split(values, 2))
        as_far = len(second) - np.searchsorted(np.sort(second), observed - first)
        return 2 * float(as_far.sum()) / (len(first) * len(second))  # sums come in pairs of either sign
    signs = 1 - 2 * np.random.default_rng(SEED).integers(0, 2, (RESAMPLES, len(values)), np.int8)
    drawn = int(np.count_nonzero(np.abs(signs @ values) >= observed))
    return (drawn + 1) / (RESAMPLES + 1)  # the observed signs are one of the draws


def _signed_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of values (n,) with every choice of signs, float64 (2^n,)."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm 1979): the chance that any test cries wolf stays below 5 %."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return [float(p) for p in adjusted]
