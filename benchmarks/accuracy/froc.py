"""Free response: how many tumours are missed at how many false positives a scan, and what a difference is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.errors import InputError
from algorithm.geometry import same_grid
from algorithm.images import Geometry, read_image, read_labels
from algorithm.postprocessing import bounds, components
from trainer.intervals import CONFIDENCE, RESAMPLES, SEED
from trainer.lesions import Lesions, match_lesions

# Of the tumour's probability; finest where a network that misses a tumour still has some.
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, *(step / 20 for step in range(4, 20)), 0.98)
# A smaller piece is no call. The smallest tumour of Task07 has 0.4 ml; larger ones part networks that are sure of all.
SMALLEST_ML = (0.1, 0.3, 1.0, 3.0)
# Nor is a piece of the reference up to that size a tumour: what a deformed one sheds at its rim is nobody's to find.
SPECK_ML = SMALLEST_ML[0]
POINTS = len(SMALLEST_ML) * len(THRESHOLDS)
TARGETS = (0.125, 0.25, 0.5, 1.0)  # false positives a scan


@dataclass(frozen=True)
class Response:
    """What one system answers in one case at every operating point: a smallest call, and within it a threshold.

    Attributes:
        case: its name.
        volumes_ml: of the lesions of the reference.
        found: bool (points, lesions).
        false_positives: int64 (points,).

    """

    case: str
    volumes_ml: tuple[float, ...]
    found: NDArray[np.bool_]
    false_positives: NDArray[np.int64]


def respond(case: str, reference: Path, probability: Path, lesion: int) -> Response:
    """Return the response of a map of probability to the lesions of a reference label map."""
    labels, grid = read_labels(reference)
    image = read_image(probability)
    different = same_grid(Geometry.of(image), grid)
    if different:
        raise InputError(f"{probability} must lie on the grid of {reference}, but has {different}")
    return response_of(case, labels == lesion, sitk.GetArrayFromImage(image), voxel_ml=grid.voxel_ml)


def response_of(
    case: str, lesions: NDArray[np.bool_], probability: NDArray[np.floating], *, voxel_ml: float
) -> Response:
    """Return the response of probabilities (z, y, x) to the lesions of a mask (z, y, x)."""
    seen = lesions | (probability >= THRESHOLDS[0])
    if seen.any():  # the rest of the scan holds neither a lesion nor a call at any threshold
        box = bounds(seen)
        lesions, probability = lesions[box], probability[box]
    matched = [at_sizes(lesions, probability >= threshold, voxel_ml) for threshold in THRESHOLDS]
    points = [by_size[place] for place in range(len(SMALLEST_ML)) for by_size in matched]
    volumes = points[0].reference_ml
    return Response(
        case,
        volumes,
        np.array([one.found for one in points], bool).reshape(POINTS, len(volumes)),
        np.array([len(one.false_positive_ml) for one in points], np.int64),
    )


def at_sizes(lesions: NDArray[np.bool_], called: NDArray[np.bool_], voxel_ml: float) -> list[Lesions]:
    """Return how a mask of calls matches the lesions, for each smallest call."""
    found: list[Lesions] = []
    left = -1
    for smallest_ml in SMALLEST_ML:
        called = without_specks(called, round(smallest_ml / voxel_ml))
        voxels = int(np.count_nonzero(called))
        # Where no piece went, the last answer stands.
        found.append(found[-1] if voxels == left else match_lesions(lesions, called, voxel_ml=voxel_ml))
        left = voxels
    return found


def without_specks(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """Return the mask without pieces of fewer voxels."""
    pieces, count = components(mask)
    if not count:
        return mask
    kept = np.bincount(pieces.reshape(-1), minlength=count + 1) >= voxels
    kept[0] = False
    return np.asarray(kept[pieces], bool)


@dataclass(frozen=True)
class Curve:
    """The responses of one system to all cases.

    Attributes:
        lesions: int64 (cases,), how many each has.
        missed: int64 (cases, points).
        false_positives: int64 (cases, points).

    """

    lesions: NDArray[np.int64]
    missed: NDArray[np.int64]
    false_positives: NDArray[np.int64]

    @classmethod
    def of(cls, responses: Sequence[Response]) -> Curve:
        """Count the lesions, specks not among them."""
        wanted = [np.array(one.volumes_ml) > SPECK_ML for one in responses]
        pairs = list(zip(responses, wanted, strict=True))
        return cls(
            np.array([mask.sum() for mask in wanted], np.int64),
            np.array([(~one.found[:, mask]).sum(axis=1) for one, mask in pairs], np.int64),
            np.array([one.false_positives for one in responses], np.int64),
        )

    def missed_at(self, target: float, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return how many lesions are missed where there are at most `target` false positives a scan.

        Of the operating points that allow it, the one with the fewest misses counts; where none does, all are missed.

        Args:
            target: false positives a scan.
            weights: float64 (n, cases), how often each case is in each of n resamples; None for once each.

        Returns:
            float64 (n,).

        """
        cases = len(self.lesions)
        counts = np.ones((1, cases)) if weights is None else weights
        rates = counts @ self.false_positives / counts.sum(axis=1, keepdims=True)
        missed = counts @ self.missed
        allowed = np.where(rates <= target + 1e-9, missed, np.inf).min(axis=1)
        return np.minimum(allowed, counts @ self.lesions)

    def point_at(self, target: float) -> int | None:
        """Return the operating point with the fewest misses at `target` false positives a scan, or None."""
        calls, missed = self.false_positives.sum(axis=0), self.missed.sum(axis=0)
        allowed = np.flatnonzero(calls <= (target + 1e-9) * len(self.lesions))
        return int(allowed[np.lexsort((calls[allowed], missed[allowed]))[0]]) if len(allowed) else None

    def at(self, point: int | None) -> tuple[int, float]:
        """Return the lesions missed, and the false positives a scan, at a point; at None nothing is called."""
        if point is None:
            return int(self.lesions.sum()), 0.0
        return int(self.missed[:, point].sum()), float(self.false_positives[:, point].mean())


def resamples(cases: int) -> NDArray[np.float64]:
    """Return how often each case is in each bootstrap sample, float64 (n, cases); the same every time."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(cases, np.full(cases, 1.0 / cases), size=RESAMPLES).astype(np.float64)


def difference(ours: Curve, theirs: Sequence[Curve], target: float) -> tuple[float, tuple[float, float]]:
    """Return ours - theirs of the lesions missed at the same false positives a scan, and its 95 % interval.

    Of several curves of theirs, the mean of their misses counts. All answer the same cases in the same order; the
    bootstrap draws cases, and looks for the operating points anew in each resample.
    """

    def less(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        missed = np.mean([one.missed_at(target, weights) for one in theirs], axis=0)
        return np.asarray(ours.missed_at(target, weights) - missed, np.float64)

    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(less(resamples(len(ours.lesions))), (tail, 100 - tail))
    return float(less(None)[0]), (float(low), float(high))
