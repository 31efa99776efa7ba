"""Settings of a bundle that are chosen on validation cases: postprocessing, and the temperature of probabilities."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithm.bundle import Bundle
from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.postprocessing import LESION, Postprocessing
from algorithm.segmenter import Segmenter
from trainer.metrics import Overlap, confusion_matrix
from trainer.patches import PatchFile
from trainer.patchfile import PatchMeta
from trainer.prepare import FILES
from trainer.volume_batches import open_volumes
from trainer.volume_validation import normalised

log = logging.getLogger(__name__)

LARGEST_COMPONENT = (False, True)
LESION_WITHIN_MM = (None, 0.0, 5.0, 10.0, 20.0)
SMALLEST_LESION_ML = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
# What the mean Dice must gain for postprocessing to be worth having: with few cases, less is chance.
LEAST_GAIN = 0.002
FEW_CASES = 5  # with fewer, one case decides
TEMPERATURES = np.geomspace(0.25, 4.0, 33)
SAMPLES = 500_000  # voxels of a case whose probabilities are looked at
SMALLEST = np.float32(1e-30)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and what it does to the validation cases.

    Attributes:
        cases: how many there are.
        postprocessing: the choice.
        dice: mean Dice of each label but background with it; NaN for one that no case has.
        dice_before: without postprocessing.
        temperature: the choice.
        loss: mean cross entropy of a voxel at that temperature.
        loss_before: at a temperature of 1.

    """

    cases: int
    postprocessing: Postprocessing
    dice: tuple[float, ...]
    dice_before: tuple[float, ...]
    temperature: float
    loss: float
    loss_before: float

    def apply(self, bundle: Bundle) -> Bundle:
        """Return a bundle with the choices in it, and with how they were made in its provenance."""
        record = {**asdict(self), "dice": _nullable(self.dice), "dice_before": _nullable(self.dice_before)}
        description = dataclasses.replace(
            bundle.description,
            postprocessing=self.postprocessing,
            temperature=self.temperature,
            provenance={**bundle.description.provenance, "tuned": record},
        )
        return dataclasses.replace(bundle, description=description)


def candidates(labels: int) -> list[Postprocessing]:
    """Return what is tried for a number of labels, background included; the least comes first."""
    within, smallest = (LESION_WITHIN_MM, SMALLEST_LESION_ML) if labels > LESION else ((None,), (0.0,))
    return [Postprocessing(*settings) for settings in itertools.product(LARGEST_COMPONENT, within, smallest)]


def tune(bundle: Bundle, work: Path, segmenter: Segmenter) -> Tuned:
    """Segment the validation cases of WORK, and choose what makes their Dice largest and their cross entropy smallest.

    Dice is the leaderboard's: the mean over the cases whose reference has the label, then over labels. It is measured
    on the network's grid. Temperature: Guo et al., "On calibration of modern neural networks", 2017.

    Args:
        bundle: what is tuned; postprocessing that it has already is not used.
        work: where `decathlon prepare` left volumes, with the bundle's grid and window.
        segmenter: of the bundle.

    Raises:
        InputError: volumes are missing, or were prepared in another way.

    """
    description = bundle.description
    with PatchFile(work / FILES["validation"]) as patches:
        _check_alike(bundle, patches.meta, work)
        cases = patches.meta.validation_cases
    tried = candidates(len(description.labels))
    dice: list[list[tuple[float, ...]]] = []
    losses: list[NDArray[np.float64]] = []
    for name, (image, reference) in zip(cases, open_volumes(work, cases), strict=True):
        labels, loss = _segment(segmenter, image, reference)
        geometry = Geometry(labels.shape, description.spacing_zyx_mm, (0.0, 0.0, 0.0), IDENTITY)
        dice.append([_dice(one, labels, reference, geometry, len(description.labels)) for one in tried])
        losses.append(loss)
        log.info("%s: Dice %s before postprocessing", name, _said(description.labels, dice[-1][0]))
    scores = _mean(np.array(dice))  # (tried, labels)
    of_each = _mean(scores.T)
    best = int(np.nanargmax(of_each)) if np.isfinite(of_each).any() else 0
    if not of_each[best] >= of_each[0] + LEAST_GAIN:
        best = 0
    loss = np.mean(losses, axis=0)
    coolest = int(loss.argmin())
    _warn(bundle, len(cases), tried[best], coolest)
    return Tuned(
        cases=len(cases),
        postprocessing=tried[best],
        dice=tuple(scores[best].tolist()),
        dice_before=tuple(scores[0].tolist()),
        temperature=round(float(TEMPERATURES[coolest]), 3),
        loss=float(loss[coolest]),
        loss_before=float(np.interp(0.0, np.log(TEMPERATURES), loss)),
    )


