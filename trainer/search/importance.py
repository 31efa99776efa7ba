"""How much each parameter decides whether a configuration is among the best: PED-ANOVA.

(Watanabe, Bansal, Hutter: PED-ANOVA, IJCAI 2023.) For each parameter alone, the density of its values among the best
quarter of the trials is compared with that among all of them: half the integral of (best / all - 1)^2 all. Densities,
and not the objective, are estimated, so few trials suffice, and where TPE looked more often, both densities are high.
What chance alone gives is shown beside it: the same with the objectives shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.search.space import Parameter, Space
from trainer.search.store import Trial

BEST_SHARE = 0.25
GRID = 101
SHUFFLES = 200
FEWEST = 8  # trials; fewer say nothing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Of one parameter.

    Attributes:
        name: of the parameter.
        share: its divergence as a share of the sum over all parameters.
        chance: what 95 of 100 shuffles stay below, as a share of the same sum.

    """

    name: str
    share: float
    chance: float


def importances(space: Space, trials: Sequence[Trial]) -> list[Importance]:
    """Return all parameters, the most important first; nothing where fewer than eight trials have a score."""
    scored = [
        t
        for t in trials
        if t.kind == "search" and t.state in ("finished", "stopped") and t.objective is not None
    ]
    if len(scored) < FEWEST:
        return []
    objectives = np.array([trial.objective for trial in scored], dtype=np.float64)
    rng = np.random.default_rng(0)
    orders = [
        np.argsort(-objectives, kind="stable"),
        *(rng.permutation(len(scored)) for _ in range(SHUFFLES)),
    ]
    best = max(2, round(BEST_SHARE * len(scored)))
    found = {}
    for row in space.parameters:
        places = np.array([row.place(trial.parameters[row.name]) for trial in scored], dtype=np.float64)
        everywhere = _density(row, places)
        values = [_divergence(_density(row, places[order[:best]]), everywhere) for order in orders]
        found[row.name] = (values[0], float(np.percentile(values[1:], 95)))
    total = sum(value for value, _ in found.values())
    if total == 0:
        return [Importance(name, 0.0, 0.0) for name in found]
    result = [Importance(name, value / total, chance / total) for name, (value, chance) in found.items()]
    return sorted(result, key=lambda one: -one.share)


def _divergence(best: Floats, everywhere: Floats) -> float:
    return float(0.5 * np.sum((best / everywhere - 1) ** 2 * everywhere))


def _density(row: Parameter, places: Floats) -> Floats:
    """Return the probabilities of cells of [0, 1], with a prior of one uniform observation; they add up to 1."""
    if row.distribution == "choice":
        count = len(row.values)
        cells = np.bincount(np.rint(places * (count - 1)).astype(np.int64), minlength=count).astype(
            np.float64
        )
        return np.asarray((cells + 1 / count) / (len(places) + 1))
    grid = np.linspace(0, 1, GRID)
    width = max(0.05, float(np.std(places)) * len(places) ** -0.2)  # Scott's rule
    # Mirrored at both bounds, so that no probability leaves them.
    shifted = np.stack([places, -places, 2 - places])[..., np.newaxis]
    kernels = np.exp(-0.5 * ((grid - shifted) / width) ** 2).sum(axis=0)
    kernels /= kernels.sum(axis=1, keepdims=True)
    return np.asarray((kernels.sum(axis=0) + 1 / GRID) / (len(places) + 1))
