"""The data set: folders, dataset.json, resumption, and a summary of what was made."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.lock import alone_in, remove_leftovers
from algorithm.progress import progress
from trainer.phantom import statistics
from trainer.phantom.acquisition import Size
from trainer.phantom.case import make_volume, write_volume
from trainer.phantom.difficulty import DIFFICULTIES, DifficultyName

log = logging.getLogger(__name__)

FOLDER = "Task07_Pancreas"
SETTINGS_FILE = "phantom.json"
PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
UNSAID = {
    "kind": "pancreas",
    "difficulty": "plain",
}  # what phantom.json leaves out, as it did before they were
VERSION = 3  # raise it whenever the same seed gives other bytes
LABELS = {"0": "background", "1": "pancreas", "2": "cancer"}
Kind = Literal["pancreas", "brain", "hippocampus"]
DESCRIPTION = (
    "Synthetic abdominal CT of nobody, made by decathlon phantom with the sizes of Task07. "
    "Unlike the real set it holds the labels of the test cases too, in labelsTs."
)


@dataclass(frozen=True)
class Task:
    """What dataset.json says of a kind of phantom, as the published one does, and how its cases are called."""

    folder: str
    prefix: str
    name: str
    description: str
    channels: tuple[str, ...]
    labels: dict[str, str]


TASKS: dict[Kind, Task] = {
    "pancreas": Task(FOLDER, "pancreas", "Pancreas", DESCRIPTION, ("CT",), LABELS),
    "brain": Task(
        "Task01_BrainTumour",
        "BRATS",
        "BRATS",
        DESCRIPTION.replace("abdominal CT", "brain MR").replace("Task07", "Task01"),
        ("FLAIR", "T1w", "t1gd", "T2w"),
        {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    ),
    "hippocampus": Task(
        "Task04_Hippocampus",
        "hippocampus",
        "Hippocampus",
        DESCRIPTION.replace("abdominal CT", "hippocampus MR").replace("Task07", "Task04"),
        ("MRI",),
        {"0": "background", "1": "Anterior", "2": "Posterior"},
    ),
}


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of every case.

    `anatomy` is a label map of a real body to paint instead of a synthetic one, None for a synthetic one;
    `difficulty` is of the synthetic pancreas alone.
    """

    seed: int
    size: Size
    anatomy: Path | None = None
    kind: Kind = "pancreas"
    difficulty: DifficultyName = "plain"

    def fingerprint(self) -> dict[str, object]:
        """Return what a folder has to agree on to be continued."""
        digest = None if self.anatomy is None else hashlib.sha256(self.anatomy.read_bytes()).hexdigest()
        found: dict[str, object] = {
            "version": VERSION,
            "seed": self.seed,
            "size": self.size,
            "anatomy_sha256": digest,
        }
        if self.kind != "pancreas":
            found["kind"] = self.kind
        if self.difficulty != "plain":
            found["difficulty"] = self.difficulty
        return found


@dataclass(frozen=True)
class Measured:
    """What was measured on one finished case."""

    name: str
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    pancreas_ml: float
    tumour_ml: float
    percent_pancreas: float
    percent_tumour: float
    pancreas_box_xyz_mm: tuple[float, float, float]
    tumour_box_xyz_mm: tuple[float, float, float]


