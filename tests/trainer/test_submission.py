from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import InputError
from tests.decathlon import ORIGIN_XYZ_MM, RAS, SPACING_XYZ_MM, labels, make_task, write
from trainer.cli import main
from trainer.header import read_header
from trainer.submission import SubmissionError, write_submission

FIRST = labels((1, (2, 2, 2), (6, 6, 6)), (2, (2, 2, 2), (4, 4, 4)))
SECOND = labels((1, (1, 1, 1), (3, 5, 9)))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return make_task(tmp_path / "data", {}, ("pancreas_044", "pancreas_002"))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    write(folder / "pancreas_044.nii.gz", FIRST)
    write(folder / "pancreas_002.nii.gz", SECOND)
    return folder


def read_entry(archive: Path, name: str, folder: Path) -> sitk.Image:
    with zipfile.ZipFile(archive) as opened:
        opened.extract(name, folder)
    return sitk.ReadImage(str(folder / name))


def test_the_zip_holds_every_case_as_it_was_predicted(task: Path, predictions: Path, tmp_path: Path) -> None:
    (predictions / "._pancreas_044.nii.gz").write_bytes(b"\0\5\26\7")
    (predictions / "notes.txt").touch()
    out = tmp_path / "submission.zip"
    assert [entry.case for entry in write_submission(predictions, task, out)] == [
        "pancreas_002",
        "pancreas_044",
    ]
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        names = ["Task07_Pancreas/pancreas_002.nii.gz", "Task07_Pancreas/pancreas_044.nii.gz"]
        assert archive.namelist() == names
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read(names[1]) == (predictions / "pancreas_044.nii.gz").read_bytes()


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_same_predictions_give_the_same_bytes(
    task: Path, predictions: Path, tmp_path: Path, threads: int
) -> None:
    write(predictions / "pancreas_002.mha", SECOND)
    (predictions / "pancreas_002.nii.gz").unlink()
    write_submission(predictions, task, tmp_path / "a.zip", threads=2)
    for path in predictions.iterdir():
        os.utime(path, ns=(0, 0))
    write_submission(predictions, task, tmp_path / "b.zip", threads=threads)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("pancreas_044.mha", np.uint8),
        ("pancreas_044.nii", np.uint8),
        ("pancreas_044.nrrd", np.int32),
        ("pancreas_044.nii.gz", np.int16),
        ("pancreas_044.nii.gz", np.float32),
    ],
)
def test_other_formats_and_types_are_converted_to_uint8_nifti(
    task: Path, predictions: Path, tmp_path: Path, name: str, dtype: type
) -> None:
    (predictions / "pancreas_044.nii.gz").unlink()
    write(predictions / name, FIRST.astype(dtype))
    write_submission(predictions, task, tmp_path / "s.zip")
    image = read_entry(tmp_path / "s.zip", "Task07_Pancreas/pancreas_044.nii.gz", tmp_path / "x")
    assert image.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), FIRST)
    np.testing.assert_allclose(image.GetSpacing(), SPACING_XYZ_MM, rtol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), ORIGIN_XYZ_MM, rtol=1e-6)
    np.testing.assert_allclose(image.GetDirection(), RAS, atol=1e-6)


def test_a_fourth_axis_of_one_is_taken_off(task: Path, predictions: Path, tmp_path: Path) -> None:
    file = predictions / "pancreas_044.nii.gz"
    header = bytearray(gzip.decompress(file.read_bytes()))
    header[40:42] = (4).to_bytes(2, "little")  # dim[0] of NIfTI-1; dim[4] is 1 already
    file.write_bytes(gzip.compress(bytes(header), mtime=0))
    write_submission(predictions, task, tmp_path / "s.zip")
    image = read_entry(tmp_path / "s.zip", "Task07_Pancreas/pancreas_044.nii.gz", tmp_path / "x")
    assert image.GetDimension() == 3
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), FIRST)


def test_every_problem_is_found_and_nothing_is_written(task: Path, predictions: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path / "data", {}, ("pancreas_044", "pancreas_002", "pancreas_300", "pancreas_301"))
    write(predictions / "pancreas_999.nii.gz", FIRST)
    write(predictions / "pancreas_044.nii.gz", FIRST, spacing_xyz_mm=(0.8, 0.9, 5.0))
    write(predictions / "pancreas_002.nii.gz", SECOND * 7)
    write(predictions / "pancreas_300.nii.gz", FIRST - np.float32(0.5))
    with pytest.raises(
        SubmissionError, match=r"lacks the test case pancreas_301 \(and 4 more problems\)$"
    ) as caught:
        write_submission(predictions, task, tmp_path / "s.zip")
    problems = caught.value.problems
    assert len(problems) == 5
    for problem, part in zip(
        problems,
        (
            "lacks the test case pancreas_301",
            "pancreas_999.nii.gz is not a test case of",
            "holds the label values 7, but the labels are 0 background, 1 pancreas, 2 cancer",
            "pancreas_044.nii.gz must lie on the grid of",
            "must hold whole label values from 0 to 255, but has ",
        ),
        strict=True,
    ):
        assert part in problem
    assert not (tmp_path / "s.zip").exists()


