"""Submissions of several tasks, of tasks without a model, and of runs that were killed."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import InputError
from tests.ten_tasks import KINDS, SHAPE_ZYX, make_ten_tasks, spacing_xyz_mm, write_predictions
from trainer import submission
from trainer.cli import main
from trainer.submission import SubmissionError, digest_of, manifest_of, write_submission
from trainer.tasks import TASKS, find_tasks

ALL_NAMES = [f"{task}/{case}.nii.gz" for task, kind in KINDS.items() for case in kind.cases]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ten_tasks(tmp_path_factory.mktemp("data"))


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_all_ten_tasks_go_into_one_zip(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "predictions")
    out = tmp_path / "s.zip"
    entries = write_submission(predictions, data, out)
    assert tuple(KINDS) == TASKS
    assert names(out) == ALL_NAMES == [entry.name for entry in entries]
    with zipfile.ZipFile(out) as archive:
        assert all(archive.read(name) == (predictions / name).read_bytes() for name in ALL_NAMES)
    document = json.loads(manifest_of(out).read_text())
    assert document["sha256"] == digest_of(out)
    assert document["filled_with_empty_predictions"] == document["missing_tasks"] == document["remarks"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions", "s.manifest.json", "s.zip"]


def test_tasks_without_a_model_are_filled_on_the_grids_of_their_images(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, out = write_predictions(tmp_path / "predictions", "Task07_Pancreas"), tmp_path / "s.zip"
    arguments = ["submission", str(predictions), "--dataset", str(data), "--out", str(out), "--fill-empty"]
    assert main(arguments) == 0
    assert names(out) == ALL_NAMES
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "x")
    for task, kind in KINDS.items():
        for case in kind.cases:
            image = sitk.ReadImage(str(tmp_path / "x" / task / f"{case}.nii.gz"))
            assert (image.GetPixelID(), image.GetSize()) == (sitk.sitkUInt8, SHAPE_ZYX[::-1])
            np.testing.assert_allclose(image.GetSpacing(), spacing_xyz_mm(case), rtol=1e-6)
            assert sitk.GetArrayFromImage(image).any() == (task == "Task07_Pancreas")
    captured = capsys.readouterr()
    assert "Task01_BrainTumour: 2 cases, filled empty\n" in captured.out
    assert "Task07_Pancreas: 2 cases\n" in captured.out
    said = "their 18 label maps hold nothing but background (--fill-empty)"
    assert said in captured.err
    document = json.loads(manifest_of(out).read_text())
    assert document["filled_with_empty_predictions"] == [task for task in TASKS if task != "Task07_Pancreas"]
    assert any(said in remark for remark in document["remarks"])


def test_without_filling_the_missing_tasks_are_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task02_Heart", "Task07_Pancreas")
    assert (
        main(["submission", str(predictions), "--dataset", str(data), "--out", str(tmp_path / "s.zip")]) == 0
    )
    assert [name.split("/")[0] for name in names(tmp_path / "s.zip")] == ["Task02_Heart"] * 2 + [
        "Task07_Pancreas"
    ] * 2
    said = capsys.readouterr().err
    assert "lacks 8 of the Decathlon's ten tasks (Task01_BrainTumour, Task03_Liver, " in said
    assert "Could not load … /input/Task01_BrainTumour" in said
    assert "arrives without that folder" not in said


def test_label_maps_without_a_folder_belong_to_the_task_of_their_names(data: Path, tmp_path: Path) -> None:
    flat = write_predictions(tmp_path / "predictions", "Task04_Hippocampus") / "Task04_Hippocampus"
    assert [entry.task for entry in write_submission(flat, data, tmp_path / "s.zip")] == [
        "Task04_Hippocampus"
    ] * 2
    shutil.copy(write_predictions(tmp_path / "more", "Task02_Heart") / "Task02_Heart" / "la_001.nii.gz", flat)
    with pytest.raises(InputError, match=r"but it holds cases of Task02_Heart, Task04_Hippocampus itself$"):
        write_submission(flat, data, tmp_path / "s.zip")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"but it holds no test case of any task itself$"):
        write_submission(tmp_path / "nothing", data, tmp_path / "s.zip", fill_empty=True)


def test_folders_and_label_maps_side_by_side_are_refused(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task02_Heart")
    shutil.copy(predictions / "Task02_Heart" / "la_001.nii.gz", predictions)
    with pytest.raises(
        InputError, match=r"both label maps \(la_001\.nii\.gz, …\) and task folders \(Task02_Heart, …\)"
    ):
        write_submission(predictions, data, tmp_path / "s.zip")


def test_every_problem_of_every_task_is_found(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(
        tmp_path / "predictions", "Task02_Heart", "Task09_Spleen", "Task07_Pancreas"
    )
    (predictions / "Task07_Pancreas").rename(predictions / "Task07_Pancrea")
    (predictions / "Task02_Heart" / "la_001.nii.gz").rename(predictions / "Task02_Heart" / "la_009.nii.gz")
    shutil.copy(
        predictions / "Task09_Spleen" / "spleen_1.nii.gz", predictions / "Task09_Spleen" / "spleen_7.nii.gz"
    )
    with pytest.raises(SubmissionError) as caught:
        write_submission(predictions, data, tmp_path / "s.zip", fill_empty=True)
    for problem, part in zip(
        caught.value.problems,
        (
            "Task07_Pancrea has no data set in",
            "Task02_Heart lacks the test case la_001",
            "la_009.nii.gz is not a test case of",
            "spleen_7.nii.gz must lie on the grid of",
        ),
        strict=True,
    ):
        assert part in problem
    assert caught.value.problems[0].endswith("; did you mean Task07_Pancreas?")
    assert not (tmp_path / "s.zip").exists()


@pytest.mark.parametrize("name", ["task09_spleen", "Task9_Spleen", "Task09 Spleen"])
@pytest.mark.parametrize("others", [("Task02_Heart",), ()])
def test_a_misspelt_folder_is_not_filled_over(
    data: Path, tmp_path: Path, name: str, others: tuple[str, ...]
) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task09_Spleen", *others)
    (predictions / "Task09_Spleen").rename(predictions / name)
    with pytest.raises(InputError, match=r"is not called TaskNN_Name, .*; did you mean Task09_Spleen\?"):
        write_submission(predictions, data, tmp_path / "s.zip", fill_empty=True)
    assert not (tmp_path / "s.zip").exists()


def test_a_prediction_with_bytes_after_its_stream_is_written_anew(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task02_Heart")
    first, second = sorted((predictions / "Task02_Heart").iterdir())
    plain, whole = first.read_bytes(), second.read_bytes()
    first.write_bytes(plain + b"and more")
    write_submission(predictions, data / "Task02_Heart", tmp_path / "s.zip")
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.read(f"Task02_Heart/{second.name}") == whole
        written = archive.read(f"Task02_Heart/{first.name}")
    assert b"and more" not in written
    assert gzip.decompress(written)[352:] == gzip.decompress(plain)[352:]


def test_a_count_that_disagrees_is_refused(data: Path, tmp_path: Path) -> None:
    task = tmp_path / "Task02_Heart"
    shutil.copytree(data / "Task02_Heart", task)
    document = json.loads((task / "dataset.json").read_text())
    (task / "dataset.json").write_text(json.dumps(document | {"numTest": 10}))
    predictions = write_predictions(tmp_path / "predictions", "Task02_Heart")
    with pytest.raises(InputError, match="says numTest 10 but lists 2 test images"):
        write_submission(predictions, task, tmp_path / "s.zip")
    (task / "dataset.json").write_text(json.dumps(document | {"numTest": "ten"}))
    with pytest.raises(InputError, match='"numTest" must be a whole number, but is a text'):
        write_submission(predictions, task, tmp_path / "s.zip")


def test_a_failed_run_continues_where_it_was(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task02_Heart", "Task09_Spleen")
    whole = write_submission(predictions, data, tmp_path / "whole.zip", fill_empty=True)
    seen: list[str] = []
    finished: set[str] = set()
    honest = submission.write_labels

    def dying(path: Path, *rest: object) -> None:
        seen.append(path.name)
        if len(seen) == 5 and not finished:
            raise KeyboardInterrupt
        honest(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(submission, "write_labels", dying)
    with pytest.raises(KeyboardInterrupt):
        write_submission(predictions, data, tmp_path / "s.zip", fill_empty=True, threads=1)
    assert not (tmp_path / "s.zip").exists()
    finished = {path.name for path in (tmp_path / ".s.zip.parts").rglob("*.nii.gz")}
    assert 4 <= len(finished) < 16
    seen.clear()
    entries = write_submission(predictions, data, tmp_path / "s.zip", fill_empty=True)
    assert len(entries) == len(whole)
    assert finished.isdisjoint(seen)
    assert len(finished) + len(seen) == 16
    assert (tmp_path / "s.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_a_killed_run_continues(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task07_Pancreas")
    code = (
        "import os, sys, pathlib, trainer.submission as s\n"
        "honest = s._zip\n"
        "def dying(entries, path):\n"
        "    honest(entries[:3], path)\n"
        "    os.kill(os.getpid(), 9)\n"
        "s._zip = dying\n"
        "a, b, c = map(pathlib.Path, sys.argv[1:])\n"
        "s.write_submission(a, b, c, fill_empty=True)\n"
    )
    out = tmp_path / "s.zip"
    done = subprocess.run(
        [sys.executable, "-c", code, predictions, data, out], capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr
    assert not out.exists()
    parts = tmp_path / ".s.zip.parts"
    assert len(list(parts.rglob("*.nii.gz"))) == 18
    (parts / "Task02_Heart" / ".tmp-0123abcd-la_001.nii.gz").write_bytes(b"half")
    write_submission(predictions, data, out, fill_empty=True)
    assert names(out) == ALL_NAMES
    assert not parts.exists()


def test_what_changed_since_is_done_anew(data: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "predictions", "Task02_Heart")
    wrong = predictions / "Task02_Heart" / "la_002.nii.gz"
    kept = wrong.read_bytes()
    wrong.write_bytes((predictions / "Task02_Heart" / "la_001.nii.gz").read_bytes())
    with pytest.raises(SubmissionError, match="must lie on the grid"):
        write_submission(predictions, data, tmp_path / "s.zip")
    kept_parts = sorted(path.name for path in (tmp_path / ".s.zip.parts" / "Task02_Heart").iterdir())
    assert kept_parts == ["la_001.json"]
    wrong.write_bytes(kept)
    assert not any(entry.empty for entry in write_submission(predictions, data, tmp_path / "s.zip"))
    (predictions / "Task02_Heart" / "la_001.nii.gz").unlink()
    with pytest.raises(SubmissionError, match=r"lacks the test case la_001$"):
        write_submission(predictions, data, tmp_path / "s.zip")


def test_where_data_sets_are(data: Path, tmp_path: Path) -> None:
    assert find_tasks(data / "Task02_Heart") == {"Task02_Heart": data / "Task02_Heart"}
    assert list(find_tasks(data)) == list(TASKS)
    with pytest.raises(InputError, match="is not a folder"):
        find_tasks(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no dataset\.json and no task folder with one"):
        find_tasks(tmp_path)
