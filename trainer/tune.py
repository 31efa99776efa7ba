"""Settings of a bundle that are chosen on validation cases: postprocessing, and the temperature of probabilities."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithm.bundle import Bundle
from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.postprocessing import LESION, Postprocessing
from algorithm.segmenter import ALIKE, Segmenter
from trainer.held_out import held_out_cases
from trainer.lesions import match_lesions
from trainer.metrics import Overlap, confusion_matrix
from trainer.patches import PatchFile
from trainer.patchfile import PatchMeta
from trainer.prepare import FILES
from trainer.volume_batches import open_volumes
from trainer.volume_validation import normalised

log = logging.getLogger(__name__)

LARGEST_COMPONENT = (False, True)
LESION_WITHIN_MM = (None, 0.0, 5.0, 10.0, 20.0)
# The smallest tumours of Task07 have 0.4 ml: a larger floor than 1 ml would drop real ones wholesale.
SMALLEST_LESION_ML = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
LESION_WEIGHT = (1.0, 0.25, 0.5, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# What the mean Dice must gain for postprocessing to be worth having: with few cases, less is chance.
LEAST_GAIN = 0.002
FEW_CASES = 5  # with fewer, one case decides
TEMPERATURES = np.geomspace(0.25, 4.0, 33)
SAMPLES = 500_000  # voxels of a case whose probabilities are looked at
SMALLEST = np.float32(1e-30)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Calls:
    """How many lesions there are, how many are missed, and how many a scan are called in vain (`trainer.lesions`)."""

    lesions: int
    missed: int
    false_positives_per_scan: float


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
        calls, calls_before: lesions with it and without; None where no case has one.
        mirror_zyx: along which axes the cases were also seen mirrored.

    """

    cases: int
    postprocessing: Postprocessing
    dice: tuple[float, ...]
    dice_before: tuple[float, ...]
    temperature: float
    loss: float
    loss_before: float
    calls: Calls | None = None
    calls_before: Calls | None = None
    mirror_zyx: tuple[bool, bool, bool] = (False, False, False)

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


@dataclass(frozen=True)
class _Case:
    """A validation case as it was segmented: its reference, and its labels at each weight of the lesion, packed."""

    shape_zyx: tuple[int, int, int]
    reference: bytes
    labels: list[bytes]
    spacing_zyx_mm: tuple[float, float, float]

    @classmethod
    def of(cls, reference: NDArray[np.uint8], labels: NDArray[np.uint8], spacing_zyx_mm: Any) -> _Case:
        shape_zyx = (reference.shape[0], reference.shape[1], reference.shape[2])
        packed = [zlib.compress(one.tobytes(), 1) for one in (np.ascontiguousarray(reference), *labels)]
        return cls(shape_zyx, packed[0], packed[1:], spacing_zyx_mm)

    def unpacked(self, weight: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Geometry]:
        """Return the reference, the labels at a weight of the lesion, and their grid."""
        chosen = self.labels[LESION_WEIGHT.index(weight)]
        reference, labels = (
            np.frombuffer(zlib.decompress(one), np.uint8).reshape(self.shape_zyx)
            for one in (self.reference, chosen)
        )
        return reference, labels, Geometry(self.shape_zyx, self.spacing_zyx_mm, (0.0, 0.0, 0.0), IDENTITY)


def candidates(labels: int, weight: float = 1.0) -> list[Postprocessing]:
    """Return what is tried for a number of labels, background included; the least comes first."""
    within, smallest = (LESION_WITHIN_MM, SMALLEST_LESION_ML) if labels > LESION else ((None,), (0.0,))
    return [
        Postprocessing(*settings, lesion_weight=weight)
        for settings in itertools.product(LARGEST_COMPONENT, within, smallest)
    ]


@dataclass(frozen=True)
class Fold:
    """A bundle, and the folder whose validation cases it was trained without."""

    bundle: Bundle
    work: Path


