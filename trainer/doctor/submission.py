"""Examine a zip for the Decathlon's leaderboard: what is in it, entry by entry, as the leaderboard would read it.

It must hold TaskNN_Name/<case>.nii.gz for every test case of all ten tasks and nothing else; every entry intact,
a 3-D uint8 NIfTI on the grid of its test image, with the labels of its task only. Names, grids and labels are
compared with the data sets of --dataset.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from algorithm.errors import InputError
from algorithm.geometry import same_grid
from algorithm.images import case_name, read_geometry, read_labels
from algorithm.nifti import check_header
from algorithm.payload import is_one_gzip_stream
from algorithm.progress import progress
from trainer.cli import positive
from trainer.dataset import TASK_FOLDER, Dataset
from trainer.doctor.finding import Finding, error, note, warning
from trainer.evaluate import refuse_other_values
from trainer.header import read_header
from trainer.submission import SUFFIX, declared_otherwise, digest_of, manifest_of
from trainer.tasks import TASKS, find_tasks, nearest_task, said_of_missing

SUMMARY = "a zip for the Decathlon's leaderboard"
EXAMPLE = "decathlon doctor submission submission.zip --dataset DATA"
LONGEST_NAME_BYTES = 255
LARGEST_ENTRY_BYTES = 1 << 30  # a label map of the largest test scan takes a few MB
READABLE_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DROPPED = ("__MACOSX", ".DS_Store", "desktop.ini")  # by the platform, wherever they stand in a name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subject."""
    parser.add_argument("path", type=Path, metavar="ZIP", help="the submission")
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="the task folder with its test images, or the folder of several, to compare with",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="cases at once (default: one a core)")


def examine(args: argparse.Namespace) -> list[Finding]:
    """Run the examination that the arguments ask for."""
    return check(args.path, args.dataset, threads=args.threads)


def check(path: Path, dataset_folder: Path | None = None, *, threads: int | None = None) -> list[Finding]:
    """Return what is wrong with a submission, and what it holds.

    Raises InputError when the data sets to compare with cannot be read.
    """
    datasets: dict[str, Dataset] = {}
    findings: list[Finding] = []
    if dataset_folder is not None:
        folders = find_tasks(dataset_folder)
        datasets = {task: Dataset.read(folder, require=("test",)) for task, folder in folders.items()}
        told = [declared_otherwise(folder, datasets[task]) for task, folder in folders.items()]
        findings += [error(sentence) for sentence in told if sentence]
    if not path.is_file():
        return [*findings, error(f"{path} does not exist; 'decathlon submission' writes it")]
    try:
        with zipfile.ZipFile(path) as archive:
            return [*findings, *_of_archive(path, archive, datasets, threads)]
    except UnicodeDecodeError:
        return [*findings, error(f"{path} holds a name that is not UTF-8, though it says so; make it anew")]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as problem:
        return [*findings, error(f"{path} is not a readable zip: {problem}; make it anew")]


@dataclass
class _Faults:
    """Names by what is wrong with them: a zip without its folder is one finding, not 139."""

    path: Path
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, sentence: str) -> None:
        self.names.setdefault(sentence, []).append(name)

    def findings(self) -> list[Finding]:
        return [error(f"{self.path}: {_first(names)} {sentence}") for sentence, names in self.names.items()]


@dataclass(frozen=True)
class _Case:
    task: str
    name: str
    info: zipfile.ZipInfo


