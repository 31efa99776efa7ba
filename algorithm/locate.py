"""Coarse to fine: where in a scan full resolution is worth its time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithm.postprocessing import bounds, components

Region = tuple[slice, slice, slice]
Triple = tuple[float, float, float]

# A second component of this share of the largest could be the organ as well.
RIVAL = 0.5


@dataclass(frozen=True)
class CoarseToFine:
    """How the box for full resolution follows from a coarse pass over the whole scan.

    Attributes:
        margin_mm: what the box has beyond what the coarse pass labelled, on each side.
        smallest_ml: where the coarse pass labels less than this in one piece, it is unsure.

    """

    margin_mm: float = 30.0
    smallest_ml: float = 5.0

    def faults(self) -> list[tuple[str, str]]:
        """Return what is out of range: name and what it must be."""
        ranges = {
            "margin_mm": (0 <= self.margin_mm <= 1000, "from 0 to 1000 mm"),
            "smallest_ml": (0 <= self.smallest_ml <= 10_000, "from 0 to 10000 ml"),
        }
        return [(name, what) for name, (right, what) in ranges.items() if not right]

    def region(
        self,
        labels: NDArray[np.uint8],
        shape_zyx: tuple[int, int, int],
        spacing_zyx_mm: Triple,
        least_zyx_mm: Triple,
    ) -> Region | str:
        """Return the box of the scan's voxels for full resolution, or why there is none.

        Args:
            labels: of the coarse pass, uint8 (z, y, x), over the field of view of the whole scan.
            shape_zyx: of the scan, in the same axis order.
            spacing_zyx_mm: of the scan.
            least_zyx_mm: what the box must have, where the scan does: a patch's size.

        """
        coarse_mm = [
            spacing * size / coarse
            for spacing, size, coarse in zip(spacing_zyx_mm, shape_zyx, labels.shape, strict=True)
        ]
        if not labels.any():
            return "it labelled nothing"
        box = bounds(labels)
        pieces, _ = components(labels[box] > 0)
        sizes = np.bincount(pieces.reshape(-1))[1:]
        largest, second = np.sort(np.append(sizes, 0))[:-3:-1]
        if (found_ml := float(largest) * math.prod(coarse_mm) / 1000) < self.smallest_ml:
            return f"the largest piece that it labelled has {found_ml:.1f} ml, less than {self.smallest_ml:g}"
        if second > RIVAL * largest:
            return "it labelled two pieces of like size"
        within = bounds(pieces == sizes.argmax() + 1)
        z, y, x = (
            self._side(outer.start + inner.start, outer.start + inner.stop, *axis)
            for outer, inner, *axis in zip(
                box, within, coarse_mm, spacing_zyx_mm, shape_zyx, least_zyx_mm, strict=True
            )
        )
        return z, y, x

    def _side(
        self, first: int, stop: int, coarse_mm: float, spacing_mm: float, size: int, least_mm: float
    ) -> slice:
        begin_mm, end_mm = first * coarse_mm - self.margin_mm, stop * coarse_mm + self.margin_mm
        wanting = max(0.0, least_mm - (end_mm - begin_mm)) / 2
        begin = math.floor((begin_mm - wanting) / spacing_mm)
        end = math.ceil((end_mm + wanting) / spacing_mm)
        if wanting > 0:  # a patch that would hang over the scan's border is moved inwards
            begin, end = min(begin, size - (end - begin)), max(end, end - begin)
        return slice(max(0, begin), min(size, end))
