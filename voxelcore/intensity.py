"""Clipping and normalising intensities."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from voxelcore import _core
from voxelcore.planes import planes_needed

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


class SlabPreprocessor:
    """`preprocess`, some planes at a time: the same bits, without the result of a whole scan in memory.

    Args:
        shape_in_zyx: of the whole volume.
        shape_zyx: of the whole result.
        window_hu: as in `preprocess`; likewise the others.

    Raises:
        TypeError: for a size that is no whole number.
        ValueError: for a size below 1.
    """

    def __init__(
        self,
        shape_in_zyx: Sequence[int],
        shape_zyx: Sequence[int],
        *,
        window_hu: Sequence[float],
        mean: float,
        std: float,
        dtype: npt.DTypeLike = np.float32,
        threads: int | None = None,
    ) -> None:
        self._shape_in, self._shape = (
            _three_sizes(name, shape)
            for name, shape in (("shape_in_zyx", shape_in_zyx), ("shape_zyx", shape_zyx))
        )
        self._normalisation = (window_hu, mean, std, np.dtype(dtype))
        self._threads = threads
        self._lower, self._last = planes_needed(self._shape_in[0], self._shape[0])

    def needs(self, begin: int, end: int) -> tuple[int, int]:
        """Return the first plane of the volume, and one past the last, that planes `begin` to `end` are made of.

        Raises:
            ValueError: unless 0 <= begin < end <= the planes of the result.
        """
        if not 0 <= begin < end <= self._shape[0]:
            raise ValueError(f"planes must be 0 <= begin < end <= {self._shape[0]}, got {begin} to {end}")
        return int(self._lower[begin]), int(self._last[end - 1]) + 1

    def __call__(
        self,
        slab: npt.NDArray[np.int16],
        first: int,
        begin: int,
        end: int,
        *,
        out: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[Any]:
        """Return planes `begin` to `end` of the result, (end - begin, y, x).

        Args:
            slab: int16 HU (d, y, x), C-contiguous: planes of the volume, among them all of `needs(begin, end)`.
            first: which plane of the volume the slab begins with.
            begin: the first plane of the result to be made.
            end: one past the last.
            out: an array to write into, C-contiguous, no memory in common with `slab`.

        Raises:
            TypeError: for another dtype of `slab`.
            ValueError: for a slab that lacks a plane, or an `out` that does not fit.
        """
        if np.shape(slab)[1:] != self._shape_in[1:]:
            raise ValueError(
                f"slab must have shape (d, {self._shape_in[1]}, {self._shape_in[2]}), got {np.shape(slab)}"
            )
        return _core.preprocess_planes(
            slab, first, self._shape_in[0], self._shape, begin, end, *self._normalisation, out, self._threads
        )


def _three_sizes(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    sizes = [operator.index(size) for size in shape]
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"{name} must be three sizes of at least 1, got {tuple(shape)}")
    return sizes[0], sizes[1], sizes[2]


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