def tune(
    folds: Sequence[Fold],
    segmenter_of: Callable[[Bundle], Segmenter],
    *,
    most_false_positives: float | None = None,
) -> Tuned:
    """Segment the validation cases of WORK, and choose what makes their Dice largest and their cross entropy smallest.

    The members of an ensemble, of which each saw other cases, segment their own, and one choice is made by all cases
    together. The ensemble's average is a little smoother than what each member says, by which is chosen.

    Dice is the leaderboard's: the mean over the cases whose reference has the label, then over labels. It is measured
    on the network's grid: first for each weight of the lesion, then for the components that are kept.
    Temperature: Guo et al., "On calibration of modern neural networks", 2017.

    Args:
        folds: each bundle, whose own postprocessing is not used, and where `decathlon prepare` left volumes with its
            grid and window.
        segmenter_of: makes a bundle ready on a device; one at a time is kept.
        most_false_positives: misses first: of all weights and smallest lesions that call at most so many lesions a scan
            in vain, the one that misses the fewest is taken, and of these the one with the largest Dice.

    Raises:
        InputError: volumes are missing, or were prepared in another way; several bundles do not see scans alike, or
            one of them held out other cases than those it is given, or the same as another; or misses are to come first
            where the bundle has no label for lesions, no case has one, or no setting calls so few in vain.

    """
    description = folds[0].bundle.description
    classes = len(description.labels)
    if most_false_positives is not None and not 0 <= most_false_positives < math.inf:
        raise InputError(f"--most-false-positives must be a number from 0 on, got {most_false_positives:g}")
    if most_false_positives is not None and classes <= LESION:
        raise InputError(
            f"misses can come first where there are lesions, label {LESION}, but the bundle has the labels "
            f"{', '.join(description.labels)}; leave out --most-false-positives"
        )
    held_out = _held_out(folds)
    cases: list[_Case] = []
    losses: list[NDArray[np.float64]] = []
    for fold, names in zip(folds, held_out, strict=True):
        segmenter = segmenter_of(fold.bundle)
        for name, (image, reference) in zip(names, open_volumes(fold.work, names), strict=True):
            labels, loss = _segment(segmenter, image, reference)
            cases.append(_Case.of(reference, labels, description.spacing_zyx_mm))
            losses.append(loss)
            plain = _dice(cases[-1], Postprocessing(), classes)
            log.info("%s: Dice %s before", name, _said(description.labels, plain))
    before = _scores(cases, [Postprocessing()], classes)[0]
    calls_before = _calls(cases, Postprocessing()) if classes > LESION else None
    # What no case has says nothing about lesions: neither their weight nor what is too small is then chosen by it.
    lesions = calls_before is not None and calls_before.lesions > 0
    if most_false_positives is None:
        chosen, dice = _by_dice(cases, before, classes, lesions=lesions)
    elif lesions:
        chosen = _by_misses(cases, most_false_positives, classes)
        dice = _scores(cases, [chosen], classes)[0]
    else:
        raise InputError(
            f"misses can come first where there are lesions, but none of the {len(cases)} validation cases of "
            f"{', '.join(str(fold.work) for fold in folds)} has one; leave out --most-false-positives"
        )
    loss = np.mean(losses, axis=0)
    coolest = int(loss.argmin())
    _warn(folds[0].bundle, len(cases), chosen, coolest)
    return Tuned(
        cases=len(cases),
        postprocessing=chosen,
        dice=tuple(dice.tolist()),
        dice_before=tuple(before.tolist()),
        temperature=round(float(TEMPERATURES[coolest]), 3),
        loss=float(loss[coolest]),
        loss_before=float(np.interp(0.0, np.log(TEMPERATURES), loss)),
        calls=_calls(cases, chosen) if lesions else None,
        calls_before=calls_before if lesions else None,
        mirror_zyx=segmenter.mirror_zyx,
    )


def _held_out(folds: Sequence[Fold]) -> list[tuple[str, ...]]:
    """Return the validation cases of each; InputError where they are not those that its bundle held out."""
    names: list[tuple[str, ...]] = []
    for fold in folds:
        with PatchFile(fold.work / FILES["validation"]) as patches:
            _check_alike(fold.bundle, patches.meta, fold.work)
            names.append(patches.meta.validation_cases)
    if len(folds) == 1:  # may be tuned on other data than it was trained on
        return names
    for fold in folds:
        held_out_cases(fold.work, [fold.bundle])
        for name in ALIKE:
            ours, theirs = (getattr(one.bundle.description, name) for one in (folds[0], fold))
            if name != "postprocessing" and ours != theirs:
                raise InputError(
                    f"bundles that are tuned together must see scans alike, but '{name}' is {ours} in the first and "
                    f"{theirs} in that of {fold.work}; tune each by itself"
                )
    several = {name: count for name, count in Counter(itertools.chain(*names)).items() if count > 1}
    if several:
        raise InputError(
            f"each case must be held out by one bundle, but {min(several)} is a validation case of "
            f"{several[min(several)]} of the folders; give folds of one cross-validation"
        )
    return names


def _by_dice(
    cases: Sequence[_Case], before: NDArray[np.float64], classes: int, *, lesions: bool
) -> tuple[Postprocessing, NDArray[np.float64]]:
    """Return the weight of the lesion with the largest mean Dice, then the components, and the Dice of each label."""
    chosen, dice = Postprocessing(), before
    weights = [Postprocessing(lesion_weight=weight) for weight in LESION_WEIGHT]
    if lesions:
        chosen, dice = _better(cases, chosen, dice, weights, classes)
    tried = candidates(classes if lesions else LESION, chosen.lesion_weight)
    return _better(cases, chosen, dice, tried, classes)


