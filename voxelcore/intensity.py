"""Clipping and normalising intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from voxelcore import _core

Voxel = TypeVar("Voxel", np.uint8, np.int16, np.float16, np.float32)


def preprocess(
    volume: npt.NDArray[np.int16],
    shape_zyx: Sequence[int],
    *,
    window_hu: Sequence[float],
    mean: float,
    std: float,
    dtype: npt.DTypeLike = np.float32,
    out: npt.NDArray[Any] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Any]:
    """Resample trilinearly, clip to `window_hu` and return (v - mean) / std in one pass (paper, section 3.1).

    Nothing is rounded to whole HU on the way; the arithmetic is float32.

    Args:
        volume: int16 HU (z, y, x), C-contiguous.
        shape_zyx: as in `resample_linear`.
        window_hu: (low, high) with low < high.
        mean: in HU, of the clipped training data.
        std: in HU, above 0.
        dtype: float32 or float16 (rounded to nearest, ties to even).
        out: an array to write into: `dtype`, `shape_zyx`, C-contiguous, no memory in common with `volume`.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype of `volume` or of the result.
        ValueError: as `resample_linear`, and for a window, mean or std that is not finite or not ordered.
    """
    return _core.preprocess(volume, shape_zyx, window_hu, mean, std, np.dtype(dtype), out, threads)


def clip(
    volume: npt.NDArray[Voxel],
    low: float,
    high: float,
    *,
    out: npt.NDArray[Voxel] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Voxel]:
    """Limit a volume (z, y, x) to [low, high].

    Args:
        volume: uint8, int16, float16 or float32, C-contiguous. A NaN stays.
        low: in the units of `volume`; a whole number for integers. It may lie outside the range of the dtype,
            or be -inf, and then limits nothing; for float16 it is rounded to float16.
        high: likewise, >= `low`.
        out: `volume` itself, to clip in place, or an array of its dtype and shape, C-contiguous, no memory in
            common.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: for low > high, a NaN, or bounds between which the dtype has no value.
    """
    return _core.clip(volume, low, high, out, threads)
