"""Resampling in 3-D that aligns voxel edges and so keeps the field of view.

Output voxel i of an axis lies at the input coordinate (i + 0.5) * n_in / n_out - 0.5, clamped to the centres
of the edge voxels. See docs/VOXELCORE.md for how that differs from a SimpleITK resample that keeps the
origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from voxelcore import _core

CubicVoxel = TypeVar("CubicVoxel", np.int16, np.float32)
Voxel = TypeVar("Voxel", np.uint8, np.int16, np.float16, np.float32)


def resampled_shape(
    shape_zyx: Sequence[int], spacing_zyx_mm: Sequence[float], new_spacing_zyx_mm: Sequence[float]
) -> tuple[int, int, int]:
    """Return the shape whose voxels come closest to `new_spacing_zyx_mm` over the same field of view.

    Per axis max(1, round(n * s / s_new)), a half rounded up. The spacing that results is exactly n * s /
    n_new, which differs from the one asked for by up to half a voxel over the whole axis.

    Raises:
        ValueError: if a size is below 1, or a spacing is not finite and above 0.
    """
    for name, values in (
        ("shape_zyx", shape_zyx),
        ("spacing_zyx_mm", spacing_zyx_mm),
        ("new_spacing_zyx_mm", new_spacing_zyx_mm),
    ):
        if len(values) != 3:
            raise ValueError(f"{name} must be three numbers (z, y, x), got {values!r}")
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise ValueError(f"{name} must be finite and above 0 on every axis, got {values!r}")
    z, y, x = (
        max(1, math.floor(n * spacing / new + 0.5))
        for n, spacing, new in zip(shape_zyx, spacing_zyx_mm, new_spacing_zyx_mm, strict=True)
    )
    return z, y, x


def resample_linear(
    volume: npt.NDArray[Voxel],
    shape_zyx: Sequence[int],
    *,
    out: npt.NDArray[Voxel] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Voxel]:
    """Resample a volume (z, y, x) trilinearly to `shape_zyx`.

    Args:
        volume: uint8, int16, float16 or float32, C-contiguous. Values are interpolated in float32; integers
            are rounded to nearest, ties to even. A NaN reaches exactly the voxels in which it has a weight.
        shape_zyx: 1 to 2**20 voxels on every axis. No smoothing comes before downsampling.
        out: an array to write into: dtype of `volume`, `shape_zyx`, C-contiguous, no memory in common with
            `volume`.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: for a volume that is empty or not contiguous, a bad shape, or an `out` that does not fit.
    """
    return _core.resample_linear(volume, shape_zyx, out, threads)


def resample_cubic(
    volume: npt.NDArray[CubicVoxel],
    shape_zyx: Sequence[int],
    *,
    out: npt.NDArray[CubicVoxel] | None = None,
    threads: int | None = None,
) -> npt.NDArray[CubicVoxel]:
    """Resample a volume (z, y, x) to `shape_zyx` with the cubic B-spline that passes through every voxel.

    The spline's coefficients are found by a recursive filter (Unser, Aldroubi, Eden, IEEE Trans. Signal
    Processing 41(2), 1993) that continues the volume by mirroring about its edge voxels, as SciPy does with
    mode="mirror"; it works in float32. One float32 volume is held meanwhile, with the planes of the input and
    the rows and columns of the result. An axis that keeps its size is left exactly as it is.

    Args:
        volume: int16 or float32, C-contiguous. A spline overshoots at edges; int16 is rounded to nearest,
            ties to even, and saturates. A NaN spreads over the whole of every axis that is resampled.
        shape_zyx: 1 to 2**20 voxels on every axis. No smoothing comes before downsampling.
        out: as in `resample_linear`.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: as `resample_linear`.
    """
    return _core.resample_cubic(volume, shape_zyx, out, threads)


def resample_labels(
    labels: npt.NDArray[np.uint8],
    shape_zyx: Sequence[int],
    *,
    method: Literal["linear", "nearest"] = "linear",
    out: npt.NDArray[np.uint8] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Resample a label map (z, y, x), uint8, to `shape_zyx`.

    Args:
        labels: C-contiguous; any of the 256 labels.
        shape_zyx: 1 to 2**20 voxels on every axis.
        method: "linear" resamples the indicator of each label trilinearly and takes the largest, of equals
            the lowest label, in exact integer arithmetic. "nearest" takes the voxel that holds the centre of
            the output voxel, on a face between two the one with the higher index.
        out: as in `resample_linear`.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: as `resample_linear`, and for another method.
    """
    return _core.resample_labels(labels, shape_zyx, method, out, threads)


def class_maps_to_labels(
    class_maps: npt.NDArray[Any],
    shape_zyx: Sequence[int],
    *,
    out: npt.NDArray[np.uint8] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Resample class maps (c, z, y, x) trilinearly and take the class of the largest value, in one pass.

    Of equal values the lowest class wins. A NaN never wins; where all classes are NaN the label is 0.

    Args:
        class_maps: float32 or float16, 1 to 256 classes, C-contiguous: probabilities or logits.
        shape_zyx: the grid of the labels, 1 to 2**20 voxels on every axis.
        out: uint8 of `shape_zyx`, C-contiguous, no memory in common with `class_maps`.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: as `resample_linear`, and for more than 256 classes.
    """
    return _core.class_maps_to_labels(class_maps, shape_zyx, out, threads)
