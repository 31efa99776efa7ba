"""Lesions one by one: which of the reference's were found, and which predicted ones are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from algorithm.postprocessing import components
from trainer.structures import MOST_IN_UNION

Mask = npt.NDArray[np.bool_]

LEAST_IOU = 0.1  # as PI-CAI and PANORAMA ask of a detection


@dataclass(frozen=True)
class Lesions:
    """The lesions of one label in one case.

    Attributes:
        reference_ml: volume of each lesion of the reference.
        found: whether it was found, in the same order.
        false_positive_ml: volume of each predicted lesion that helped to find none.

    """

    reference_ml: tuple[float, ...]
    found: tuple[bool, ...]
    false_positive_ml: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "reference_ml": list(self.reference_ml),
            "found": list(self.found),
            "false_positive_ml": list(self.false_positive_ml),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Lesions:
        """Undo `to_json`."""
        return cls(
            tuple(document["reference_ml"]), tuple(document["found"]), tuple(document["false_positive_ml"])
        )


def lesion_values(labels: Sequence[str]) -> list[int]:
    """Return the label values that are looked at lesion by lesion: all after the organ, or the only one.

    None where there are more than four labels, as in a map of all organs.
    """
    foreground = list(range(1, len(labels)))
    if len(foreground) > MOST_IN_UNION:
        return []
    return foreground[1:] or foreground


def match_lesions(reference: Mask, prediction: Mask, *, voxel_ml: float) -> Lesions:
    """Match the pieces of two masks (z, y, x); voxels that share a corner are one piece.

    A lesion of the reference is found when it has an intersection over union of at least 0.1 with one predicted piece
    or with all that touch it, taken together: one voxel of contact finds nothing, nor does calling everything a
    lesion. One piece over two lesions may find both. A predicted piece is a false positive unless a tenth of it
    lies in found lesions.

    Args:
        reference: bool (z, y, x).
        prediction: bool (z, y, x).
        voxel_ml: volume of a voxel.

    """
    true, lesions = components(reference)
    called, pieces = components(prediction)
    both = reference & prediction
    shared = np.zeros((lesions + 1, pieces + 1), np.int64)
    np.add.at(shared, (true[both], called[both]), 1)
    sizes = np.bincount(true[reference], minlength=lesions + 1)
    called_sizes = np.bincount(called[prediction], minlength=pieces + 1)
    touches = shared > 0
    overlap = shared.sum(axis=1)
    union = sizes + touches @ called_sizes - overlap
    unions_by_piece = np.maximum(sizes[:, np.newaxis] + called_sizes - shared, 1)
    by_one = (shared / unions_by_piece).max(axis=1) >= LEAST_IOU
    found = (overlap >= LEAST_IOU * np.maximum(union, 1)) | by_one
    useful = shared[found].sum(axis=0) >= LEAST_IOU * called_sizes
    return Lesions(
        reference_ml=tuple((sizes[1:] * voxel_ml).tolist()),
        found=tuple(found[1:].tolist()),
        false_positive_ml=tuple((called_sizes[1:][~useful[1:]] * voxel_ml).tolist()),
    )
