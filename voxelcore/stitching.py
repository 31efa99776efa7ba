"""Putting the predictions of patches back together."""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxelcore import _core
from voxelcore.tiling import Tiling

Blend = Literal["centre", "gaussian"]
AxisWeights = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


class Stitcher:
    """Stitch patches as they come, one at a time.

    With blend="centre" each patch fills its keep box and nothing else (paper, section 3.3): a pure copy. With
    blend="gaussian" all of each patch counts, weighted by a Gaussian around its centre whose sigma is an
    eighth of the patch on every axis, and the weights are normalised to sum to one in every voxel. The result
    depends on the order of patches in its last bits for "gaussian", and not at all for "centre"; on the
    number of threads never.

    Args:
        tiling: from `tile`.
        channels: of every patch, >= 1.
        blend: "centre" or "gaussian".
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: if channels is not a whole number.
        ValueError: for an argument out of range.
    """

    def __init__(self, tiling: Tiling, channels: int, *, blend: Blend, threads: int | None = None) -> None:
        if operator.index(channels) < 1:
            raise ValueError(f"channels must be >= 1, got {channels}")
        self._tiling = tiling
        self._placement = _Placement(tiling, blend)
        self._threads = threads
        self._missing = set(range(len(tiling)))
        self._volume = np.zeros((channels, *tiling.shape_zyx), np.float32)

    def add(self, index: int, patch: npt.NDArray[Any]) -> None:
        """Add the patch of `tiling.starts_zyx[index]`: float32 or float16 (c, pz, py, px), C-contiguous.

        Raises:
            TypeError: for another dtype.
            ValueError: for a wrong shape, an index out of range, or one that was added before.
        """
        if index not in self._missing:
            reason = "was added before" if 0 <= index < len(self._tiling) else "does not exist"
            raise ValueError(
                f"index must be that of a patch to come, got {index} of {len(self._tiling)}, which {reason}"
            )
        expected = (self._volume.shape[0], *self._tiling.patch_shape_zyx)
        if np.shape(patch) != expected:
            raise ValueError(f"patch must have shape {expected}, got {np.shape(patch)}")
        which = slice(index, index + 1)
        self._placement.put(patch[np.newaxis], which, self._volume, self._threads, from_zero=False)
        self._missing.remove(index)

    def result(self) -> npt.NDArray[np.float32]:
        """Return the stitched volume (c, z, y, x).

        Raises:
            ValueError: if patches are missing.
        """
        if self._missing:
            raise ValueError(
                f"all {len(self._tiling)} patches must have been added, {len(self._missing)} are missing, "
                f"the first with index {min(self._missing)}"
            )
        return self._volume


