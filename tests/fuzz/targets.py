"""What a hostile scan is given to, and what must hold of the outcome.

Each target ends in a result on the scan's own grid, as SimpleITK alone reads it, or in a refusal of one sentence that
names the scan. Anything else is a finding: another exception, a traceback, a sentence that says "unexpected", a
result on another grid, a file left half-written, too much memory or time.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import algorithm
from algorithm import entry
from algorithm.errors import InputError
from algorithm.geometry import Geometry, difference
from algorithm.images import READERS, image_suffix, read_image
from algorithm.itk import quiet
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle
from tests.fuzz.seeds import Files, Seed, scan_image
from tests.fuzz.stated import stated_voxels
from trainer.cli import main as decathlon
from trainer.doctor.dataset import check as check_dataset

# Whatever a header claims, no more than this above what a sound scan takes, and so much for each byte of the file.
MEMORY_BYTES = 256 << 20
MEMORY_PER_BYTE = 16
SECONDS = 30.0
# A grid so coarse that the largest volume that is taken for a patient has few voxels.
COARSE = {"spacing_zyx_mm": (30.0, 25.0, 25.0), "patch_shape_zyx": (8, 16, 16)}
PRESET = """\
[prepare]
spacing_zyx_mm = [30, 25, 25]
window_hu = [-100, 200]
patch_shape_zyx = [16, 16, 32]
train_patches = 2
val_patches = 1
quotas = { "1" = 0.0 }
seed = 0

[train]
"""


@dataclass(frozen=True)
class Verdict:
    """How a target ended: whether it gave a result, and what is wrong, "" where nothing is."""

    target: str
    accepted: bool
    wrong: str = ""


@dataclass(frozen=True)
class Judged:
    """All verdicts on a scan, the seconds of the slowest and the memory in bytes that the scan took at most."""

    verdicts: tuple[Verdict, ...]
    seconds: float
    memory: int


class Targets:
    """The four ways into the software, each ready to take a scan.

    Args:
        folder: for what they need and write; emptied of a scan's files before the next.

    """

    def __init__(self, folder: Path) -> None:
        self.case = folder / "case"
        self._out = folder / "out"
        self._task = folder / "Task07_Pancreas"
        self._preset = folder / "coarse.toml"
        self._preset.write_text(PRESET)
        self._bundle = write_random_bundle(folder / "bundle", **COARSE)
        self._segmenter = Segmenter(random_bundle(**COARSE))
        (self._task / "labelsTr").mkdir(parents=True)
        labels = np.zeros(scan_image().GetSize()[::-1], np.uint8)
        labels[1:3, 3:6, 4:8] = 1
        image = sitk.GetImageFromArray(labels)
        image.CopyInformation(scan_image())
        self._label = "./labelsTr/case.nii.gz"
        sitk.WriteImage(image, str(self._task / self._label))

    def judge(self, seed: Seed, files: Files) -> Judged:
        """Write a scan and give it to every target."""
        for folder in (self.case, self._out, self._task / "imagesTr"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for name, content in files.items():
            (self.case / name).write_bytes(content)
        ways: Mapping[str, Callable[[Path], bool]] = {"segment": self._segment}
        if seed.scan:
            ways = {
                **ways,
                "container": self._container,
                "prepare": self._prepare,
                "doctor": self._doctor,
            }
        else:
            ways = {**ways, "predict": self._predict}
        allowed = MEMORY_BYTES + MEMORY_PER_BYTE * sum(map(len, files.values()))
        verdicts, slowest, most = [], 0.0, 0
        for name, way in ways.items():
            before, began = _reset_peak(), time.monotonic()
            with _silent_logs():
                verdict = _verdict(name, way, self.case / seed.scan)
            seconds, memory = time.monotonic() - began, _peak() - before
            if not verdict.wrong and memory > allowed:
                verdict = Verdict(name, verdict.accepted, f"took {memory >> 20} MiB")
            if not verdict.wrong and seconds > SECONDS:
                verdict = Verdict(name, verdict.accepted, f"took {seconds:.0f} s")
            verdicts.append(verdict)
            slowest, most = max(slowest, seconds), max(most, memory)
        return Judged(tuple(verdicts), slowest, most)

    def _segment(self, scan: Path) -> bool:
        """`algorithm.segment` of the image that `read_image` gives."""
        try:
            image = read_image(scan)
            labels = algorithm.segment(image, self._segmenter)
        except InputError as error:
            _one_sentence(str(error), scan, named=False)
            return False
        _same_grid(labels, scan)
        _same_voxels(image, scan)
        return True

    def _container(self, scan: Path) -> bool:
        """The container's entry, with the scan as the only one of a job."""
        job = {"INPUT": self.case, "OUTPUT": self._out, "MODEL": self._bundle}
        with _captured() as said:
            status = entry.main({f"DECATHLON_{name}": str(folder) for name, folder in job.items()})
        _no_traceback(said)
        (outcome,) = json.loads((self._out / "results.json").read_text())
        written = [path for path in (self._out / "images").rglob("*") if path.is_file()]
        if status == 0:
            (result,) = (path for path in written if path.name == scan.name)
            _same_grid(sitk.ReadImage(str(result)), scan)
            return True
        _one_sentence(_last_line(said).removeprefix("algorithm: "), scan)
        if written:
            raise AssertionError(f"a job that failed left {written[0].name}")
        if not outcome["error_messages"]:
            raise AssertionError("results.json does not say why")
        return False

    def _predict(self, scan: Path) -> bool:
        """`decathlon predict`, which takes folders of DICOM slices too."""
        options = ["--device", "cpu", "--engine", "torch"]
        arguments = ["predict", str(scan), "--model", str(self._bundle), "--out", str(self._out), *options]
        if not self._verb(arguments, scan):
            left = [path for path in self._out.iterdir() if not path.name.startswith(".")]
            if left:
                raise AssertionError(f"a prediction that failed left {left[0].name}")
            return False
        (result,) = self._out.glob("*.nii.gz")
        _same_grid(sitk.ReadImage(str(result)), scan)
        return True

    def _prepare(self, scan: Path) -> bool:
        """`decathlon prepare` on a data set of this one scan."""
        self._as_dataset(scan)
        options = [
            "--preset",
            str(self._preset),
            "--overfit",
            "--threads",
            "1",
            "--out",
            str(self._out / "work"),
        ]
        return self._verb(["prepare", str(self._task), *options], scan)

    def _doctor(self, scan: Path) -> bool:
        """`decathlon doctor dataset` on the same."""
        self._as_dataset(scan)
        with _captured() as said:
            found = check_dataset(self._task, threads=1)
        _no_traceback(said)
        for finding in found:
            if "\n" in finding.sentence:
                raise AssertionError(f"a finding of several lines: {finding.sentence!r}")
        return not any("cannot be read" in finding.sentence for finding in found)

    def _verb(self, arguments: list[str], scan: Path) -> bool:
        with _captured() as said:
            status = decathlon(arguments)
        _no_traceback(said)
        if status == 0:
            return True
        if status != 1:
            raise AssertionError(f"exit status {status}")
        of_all_scans = "training patches are all of one value" in _last_line(said)
        _one_sentence(_last_line(said), scan, named=not of_all_scans)
        return False

    def _as_dataset(self, scan: Path) -> None:
        images = self._task / "imagesTr"
        for path in self.case.iterdir():
            shutil.copy(path, images / path.name)
        image = f"./imagesTr/{scan.name}"
        document = {
            "name": "Pancreas",
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "pancreas"},
            "training": [{"image": image, "label": self._label}],
            "test": [],
        }
        (self._task / "dataset.json").write_text(json.dumps(document))


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Keep log lines from stderr, where they would bury a worker's own; the process logs as before afterwards."""
    loggers, silence = [logging.getLogger(name) for name in ("algorithm", "trainer")], logging.NullHandler()
    for logger in loggers:
        logger.addHandler(silence)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(silence)
            logger.propagate = True


