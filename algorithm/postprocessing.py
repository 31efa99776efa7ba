"""What is done after the network, to class maps and labels: settings of a bundle, chosen on validation data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cc3d
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.geometry import Geometry

ORGAN, LESION = 1, 2
CORNERS: Final = 26  # voxels that share a corner are one component


@dataclass(frozen=True)
class Postprocessing:
    """How a label map is made of class maps, and which of its components are kept; by default all.

    Attributes:
        largest_component: of organ and lesion together, only the largest component is kept.
        lesion_within_mm: a lesion whose nearest voxel is further from the organ goes; None for any distance. Where
            there is no organ, lesions stay.
        smallest_lesion_ml: a smaller lesion becomes organ where it touches the organ, else background.
        lesion_weight: factor of the lesion's probability when the most probable label is taken: above 1, fewer
            lesions are missed, and more are called in vain.

    """

    largest_component: bool = False
    lesion_within_mm: float | None = None
    smallest_lesion_ml: float = 0.0
    lesion_weight: float = 1.0

    def __bool__(self) -> bool:
        """Return whether components are to be looked at."""
        return self != Postprocessing(lesion_weight=self.lesion_weight)

    def faults(self) -> list[tuple[str, str]]:
        """Return what is out of range: name and what it must be."""
        within = self.lesion_within_mm
        ranges = {
            "lesion_within_mm": (within is None or 0 <= within <= 1000, "from 0 to 1000 mm or null"),
            "smallest_lesion_ml": (0 <= self.smallest_lesion_ml <= 1000, "from 0 to 1000 ml"),
            "lesion_weight": (0.001 <= self.lesion_weight <= 1000, "from 0.001 to 1000"),
        }
        return [(name, what) for name, (right, what) in ranges.items() if not right]

    def weigh(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class maps (K, …) whose largest is the label: the maps themselves, or a copy."""
        if self.lesion_weight == 1 or len(maps) <= LESION:
            return maps
        weighed = maps.copy()
        weighed[LESION] *= np.float32(self.lesion_weight)
        return weighed

    def __call__(self, labels: NDArray[np.uint8], geometry: Geometry) -> None:
        """Change labels (z, y, x) on `geometry` in place."""
        if not self or not labels.any():
            return
        # Only the box around the labels is looked at: of a whole scan, components would take four bytes a voxel.
        box = labels[bounds(labels)]
        if self.largest_component:
            _keep_largest(box)
        if self.lesion_within_mm is not None:
            _drop_far(box, geometry, self.lesion_within_mm)
        if self.smallest_lesion_ml > 0:
            _drop_small(box, self.smallest_lesion_ml / geometry.voxel_ml)


def bounds(labels: NDArray[np.uint8 | np.bool_]) -> tuple[slice, slice, slice]:
    """Return the smallest box (z, y, x) that holds every voxel but 0, of which there must be one."""
    sides = []
    for others in ((1, 2), (0, 2), (0, 1)):
        filled = np.flatnonzero(labels.any(axis=others))
        sides.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return sides[0], sides[1], sides[2]


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], int]:
    """Return the pieces of a mask (z, y, x), numbered from 1, and how many there are."""
    pieces, count = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=CORNERS, return_N=True)
    return pieces, int(count)


def _keep_largest(labels: NDArray[np.uint8]) -> None:
    pieces, count = components(labels > 0)
    if count > 1:
        sizes = np.bincount(pieces.reshape(-1))[1:]
        labels[pieces != sizes.argmax() + 1] = 0


def _drop_far(labels: NDArray[np.uint8], geometry: Geometry, within_mm: float) -> None:
    organ = labels == ORGAN
    if not organ.any() or not (labels == LESION).any():
        return
    image = sitk.GetImageFromArray(organ.astype(np.uint8))
    image.SetSpacing(geometry.spacing_zyx_mm[::-1])
    distance_mm = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
    )
    pieces, count = components(labels == LESION)
    nearest_mm = np.full(count + 1, np.inf)
    np.minimum.at(nearest_mm, pieces.reshape(-1), distance_mm.reshape(-1))
    far = nearest_mm > within_mm
    far[0] = False
    labels[far[pieces]] = 0


def _drop_small(labels: NDArray[np.uint8], fewest_voxels: float) -> None:
    pieces, count = components(labels == LESION)
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)
    small = sizes < fewest_voxels
    small[0] = False
    if not small.any():
        return
    together, _ = components(labels > 0)
    with_organ = np.zeros(int(together.max()) + 1, bool)
    with_organ[together[labels == ORGAN]] = True
    gone = small[pieces]
    labels[gone] = np.where(with_organ[together[gone]], ORGAN, 0).astype(np.uint8)