def _better(
    cases: Sequence[_Case],
    chosen: Postprocessing,
    dice: NDArray[np.float64],
    tried: Sequence[Postprocessing],
    classes: int,
) -> tuple[Postprocessing, NDArray[np.float64]]:
    """Return the best of what is tried with its Dice, or what was chosen before unless that gains enough."""
    scores = _scores(cases, tried, classes)
    of_each = _mean(scores.T)
    if not np.isfinite(of_each).any():
        return chosen, dice
    best = int(np.nanargmax(of_each))
    gains = of_each[best] >= _mean(dice[:, np.newaxis])[0] + LEAST_GAIN
    return (tried[best], scores[best]) if gains else (chosen, dice)


def _by_misses(cases: Sequence[_Case], most_false_positives: float, classes: int) -> Postprocessing:
    """Return the weight and the smallest lesion with the fewest misses at so many false positives a scan."""
    tried = [
        Postprocessing(smallest_lesion_ml=smallest, lesion_weight=weight)
        for weight in LESION_WEIGHT
        for smallest in SMALLEST_LESION_ML
    ]
    found = [(one, _calls(cases, one)) for one in tried]
    allowed = [pair for pair in found if pair[1].false_positives_per_scan <= most_false_positives]
    if not allowed:
        fewest = min(calls.false_positives_per_scan for _, calls in found)
        raise InputError(
            f"--most-false-positives {most_false_positives:g} a scan is fewer than any setting has on the validation "
            f"cases, {fewest:g}; allow as many"
        )
    fewest_missed = min(calls.missed for _, calls in allowed)
    best = [pair for pair in allowed if pair[1].missed == fewest_missed]
    dice = _mean(_scores(cases, [one for one, _ in best], classes).T)
    return best[int(np.nanargmax(dice)) if np.isfinite(dice).any() else 0][0]


def _calls(cases: Sequence[_Case], postprocessing: Postprocessing) -> Calls:
    matched = []
    for case in cases:
        reference, labels, geometry = _processed(case, postprocessing)
        matched.append(match_lesions(reference == LESION, labels == LESION, voxel_ml=geometry.voxel_ml))
    found = [one for lesions in matched for one in lesions.found]
    false_positives = sum(len(lesions.false_positive_ml) for lesions in matched)
    return Calls(len(found), found.count(False), false_positives / len(cases))


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
    if chosen.lesion_weight in (min(LESION_WEIGHT), max(LESION_WEIGHT)):
        log.warning("lesion_weight %g is at the end of what was tried", chosen.lesion_weight)
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
    """Return labels (weights, z, y, x) for each of LESION_WEIGHT, and a voxel's mean cross entropy at each temperature.

    Both are on the network's grid.
    """
    labels = np.empty((len(LESION_WEIGHT), *reference.shape), np.uint8)
    every = max(1, reference.size // SAMPLES)
    loss, count, first = np.zeros(len(TEMPERATURES)), 0, 0
    shape_zyx = (reference.shape[0], reference.shape[1], reference.shape[2])

    def prepared(begin: int, end: int) -> NDArray[np.float32]:
        return normalised(segmenter.description, image[:, begin:end])

    for maps in segmenter.class_maps(shape_zyx, prepared):
        stop = first + maps.shape[1]
        for weight, out in zip(LESION_WEIGHT, labels, strict=True):
            out[first:stop] = Postprocessing(lesion_weight=weight).weigh(maps).argmax(axis=0)
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


def _processed(
    case: _Case, postprocessing: Postprocessing
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Geometry]:
    """Return the reference, the labels with postprocessing, and their grid."""
    reference, labels, geometry = case.unpacked(postprocessing.lesion_weight)
    processed = labels.copy()
    postprocessing(processed, geometry)
    return reference, processed, geometry


def _dice(case: _Case, postprocessing: Postprocessing, classes: int) -> tuple[float, ...]:
    reference, processed, _ = _processed(case, postprocessing)
    confusion = confusion_matrix(reference, processed, classes)
    scores = (Overlap.of(confusion, (value,)).dice for value in range(1, classes))
    return tuple(float("nan") if score is None else score for score in scores)


def _scores(cases: Sequence[_Case], tried: Sequence[Postprocessing], classes: int) -> NDArray[np.float64]:
    """Return the mean Dice over the cases of each that is tried and each label but background, (tried, labels)."""
    return _mean(np.array([[_dice(case, one, classes) for one in tried] for case in cases]))


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
