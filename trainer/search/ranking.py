"""Which configurations are best, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainer.search.store import Trial

CONFIDENCE = 0.95
FEWEST_SEEDS = 2  # other seeds that confirm a configuration, where more than one was asked for: one lies


@dataclass(frozen=True)
class Ranked:
    """A configuration with its score in the search, and those of its confirmations.

    Attributes:
        trial: of the search.
        scores: objectives of finished confirmations, each with another seed.
        mean: of these scores; NaN without any.
        low, high: the 95 % confidence interval of the mean (Student's t) within [0, 1]; NaN with fewer than two.

    """

    trial: Trial
    scores: tuple[float, ...]
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, trial: Trial, scores: Sequence[float]) -> Ranked:
        """Reduce scores to their mean and its interval."""
        mean = float(np.mean(scores)) if scores else math.nan
        if len(scores) < 2:
            return cls(trial, tuple(scores), mean, math.nan, math.nan)
        deviation = float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(scores) - 1)) * deviation
        return cls(trial, tuple(scores), mean, max(0.0, mean - half), min(1.0, mean + half))


def best_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the finished trials of a search, the best first, the earlier before the later of equals.

    Of several trials with the same parameters the first stands for all.
    """
    finished = [t for t in trials if t.kind == "search" and t.state == "finished" and t.objective is not None]
    ranked = sorted(finished, key=lambda trial: -(trial.objective or 0.0))
    found: list[Trial] = []
    for trial in ranked:
        if all(trial.parameters != other.parameters for other in found):
            found.append(trial)
    return found


def missing_confirmations(trials: Sequence[Trial], confirm: tuple[int, int]) -> list[tuple[Trial, int]]:
    """Return which of the best trials are not among `trials` again, and with which seed; see `Plan.confirm`."""
    configurations, repetitions = confirm
    there = {(trial.repeats, trial.seed) for trial in trials}
    wanted = [
        (best, best.seed + further)
        for best in best_trials(trials)[:configurations]
        for further in range(1, repetitions + 1)
    ]
    return [(best, seed) for best, seed in wanted if (best.number, seed) not in there]


def ranking(trials: Sequence[Trial]) -> list[Ranked]:
    """Return the configurations, the best first: confirmed ones by the mean of their confirmations, then the others.

    The score that made a configuration one of the best is no part of the mean: it was chosen for being high. One that
    has a single other seed is not confirmed where others have more, be it that these failed or are still to come.
    """
    scores: dict[int, list[float]] = {}
    for trial in trials:
        if trial.repeats is not None and trial.state == "finished" and trial.objective is not None:
            scores.setdefault(trial.repeats, []).append(trial.objective)
    ranked = [Ranked.of(trial, scores.get(trial.number, ())) for trial in best_trials(trials)]
    enough = min(FEWEST_SEEDS, max((len(one.scores) for one in ranked), default=0))
    confirmed = [one for one in ranked if one.scores and len(one.scores) >= enough]
    others = [one for one in ranked if one not in confirmed]
    return sorted(confirmed, key=lambda one: -one.mean) + others


def seed_deviation(ranked: Sequence[Ranked]) -> float:
    """Return the standard deviation between seeds, pooled over confirmed configurations; NaN without any."""
    groups = [one.scores for one in ranked if len(one.scores) > 1]
    freedom = sum(len(scores) - 1 for scores in groups)
    squares = sum(float(np.var(scores)) * len(scores) for scores in groups)
    return math.sqrt(squares / freedom) if freedom else math.nan
