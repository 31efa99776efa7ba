"""A zip of predictions as the Decathlon's leaderboard takes it, checked against the data sets first.

What is finished is kept beside the zip, in `.NAME.parts`, until the zip is complete: a killed run continues there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.geometry import same_grid
from algorithm.images import case_name, list_images, read_labels, write_labels
from algorithm.lock import alone_in, remove_held, remove_leftovers, remove_leftovers_of
from algorithm.payload import is_one_gzip_stream
from algorithm.progress import progress
from trainer.dataset import FILE_NAME, Dataset, declared_test_count
from trainer.evaluate import refuse_other_values
from trainer.header import read_header
from trainer.tasks import find_tasks, missing_tasks, nearest_task, said_of_missing, task_folders

log = logging.getLogger(__name__)

SUFFIX = ".nii.gz"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can name: the same predictions give the same bytes
READABLE_FILE = 0o100644
FORMAT = 1  # raise it whenever a kept part would be made differently
MANIFEST_SUFFIX = ".manifest.json"


class SubmissionError(InputError):
    """Predictions the leaderboard would refuse: `problems` holds a sentence each, the message the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        rest = len(problems) - 1
        more = f" (and {rest} more problem{'s' if rest > 1 else ''})" if rest else ""
        super().__init__(problems[0] + more)


@dataclass(frozen=True)
class Planned:
    """A test case of a task: the grid it must have is that of `image`; without `prediction` it is filled empty."""

    task: str
    case: str
    image: Path
    labels: tuple[str, ...]
    prediction: Path | None


@dataclass(frozen=True)
class Entry:
    """A case that passed: its task, its name, the file that goes into the zip, and what is in it.

    `filled` says that there was no prediction, `empty` that the file holds nothing but background.
    """

    task: str
    case: str
    file: Path
    filled: bool
    empty: bool

    @property
    def name(self) -> str:
        """The name in the zip."""
        return f"{self.task}/{self.case}{SUFFIX}"


def write_submission(
    predictions: Path,
    dataset_folder: Path,
    out: Path,
    *,
    fill_empty: bool = False,
    threads: int | None = None,
) -> list[Entry]:
    """Check every prediction, then write OUT with TaskNN_Name/<case>.nii.gz for every test case.

    Files are stored, being compressed already, in the order of their names, with a fixed date. A prediction
    that is not a uint8 .nii.gz is converted to one. Beside OUT lies its manifest: which tasks it holds, which were
    filled, and its sha256. The zip itself holds predictions only, since nobody has seen what the leaderboard does
    with another file.

    Args:
        predictions: a folder of label maps, one for each test case of one task, in any format that can be read; or
            a folder of such folders, called TaskNN_Name.
        dataset_folder: a data set with its test images, or the folder of several.
        out: the .zip.
        fill_empty: write label maps of nothing but background for each task of `dataset_folder` that has no
            predictions.
        threads: cases checked at once; by default one a core.

    Raises:
        SubmissionError: with every problem of every case; nothing is written then.
        InputError: when the data set or a folder cannot be used at all.

    """
    if out.suffix != ".zip":
        raise InputError(f"the submission must be a .zip file, got {out}")
    planned, problems = plan(predictions, dataset_folder, fill_empty=fill_empty)
    parts = out.with_name(f".{out.name}.parts")
    with alone_in(parts, "submission"):
        for beside in (parts, out, manifest_of(out)):
            remove_leftovers_of(beside)
        remove_leftovers(*(folder for folder in (parts, *parts.iterdir()) if folder.is_dir()))
        entries, more = _finish(planned, parts, threads)
        if problems or more:
            raise SubmissionError(problems + more)
        digest = _zip(entries, parts / out.name)
        with replacing(manifest_of(out)) as temporary:
            temporary.write_text(json.dumps(_manifest(entries, out, digest), indent=2) + "\n")
        (parts / out.name).replace(out)
        remove_held(parts)
    return entries


def manifest_of(out: Path) -> Path:
    """Return where the manifest of a submission lies."""
    return out.with_name(out.stem + MANIFEST_SUFFIX)


