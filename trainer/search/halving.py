"""When a trial is given up: asynchronous successive halving, as Ray's ASHA scheduler does it (Li et al. 2020).

Rungs are epochs, each `REDUCTION` times the one before. A trial that comes to a rung goes on unless its objective
is below what the best 1 / `REDUCTION` of the others had there. Nothing waits for anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.search.objective import objective
from trainer.search.store import Trial

REDUCTION = (
    2  # Li et al. take 4, for hundreds of epochs; with five, four trials of five would be judged by one epoch
)
FIRST_RUNG = 1


def rungs(epochs: int) -> list[int]:
    """Return the epochs after which a trial may be given up: 1, 2, 4 … below `epochs`."""
    found = [FIRST_RUNG]
    while found[-1] * REDUCTION < epochs:
        found.append(found[-1] * REDUCTION)
    return [rung for rung in found if rung < epochs]


def goes_on(trial: Trial, others: Sequence[Trial], labels: Sequence[str], epochs: int) -> bool:
    """Return whether a trial whose curve ends at some epoch is worth the next one; `others` are of the same search."""
    epoch = len(trial.curve)
    if epoch not in rungs(epochs):
        return True
    mine = objective(trial.curve, labels)
    theirs = [
        objective(other.curve[:epoch], labels)
        for other in others
        if other.number != trial.number and len(other.curve) >= epoch
    ]
    if not theirs:
        return True
    return mine >= float(np.percentile(theirs, 100 * (1 - 1 / REDUCTION)))
