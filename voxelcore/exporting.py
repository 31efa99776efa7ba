"""Class maps on the network's grid into labels on the grid of the scan, slab by slab."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from voxelcore import _core
from voxelcore.planes import planes_needed

MOST_CLASSES = 256  # of a uint8


class LabelExporter:
    """Turns class maps into labels as their planes come, so that class maps of the whole scan never exist.

    Each class is resampled trilinearly to the grid of the labels (edges aligned, as `resample_linear`), then the
    class of the largest value is taken, as in `class_maps_to_labels`: the result is the same bit for bit, however
    the planes are cut into slabs. Beside the slab that is given, two planes of class maps are held.

    Args:
        shape_zyx: of the class maps of the whole scan.
        out: uint8 (z, y, x), written to as planes get complete. It may be any view: `np.flip` and `np.transpose`
            of an array in another orientation undo that orientation on the way.
        threads: the default of `get_threads()` if None.

    Attributes:
        done: planes of `out` that are complete.

    Raises:
        TypeError: for an `out` that is no uint8 array, or a size that is no whole number.
        ValueError: for a bad shape, or an `out` that is read-only or has several labels in one place.
    """

    def __init__(
        self, shape_zyx: Sequence[int], out: npt.NDArray[np.uint8], *, threads: int | None = None
    ) -> None:
        shape = [operator.index(size) for size in shape_zyx]
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape_zyx must be three sizes of at least 1, got {tuple(shape_zyx)}")
        if not isinstance(out, np.ndarray) or out.dtype != np.uint8:
            raise TypeError(f"out must be a uint8 array, got {getattr(out, 'dtype', type(out))}")
        if out.ndim != 3 or out.size == 0 or not out.flags.writeable:
            raise ValueError(f"out must be writable and have the axes (z, y, x), got shape {out.shape}")
        if not _is_injective(out):
            raise ValueError(f"out must have a place for every label, got strides {out.strides}")
        self.done = 0
        self._shape = (shape[0], shape[1], shape[2])
        self._out = out
        self._threads = threads
        self._given = 0
        self._lower, self._last = planes_needed(self._shape[0], out.shape[0])
        self._pair: npt.NDArray[Any] | None = None

    def add(self, class_maps: npt.NDArray[Any]) -> int:
        """Give the next planes of the class maps; return `done`, the planes of labels that are complete now.

        Args:
            class_maps: float32 or float16 (c, d, y, x), contiguous within each class, so that a slice along z of
                a longer array will do; not used after the call. 1 to 256 classes, the same in every call.

        Raises:
            TypeError: for another dtype.
            ValueError: for a shape that does not follow from those before, memory that is not contiguous within a
                class, or is in common with `out`.
        """
        if not isinstance(class_maps, np.ndarray) or class_maps.dtype not in (np.float32, np.float16):
            kind = getattr(class_maps, "dtype", type(class_maps))
            raise TypeError(
                f"class_maps must have dtype float16 or float32, got {kind}; convert it with .astype"
            )
        shape = class_maps.shape
        total, *plane = self._shape
        if len(shape) != 4 or list(shape[2:]) != plane or not 1 <= shape[1] <= total - self._given:
            raise ValueError(
                f"class_maps must be (c, d, {plane[0]}, {plane[1]}) with d of 1 to {total - self._given} planes "
                f"still to come, got shape {shape}"
            )
        if not 1 <= shape[0] <= MOST_CLASSES:
            raise ValueError(f"class_maps must have 1 to {MOST_CLASSES} classes, got shape {shape}")
        if not class_maps[0].flags.c_contiguous:
            raise ValueError(
                f"class_maps must be C-contiguous within each class, got strides {class_maps.strides}; "
                "pass numpy.ascontiguousarray(class_maps)"
            )
        if np.may_share_memory(class_maps, self._out):
            raise ValueError("class_maps must not share memory with out; pass another array")
        if self._pair is not None and (self._pair.dtype, len(self._pair)) != (class_maps.dtype, shape[0]):
            raise ValueError(
                f"class_maps must stay {len(self._pair)} classes of {self._pair.dtype}, "
                f"got {shape[0]} of {class_maps.dtype}"
            )
        first, stop = self._given, self._given + shape[1]
        # Labels that are made of planes before `stop` alone, and of these the ones that need the plane before `first`.
        complete = int(np.searchsorted(self._last, stop))
        across = min(complete, int(np.searchsorted(self._lower, first)))
        if across > self.done and self._pair is not None:
            self._pair[:, 1] = class_maps[:, 0]
            self._export(self._pair, first - 1, across)
        self._export(class_maps, first, complete)
        self._given = stop
        if stop < total:
            if self._pair is None:
                self._pair = np.empty((shape[0], 2, *plane), class_maps.dtype)
            self._pair[:, 0] = class_maps[:, -1]
        return self.done

    def _export(self, class_maps: npt.NDArray[Any], first: int, stop: int) -> None:
        if stop > self.done:
            _core.export_planes(class_maps, first, self._shape[0], self.done, stop, self._out, self._threads)
            self.done = stop


def _is_injective(array: npt.NDArray[Any]) -> bool:
    """Return whether no two elements of a view lie in one place: each stride clears the axes with smaller ones."""
    reach = array.itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)
    ):
        if size > 1 and stride < reach:
            return False
        reach += stride * (size - 1)
    return True
