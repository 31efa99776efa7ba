"""A zip of predictions as the Decathlon's leaderboard takes it, checked against the data set first."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.geometry import Geometry, same_grid
from algorithm.images import case_name, list_images, read_labels, write_labels
from algorithm.progress import progress
from trainer.dataset import TASK_FOLDER, Dataset
from trainer.evaluate import refuse_other_values
from trainer.header import read_header

SUFFIX = ".nii.gz"
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first moment a zip can name: the same predictions give the same bytes
READABLE_FILE = 0o100644


class SubmissionError(InputError):
    """Predictions the leaderboard would refuse: `problems` holds a sentence each, the message the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        rest = len(problems) - 1
        more = f" (and {rest} more problem{'s' if rest > 1 else ''})" if rest else ""
        super().__init__(problems[0] + more)


@dataclass(frozen=True)
class Entry:
    """A prediction that passed: its case, its file, the grid of its image, and whether it holds nothing."""

    case: str
    prediction: Path
    grid: Geometry
    as_it_is: bool
    empty: bool


def write_submission(
    predictions: Path, dataset_folder: Path, out: Path, *, threads: int | None = None
) -> list[Entry]:
    """Check every prediction, then write OUT with TaskNN_Name/<case>.nii.gz for every test case.

    Files are stored, being compressed already, in the order of their names, with a fixed date. A prediction
    that is not a uint8 .nii.gz is converted to one.

    Args:
        predictions: a folder with one label map for each test case, in any format that can be read.
        dataset_folder: the data set with its test images; its name becomes the folder in the zip.
        out: the .zip.
        threads: cases checked at once; by default one a core.

    Raises:
        SubmissionError: with every problem of every case; nothing is written then.
        InputError: when the data set or a folder cannot be used at all.

    """
    if out.suffix != ".zip":
        raise InputError(f"the submission must be a .zip file, got {out}")
    entries = check_predictions(predictions, dataset_folder, threads=threads)
    task = task_name(dataset_folder)
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for entry in progress(entries, total=len(entries), what="submission", unit="cases"):
            _add(archive, f"{task}/{entry.case}{SUFFIX}", entry)
    return entries


def check_predictions(predictions: Path, dataset_folder: Path, *, threads: int | None = None) -> list[Entry]:
    """Return one entry a test case, by name; SubmissionError lists all that is wrong."""
    dataset = Dataset.read(dataset_folder, require=("test",))
    task_name(dataset_folder)
    if not dataset.test:
        raise InputError(f"{dataset_folder} lists no test images, so there is nothing to submit")
    images = {case_name(path): path for path in dataset.test}
    found = {case_name(path): path for path in list_images(predictions)}
    problems = [f"{predictions} lacks the test case {case}" for case in sorted(images) if case not in found]
    problems += [
        f"{path} is not a test case of {dataset_folder}"
        for case, path in sorted(found.items())
        if case not in images
    ]
    cases = sorted(images.keys() & found.keys())

    def check(case: str) -> Entry | str:
        try:
            return _check_case(case, found[case], images[case], dataset.labels)
        except InputError as error:
            return str(error)

    entries = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for result in progress(pool.map(check, cases), total=len(cases), what="check", unit="cases"):
            if isinstance(result, str):
                problems.append(result)
            else:
                entries.append(result)
    if problems:
        raise SubmissionError(problems)
    return entries


def task_name(dataset_folder: Path) -> str:
    """Return the name of the task's folder, such as Task07_Pancreas; InputError when it is none."""
    name = dataset_folder.resolve().name
    if not TASK_FOLDER.fullmatch(name):
        raise InputError(
            "the data set folder must be called TaskNN_Name, such as Task07_Pancreas, since the leaderboard "
            f"finds the task by it, but is {name}"
        )
    return name


def _check_case(case: str, prediction: Path, image: Path, labels: Sequence[str]) -> Entry:
    grid = read_header(image).grid
    array, predicted_grid = read_labels(prediction)
    different = same_grid(predicted_grid, grid)
    if different:
        raise InputError(f"{prediction} must lie on the grid of {image}, but has {different}")
    refuse_other_values(array, labels, prediction)
    return Entry(case, prediction, grid, as_it_is=_goes_in_unchanged(prediction), empty=not array.any())


def _goes_in_unchanged(prediction: Path) -> bool:
    if not prediction.name.endswith(SUFFIX):
        return False
    header = read_header(prediction)
    return header.is_uint8 and header.dimensions == 3


def _add(archive: zipfile.ZipFile, name: str, entry: Entry) -> None:
    with _final(entry) as path:
        info = zipfile.ZipInfo(name, EARLIEST)
        info.external_attr = READABLE_FILE << 16
        info.create_system = 3  # Unix, whatever the machine: part of the bytes
        info.file_size = path.stat().st_size
        with path.open("rb") as source, archive.open(info, "w") as target:
            shutil.copyfileobj(source, target, 1 << 20)


@contextmanager
def _final(entry: Entry) -> Iterator[Path]:
    """Yield a uint8 .nii.gz of the prediction: the file itself, or a converted one that goes away after."""
    if entry.as_it_is:
        yield entry.prediction
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{entry.case}{SUFFIX}"
        write_labels(path, read_labels(entry.prediction)[0], entry.grid)
        yield path
