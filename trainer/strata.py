"""Cases in groups: by the size of the lesion, and by slice thickness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stratum:
    """A group of cases: from `above` to `up_to`, which belongs to it."""

    name: str
    above: float
    up_to: float

    def holds(self, value: float) -> bool:
        """Return whether a case with this value belongs to the group."""
        return self.above < value <= self.up_to


# The sizes at which the TNM stages T1, T2 and T3 of pancreatic cancer begin (AJCC, 8th edition), as the diameter of
# a ball of the lesion's volume.
SIZES = (
    Stratum("up to 20 mm", 0.0, 20.0),
    Stratum("20 to 40 mm", 20.0, 40.0),
    Stratum("over 40 mm", 40.0, math.inf),
)
# Task07 has slices of 2.5 mm for the most part, and a sixth of it of 5 mm.
THICKNESSES = (
    Stratum("under 2.5 mm", 0.0, 2.49),
    Stratum("2.5 to 3 mm", 2.49, 3.01),
    Stratum("over 3 mm", 3.01, math.inf),
)


def diameter_mm(volume_ml: float) -> float:
    """Return the diameter of a ball of this volume."""
    return 10.0 * math.cbrt(6.0 * volume_ml / math.pi)


def grouped(values: Mapping[str, float | None], strata: Sequence[Stratum]) -> dict[str, list[str]]:
    """Return the cases of each stratum, by the value of each; a case without one belongs to none."""
    return {
        stratum.name: [case for case, value in values.items() if value is not None and stratum.holds(value)]
        for stratum in strata
    }