def plan(
    predictions: Path, dataset_folder: Path, *, fill_empty: bool = False
) -> tuple[list[Planned], list[str]]:
    """Return every case that can be checked, by name, and a sentence for all that is missing or too much.

    Raises InputError when a data set or a folder cannot be used at all.
    """
    datasets = find_tasks(dataset_folder)
    folders = _prediction_folders(predictions, datasets)
    problems = [
        f"{folder} has no data set in {dataset_folder}, so its cases cannot be checked{nearest_task(task, datasets)}"
        for task, folder in folders.items()
        if task not in datasets
    ]
    planned: list[Planned] = []
    for task, folder in sorted(datasets.items()):
        if task not in folders and not fill_empty:
            continue
        dataset = _read_dataset(folder)
        images = {case_name(path): path for path in dataset.test}
        found: dict[str, Path] = {}
        if task in folders:
            found = {case_name(path): path for path in list_images(folders[task])}
            problems += [
                f"{folders[task]} lacks the test case {case}" for case in sorted(images.keys() - found)
            ]
            problems += [
                f"{found[case]} is not a test case of {folder}" for case in sorted(found.keys() - images)
            ]
        planned += [
            Planned(task, case, images[case], dataset.labels, found.get(case))
            for case in sorted(images)
            if case in found or task not in folders
        ]
    return planned, problems


def _prediction_folders(predictions: Path, datasets: dict[str, Path]) -> dict[str, Path]:
    """Return the folders of predictions by task: those called TaskNN_Name, else the folder itself."""
    images = list_images(predictions)
    folders = {folder.name: folder for folder in task_folders(predictions)}
    for other in sorted(predictions.iterdir()):
        is_hidden = other.name.startswith(".")
        if other.is_dir() and not is_hidden and other.name not in folders and list_images(other):
            raise InputError(
                f"{other} holds images, but is not called TaskNN_Name, so they would be left out"
                f"{nearest_task(other.name, datasets)}; rename or move the folder"
            )
    if folders and images:
        raise InputError(
            f"{predictions} holds both label maps ({images[0].name}, …) and task folders ({next(iter(folders))}, …); "
            "move the label maps into the folder of their task"
        )
    if folders:
        return folders
    if len(datasets) == 1:
        return {next(iter(datasets)): predictions}
    cases = {case_name(path) for path in images}
    fitting = [
        task
        for task, folder in sorted(datasets.items())
        if cases & {case_name(path) for path in _read_dataset(folder).test}
    ]
    if len(fitting) != 1:
        what = f"cases of {', '.join(fitting)}" if fitting else "no test case of any task"
        raise InputError(
            f"{predictions} must hold a folder for each task, such as {next(iter(datasets))}, since {len(datasets)} "
            f"tasks were given, but it holds {what} itself"
        )
    return {fitting[0]: predictions}


def _read_dataset(folder: Path) -> Dataset:
    dataset = Dataset.read(folder, require=("test",))
    if not dataset.test:
        raise InputError(f"{folder} lists no test images, so there is nothing to submit")
    if difference := declared_otherwise(folder, dataset):
        raise InputError(difference)
    return dataset


def declared_otherwise(folder: Path, dataset: Dataset) -> str | None:
    """Return a sentence where dataset.json counts other test images than it lists: either may be wrong."""
    declared = declared_test_count(folder)
    if declared is None or declared == len(dataset.test):
        return None
    return (
        f"{folder / FILE_NAME} says numTest {declared} but lists {len(dataset.test)} test images; take the data set as "
        "it was published, or correct the number if the list is right"
    )


def _finish(planned: Sequence[Planned], parts: Path, threads: int | None) -> tuple[list[Entry], list[str]]:
    """Check, convert or fill every case; return those that passed, in order, and what is wrong with the others."""

    def work(case: Planned) -> Entry | str:
        try:
            return _finish_case(case, parts)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        results = list(progress(pool.map(work, planned), total=len(planned), what="check", unit="cases"))
    entries = [result for result in results if isinstance(result, Entry)]
    return entries, [result for result in results if isinstance(result, str)]


def _finish_case(case: Planned, parts: Path) -> Entry:
    """Return a case's entry: as it was kept, when neither its image nor its prediction changed since, else anew."""
    folder = parts / case.task
    kept, made = folder / f"{case.case}.json", folder / f"{case.case}{SUFFIX}"
    identity = _identity(case)
    known = _read_kept(kept, identity)
    if known is not None and (known["as_it_is"] or made.is_file()):
        file = case.prediction if known["as_it_is"] and case.prediction else made
        return Entry(case.task, case.case, file, case.prediction is None, known["empty"])
    if case.prediction is None:
        grid = read_header(case.image).grid
        write_labels(made, np.zeros(grid.shape_zyx, np.uint8), grid)
        as_it_is, empty = False, True
    else:
        as_it_is, empty = _check_case(case, case.prediction, made)
    with replacing(kept) as temporary:
        temporary.write_text(json.dumps({"identity": identity, "as_it_is": as_it_is, "empty": empty}))
    file = case.prediction if as_it_is and case.prediction else made
    return Entry(case.task, case.case, file, case.prediction is None, empty)


