"""Which planes of a volume the planes of a linear resampling are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def planes_needed(n_in: int, n_out: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first and the last input plane that each output plane is made of."""
    unit = 2 * n_out  # positions are whole numbers over it
    position = np.clip((2 * np.arange(n_out, dtype=np.int64) + 1) * n_in - n_out, 0, (n_in - 1) * unit)
    lower = position // unit
    return lower, lower + (position % unit > 0)
