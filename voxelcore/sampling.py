"""Random draws for patch sampling, as pure functions of (seed, epoch, counter).

The generator is Philox4x32-10 (Salmon et al., SC11, doi:10.1145/2063384.2063405) with the seed as key and
(counter, epoch, stream) as counter, so that any draw can be made at any time, in any order, by any worker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxelcore import _core

STREAMS = 2**31  # the streams above belong to draw_volumes and draw_starts


def uniform(
    counters: npt.NDArray[np.int64], *, seed: int, epoch: int = 0, stream: int = 0
) -> npt.NDArray[np.float64]:
    """Return uniform numbers in [0, 1), multiples of 2**-53, in the shape of `counters`.

    Args:
        counters: int64, C-contiguous.
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**32 - 1.
        stream: 0 to 2**31 - 1; numbers of different streams are independent of each other and of every other
            draw.

    Raises:
        TypeError: if counters are not an int64 array, or an argument is not a whole number.
        ValueError: for an argument out of range.
    """
    if not 0 <= stream < STREAMS:
        raise ValueError(f"stream must be 0 to {STREAMS - 1}, got {stream}")
    return _core.uniform(counters, seed, epoch, stream)


def draw_volumes(
    weights: npt.ArrayLike, counters: npt.NDArray[np.int64], *, seed: int, epoch: int = 0
) -> npt.NDArray[np.int64]:
    """Return one index into `weights` for each counter, with probability proportional to the weight.

    The paper (section 3.1) weights a volume by its number of voxels. Sums are taken in double precision; an
    index of weight 0 is never drawn.

    Args:
        weights: one axis, finite, >= 0, not all 0; converted to float64.
        counters: int64, C-contiguous, any shape.
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**32 - 1.

    Raises:
        TypeError: if counters are not an int64 array.
        ValueError: for weights that are empty, negative, NaN, infinite or all 0.
    """
    return _core.draw_volumes(np.ascontiguousarray(weights, dtype=np.float64), counters, seed, epoch)


def draw_starts(
    shape_zyx: Sequence[int],
    patch_shape_zyx: Sequence[int],
    counters: npt.NDArray[np.int64],
    *,
    seed: int,
    epoch: int = 0,
    around: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """Return a random patch start (z, y, x) for each counter, int64 (n, 3).

    Args:
        shape_zyx: of the volume.
        patch_shape_zyx: where an axis of the volume is thinner, its start is -((patch - n) // 2), so that the
            padding is centred.
        counters: int64 (n,), C-contiguous.
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**32 - 1.
        around: None for a start uniform over all that keep the patch inside the volume; or a flat voxel index
            (C order) for each counter, int64 (n,), for a start uniform over those of them whose patch
            contains it.

    Raises:
        TypeError: if counters or around are not int64 arrays.
        ValueError: for a shape below 1, or a voxel outside the volume.
    """
    return _core.draw_starts(shape_zyx, patch_shape_zyx, counters, seed, epoch, around)
