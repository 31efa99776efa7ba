"""The slice of a case that shows most of what was looked for, cut out for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation, same_grid
from algorithm.images import case_name, list_images, read_labels, read_scan
from algorithm.intensities import Normalisation
from trainer.adapt import is_ct
from trainer.evaluate import Pair
from trainer.scores import CaseScores, Scores

SMALLEST_VIEW_MM = 190.0  # wide enough for the organs around a pancreas to be recognised
MARGIN_MM = 35.0


@dataclass(frozen=True)
class OverlayRow:
    """One row of an overlay grid: an axial slice in radiological view (patient's right on the left).

    `image` is int16 HU or z-scores in thousandths (y, x), of the first channel;
    `reference` (None where there is none) and `prediction` are uint8 (y, x).
    """

    title: str
    image: npt.NDArray[np.int16]
    reference: npt.NDArray[np.uint8] | None
    prediction: npt.NDArray[np.uint8]
    spacing_yx_mm: tuple[float, float]

    @classmethod
    def of(
        cls,
        title: str,
        image: npt.NDArray[np.int16],
        reference: npt.NDArray[np.uint8] | None,
        prediction: npt.NDArray[np.uint8],
        geometry: Geometry,
    ) -> OverlayRow:
        """Cut the telling slice out of volumes (z, y, x) that share one grid, in whatever orientation."""
        orientation = canonical_orientation(geometry)
        canonical = orientation.canonical(geometry)
        image, prediction = orientation.to_canonical(image), orientation.to_canonical(prediction)
        reference = None if reference is None else orientation.to_canonical(reference)
        z = telling_slice(reference, prediction)
        spacing_yx_mm = canonical.spacing_zyx_mm[1:]
        shown = prediction[z] if reference is None else np.maximum(reference[z], prediction[z])
        view = _view(shown, spacing_yx_mm)
        return cls(
            title=f"{title}, slice {z + 1} of {canonical.shape_zyx[0]}",
            image=image[z][view].copy(),
            reference=None if reference is None else reference[z][view].copy(),
            prediction=prediction[z][view].copy(),
            spacing_yx_mm=spacing_yx_mm,
        )

    @classmethod
    def read(
        cls,
        title: str,
        image: Path,
        reference: Path | None,
        prediction: Path,
        channels: Sequence[str] = ("CT",),
    ) -> OverlayRow:
        """Read the files and cut the slice out; InputError when they do not share one grid."""
        scan, geometry = read_scan(image, channels, shown_as(channels))
        voxels = scan[0]
        predicted, predicted_geometry = read_labels(prediction)
        others = [(prediction, predicted_geometry)]
        referred = None
        if reference is not None:
            referred, reference_geometry = read_labels(reference)
            others.append((reference, reference_geometry))
        for path, grid in others:
            different = same_grid(grid, geometry)
            if different:
                raise InputError(f"{path} must lie on the grid of {image}, but has {different}")
        return cls.of(title, voxels, referred, predicted, geometry)


def shown_as(channels: Sequence[str]) -> Normalisation:
    """Return how images of these channels are read for a picture."""
    return "window" if is_ct(channels) else "zscore_foreground"


def choose_rows(
    pairs: Sequence[Pair],
    scores: Scores,
    images: Path | None,
    *,
    most: int,
    channels: Sequence[str] = ("CT",),
) -> list[OverlayRow]:
    """Return at most `most` cases that have a scan in `images`, spread evenly from the best to the worst.

    The order is by the mean of a case's Dice over the labels that its reference has.
    """
    if images is None or most < 1:
        return []
    scans = {case_name(path): path for path in list_images(images)}
    files = {pair.case: pair for pair in pairs if pair.case in scans}
    ranked = sorted((case for case in scores.cases if case.case in files), key=_mean_dice, reverse=True)
    chosen = np.unique(np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int))
    return [
        OverlayRow.read(
            _title(case),
            scans[case.case],
            files[case.case].reference,
            files[case.case].prediction,
            channels,
        )
        for case in (ranked[place] for place in chosen)
    ]


def _mean_dice(case: CaseScores) -> float:
    present = [record["dice"] for record in case.records.values() if record["dice"] is not None]
    return sum(present) / len(present) if present else -1.0


def _title(case: CaseScores) -> str:
    parts = [f"{name} {r['dice']:.2f}" for name, r in case.records.items() if r["dice"] is not None]
    return f"{case.case}: Dice {', '.join(parts)}" if parts else case.case


def telling_slice(reference: npt.NDArray[np.uint8] | None, prediction: npt.NDArray[np.uint8]) -> int:
    """Return the z with most voxels of the highest label (the tumour) in the reference, or else predicted.

    Where neither holds anything, the middle slice. Arrays are (z, y, x).
    """
    for labels in (reference, prediction):
        highest = 0 if labels is None else int(labels.max(initial=0))
        if labels is not None and highest:
            return int(np.count_nonzero(labels == highest, axis=(1, 2)).argmax())
    return len(prediction) // 2


def _view(shown: npt.NDArray[np.uint8], spacing_yx_mm: tuple[float, float]) -> tuple[slice, slice]:
    """Return a square window in millimetres around what is shown; the whole slice when nothing is."""
    filled = np.nonzero(shown)
    if filled[0].size == 0:
        return slice(None), slice(None)
    pairs = list(zip(filled, spacing_yx_mm, strict=True))
    extent_mm = max(np.ptp(indices) * spacing for indices, spacing in pairs)
    side_mm = max(SMALLEST_VIEW_MM, float(extent_mm) + 2 * MARGIN_MM)
    view = []
    for (indices, spacing), size in zip(pairs, shown.shape, strict=True):
        length = min(size, round(side_mm / spacing))
        centre = (int(indices.min()) + int(indices.max()) + 1) / 2
        start = min(max(0, round(centre - length / 2)), size - length)
        view.append(slice(start, start + length))
    return view[0], view[1]