def case_numbers(training: int, test: int) -> tuple[list[int], list[int]]:
    """Return the ids of training and test cases: every third id is a test case, as if drawn from one list.

    An id never changes sides, whatever the counts, so a set can be extended.
    """
    train_ids = [number + number // 2 + 1 for number in range(training)]
    test_ids = [3 * (number + 1) for number in range(test)]
    return train_ids, test_ids


def case_file(number: int, kind: Kind = "pancreas") -> str:
    """Return the file name of a case."""
    return f"{TASKS[kind].prefix}_{number:03d}.nii.gz"


def make_case(settings: Settings, number: int, image_path: Path, label_path: Path) -> None:
    """Make and write one case."""
    if settings.kind == "brain":
        from trainer.phantom.brain import make_brain

        make_brain(settings.seed, number, settings.size, image_path, label_path)
        return
    if settings.kind == "hippocampus":
        from trainer.phantom.hippocampus import make_hippocampus

        make_hippocampus(settings.seed, number, image_path, label_path)
        return
    if settings.anatomy is None:
        volume = make_volume(settings.seed, number, settings.size, DIFFICULTIES[settings.difficulty])
    else:
        from trainer.phantom.labelled import make_labelled_volume

        volume = make_labelled_volume(settings.seed, number, settings.size, settings.anatomy)
    write_volume(volume, image_path, label_path)


def make_dataset(
    data: Path, *, settings: Settings, training: int, test: int, workers: int | None = None
) -> tuple[Path, list[Measured]]:
    """Make DATA/Task07_Pancreas; return the folder and the measurements of all cases.

    Raises InputError as `make_files`.
    """
    folder, labels = make_files(data, settings=settings, training=training, test=test, workers=workers)
    return folder, [measure(path) for path in labels]


def make_files(
    data: Path, *, settings: Settings, training: int, test: int, workers: int | None = None
) -> tuple[Path, list[Path]]:
    """Make the task's folder in DATA; return it and the label maps of all cases.

    Finished cases are kept, so the same command continues after an interruption. The bytes of a case depend
    on `settings` and its number only. Raises InputError when the folder was made with other settings.
    """
    if settings.anatomy is not None and not settings.anatomy.is_file():
        raise InputError(f"there is no label map at {settings.anatomy}: give a file for --anatomy.")
    task = TASKS[settings.kind]
    folder = data / task.folder
    with alone_in(folder, "decathlon phantom"):
        claim(folder, settings)
        remove_leftovers(folder, *(folder / name for name in PARTS))
        train_ids, test_ids = case_numbers(training, test)
        paths = [(number, folder / "imagesTr", folder / "labelsTr") for number in train_ids]
        paths += [(number, folder / "imagesTs", folder / "labelsTs") for number in test_ids]
        for name in PARTS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        jobs = [
            (number, images / case_file(number, settings.kind), labels / case_file(number, settings.kind))
            for number, images, labels in paths
        ]
        missing = [job for job in jobs if not (job[1].is_file() and job[2].is_file())]
        if len(missing) < len(jobs):
            log.info("%d of %d cases are there already", len(jobs) - len(missing), len(jobs))
        for _ in progress(run(settings, missing, workers), total=len(missing), what="phantom", unit="cases"):
            pass
        with replacing(folder / "dataset.json") as temporary:
            described = description(settings.kind, train_ids, test_ids)
            temporary.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return folder, [labels for _, _, labels in jobs]


def claim(folder: Path, settings: Settings) -> None:
    """Write the settings of a new folder; refuse one that holds something else."""
    wanted = settings.fingerprint()
    path = folder / SETTINGS_FILE
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}): delete {folder} and make it again.") from None
        if found != wanted:
            theirs, ours = ({**UNSAID, **one} for one in (found, wanted))
            different = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
            other, asked = (", ".join(f"{key} {one.get(key)}" for key in different) for one in (theirs, ours))
            raise InputError(
                f"{folder} holds a phantom made with {other} and cannot be continued with {asked}: "
                "choose another folder or delete this one."
            )
        return
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(
            f"{folder} exists and is not a phantom ({SETTINGS_FILE} is missing): choose another folder."
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def run(settings: Settings, jobs: list[tuple[int, Path, Path]], workers: int | None) -> Iterator[int]:
    """Yield the number of each case as it is finished."""
    count = min(len(jobs), workers or os.cpu_count() or 1)
    if count <= 1:
        for number, image_path, label_path in jobs:
            make_case(settings, number, image_path, label_path)
            yield number
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        pending = {pool.submit(make_case, settings, *job): job[0] for job in jobs}
        try:
            for done in as_completed(pending):
                done.result()
                yield pending[done]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def description(kind: Kind, train_ids: list[int], test_ids: list[int]) -> dict[str, Any]:
    """Return dataset.json with the keys, the order and the spelling of the published one."""
    task = TASKS[kind]
    return {
        "name": task.name,
        "description": task.description,
        "reference": "decathlon-unet",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0",
        "tensorImageSize": "3D" if len(task.channels) == 1 else "4D",
        "modality": {str(number): name for number, name in enumerate(task.channels)},
        "labels": task.labels,
        "numTraining": len(train_ids),
        "numTest": len(test_ids),
        "training": [
            {
                "image": f"./imagesTr/{case_file(number, kind)}",
                "label": f"./labelsTr/{case_file(number, kind)}",
            }
            for number in train_ids
        ],
        "test": [f"./imagesTs/{case_file(number, kind)}" for number in test_ids],
    }


def measure(label_path: Path) -> Measured:
    """Measure the labels of a finished case."""
    image = sitk.ReadImage(label_path)
    labels = sitk.GetArrayViewFromImage(image)
    spacing = np.array(image.GetSpacing())
    voxel_ml = float(spacing.prod()) / 1000.0
    counts = [int(np.count_nonzero(labels == value)) for value in (1, 2)]
    boxes = []
    for mask in (labels > 0, labels == 2):
        sides = []
        for axis in (2, 1, 0):
            used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
            sides.append(float((used[-1] - used[0] + 1) * spacing[2 - axis]) if used.size else 0.0)
        boxes.append((sides[0], sides[1], sides[2]))
    return Measured(
        name=label_path.name.removesuffix(".nii.gz"),
        shape_zyx=(labels.shape[0], labels.shape[1], labels.shape[2]),
        spacing_zyx_mm=(float(spacing[2]), float(spacing[1]), float(spacing[0])),
        pancreas_ml=counts[0] * voxel_ml,
        tumour_ml=counts[1] * voxel_ml,
        percent_pancreas=100.0 * counts[0] / labels.size,
        percent_tumour=100.0 * counts[1] / labels.size,
        pancreas_box_xyz_mm=boxes[0],
        tumour_box_xyz_mm=boxes[1],
    )


def summary(measured: list[Measured]) -> str:
    """Return a table of quantiles beside those of the real set."""
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    real: dict[str, str] = {
        "pancreas, ml": row([statistics.quantile(statistics.PANCREAS_ML, share) for share in shares]),
        "tumour, ml": row([statistics.quantile(statistics.TUMOUR_ML, share) for share in shares]),
        "pixel, mm": row([statistics.quantile(statistics.SPACING_X_MM, share) for share in shares]),
        "slice spacing, mm": row([2.5, 2.5, 2.5, 2.5, 5.0]),
        "slices": row([49.0, 83.0, 93.0, 103.0, 130.0]),
        "pancreas, % of voxels": row([0.077, 0.124, 0.178, 0.246, 0.386]),
        "tumour, % of voxels": row([0.0028, 0.0067, 0.0131, 0.0257, 0.0897]),
    }
    values = {
        "pancreas, ml": [case.pancreas_ml for case in measured],
        "tumour, ml": [case.tumour_ml for case in measured],
        "pixel, mm": [case.spacing_zyx_mm[2] for case in measured],
        "slice spacing, mm": [case.spacing_zyx_mm[0] for case in measured],
        "slices": [float(case.shape_zyx[0]) for case in measured],
        "pancreas, % of voxels": [case.percent_pancreas for case in measured],
        "tumour, % of voxels": [case.percent_tumour for case in measured],
    }
    for axis, name in enumerate("xyz"):
        values[f"gland box {name}, mm"] = [case.pancreas_box_xyz_mm[axis] for case in measured]
        real[f"gland box {name}, mm"] = f"median {statistics.PANCREAS_BOX_XYZ_MM_MEDIAN[axis]:.0f}"
        values[f"tumour box {name}, mm"] = [case.tumour_box_xyz_mm[axis] for case in measured]
        real[f"tumour box {name}, mm"] = f"median {statistics.TUMOUR_BOX_XYZ_MM_MEDIAN[axis]:.0f}"
    lines = [f"{'5, 25, 50, 75, 95 %':24s}{'this set':40s}Task07, full size"]
    for name, numbers in values.items():
        here = row([float(value) for value in np.quantile(numbers, shares)])
        lines.append(f"{name:24s}{here:40s}{real[name]}")
    return "\n".join(lines)


def label_summary(paths: list[Path], kind: Kind) -> str:
    """Return a table of quantiles of the volume of each label, in cases that have it, and in how many that is."""
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    lines = [f"{'ml at 5, 25, 50, 75, 95 %':28s}{'this set':40s}cases with it"]
    volumes: dict[str, list[float]] = {name: [] for name in list(TASKS[kind].labels.values())[1:]}
    for path in paths:
        image = sitk.ReadImage(path)
        counts = np.bincount(sitk.GetArrayViewFromImage(image).reshape(-1), minlength=len(volumes) + 1)
        for name, count in zip(volumes, counts[1:], strict=True):
            if count:
                volumes[name].append(float(count * np.prod(image.GetSpacing()) / 1000.0))
    for name, found in volumes.items():
        here = row([float(value) for value in np.quantile(found, shares)]) if found else ""
        lines.append(f"{name:28s}{here:40s}{len(found)} of {len(paths)}")
    return "\n".join(lines)


def row(numbers: list[float]) -> str:
    """Return numbers in columns."""
    return "".join(f"{number:<8.3g}" for number in numbers)