def test_an_older_zip_survives_a_refusal(task: Path, predictions: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zip"
    write_submission(predictions, task, out)
    before = out.read_bytes()
    (predictions / "pancreas_002.nii.gz").unlink()
    with pytest.raises(SubmissionError, match=r"lacks the test case pancreas_002$"):
        write_submission(predictions, task, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".s.zip.parts"]


def test_a_shifted_origin_is_refused(task: Path, predictions: Path) -> None:
    write(predictions / "pancreas_002.nii.gz", SECOND, origin_xyz_mm=(-30.0, 12.5, 9.5))
    with pytest.raises(
        SubmissionError, match=r"pancreas_002\.nii\.gz must lie on .*has origin .*against .*mm"
    ):
        write_submission(predictions, task, predictions / "s.zip")


def test_a_flipped_direction_is_refused(task: Path, predictions: Path) -> None:
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    write(predictions / "pancreas_002.nii.gz", SECOND, direction=identity)
    with pytest.raises(SubmissionError, match=r"pancreas_002\.nii\.gz must lie on .*has direction "):
        write_submission(predictions, task, predictions / "s.zip")


def test_the_folder_must_be_a_tasks(tmp_path: Path, predictions: Path) -> None:
    task = make_task(tmp_path, {}, ("pancreas_044", "pancreas_002"), name="pancreas")
    with pytest.raises(
        InputError, match=r"must be called TaskNN_Name, such as Task07_Pancreas, .* but is pancreas$"
    ):
        write_submission(predictions, task, tmp_path / "s.zip")
    with pytest.raises(InputError, match=r"^the submission must be a \.zip file, got .*s\.tar$"):
        write_submission(predictions, task, tmp_path / "s.tar")
    nothing = make_task(tmp_path, {}, (), name="Task09_Spleen")
    with pytest.raises(InputError, match=r"lists no test images, so there is nothing to submit$"):
        write_submission(predictions, nothing, tmp_path / "s.zip")


def test_images_with_channels_have_the_grid_of_one_channel(tmp_path: Path, predictions: Path) -> None:
    task = make_task(tmp_path, {}, ("pancreas_044", "pancreas_002"), name="Task01_BrainTumour")
    channel = sitk.ReadImage(str(task / "imagesTs" / "pancreas_044.nii.gz"))
    for case in ("pancreas_044", "pancreas_002"):
        joined = sitk.JoinSeries([channel] * 4)
        sitk.WriteImage(joined, str(task / "imagesTs" / f"{case}.nii.gz"))
    header = read_header(task / "imagesTs" / "pancreas_044.nii.gz")
    assert header.dimensions == 4
    assert header.grid.shape_zyx == (8, 10, 12)
    assert header.grid.spacing_zyx_mm == pytest.approx(SPACING_XYZ_MM[::-1])
    entries = write_submission(predictions, task, tmp_path / "s.zip")
    assert [entry.case for entry in entries] == ["pancreas_002", "pancreas_044"]


def test_unreadable_headers_are_refused(tmp_path: Path) -> None:
    for name, message in (
        ("missing.nii.gz", r"missing\.nii\.gz does not exist; give an image file"),
        ("notes.txt", r"notes\.txt must end in one of \.nii\.gz, "),
        ("bad.nii.gz", r"bad\.nii\.gz "),
    ):
        if not name.startswith("missing"):
            (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match=message):
            read_header(tmp_path / name)


def test_the_command_says_what_it_wrote_and_what_the_leaderboard_wants(
    task: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(predictions / "pancreas_002.nii.gz", labels())
    arguments = ["submission", str(predictions), "--dataset", str(task), "--out", str(tmp_path / "s.zip")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "Task07_Pancreas: 2 cases",
        f"{tmp_path / 's.zip'}: 2 cases, 0.0 MB; manifest in {tmp_path / 's.manifest.json'}",
    ]
    assert "nothing but background in 1 of the 2 cases of Task07_Pancreas: pancreas_002" in captured.err
    assert "lacks 9 of the Decathlon's ten tasks (Task01_BrainTumour, Task02_Heart, " in captured.err
    assert "one of Task07_Pancreas alone arrives without that folder" in captured.err


def test_the_command_lists_problems_and_ends_with_the_first(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["submission", str(empty), "--dataset", str(task), "--out", str(tmp_path / "s.zip")]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{empty} lacks the test case pancreas_002",
        f"{empty} lacks the test case pancreas_044",
    ]
    last = captured.err.splitlines()[-1]
    assert last == f"decathlon submission: {empty} lacks the test case pancreas_002 (and 1 more problem)"


def test_a_missing_test_image_is_named(task: Path, predictions: Path, tmp_path: Path) -> None:
    (task / "imagesTs" / "pancreas_044.nii.gz").unlink()
    with pytest.raises(InputError, match=r"imagesTs/pancreas_044\.nii\.gz is listed in .* but is not there$"):
        write_submission(predictions, task, tmp_path / "s.zip")
