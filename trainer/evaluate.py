"""Predicted label maps against reference label maps, case by case."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation, same_grid
from algorithm.images import case_name, list_images, read_image, read_labels
from algorithm.probabilities import map_names, map_path
from algorithm.progress import progress
from trainer.kept import file_states, read_kept, write_kept
from trainer.lesions import lesion_values, match_lesions
from trainer.metrics import Overlap, confusion_matrix
from trainer.processes import in_processes
from trainer.scores import CaseScores, Record, Scores
from trainer.structures import structures
from trainer.surface import bounding_box, surface_scores

log = logging.getLogger(__name__)

NSD_TOLERANCE_MM = 5.0  # both labels of Task07 on the Decathlon's leaderboard
CACHE_FORMAT = 4  # raise it when a score changes its meaning, so that kept scores are computed again
MOST_NAMED = 5


@dataclass(frozen=True)
class Pair:
    """A reference label map and its prediction, and the maps of probability by label name where there are any."""

    case: str
    reference: Path
    prediction: Path
    probabilities: Mapping[str, Path] = field(default_factory=dict)


def pair_cases(reference: Path, prediction: Path, *, allow_missing: bool = False) -> list[Pair]:
    """Match two folders by case name, or two files with each other.

    A prediction without a reference is only warned of. A reference without a prediction is an InputError
    unless `allow_missing`, which leaves such cases out.
    """
    if reference.is_file() and prediction.is_file():
        return [Pair(case_name(reference), reference, prediction)]
    references = {case_name(path): path for path in list_images(reference)}
    predictions = {case_name(path): path for path in list_images(prediction)}
    if not references:
        raise InputError(f"{reference} holds no label map to compare with")
    missing = [case for case in references if case not in predictions]
    paired = [Pair(case, path, predictions[case]) for case, path in references.items() if case in predictions]
    if missing and not allow_missing:
        raise InputError(
            f"{prediction} lacks {len(missing)} of the {len(references)} cases in {reference}: "
            f"{_some(missing)}; pass --allow-missing to score only the others"
        )
    if not paired:
        raise InputError(f"no case of {reference} has a prediction in {prediction}")
    if missing:
        log.warning("not scored, no prediction: %d cases (%s)", len(missing), _some(missing))
    extra = [case for case in predictions if case not in references]
    if extra:
        log.warning("not scored, no reference: %d predictions (%s)", len(extra), _some(extra))
    return paired


def with_probabilities(pairs: Sequence[Pair], labels: Sequence[str]) -> list[Pair]:
    """Return the pairs with the maps that `decathlon predict --probabilities` left beside the predictions.

    Only the labels that are detected lesion by lesion are looked for. Where some cases have such maps and others do
    not, a warning says so: patients are then not ranked by them.
    """
    names = map_names(labels)
    found = []
    for pair in pairs:
        files = {
            labels[value]: map_path(pair.prediction, names[value - 1]) for value in lesion_values(labels)
        }
        found.append(
            replace(pair, probabilities={name: path for name, path in files.items() if path.is_file()})
        )
    for value in lesion_values(labels):
        without = [pair.case for pair in found if labels[value] not in pair.probabilities]
        if without and len(without) < len(found):
            log.warning(
                "%d of %d cases have no probability map of %s (%s): patients are ranked by predicted volume",
                *(len(without), len(found), labels[value], _some(without)),
            )
    return found


def score_case(pair: Pair, labels: Sequence[str], *, nsd_tolerance_mm: float) -> CaseScores:
    """Score one prediction on the grid of its reference.

    Raises InputError when the grids differ or a value is not among the labels.
    """
    reference, grid = read_labels(pair.reference)
    prediction, predicted_grid = read_labels(pair.prediction)
    different = same_grid(predicted_grid, grid)
    if different:
        raise InputError(f"{pair.prediction} must lie on the grid of {pair.reference}, but has {different}")
    refuse_other_values(reference, labels, pair.reference)
    refuse_other_values(prediction, labels, pair.prediction)
    confusion = confusion_matrix(reference, prediction, len(labels))
    box = bounding_box(reference | prediction)
    if box is not None:
        reference, prediction = reference[box], prediction[box]
    records: dict[str, Record] = {}
    for name, values in structures(labels).items():
        overlap = Overlap.of(confusion, values)
        nsd, hd95_mm = surface_scores(
            np.isin(reference, values),
            np.isin(prediction, values),
            spacing_zyx_mm=grid.spacing_zyx_mm,
            tolerance_mm=nsd_tolerance_mm,
        )
        error_ml = (overlap.predicted - overlap.reference) * grid.voxel_ml if overlap.reference else None
        records[name] = {
            "dice": overlap.dice,
            "nsd": nsd,
            "precision": overlap.precision,
            "sensitivity": overlap.sensitivity,
            "reference_ml": overlap.reference * grid.voxel_ml,
            "prediction_ml": overlap.predicted * grid.voxel_ml,
            "hd95_mm": hd95_mm,
            "volume_error_ml": error_ml,
            "absolute_volume_error_ml": None if error_ml is None else abs(error_ml),
        }
    return CaseScores(
        case=pair.case,
        confusion=confusion,
        voxel_ml=grid.voxel_ml,
        records=records,
        spacing_zyx_mm=canonical_orientation(grid).canonical(grid).spacing_zyx_mm,
        lesions={
            labels[value]: match_lesions(reference == value, prediction == value, voxel_ml=grid.voxel_ml)
            for value in lesion_values(labels)
        },
        peaks={name: _peak(path, grid, pair.reference) for name, path in pair.probabilities.items()},
    )


def _peak(path: Path, grid: Geometry, reference: Path) -> float:
    """Return the highest probability of a map."""
    image = read_image(path)
    different = same_grid(Geometry.of(image), grid)
    if different:
        raise InputError(f"{path} must lie on the grid of {reference}, but has {different}")
    highest = float(sitk.GetArrayViewFromImage(image).max())
    if not 0.0 <= highest <= 1.0:
        raise InputError(f"{path} must hold probabilities from 0 to 1, but holds {highest:g}")
    return highest


def refuse_other_values(array: npt.NDArray[np.uint8], labels: Sequence[str], path: Path) -> None:
    """Raise InputError when the array holds a value that has no name."""
    if array.max(initial=0) >= len(labels):
        others = np.unique(array[array >= len(labels)]).tolist()
        known = ", ".join(f"{value} {name}" for value, name in enumerate(labels))
        raise InputError(f"{path} holds the label values {_some(others)}, but the labels are {known}")


def evaluate(
    pairs: Sequence[Pair],
    out: Path,
    *,
    labels: Sequence[str],
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    threads: int | None = None,
) -> Scores:
    """Score every case, keeping each finished one in OUT/cases so that a killed run continues.

    A kept score is used when its files still have the size and the time of change they were scored with. A script
    that calls this begins with `if __name__ == "__main__":`, since processes are started that import it.

    Args:
        pairs: the cases, from `pair_cases`.
        out: the folder for the kept scores; nothing else is written here.
        labels: names by value, the background first.
        nsd_tolerance_mm: tolerance of the normalised surface Dice.
        threads: cases at once, each in a process of its own; by default one a core.

    """
    kept: dict[str, CaseScores] = {}
    jobs: list[_Job] = []
    for pair in pairs:
        file = out / "cases" / f"{pair.case}.json"
        identity = _identity(pair, labels, nsd_tolerance_mm)
        scores = _read_kept(file, identity)
        if scores is None:
            jobs.append(_Job(pair, tuple(labels), nsd_tolerance_mm, file, identity))
        else:
            kept[pair.case] = scores
    if kept and jobs:
        log.info("%d of %d cases were scored before", len(kept), len(pairs))
    for scores in progress(
        in_processes(_score, jobs, threads or len(os.sched_getaffinity(0))),
        total=len(jobs),
        what="evaluate",
        unit="cases",
    ):
        kept[scores.case] = scores
    return Scores(tuple(labels), nsd_tolerance_mm, [kept[pair.case] for pair in pairs])


@dataclass(frozen=True)
class _Job:
    """A case to be scored, and where its scores are kept."""

    pair: Pair
    labels: tuple[str, ...]
    nsd_tolerance_mm: float
    kept: Path
    identity: dict[str, Any]


def _score(job: _Job) -> CaseScores:
    scores = score_case(job.pair, job.labels, nsd_tolerance_mm=job.nsd_tolerance_mm)
    write_kept(job.kept, job.identity, scores.to_json())
    return scores


def _identity(pair: Pair, labels: Sequence[str], nsd_tolerance_mm: float) -> dict[str, Any]:
    return {
        "format": CACHE_FORMAT,
        "files": file_states((pair.reference, pair.prediction, *pair.probabilities.values())),
        "labels": list(labels),
        "nsd_tolerance_mm": nsd_tolerance_mm,
    }


def _read_kept(path: Path, identity: dict[str, Any]) -> CaseScores | None:
    found = read_kept(path, identity)
    try:
        return None if found is None else CaseScores.from_json(found)
    except (KeyError, TypeError, ValueError):  # of another release: scored anew
        return None


def _some(names: Sequence[object]) -> str:
    shown = ", ".join(map(str, names[:MOST_NAMED]))
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"
