"""One case of a data set, read and measured: what is odd about it, and what section 3 of the paper tells of a set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.errors import InputError
from algorithm.geometry import Geometry, Orientation, canonical_orientation, same_grid
from algorithm.images import read_image, stored_of
from algorithm.intensities import Stored
from algorithm.postprocessing import components
from trainer.header import stated_names
from trainer.kept import file_states, read_kept, write_kept
from trainer.lesions import lesion_values
from trainer.structures import MOST_IN_UNION
from trainer.surface import bounding_box

LOWEST_HU, HIGHEST_HU, HU_A_BIN = -1024, 3072, 16  # what a CT of 12 bits holds
BINS = (HIGHEST_HU - LOWEST_HU) // HU_A_BIN
FEWEST_VOXELS = 50  # a smaller tumour is gone after resampling, or was a slip of the brush
AIR_HU, LEAST_AIR = (-1150, -850), 0.0005
TISSUE_HU, LEAST_TISSUE = (-200, 300), 0.02  # fat to enhanced organs
BONE_HU = 1500
# A body upside down has its air here, one stored before its rescale its water.
MIRRORED_AIR_HU, MOST_MIRRORED = (850, 1150), 0.05
POSSIBLE_HU, MOST_IMPOSSIBLE = (-3100, 4000), 0.001  # the least is a scanner's padding, the greatest metal
ORGAN_HU = (-150, 350)
HU_PROBLEMS = {"stored values", "normalised", "beyond HU"}
SMALL_RANGE = 256  # a CT whose values span less was normalised, or kept in eight bits
KEPT_FORMAT = 1  # raise it when a finding changes its meaning, so that cases are examined again


@dataclass(frozen=True)
class Job:
    """A case to examine; a test case may have a label, which is checked but not counted."""

    case: str
    image: Path
    label: Path | None
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    window_hu: tuple[float, float]
    is_training: bool


@dataclass
class Examined:
    """What is known of a case.

    Attributes:
        case: its name.
        is_training: whether dataset.json lists it with a label.
        problems: pairs of the kind (a key of `trainer.doctor.dataset.KINDS`) and a detail.
        shape_zyx, spacing_zyx_mm: in canonical axis order.
        orientation: of the file, such as "RAI".
        digest: of the image's voxels, whatever their type and order in the file.
        voxels: of each label.
        histogram: int64 (K, BINS + 2) of CT values by label; the first and last bin hold what lies outside.
        in_window: voxels of each label whose value lies in the window.

    """

    case: str
    is_training: bool
    problems: list[tuple[str, str]] = field(default_factory=list)
    shape_zyx: tuple[int, int, int] | None = None
    spacing_zyx_mm: tuple[float, float, float] | None = None
    orientation: str = ""
    digest: str = ""
    voxels: list[int] = field(default_factory=list)
    histogram: list[list[int]] = field(default_factory=list)
    in_window: list[int] = field(default_factory=list)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Examined:
        """Undo `asdict` and JSON; TypeError, ValueError or KeyError where it is of another release."""
        found = cls(**document)
        found.problems = [(kind, detail) for kind, detail in found.problems]
        for name in ("shape_zyx", "spacing_zyx_mm"):
            value = getattr(found, name)
            setattr(found, name, None if value is None else tuple(value))
        return found


@dataclass(frozen=True)
class Keeping:
    """A case to examine, and where what is found is kept; `file` is None where it is not."""

    job: Job
    file: Path | None

    @property
    def identity(self) -> dict[str, Any]:
        """All that what is found depends on, as JSON has it."""
        job = self.job
        return {
            "format": KEPT_FORMAT,
            "files": file_states([job.image] if job.label is None else [job.image, job.label]),
            "labels": list(job.labels),
            "channels": list(job.channels),
            "window_hu": list(job.window_hu),
            "is_training": job.is_training,
        }

    def kept(self) -> Examined | None:
        """Return what was found before, if that is still so."""
        found = None if self.file is None else read_kept(self.file, self.identity)
        try:
            return None if found is None else Examined.from_json(found)
        except (KeyError, TypeError, ValueError):
            return None


def examine_and_keep(keeping: Keeping) -> Examined:
    """Examine a case and write what is known of it."""
    identity = keeping.identity  # before the files are read: one that changes meanwhile is read again
    found = examine(keeping.job)
    if keeping.file is not None:
        write_kept(keeping.file, identity, asdict(found))
    return found


def examine(job: Job) -> Examined:
    """Read a case and say what is known of it; a file that cannot be read is a problem, not an exception."""
    found = Examined(job.case, is_training=job.is_training)
    image = _read_image(job, found)
    label = None if job.label is None else _read_label(job, job.label, found)
    if image is None:
        return found
    stored, grid = image
    voxels = stored.channels
    orientation = canonical_orientation(grid)
    canonical = orientation.canonical(grid)
    found.shape_zyx, found.spacing_zyx_mm = canonical.shape_zyx, canonical.spacing_zyx_mm
    found.orientation = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
    found.digest = _digest(orientation, voxels)
    if voxels.dtype.kind == "f" and not (finite := np.isfinite(voxels)).all():
        found.problems.append(("not finite", f"{np.count_nonzero(~finite)} voxels"))
        voxels = np.where(finite, voxels, LOWEST_HU)
    if job.channels[0].upper() == "CT":
        _check_hu(voxels[0], found)
    usable = None
    if label is not None:
        values, label_grid = label
        different = same_grid(label_grid, grid)
        if different:
            found.problems.append(("other grid", different))
        else:
            usable = values
    if usable is not None:
        _measure(job, voxels[0], usable, grid, found)
    if not job.is_training:
        found.voxels, found.histogram, found.in_window = [], [], []
    return found


def _digest(orientation: Orientation, voxels: NDArray[Any]) -> str:
    """Return the sha256 of the voxels (c, z, y, x) as float32 in canonical order."""
    digest = hashlib.sha256()
    with np.errstate(over="ignore"):  # of float64
        for channel in voxels:
            for plane in orientation.view(channel):
                digest.update(np.ascontiguousarray(plane, np.float32).data)
    return digest.hexdigest()


def _read_image(job: Job, found: Examined) -> tuple[Stored, Geometry] | None:
    """Return a scan of as many channels as the file holds, and its grid."""
    try:
        names = stated_names(job.image)
        image = read_image(job.image, names)
    except InputError as problem:
        found.problems.append(("unreadable", str(problem)))
        return None
    if len(names) != len(job.channels):
        found.problems.append(("channels", f"{len(names)} instead of {len(job.channels)}"))
    return stored_of(image, names), Geometry.of(image)


def _read_label(job: Job, path: Path, found: Examined) -> tuple[NDArray[np.uint8], Geometry] | None:
    try:
        image = read_image(path)
    except InputError as problem:
        found.problems.append(("unreadable", str(problem)))
        return None
    values = sitk.GetArrayFromImage(image)
    others = [value for value in np.unique(values).tolist() if value not in range(len(job.labels))]
    if others:
        found.problems.append(("label values", ", ".join(f"{value:g}" for value in others[:5])))
        return None
    return values.astype(np.uint8), Geometry.of(image)


def _check_hu(voxels: NDArray[Any], found: Examined) -> None:
    low, high = float(voxels.min()), float(voxels.max())
    if high - low < SMALL_RANGE:
        found.problems.append(("normalised", f"{low:g} to {high:g}"))
    elif 1 - _share(voxels, POSSIBLE_HU) > MOST_IMPOSSIBLE:
        found.problems.append(("beyond HU", f"{low:g} to {high:g}"))
    elif (low >= 0 and high > BONE_HU) or _share(voxels, MIRRORED_AIR_HU) > MOST_MIRRORED:
        found.problems.append(("stored values", f"{low:g} to {high:g}"))
    elif _share(voxels, TISSUE_HU) < LEAST_TISSUE:
        found.problems.append(("beyond HU", f"{low:g} to {high:g}"))
    elif _share(voxels, AIR_HU) < LEAST_AIR:
        found.problems.append(("no air", f"from {low:g}"))


def _share(voxels: NDArray[Any], limits: tuple[float, float]) -> float:
    low, high = limits
    return float(np.mean([np.mean((plane >= low) & (plane <= high)) for plane in voxels]))


def _measure(
    job: Job, voxels: NDArray[Any], labels: NDArray[np.uint8], grid: Geometry, found: Examined
) -> None:
    """Count voxels, values and pieces of each label."""
    classes = len(job.labels)
    found.voxels = np.bincount(labels.reshape(-1), minlength=classes).tolist()
    if job.channels[0].upper() == "CT":
        low, high = job.window_hu
        counts = np.zeros((classes, BINS + 2), np.int64)
        inside = np.zeros(classes, np.int64)
        for plane, of_plane in zip(
            voxels, labels, strict=True
        ):  # a plane at a time: bins take eight bytes a voxel
            within = np.clip(plane, LOWEST_HU - HU_A_BIN, HIGHEST_HU).astype(np.float32)
            bins = ((within - LOWEST_HU) // HU_A_BIN + 1).astype(np.int64)
            bins += of_plane.astype(np.int64) * (BINS + 2)
            counts += np.bincount(bins.reshape(-1), minlength=counts.size).reshape(counts.shape)
            inside += np.bincount(of_plane[(plane >= low) & (plane <= high)], minlength=classes)
        found.histogram, found.in_window = counts.tolist(), inside.tolist()
    box = bounding_box(labels)
    if box is None:
        found.problems.append(("empty label", ""))
        return
    if absent := [name for name, count in zip(job.labels, found.voxels, strict=True) if count == 0]:
        found.problems.append(("absent label", ", ".join(absent)))
    if job.channels[0].upper() == "CT" and not HU_PROBLEMS & {kind for kind, _ in found.problems}:
        median = float(np.median(voxels[box][labels[box] > 0]))
        if not ORGAN_HU[0] <= median <= ORGAN_HU[1]:
            found.problems.append(("organ HU", f"{median:g}"))
    for side, size, name in zip(box, labels.shape, "zyx", strict=True):
        if (side.start == 0 or side.stop == size) and size > 1:
            found.problems.append(("at the border", f"along {name}"))
    if classes - 1 > MOST_IN_UNION:
        return
    labels = labels[box]
    _, pieces = components(labels > 0)
    if pieces > 1:
        found.problems.append(("pieces", f"{pieces}"))
    for value in lesion_values(job.labels):
        numbered, lesions = components(labels == value)
        if lesions == 0:
            continue
        least = int(np.bincount(numbered.reshape(-1))[1:].min())
        if least < FEWEST_VOXELS:
            found.problems.append(
                ("tiny", f"{job.labels[value]}, {least} voxels, {least * grid.voxel_ml:.2g} ml")
            )
        if lesions > 1 and value > 1:
            found.problems.append(("several lesions", f"{job.labels[value]}, {lesions}"))


def percentages(cases: Sequence[Examined], classes: int) -> NDArray[np.float64]:
    """Return the share of each label in each case that was measured, in per cent: (cases, classes)."""
    counts = np.array([case.voxels for case in cases if case.voxels], np.float64).reshape(-1, classes)
    shares: NDArray[np.float64] = 100 * counts / counts.sum(axis=1, keepdims=True)
    return shares