class SlabStitcher:
    """`Stitcher` that takes patches in the order of the tiling and gives planes away once no later patch reaches them.

    What it gives is what `Stitcher.result` holds, bit for bit; what it keeps is as many planes as one layer of patches
    spans, the same memory again and again.

    Args:
        tiling: from `tile`.
        channels: of every patch, >= 1.
        blend: "centre" or "gaussian".
        threads: the default of `get_threads()` if None.

    Attributes:
        depth: planes in memory.

    Raises:
        TypeError: if channels is not a whole number.
        ValueError: for an argument out of range, or a tiling whose patches do not come in the order of z.
    """

    def __init__(self, tiling: Tiling, channels: int, *, blend: Blend, threads: int | None = None) -> None:
        if operator.index(channels) < 1:
            raise ValueError(f"channels must be >= 1, got {channels}")
        self._placement = _Placement(tiling, blend)
        begin_z, end_z = self._placement.planes()
        if np.any(np.diff(begin_z) < 0):
            raise ValueError("the patches of tiling must come in the order of z, as those of tile() do")
        # Before patch i, planes up to complete[i] are given away; those from there to its end must be in memory.
        self._complete = [*begin_z.tolist(), tiling.shape_zyx[0]]
        self.depth = int((end_z - begin_z).max())
        self._tiling = tiling
        self._threads = threads
        self._next = self._first = self._given = 0
        self._planes = np.zeros((channels, self.depth, *tiling.shape_zyx[1:]), np.float32)

    def add(self, patch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Add the next patch; return the planes that are complete now, (c, d, y, x), d >= 0.

        Args:
            patch: float32 or float16 (c, pz, py, px), C-contiguous.

        Returns:
            A view, each class of which is C-contiguous; it holds until the next call.

        Raises:
            TypeError: for another dtype.
            ValueError: for a wrong shape, or a patch too many.
        """
        if self._next == len(self._tiling):
            raise ValueError(f"the tiling has {len(self._tiling)} patches, and all were added before")
        expected = (self._planes.shape[0], *self._tiling.patch_shape_zyx)
        if np.shape(patch) != expected:
            raise ValueError(f"patch must have shape {expected}, got {np.shape(patch)}")
        self._forget_given()
        which = slice(self._next, self._next + 1)
        self._placement.put(
            patch[np.newaxis], which, self._planes, self._threads, from_zero=False, first_z=self._first
        )
        self._next += 1
        self._given = self._complete[self._next] - self._first
        return self._planes[:, : self._given]

    def _forget_given(self) -> None:
        given = self._given
        if given == 0:
            return
        for first in range(
            0, self.depth - given, given
        ):  # pieces that do not overlap, so that none is copied twice
            last = min(first + given, self.depth - given)
            self._planes[:, first:last] = self._planes[:, first + given : last + given]
        self._planes[:, self.depth - given :] = 0
        self._first += given
        self._given = 0


def stitch(
    patches: npt.NDArray[Any],
    tiling: Tiling,
    *,
    blend: Blend,
    out: npt.NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    """Return the volume (c, z, y, x), float32, that the patches of a tiling make; see `Stitcher` for `blend`.

    Args:
        patches: float32 or float16 (n, c, pz, py, px), C-contiguous, in the order of the tiling.
        tiling: from `tile`.
        blend: "centre" or "gaussian".
        out: an array to write into: float32 (c, z, y, x), C-contiguous, no memory in common with `patches`. A
            volume that is new costs as much time in the operating system as in the stitching.
        threads: the default of `get_threads()` if None.

    Raises:
        TypeError: for another dtype.
        ValueError: for patches that are not those of the tiling, or an `out` that does not fit.
    """
    shape = np.shape(patches)
    if len(shape) != 5 or shape[0] != len(tiling) or shape[2:] != tiling.patch_shape_zyx:
        pz, py, px = tiling.patch_shape_zyx
        raise ValueError(
            f"patches must have shape ({len(tiling)}, c, {pz}, {py}, {px}) for this tiling, got {shape}"
        )
    placement = _Placement(tiling, blend)
    expected = (shape[1], *tiling.shape_zyx)
    if out is not None and np.shape(out) != expected:
        raise ValueError(f"out must have shape {expected}, got {np.shape(out)}")
    if out is not None and np.may_share_memory(out, patches):
        raise ValueError("out must not share memory with patches; pass another array")
    volume = np.empty(expected, np.float32) if out is None else out
    # keep boxes cover every voxel; weighted patches are added up
    placement.put(patches, slice(None), volume, threads, from_zero=blend == "gaussian")
    return volume


class _Placement:
    """Where each patch counts, and how much."""

    def __init__(self, tiling: Tiling, blend: Blend) -> None:
        if blend == "centre":
            self._box_start, self._box_stop = tiling.keep_start_zyx, tiling.keep_stop_zyx
            self._weights: AxisWeights | None = None
        elif blend == "gaussian":
            self._box_start = np.maximum(tiling.starts_zyx, 0)
            self._box_stop = np.minimum(tiling.starts_zyx + tiling.patch_shape_zyx, tiling.shape_zyx)
            self._weights = (_axis_weights(tiling, 0), _axis_weights(tiling, 1), _axis_weights(tiling, 2))
        else:
            raise ValueError(f"blend must be 'centre' or 'gaussian', got {blend!r}")
        self._starts = tiling.starts_zyx

    def planes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return for each patch the first plane in which it counts, and one past the last."""
        return self._box_start[:, 0], self._box_stop[:, 0]

    def put(
        self,
        patches: npt.NDArray[Any],
        which: slice,
        volume: npt.NDArray[np.float32],
        threads: int | None,
        *,
        from_zero: bool,
        first_z: int = 0,
    ) -> None:
        """Put the patches `which` into planes from `first_z` on, adding to what they hold or to zero."""
        weights = self._weights
        shift = np.array([first_z, 0, 0])
        if weights is not None:
            weights = (weights[0][which], weights[1][which], weights[2][which])
        _core.stitch(
            patches,
            self._starts[which] - shift,
            self._box_start[which] - shift,
            self._box_stop[which] - shift,
            weights,
            volume,
            from_zero,
            threads,
        )


def _axis_weights(tiling: Tiling, axis: int) -> npt.NDArray[np.float32]:
    """Return the weights (n, p) of each patch along an axis, which sum to one in every voxel.

    The Gaussian is a product over axes and the patches are a product grid, so the sum of the weights over all
    patches is the product of the sums along each axis: normalising per axis normalises the whole. Four sigma
    from the centre the weight is 3e-4 per axis, so nothing comes near zero.
    """
    n, patch = tiling.shape_zyx[axis], tiling.patch_shape_zyx[axis]
    from_centre = np.arange(patch) - (patch - 1) / 2
    gaussian = np.exp(-0.5 * (from_centre / (patch / 8)) ** 2)
    starts = np.unique(tiling.starts_zyx[:, axis])
    total = np.zeros(n)
    for start in starts:
        first, stop = max(start, 0), min(start + patch, n)
        total[first:stop] += gaussian[first - start : stop - start]
    voxels = np.clip(tiling.starts_zyx[:, axis, np.newaxis] + np.arange(patch), 0, n - 1)
    weights: npt.NDArray[np.float32] = (gaussian / total[voxels]).astype(np.float32)
    return weights