def _of_archive(
    path: Path, archive: zipfile.ZipFile, datasets: dict[str, Dataset], threads: int | None
) -> list[Finding]:
    faults = _Faults(path)
    cases: list[_Case] = []
    dropped: list[str] = []
    members = [info for info in archive.infolist() if not info.is_dir()]
    for name, count in Counter(info.filename for info in members).items():
        if count > 1:
            faults.add(name, "stands in the zip more than once; which one counts depends on who unpacks it")
    for info in members:
        if any(word in info.filename for word in DROPPED):
            dropped.append(info.filename)
        elif sentence := _fault_of_entry(info) or _fault_of_name(info.filename):
            faults.add(info.filename, sentence)
        else:
            task, file = info.filename.split("/")
            cases.append(_Case(task, case_name(Path(file)), info))
    if not members:
        return [error(f"{path} holds no file; zip the predictions with 'decathlon submission'")]
    findings = [*_of_cases(path, cases, datasets, faults), *_of_tasks(path, cases, datasets)]
    empty: Counter[str] = Counter()
    known = {(task, case_name(image)): image for task in datasets for image in datasets[task].test}

    def read(case: _Case) -> tuple[_Case, str | bool]:
        try:
            dataset, image = datasets.get(case.task), known.get((case.task, case.name))
            return case, _is_empty(archive, case.info, dataset, image)
        except InputError as problem:
            return case, str(problem)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for case, result in progress(pool.map(read, cases), total=len(cases), what="examine", unit="cases"):
            if isinstance(result, str):
                findings.append(error(f"{path}: {result}"))
            else:
                empty[case.task] += result
    if dropped:
        findings.append(
            warning(f"{path}: {_first(dropped)} is dropped by the platform; leave such files out")
        )
    return [*faults.findings(), *findings, *_of_empty(path, cases, empty), *_of_manifest(path)]


