"""Whether a voxel that a map gives a probability of 0.8 of tumour is tumour eight times out of ten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.images import read_image, read_labels

BINS = 20
LEAST = 0.01  # the air around a patient, of which every system is sure and right, would drown the rest


@dataclass(frozen=True)
class Calibration:
    """Voxels with a probability of the lesion from LEAST on, by that probability: equal steps of 1 / BINS.

    Attributes:
        voxels: int64 (BINS,).
        lesions: int64 (BINS,), how many of them are lesion in the reference.
        probability: float64 (BINS,), the sum of theirs.

    """

    voxels: NDArray[np.int64]
    lesions: NDArray[np.int64]
    probability: NDArray[np.float64]

    @classmethod
    def of(cls, lesions: NDArray[np.bool_], probability: NDArray[np.floating]) -> Calibration:
        """Count the voxels of a mask and of probabilities of the same shape."""
        seen = probability >= LEAST
        values, truth = probability[seen].astype(np.float64), lesions[seen]
        place = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        return cls(
            np.bincount(place, minlength=BINS),
            np.bincount(place[truth], minlength=BINS),
            np.bincount(place, weights=values, minlength=BINS),
        )

    @classmethod
    def read(cls, reference: Path, probability: Path, lesion: int) -> Calibration:
        """Count the voxels of a label map and of a map of the lesion's probability on its grid."""
        labels, _ = read_labels(reference)
        return cls.of(labels == lesion, sitk.GetArrayFromImage(read_image(probability)))

    @classmethod
    def total(cls, several: Iterable[Calibration]) -> Calibration:
        """Return the counts of several scans together."""
        parts = [(one.voxels, one.lesions, one.probability) for one in several]
        return cls(*(np.sum(counts, axis=0) for counts in zip(*parts, strict=True)))

    @property
    def error(self) -> float:
        """The expected calibration error: how far probability is from frequency, a voxel's mean (Guo et al., 2017)."""
        return float(np.abs(self.probability - self.lesions).sum() / max(1, self.voxels.sum()))

    def to_json(self) -> dict[str, list[float]]:
        """Return the counts; `from_json` reads them."""
        return {
            "voxels": self.voxels.tolist(),
            "lesions": self.lesions.tolist(),
            "probability": self.probability.tolist(),
        }

    @classmethod
    def from_json(cls, told: dict[str, list[float]]) -> Calibration:
        """Return what `to_json` gave."""
        voxels, lesions = (np.array(told[name], np.int64) for name in ("voxels", "lesions"))
        return cls(voxels, lesions, np.array(told["probability"], np.float64))
