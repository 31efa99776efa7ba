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


def spread(seed: int, case: int, dimensions: int) -> NDArray[np.float64]:
    """Return `dimensions` numbers in [0, 1) that fill the unit cube evenly over consecutive cases.

    An additive recurrence with the generalised golden ratio (Roberts, 2018), shifted by the seed: a set of 24
    cases then covers the quantiles of a distribution much better than independent draws would.
    """
    ratio = 1.5
    for _ in range(64):  # the fixed point of r = (1 + r) ** (1 / (d + 1)), reached to the last bit
        ratio = (1.0 + ratio) ** (1.0 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1.0)
    shift = generator(seed, 0, "spread").random(dimensions)
    return (shift + case * steps) % 1.0
