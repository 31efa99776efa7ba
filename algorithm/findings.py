"""What a reader of the log should know of a segmentation: volumes, and what may have been missed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

# From this probability on, a label that won no voxel is worth a look.
SUSPICIOUS = 0.2
Point = tuple[float, float, float]


class Peaks:
    """Where each label is most probable, found as class maps go by.

    Attributes:
        highest: (K,) float, the largest probability of each label so far, as the network says it.
        index_zyx: (K, 3) whole numbers, where it is on the network's grid.

    """

    def __init__(self, classes: int, temperature: float = 1.0) -> None:
        self.highest = np.zeros(classes)
        self._power = 1 / temperature
        self._at_peak = np.full((classes, classes), 1 / classes)
        self.index_zyx = np.zeros((classes, 3), np.int64)
        self._planes = 0

    def add(self, class_maps: NDArray[np.float32]) -> None:
        """Look at the next planes, (K, d, y, x)."""
        for value, planes in enumerate(class_maps):
            place = int(planes.argmax())
            highest = float(planes.reshape(-1)[place])
            if highest > self.highest[value]:
                self.highest[value] = highest
                z, y, x = np.unravel_index(place, planes.shape)
                self._at_peak[value] = class_maps[:, z, y, x]
                self.index_zyx[value] = self._planes + z, y, x
        self._planes += class_maps.shape[1]

    def probability(self, value: int) -> float:
        """Return the probability of a label at its peak, at the temperature that was given."""
        powers = self._at_peak[value] ** self._power
        return float(powers[value] / powers.sum())


def count_labels(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the voxels of each label of a label map (z, y, x)."""
    # Plane by plane: bincount makes eight bytes of each label first.
    counts = np.zeros(classes, np.int64)
    for plane in labels:
        counts += np.bincount(plane.reshape(-1), minlength=classes)
    return counts


def warn_of_missed(
    names: Sequence[str],
    counts: NDArray[np.int64],
    peaks: Peaks,
    point_mm: Callable[[Sequence[float]], Point],
) -> None:
    """Log a sentence for each label but background that no voxel has before postprocessing.

    Args:
        names: of the labels, background first.
        counts: voxels of each label before postprocessing.
        peaks: of the same labels.
        point_mm: turns an index of the network's grid into LPS mm.

    """
    for value, name in list(enumerate(names))[1:]:
        if counts[value] > 0:
            continue
        highest = peaks.probability(value)
        if highest >= SUSPICIOUS:
            x, y, z = point_mm(peaks.index_zyx[value].tolist())
            log.warning(
                "no %s is labelled, but one may have been missed: its probability reaches %.2f "
                "at (%.1f, %.1f, %.1f) mm (x, y, z in LPS)",
                *(name, highest, x, y, z),
            )
        elif value == 1:
            log.warning(
                "no %s is labelled: its probability is %.2f at most; check that the scan shows it",
                name,
                highest,
            )
        else:
            log.info("no %s is labelled: its probability is %.2f at most", name, highest)


def warn_of_removed(
    names: Sequence[str], before: NDArray[np.int64], after: NDArray[np.int64], voxel_ml: float
) -> None:
    """Log a sentence for each label but background of which postprocessing left nothing."""
    for name, had, has in list(zip(names, before, after, strict=True))[1:]:
        if had > 0 and has == 0:
            log.warning(
                "postprocessing removed all %s, %.1f ml of it: look at the scan", name, had * voxel_ml
            )
