"""Normalised surface Dice and Hausdorff distance, computed by the reference package `surface-distance`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import surface_distance

Mask = npt.NDArray[np.bool_]

PERCENT = 95.0  # of the Hausdorff distance: the last twentieth of a surface may be a single stray voxel


def bounding_box(mask: npt.NDArray[np.generic]) -> tuple[slice, slice, slice] | None:
    """Return the smallest box (z, y, x) that holds every non-zero voxel, or None when there is none."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        (filled,) = np.nonzero(mask.any(axis=others))
        if filled.size == 0:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return box[0], box[1], box[2]


def surface_scores(
    reference: Mask, prediction: Mask, *, spacing_zyx_mm: tuple[float, float, float], tolerance_mm: float
) -> tuple[float | None, float | None]:
    """Return the normalised surface Dice and the 95 % Hausdorff distance in mm.

    The first is the share of both surfaces that lies within `tolerance_mm` of the other one: Nikolov et al.,
    arXiv:1809.04430; the Decathlon's second metric. The second is the distance within which 95 % of each surface
    lies of the other. Both are None when the reference is empty (missing on the leaderboard). When only the
    prediction is, the first is 0, and the second None: no distance says how far away nothing is.

    Args:
        reference: bool (z, y, x).
        prediction: bool (z, y, x).
        spacing_zyx_mm: voxel spacing in the order of the axes of the arrays.
        tolerance_mm: a surface element counts when the other surface is at most this far away.

    """
    # release 0.1 of the package fails on an empty mask: it uses np.Inf, which NumPy 2 lacks
    if not reference.any():
        return None, None
    if not prediction.any():
        return 0.0, None
    box = bounding_box(reference | prediction)
    distances = surface_distance.compute_surface_distances(reference[box], prediction[box], spacing_zyx_mm)
    return (
        float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm)),
        float(surface_distance.compute_robust_hausdorff(distances, PERCENT)),
    )


def normalised_surface_dice(
    reference: Mask, prediction: Mask, *, spacing_zyx_mm: tuple[float, float, float], tolerance_mm: float
) -> float | None:
    """Return the first of `surface_scores`."""
    return surface_scores(reference, prediction, spacing_zyx_mm=spacing_zyx_mm, tolerance_mm=tolerance_mm)[0]
