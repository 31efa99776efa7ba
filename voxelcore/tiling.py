"""Covering a volume with overlapping patches."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Tiling:
    """Patches that cover a volume, in raster order (z slowest), and the box that each is kept for.

    The keep boxes partition the volume; all coordinates are voxels of the volume. Where an axis is thinner
    than the patch, the start is negative and the patch hangs over on both sides.

    Attributes:
        shape_zyx: of the volume.
        patch_shape_zyx: of every patch.
        starts_zyx: int64 (n, 3), first voxel of each patch.
        keep_start_zyx: int64 (n, 3), first voxel of each keep box.
        keep_stop_zyx: int64 (n, 3), one past the last voxel of each keep box.
    """

    shape_zyx: tuple[int, int, int]
    patch_shape_zyx: tuple[int, int, int]
    starts_zyx: npt.NDArray[np.int64]
    keep_start_zyx: npt.NDArray[np.int64]
    keep_stop_zyx: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.starts_zyx)


def tile(shape_zyx: Sequence[int], patch_shape_zyx: Sequence[int], *, overlap_zyx: Sequence[int]) -> Tiling:
    """Cover a volume with as few patches as overlap by at least `overlap_zyx`, spread evenly.

    Per axis the cut between two patches runs through the middle of their overlap, so that the voxels kept lie
    at least overlap // 2 from a patch border, except at the border of the volume itself, up to which a patch
    keeps all it has. An axis thinner than the patch gets one patch, centred, to be padded. The paper (section
    3.3) uses only the centres of patches: that is an overlap of half the patch.

    Args:
        shape_zyx: of the volume, >= 1.
        patch_shape_zyx: >= 1.
        overlap_zyx: in voxels, 0 <= overlap < patch on every axis.

    Raises:
        TypeError: if a size is not a whole number.
        ValueError: for a size out of range.
    """
    shape = _three_integers("shape_zyx", shape_zyx, least=1)
    patch = _three_integers("patch_shape_zyx", patch_shape_zyx, least=1)
    overlap = _three_integers("overlap_zyx", overlap_zyx, least=0)
    if any(o >= p for o, p in zip(overlap, patch, strict=True)):
        raise ValueError(
            f"overlap_zyx must be smaller than the patch on every axis, got {overlap} for a patch {patch}"
        )
    axes = [_tile_axis(n, p, o) for n, p, o in zip(shape, patch, overlap, strict=True)]
    starts, keep_start, keep_stop = (_grid([axis[part] for axis in axes]) for part in range(3))
    return Tiling(shape, patch, starts, keep_start, keep_stop)


def _tile_axis(n: int, patch: int, overlap: int) -> tuple[list[int], list[int], list[int]]:
    """Return starts, first kept and one past the last kept voxel of the patches along one axis."""
    if n <= patch:
        return [-((patch - n) // 2)], [0], [n]
    steps = -(-(n - patch) // (patch - overlap))
    starts = [i * (n - patch) // steps for i in range(steps + 1)]
    cuts = [(low + patch + high) // 2 for low, high in itertools.pairwise(starts)]
    return starts, [0, *cuts], [*cuts, n]


def _grid(axes: list[list[int]]) -> npt.NDArray[np.int64]:
    """Return the product of three axes in raster order, int64 (n, 3), read-only."""
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int64)
    grid.flags.writeable = False
    return grid


def _three_integers(name: str, values: Sequence[int], *, least: int) -> tuple[int, int, int]:
    if len(values) != 3:
        raise ValueError(f"{name} must be three whole numbers (z, y, x), got {values!r}")
    try:
        z, y, x = (operator.index(value) for value in values)
    except TypeError:
        raise TypeError(f"{name} must be three whole numbers (z, y, x), got {values!r}") from None
    if min(z, y, x) < least:
        raise ValueError(f"{name} must be >= {least} on every axis, got {(z, y, x)}")
    return z, y, x