@contextmanager
def _captured() -> Iterator[list[str]]:
    """Yield a list that holds the lines of stderr at the end; stdout is thrown away."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", errors="backslashreplace") as said:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(said):
                yield lines
        finally:
            said.seek(0)
            lines += said.read().splitlines()


def _no_traceback(said: list[str]) -> None:
    if any(line.startswith("Traceback") for line in said):
        raise AssertionError(said[-1])


def _last_line(said: list[str]) -> str:
    return said[-1] if said else ""


def _verdict(name: str, way: Callable[[Path], bool], scan: Path) -> Verdict:
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("error")
            return Verdict(name, way(scan))
    except Exception as error:
        return Verdict(name, accepted=False, wrong=f"{type(error).__name__}: {error}")


def _one_sentence(said: str, scan: Path, *, named: bool = True) -> None:
    """Raise AssertionError unless a refusal is one line, names the scan, and was foreseen."""
    if not said or "\n" in said:
        raise AssertionError(f"not one line: {said!r}")
    if re.search(r"unexpected|memory ran out|Error\b", said):
        raise AssertionError(f"not foreseen: {said}")
    if named and scan.name not in said and "case" not in said:
        raise AssertionError(f"does not name the scan: {said}")


def _same_grid(labels: sitk.Image, scan: Path) -> None:
    """Raise AssertionError unless labels lie on the grid that SimpleITK alone reads."""
    grid, wanted = Geometry.of(labels), Geometry.of(_read_by_itk(scan))
    apart = difference(
        grid,
        wanted,
        # as far as NIfTI rounds
        origin_mm=1e-3 + 1e-6 * max(map(abs, wanted.origin_xyz_mm)),
        spacing_relative=1e-5 + wanted.skew,
        direction=1e-5 + wanted.skew,
    )
    if apart:
        raise AssertionError(f"labels on another grid: {apart}")


def _same_voxels(image: sitk.Image, scan: Path) -> None:
    """Raise AssertionError unless the voxels that were read are those that the header states."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, for what is unusual
        stated = stated_voxels(scan)
    voxels = sitk.GetArrayFromImage(image)
    if stated is not None and not np.array_equal(voxels, stated, equal_nan=stated.dtype.kind == "f"):
        raise AssertionError("other voxels than its header states")


def _read_by_itk(scan: Path) -> sitk.Image:
    if not scan.is_dir():
        # named, since ITK does not tell every MetaImage from its content
        image = sitk.ReadImage(str(scan), imageIO=READERS[image_suffix(scan) or ""])
        return image[..., 0] if image.GetDimension() == 4 else image
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(scan))
    return sitk.ReadImage(names)


def _reset_peak() -> int:
    """Forget the most memory that this process held, and return what it holds, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    """Return a size of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))