def _warn(bundle: Bundle, cases: int, chosen: Postprocessing, temperature: int) -> None:
    """Log what makes a choice doubtful."""
    if cases < FEW_CASES:
        log.warning("chosen on %d validation cases: what suits so few may not suit others", cases)
    if temperature in (0, len(TEMPERATURES) - 1):
        log.warning(
            "the temperature is at the end of what was tried, %g to %g: the probabilities may need more",
            *(TEMPERATURES[0], TEMPERATURES[-1]),
        )
    for name, tried in (("lesion_within_mm", LESION_WITHIN_MM), ("smallest_lesion_ml", SMALLEST_LESION_ML)):
        if getattr(chosen, name) == tried[-1]:
            log.warning("%s %g is the largest that was tried: a larger one may score higher", name, tried[-1])
    if bundle.coarse:
        log.info("the validation cases were segmented whole: the bundle's coarse pass was not used")


def _check_alike(bundle: Bundle, meta: PatchMeta, work: Path) -> None:
    for name in ("labels", "channels", "spacing_zyx_mm", "window_hu", "normalisation"):
        ours, theirs = getattr(bundle.description, name), getattr(meta, name)
        if ours != theirs:
            raise InputError(
                f"{work} was prepared with {name} {theirs}, but the bundle has {ours}; "
                "give the WORK that it was trained on, or one prepared with the same preset"
            )


def _segment(
    segmenter: Segmenter, image: NDArray[np.int16], reference: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return labels on the network's grid, and the mean cross entropy of a voxel at each temperature."""
    labels = np.empty(reference.shape, np.uint8)
    every = max(1, reference.size // SAMPLES)
    loss, count, first = np.zeros(len(TEMPERATURES)), 0, 0
    shape_zyx = (reference.shape[0], reference.shape[1], reference.shape[2])

    def prepared(begin: int, end: int) -> NDArray[np.float32]:
        return normalised(segmenter.description, image[:, begin:end])

    for maps in segmenter.class_maps(shape_zyx, prepared):
        stop = first + maps.shape[1]
        labels[first:stop] = maps.argmax(axis=0)
        chosen = reference[first:stop].reshape(-1)[::every]
        logs = np.log(np.maximum(maps.reshape(len(maps), -1)[:, ::every], SMALLEST))
        loss += [_cross_entropy(logs / np.float32(temperature), chosen) for temperature in TEMPERATURES]
        count += chosen.size
        first = stop
    return labels, loss / count


def _cross_entropy(logits: NDArray[Any], reference: NDArray[np.uint8]) -> float:
    """Return the sum over voxels: logits (K, n), reference (n,)."""
    highest = logits.max(axis=0)
    normaliser = highest + np.log(np.exp(logits - highest).sum(axis=0))
    of_reference = np.take_along_axis(logits, reference[np.newaxis].astype(np.int64), axis=0)[0]
    return float((normaliser - of_reference).sum(dtype=np.float64))


def _dice(
    postprocessing: Postprocessing,
    labels: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    geometry: Geometry,
    classes: int,
) -> tuple[float, ...]:
    processed = labels.copy()
    postprocessing(processed, geometry)
    confusion = confusion_matrix(reference, processed, classes)
    scores = (Overlap.of(confusion, (value,)).dice for value in range(1, classes))
    return tuple(float("nan") if score is None else score for score in scores)


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the first axis of what is there, NaN where nothing is."""
    there = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(there, scores, 0).sum(axis=0) / there.sum(axis=0)
    return mean


def _said(labels: Sequence[str], dice: Sequence[float]) -> str:
    return ", ".join(f"{name} {score:.3f}" for name, score in zip(labels[1:], dice, strict=True))


def _nullable(values: Sequence[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]
