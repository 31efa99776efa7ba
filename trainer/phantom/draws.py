"""Random numbers that depend on (seed, case, purpose) only: any case can be made alone, in any order."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, case: int, purpose: str) -> np.random.Generator:
    """Return the counter-based generator (Philox) of one purpose in one case.

    Two purposes never share numbers, so adding an organ leaves every other organ of the case as it was.
    """
    words = np.random.SeedSequence((seed, case, zlib.crc32(purpose.encode())))
    return np.random.Generator(np.random.Philox(words))


# Quadratic irrationals with small continued fractions, one a field: their multiples leave no large gap.
STEPS = np.array([5.0, 2.0, 3.0, 13.0, 7.0, 6.0]) ** 0.5 % 1.0


def spread(seed: int, case: int, dimensions: int) -> NDArray[np.float64]:
    """Return up to six numbers in [0, 1) that fill each axis evenly over consecutive cases.

    Multiples of irrational numbers modulo one (Weyl, 1916), shifted by the seed: a set of 24 cases then covers
    the quantiles of a distribution much better than independent draws would.
    """
    shift = generator(seed, 0, "spread").random(dimensions)
    return np.asarray((shift + case * STEPS[:dimensions]) % 1.0, np.float64)
