"""Cutting patches out of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from voxelcore import _core

Voxel = TypeVar("Voxel", np.uint8, np.int16, np.float16, np.float32)


def extract_patches(
    volume: npt.NDArray[Voxel],
    starts_zyx: npt.NDArray[np.int64],
    patch_shape_zyx: Sequence[int],
    *,
    pad: Literal["edge", "error"] = "edge",
    out: npt.NDArray[Voxel] | None = None,
    threads: int | None = None,
) -> npt.NDArray[Voxel]:
    """Copy patches out of a volume (z, y, x); the result is (n, pz, py, px) of the same dtype.

    Args:
        volume: uint8, int16, float16 or float32, C-contiguous.
        starts_zyx: int64 (n, 3), C-contiguous; may be negative. Each patch touches the volume.
        patch_shape_zyx: (pz, py, px).
        pad: "edge" repeats the nearest edge voxel where a patch leaves the volume (paper, section 3.1);
            "error" refuses such a patch.
        out: an array to write into: dtype of `volume`, (n, pz, py, px), C-contiguous, no memory in common.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: for a patch that leaves the volume (pad="error") or does not touch it (pad="edge").
    """
    return _core.extract_patches(volume, starts_zyx, patch_shape_zyx, pad, out, threads)