def _fault_of_entry(info: zipfile.ZipInfo) -> str | None:
    """Return what keeps an entry from being unpacked as a file."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        return "is encrypted, and nobody will ask for its password; zip it without one"
    if kind not in (0, stat.S_IFREG):
        return (
            f"is {'a link' if kind == stat.S_IFLNK else 'no regular file'}; put the file itself into the zip"
        )
    if info.compress_type not in READABLE_METHODS:
        return f"is compressed by method {info.compress_type}, which few can unpack; store or deflate it"
    if info.file_size > LARGEST_ENTRY_BYTES:
        return f"claims more than {LARGEST_ENTRY_BYTES >> 30} GiB, which is no compressed label map"
    return None


def _fault_of_name(name: str) -> str | None:
    """Return what is wrong with a name that should be TaskNN_Name/<case>.nii.gz."""
    parts = name.split("/")
    if "\\" in name or posixpath.isabs(name) or ".." in parts or "." in parts or "" in parts:
        return "has a name that leads elsewhere when it is unpacked; use TaskNN_Name/<case>.nii.gz"
    if (length := max(len(part.encode()) for part in parts)) > LONGEST_NAME_BYTES:
        return f"has a name of {length} bytes, and file systems take {LONGEST_NAME_BYTES}; no test case has such a name"
    if parts[-1].startswith("._"):
        return "was left by macOS and would be read as a prediction; zip without such files (zip -X)"
    if len(parts) == 1:
        what = "lies at the root of the zip" if name.endswith(SUFFIX) else "is no prediction"
        return f"{what}; a submission holds TaskNN_Name/<case>.nii.gz only: keep the task's folder"
    if len(parts) > 2:
        if TASK_FOLDER.fullmatch(parts[-2]):
            return f"lies in a folder above its task's; the task folders must be at the root: zip inside {parts[0]}"
        return "lies too deep; predictions lie directly in the folder of their task"
    if parts[0] not in TASKS:
        return f"lies in {parts[0]}, which is no task of the Decathlon{nearest_task(parts[0])}"
    if not name.endswith(SUFFIX):
        return f"must end in {SUFFIX}, as the leaderboard looks for it; 'decathlon submission' converts it"
    return None


def _of_cases(
    path: Path, cases: list[_Case], datasets: dict[str, Dataset], faults: _Faults
) -> Iterable[Finding]:
    """Compare the names of cases with each dataset.json; a file in the wrong folder goes to the faults."""
    tests = {task: {case_name(image) for image in dataset.test} for task, dataset in datasets.items()}
    for task in sorted({case.task for case in cases} & tests.keys()):
        here = {case.name for case in cases if case.task == task}
        for name in sorted(here - tests[task]):
            others = [other for other, names in tests.items() if name in names]
            where = f"; it is one of {others[0]}" if others else ""
            faults.add(f"{task}/{name}{SUFFIX}", f"is not a test case of {task}{where}")
        if missing := sorted(tests[task] - here):
            yield error(
                f"{path}: {task} lacks the test case {_first(missing)}: it holds {len(here & tests[task])} of "
                f"{len(tests[task])}"
            )


def _of_tasks(path: Path, cases: list[_Case], datasets: dict[str, Dataset]) -> Iterable[Finding]:
    present = sorted({case.task for case in cases})
    if present and (sentence := said_of_missing(present)):
        yield error(f"{path}: {sentence}")
    if unknown := [task for task in present if task not in datasets]:
        yield warning(
            f"{path}: the names, grids and labels of {', '.join(unknown)} were not compared, since no data set of "
            "theirs was given; give the folder of all with --dataset"
        )
    tasks = f"{len(present)} task{'' if len(present) == 1 else 's'}"
    yield note(f"{path}: {len(cases)} label maps of {tasks}, {path.stat().st_size / 1e6:.1f} MB")


def _of_empty(path: Path, cases: list[_Case], empty: Counter[str]) -> Iterable[Finding]:
    total = Counter(case.task for case in cases)
    if whole := [task for task in sorted(total) if empty[task] == total[task]]:
        yield warning(f"{path}: every label map of {', '.join(whole)} holds nothing but background")
    for task in sorted(total):
        if 0 < empty[task] < total[task]:
            yield note(
                f"{path}: {empty[task]} of {total[task]} label maps of {task} hold nothing but background"
            )


def _of_manifest(path: Path) -> list[Finding]:
    """Say it when the manifest beside a zip is that of another one."""
    manifest = manifest_of(path)
    if not manifest.is_file():
        return []
    try:
        document = json.loads(manifest.read_text())
        same = isinstance(document, dict) and document.get("sha256") == digest_of(path)
    except ValueError:
        same = False
    if same:
        return []
    return [warning(f"{manifest} is not the manifest of {path}: the sha256 differs; make both anew")]


def _is_empty(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, dataset: Dataset | None, image: Path | None
) -> bool:
    """Whether a label map holds background only. InputError, without the zip's name, when it is not right."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / info.filename
        file.parent.mkdir()
        try:
            with archive.open(info) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
            raise InputError(f"{info.filename} is damaged in the zip: {problem}; make it anew") from None
        except OSError as problem:  # a full disk is no fault of the zip
            raise InputError(
                f"{info.filename} cannot be unpacked to {tempfile.gettempdir()}: {problem.strerror}; set TMPDIR to a "
                "folder with room"
            ) from None
        try:
            return _check_label_map(file, dataset, image)
        except InputError as problem:
            raise InputError(str(problem).replace(f"{folder}/", "")) from None


def _check_label_map(file: Path, dataset: Dataset | None, image: Path | None) -> bool:
    grid, header = read_geometry(file), check_header(file)
    if header.dim[0] != 3:
        raise InputError(
            f"{file} must have three axes, but has {header.dim[0]}; 'decathlon submission' takes one off"
        )
    # The grid comes first: it bounds how much memory the voxels may ask for.
    if image is not None and (different := same_grid(grid, read_header(image).grid)):
        raise InputError(f"{file} must lie on the grid of {image}, but has {different}")
    array, _ = read_labels(file)
    if header.dtype.kind == "f":
        raise InputError(
            f"{file} keeps its labels as {header.dtype.name}; they must be whole numbers in uint8, as 'decathlon "
            "submission' converts them"
        )
    if header.dtype.itemsize != 1:
        raise InputError(
            f"{file} keeps its labels as {header.dtype.name}; 'decathlon submission' makes them uint8"
        )
    if not is_one_gzip_stream(file):
        raise InputError(
            f"{file} has bytes after its compressed data, which some readers refuse; write it anew"
        )
    if dataset is not None:
        refuse_other_values(array, dataset.labels, file)
    return not array.any()


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