def _check_case(case: Planned, prediction: Path, made: Path) -> tuple[bool, bool]:
    """Check a prediction and write the file `made` where it cannot go as it is; return whether it can, and is empty."""
    grid = read_header(case.image).grid
    array, predicted_grid = read_labels(prediction)
    different = same_grid(predicted_grid, grid)
    if different:
        raise InputError(f"{prediction} must lie on the grid of {case.image}, but has {different}")
    refuse_other_values(array, case.labels, prediction)
    as_it_is = _goes_in_unchanged(prediction)
    if not as_it_is:
        write_labels(made, array, grid)
    return as_it_is, not array.any()


def _goes_in_unchanged(prediction: Path) -> bool:
    if not prediction.name.endswith(SUFFIX):
        return False
    header = read_header(prediction)
    return header.is_uint8 and header.dimensions == 3 and is_one_gzip_stream(prediction)


def _identity(case: Planned) -> dict[str, Any]:
    files = [case.image]
    if case.prediction is not None:  # voxels may lie beside their header, as in .mhd with .zraw
        files += sorted(
            path for path in case.prediction.parent.iterdir() if path.name.startswith(f"{case.case}.")
        )
    states = [(str(path.resolve()), path.stat()) for path in files]
    return {
        "format": FORMAT,
        "files": [[name, state.st_size, state.st_mtime_ns] for name, state in states],
        "labels": list(case.labels),
    }


def _read_kept(path: Path, identity: dict[str, Any]) -> dict[str, bool] | None:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    right = isinstance(document, dict) and document.get("identity") == identity
    flags = {name: document.get(name) for name in ("as_it_is", "empty")} if right else {}
    return flags if flags and all(isinstance(flag, bool) for flag in flags.values()) else None


def _zip(entries: Sequence[Entry], path: Path) -> str:
    """Write the zip, a file at a time; return its sha256."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for entry in progress(entries, total=len(entries), what="submission", unit="cases"):
            info = zipfile.ZipInfo(entry.name, EARLIEST)
            info.external_attr = READABLE_FILE << 16
            info.create_system = 3  # Unix, whatever the machine: part of the bytes
            info.file_size = entry.file.stat().st_size
            with entry.file.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return digest_of(path)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(entries: Sequence[Entry], out: Path, digest: str) -> dict[str, Any]:
    tasks = summary(entries)
    filled = [task.name for task in tasks if task.filled]
    return {
        "zip": out.name,
        "sha256": digest,
        "tasks": [asdict(task) for task in tasks],
        "filled_with_empty_predictions": filled,
        "missing_tasks": missing_tasks([task.name for task in tasks]),
        "remarks": remarks(entries),
    }


@dataclass(frozen=True)
class TaskSummary:
    """A task in a submission: how many cases, whether they were filled, and which hold background only."""

    name: str
    cases: int
    filled: bool
    background_only: list[str]


def summary(entries: Sequence[Entry]) -> list[TaskSummary]:
    """Return what a submission holds, task by task; of a filled task, no case is named as empty."""
    tasks = sorted({entry.task for entry in entries})
    of = {task: [entry for entry in entries if entry.task == task] for task in tasks}
    return [
        TaskSummary(
            task,
            len(of[task]),
            any(entry.filled for entry in of[task]),
            [entry.case for entry in of[task] if entry.empty and not entry.filled],
        )
        for task in tasks
    ]


def remarks(entries: Sequence[Entry]) -> list[str]:
    """Return what has to be said of a submission: filled tasks, cases of background only, missing tasks."""
    tasks = summary(entries)
    filled = [task for task in tasks if task.filled]
    said = [
        f"nothing but background in {len(task.background_only)} of the {task.cases} cases of {task.name}: "
        f"{', '.join(task.background_only)}"
        for task in tasks
        if task.background_only
    ]
    if filled:
        cases = sum(task.cases for task in filled)
        said.append(
            f"no model predicted {', '.join(task.name for task in filled)}: their {cases} label maps hold nothing but "
            "background (--fill-empty), so that the zip is complete; every structure of theirs is missed and scores 0"
        )
    missing = said_of_missing([task.name for task in tasks])
    return [*said, missing] if missing else said
