"""A submission of ten tasks that passes, and what is said of every way in which one can be damaged."""

from __future__ import annotations

import errno
import gzip
import json
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.decathlon import write
from tests.ten_tasks import KINDS, SHAPE_ZYX, make_ten_tasks, spacing_xyz_mm, write_predictions
from trainer.cli import main
from trainer.doctor.finding import Finding
from trainer.doctor.submission import check
from trainer.submission import write_submission

Files = dict[str, bytes]
TASK, CASE = "Task07_Pancreas", "pancreas_044"
NAME = f"{TASK}/{CASE}.nii.gz"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ten_tasks(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def good(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("submission")
    write_submission(write_predictions(folder / "predictions"), data, folder / "submission.zip")
    return folder / "submission.zip"


@pytest.fixture
def files(good: Path) -> Files:
    with zipfile.ZipFile(good) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def sentences(findings: list[Finding], severity: str = "error") -> list[str]:
    return [finding.sentence for finding in findings if finding.severity == severity]


def test_a_submission_of_ten_tasks_is_accepted(data: Path, good: Path) -> None:
    (finding,) = check(good, data)
    assert finding.severity == "note"
    assert "20 label maps of 10 tasks" in finding.sentence


def test_a_deflated_zip_with_folders_is_accepted(data: Path, files: Files, tmp_path: Path) -> None:
    path = packed(tmp_path / "s.zip", {f"{task}/": b"" for task in KINDS} | files, zipfile.ZIP_DEFLATED)
    assert sentences(check(path, data)) == []


def label_map(folder: Path, change: Callable[[np.ndarray], np.ndarray], case: str = CASE) -> bytes:
    """Return the bytes of a prediction whose voxels are changed."""
    array = np.zeros(SHAPE_ZYX, dtype=np.uint8)
    array[2:5, 2:6, 3:7] = 1
    path = write(folder / "x.nii.gz", change(array), spacing_xyz_mm=spacing_xyz_mm(case))
    return path.read_bytes()


def on_another_grid(folder: Path, **grid: tuple[float, ...]) -> bytes:
    array = np.ones(SHAPE_ZYX, dtype=np.uint8)
    values = {"spacing_xyz_mm": spacing_xyz_mm(CASE), **grid}
    return write(folder / "x.nii.gz", array, **values).read_bytes()


def with_a_fourth_axis(folder: Path) -> bytes:
    label_map(folder, lambda array: array)
    image = sitk.ReadImage(str(folder / "x.nii.gz"))
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(folder / "y.nii.gz"))
    return (folder / "y.nii.gz").read_bytes()


def renamed(files: Files, change: Callable[[str], str]) -> Files:
    return {change(name): content for name, content in files.items()}


def without(files: Files, *names: str) -> Files:
    return {name: content for name, content in files.items() if name not in names}


def swapped(files: Files) -> Files:
    pair = {"Task06_Lung": "Task09_Spleen", "Task09_Spleen": "Task06_Lung"}
    return renamed(
        files, lambda name: f"{pair.get(name.split('/')[0], name.split('/')[0])}/{name.split('/')[1]}"
    )


def exchanged(files: Files) -> Files:
    other = f"{TASK}/pancreas_002.nii.gz"
    return files | {NAME: files[other], other: files[NAME]}


# How a good zip is damaged, as files by name, and what is said of it.
DAMAGES: dict[str, tuple[Callable[[Files, Path], Files], str]] = {
    "wrong name": (
        lambda files, _: renamed(files, lambda name: name.replace(CASE, "pancreas_44")),
        f"{TASK}/pancreas_44.nii.gz is not a test case of {TASK}",
    ),
    "missing case": (
        lambda files, _: without(files, NAME),
        f"{TASK} lacks the test case {CASE}: it holds 1 of 2",
    ),
    "extra case": (
        lambda files, _: files | {f"{TASK}/pancreas_999.nii.gz": files[NAME]},
        f"{TASK}/pancreas_999.nii.gz is not a test case of {TASK}",
    ),
    "missing task": (
        lambda files, _: without(files, *(name for name in files if "Liver" in name)),
        "the submission lacks 1 of the Decathlon's ten tasks (Task03_Liver); one of a single task was refused",
    ),
    "one task alone": (
        lambda files, _: {name: content for name, content in files.items() if name.startswith(TASK)},
        f"one of {TASK} alone arrives without that folder, however it is packed",
    ),
    "stripped folder": (
        lambda files, _: renamed(files, lambda name: name.removeprefix(f"{TASK}/")),
        "pancreas_002.nii.gz (and 1 more) lies at the root of the zip",
    ),
    "nested folder": (
        lambda files, _: renamed(files, lambda name: name.replace(f"{TASK}/", f"{TASK}/labelsTs/")),
        f"{TASK}/labelsTs/pancreas_002.nii.gz (and 1 more) lies too deep",
    ),
    "folder above the tasks": (
        lambda files, _: renamed(files, lambda name: f"predictions/{name}"),
        "(and 19 more) lies in a folder above its task's; the task folders must be at the root",
    ),
    "misspelt task": (
        lambda files, _: renamed(files, lambda name: name.replace(TASK, "Task07_Pancrease")),
        "lies in Task07_Pancrease, which is no task of the Decathlon; did you mean Task07_Pancreas?",
    ),
    "swapped tasks": (
        lambda files, _: swapped(files),
        "Task06_Lung/spleen_1.nii.gz (and 1 more) is not a test case of Task06_Lung; it is one of Task09_Spleen",
    ),
    "swapped cases": (lambda files, _: exchanged(files), f"{NAME} must lie on the grid of "),
    "macOS shadow": (
        lambda files, _: files | {f"{TASK}/._{CASE}.nii.gz": b"\0\5\26\7"},
        f"{TASK}/._{CASE}.nii.gz was left by macOS and would be read as a prediction",
    ),
    "foreign file": (
        lambda files, _: files | {"README.txt": b"ours"},
        "README.txt is no prediction; a submission holds TaskNN_Name/<case>.nii.gz only",
    ),
    "foreign file in a task": (
        lambda files, _: files | {f"{TASK}/scores.json": b"{}"},
        f"{TASK}/scores.json must end in .nii.gz",
    ),
    "not compressed": (
        lambda files, _: without(files, NAME) | {NAME.removesuffix(".gz"): gzip.decompress(files[NAME])},
        f"{TASK}/{CASE}.nii must end in .nii.gz",
    ),
    "MetaImage": (
        lambda files, _: renamed(files, lambda name: name.replace(f"{CASE}.nii.gz", f"{CASE}.mha")),
        f"{TASK}/{CASE}.mha must end in .nii.gz",
    ),
    "not gzip": (
        lambda files, _: files | {NAME: gzip.decompress(files[NAME])},
        f"{NAME} is not compressed with gzip, against its name",
    ),
    "bytes after a prediction": (
        lambda files, _: files | {NAME: files[NAME] + b"and more"},
        f"{NAME} has bytes after its compressed data",
    ),
    "two streams in a prediction": (
        lambda files, _: files | {NAME: files[NAME] + gzip.compress(b"")},
        f"{NAME} has bytes after its compressed data",
    ),
    "truncated prediction": (
        lambda files, _: files | {NAME: files[NAME][: len(files[NAME]) // 2]},
        f"{NAME} has damaged compressed data",
    ),
    "empty file": (lambda files, _: files | {NAME: b""}, f"{NAME} is empty"),
    "no image": (
        lambda files, _: files | {NAME: gzip.compress(b"no image" * 100)},
        f"{NAME} is not a NIfTI file",
    ),
    "path traversal": (
        lambda files, _: files | {f"../{NAME}": files[NAME]},
        f"../{NAME} has a name that leads elsewhere when it is unpacked",
    ),
    "absolute path": (
        lambda files, _: files | {f"/{NAME}": files[NAME]},
        f"/{NAME} has a name that leads elsewhere when it is unpacked",
    ),
    "backslashes": (
        lambda files, _: renamed(files, lambda name: name.replace("/", "\\")),
        "(and 19 more) has a name that leads elsewhere when it is unpacked",
    ),
    "wrong label": (
        lambda files, folder: files | {NAME: label_map(folder, lambda array: array * 3)},
        f"{NAME} holds the label values 3, but the labels are 0 background, 1 pancreas, 2 cancer",
    ),
    "fractions": (
        lambda files, folder: files | {NAME: label_map(folder, lambda array: array * np.float32(0.5))},
        f"{NAME} must hold whole label values from 0 to 255, but has 0.5",
    ),
    "float labels": (
        lambda files, folder: files | {NAME: label_map(folder, lambda array: array.astype(np.float32))},
        f"{NAME} keeps its labels as float32; they must be whole numbers in uint8",
    ),
    "wide labels": (
        lambda files, folder: files | {NAME: label_map(folder, lambda array: array.astype(np.int32))},
        f"{NAME} keeps its labels as int32; 'decathlon submission' makes them uint8",
    ),
    "negative labels": (
        lambda files, folder: files | {NAME: label_map(folder, lambda array: -array.astype(np.int8))},
        f"{NAME} must hold whole label values from 0 to 255, but has -1",
    ),
    "4-D labels": (
        lambda files, folder: files | {NAME: with_a_fourth_axis(folder)},
        f"{NAME} must be one 3-D volume, but its size is (12, 10, 8, 2",
    ),
    "other size": (
        lambda files, folder: files | {NAME: label_map(folder, lambda array: array[1:])},
        f"{NAME} must lie on the grid of ",
    ),
    "shifted origin": (
        lambda files, folder: files | {NAME: on_another_grid(folder, origin_xyz_mm=(-30.0, 12.5, 8.0))},
        "but has origin (-30, 12.5, 8) against (-30, 12.5, 7) mm",
    ),
    "other spacing": (
        lambda files, folder: files | {NAME: on_another_grid(folder, spacing_xyz_mm=(0.8, 0.8, 9.0))},
        "but has spacing (9, 0.8, 0.8) against",
    ),
    "mirrored": (
        lambda files, folder: (
            files | {NAME: on_another_grid(folder, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))}
        ),
        "but has direction (1, 0, 0, 0, 1, 0, 0, 0, 1) against (-1, 0, 0, 0, -1, 0, 0, 0, 1)",
    ),
    "no files": (lambda *_: {}, "holds no file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(damage: str, data: Path, files: Files, tmp_path: Path) -> None:
    make, sentence = DAMAGES[damage]
    found = sentences(check(packed(tmp_path / "s.zip", make(files, tmp_path)), data))
    said = [each for each in found if sentence in each]
    assert len(said) == 1, found
    assert said[0].startswith(f"{tmp_path / 's.zip'}")
    assert str(tmp_path) not in said[0][len(str(tmp_path / "s.zip")) :], "a temporary file is nobody's"


def encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    local, central = content.index(b"PK\3\4"), content.index(b"PK\1\2")
    content[local + 6] |= 1
    content[central + 8] |= 1
    path.write_bytes(content)


def flipped_bit(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(NAME)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(NAME) + info.file_size // 2] ^= 4
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def not_a_zip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a tarball, perhaps"))


def twice(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)  # zipfile's own, of the same
        archive.writestr(NAME, b"another")


def link(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(f"{TASK}/pancreas_100.nii.gz")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")


def rare_method(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{TASK}/pancreas_100.nii.gz", b"x", zipfile.ZIP_LZMA)


def bomb(path: Path) -> None:
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\1\2")
    content[central + 24 : central + 28] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(content)


ZIPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "encrypted": (encrypted, "is encrypted, and nobody will ask for its password"),
    "damaged entry": (flipped_bit, f"{NAME} is damaged in the zip: Bad CRC-32"),
    "cut off": (cut_off, "is not a readable zip"),
    "not a zip": (not_a_zip, "is not a readable zip: File is not a zip file"),
    "not there": (Path.unlink, "does not exist"),
    "duplicate entry": (twice, f"{NAME} stands in the zip more than once"),
    "link": (link, f"{TASK}/pancreas_100.nii.gz is a link"),
    "rare method": (rare_method, f"{TASK}/pancreas_100.nii.gz is compressed by method 14"),
    "bomb": (bomb, "claims more than 1 GiB"),
}


@pytest.mark.parametrize("damage", ZIPS)
def test_damaged_zips_are_refused(damage: str, data: Path, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    shutil.copy(good, path)
    make, sentence = ZIPS[damage]
    make(path)
    found = sentences(check(path, data))
    assert len([each for each in found if sentence in each]) == 1, found


def test_names_that_cannot_be_read_or_unpacked_are_refused(
    data: Path, good: Path, files: Files, tmp_path: Path
) -> None:
    content = bytearray(good.read_bytes())
    at = content.rfind(NAME.encode())  # in the central directory, whose flags lie 38 bytes before the name
    content[at], content[at - 37] = 0xFF, content[at - 37] | 0x08
    (tmp_path / "bytes.zip").write_bytes(content)
    (said,) = sentences(check(tmp_path / "bytes.zip", data))
    assert "holds a name that is not UTF-8" in said
    long = packed(tmp_path / "long.zip", {**files, f"{TASK}/{'x' * 300}.nii.gz": b"x"})
    (said,) = sentences(check(long, data))
    assert "has a name of 307 bytes" in said


def test_a_full_disk_is_no_fault_of_the_zip(data: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    said = sentences(check(good, data))
    assert len(said) == 20
    assert all("cannot be unpacked to" in each and "No space left on device" in each for each in said)


def test_what_the_platform_drops_is_a_warning(data: Path, files: Files, tmp_path: Path) -> None:
    more = {f"__MACOSX/{TASK}/._{CASE}.nii.gz": b"", ".DS_Store": b""}
    found = check(packed(tmp_path / "s.zip", files | more), data)
    assert sentences(found) == []
    (said,) = sentences(found, "warning")
    assert f"__MACOSX/{TASK}/._{CASE}.nii.gz (and 1 more) is dropped by the platform" in said


def test_tasks_of_background_only_are_said(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "predictions", TASK)
    write_submission(predictions, data, tmp_path / "s.zip", fill_empty=True)
    found = check(tmp_path / "s.zip", data)
    assert sentences(found) == []
    (said,) = sentences(found, "warning")
    assert "every label map of Task01_BrainTumour, Task02_Heart, Task03_Liver, " in said
    assert TASK not in said


def test_without_data_sets_the_rest_is_examined(good: Path, files: Files, tmp_path: Path) -> None:
    (said,) = sentences(check(good), "warning")
    assert "were not compared, since no data set of theirs was given" in said
    found = sentences(check(packed(tmp_path / "s.zip", files | {NAME: b"damaged"})))
    assert len(found) == 1


def test_the_manifest_of_another_zip_is_a_warning(data: Path, good: Path, tmp_path: Path) -> None:
    for file in (good, good.with_name("submission.manifest.json")):
        shutil.copy(file, tmp_path)
    manifest = tmp_path / "submission.manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": "0"}))
    (said,) = sentences(check(tmp_path / good.name, data), "warning")
    assert "is not the manifest of" in said


def test_the_command(data: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "submission", str(good), "--dataset", str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no error, 0 warnings"
    assert main(["doctor", "submission", str(tmp_path / "none.zip"), "--dataset", str(data)]) == 1
    assert "none.zip does not exist" in capsys.readouterr().err.splitlines()[-1]
    assert main(["doctor", "submission", str(good), "--dataset", str(tmp_path)]) == 1
    assert "holds no dataset.json and no task folder with one" in capsys.readouterr().err.splitlines()[-1]


def test_a_data_set_that_counts_otherwise_is_said(data: Path, good: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    file = tmp_path / "data" / TASK / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"numTest": 139}))
    (said,) = sentences(check(good, tmp_path / "data"))
    assert "says numTest 139 but lists 2 test images" in said
