"""The doctor finds what was done to a data set, and nothing in a sound one."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import trainer.examine
from tests.decathlon import labels, make_task, write
from trainer.cli import main
from trainer.doctor.dataset import check
from trainer.doctor.finding import Finding
from trainer.examine import Examined, Job

ORGAN = (1, (2, 2, 2), (6, 8, 10))
TUMOUR = (2, (2, 3, 3), (6, 7, 7))  # 64 voxels
SMALL = labels(ORGAN, (2, (2, 2, 2), (4, 4, 4)))
AT_BORDER = labels(ORGAN, (1, (2, 0, 2), (3, 2, 3)))


def of(findings: list[Finding], severity: str) -> list[str]:
    return [finding.sentence for finding in findings if finding.severity == severity]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """Return a sound data set of three cases and a test scan, each with values of its own."""
    names = ("a", "b", "c")
    task = make_task(tmp_path, {name: labels(ORGAN, TUMOUR) for name in names}, test=("t",))
    for number, file in enumerate(sorted(task.glob("images*/*.nii.gz"))):
        scan = np.full((8, 10, 12), 40 + number, np.int16)
        scan[0] = -1000
        write(file, scan)
    return task


def rewrite(task: Path, **changes: object) -> None:
    file = task / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_was_examined_is_kept_and_read_again_only_where_something_changed(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copyfile(task / "imagesTr" / "a.nii.gz", task / "imagesTs" / "a.nii.gz")  # one name in both parts
    rewrite(task, test=["./imagesTs/t.nii.gz", "./imagesTs/a.nii.gz"])
    read: list[str] = []
    broken: set[str] = set()

    def counting(job: Job) -> Examined:
        if job.case in broken:
            raise KeyboardInterrupt
        read.append(job.case)
        return original(job)

    original = trainer.examine.examine
    monkeypatch.setattr(trainer.examine, "examine", counting)
    broken.add("c")
    with pytest.raises(KeyboardInterrupt):
        check(task, out=out, threads=1)
    assert read == ["a", "b"]
    assert not (out / "statistics.json").exists()
    broken.clear()
    first = check(task, out=out, threads=1)
    assert read == ["a", "b", "c", "t", "a"]
    made = {file.name: file.read_bytes() for file in out.glob("[!.]*") if file.is_file()}
    assert check(task, out=out, threads=1) == first == check(task, threads=1)
    assert read[5:] == ["a", "b", "c", "t", "a"]  # without a folder nothing is kept
    assert {file.name: file.read_bytes() for file in out.glob("[!.]*") if file.is_file()} == made
    del read[:]
    # a changed label, a damaged record, one that was edited, another window
    write(task / "labelsTr" / "b.nii.gz", SMALL)
    kept = {name: out / "cases" / "training" / f"{name}.json" for name in "abc"}
    kept["a"].write_bytes(kept["a"].read_bytes()[:100])
    kept["c"].write_text(kept["c"].read_text().replace('"RAS"', '"LPS"'))
    findings = check(task, out=out, threads=1)
    assert read == ["a", "b", "c"]
    assert any("b (cancer, 8 voxels" in sentence for sentence in of(findings, "warning"))
    check(task, out=out, threads=1, window_hu=(0.0, 100.0))
    assert read[3:] == ["a", "b", "c", "t", "a"]


def test_a_sound_data_set_has_statistics_only(task: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    findings = check(task, out=out, threads=1)
    assert of(findings, "error") == of(findings, "warning") == []
    notes = of(findings, "note")
    assert notes[0] == "3 training and 1 test cases were read"
    assert (
        "shape in voxels, least, quartiles, greatest: z 8 8 8 8 8; y 10 10 10 10 10; x 12 12 12 12 12"
        in notes
    )
    assert "axes as stored: RAS in 4 (the sides that x, y and z go to)" in notes
    statistics = json.loads((out / "statistics.json").read_text())
    # 4 x 6 x 8 = 192 voxels of organ, 64 of them tumour, of 960
    assert statistics["percent"]["cancer"] == pytest.approx([100 * 64 / 960] * 5)
    assert statistics["percent"]["pancreas"] == pytest.approx([100 * 128 / 960] * 5)
    # one slice of eight is air; the organ is all within the window
    assert statistics["percent_in_window"]["background"] == pytest.approx(100 * (768 - 120) / 768)
    assert statistics["percent_in_window"]["cancer"] == 100.0
    assert np.sum(statistics["histogram"]["counts"]) == 3 * 960
    air = int(np.searchsorted(statistics["histogram"]["edges_hu"], -1000, side="right")) - 1
    assert np.sum(statistics["histogram"]["counts"], axis=0)[air] == 3 * 120
    assert (out / "histogram.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((out / "cases.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == ["a", "b", "c", "t"]
    assert (rows[0]["voxels_cancer"], rows[3]["voxels_cancer"], rows[3]["part"]) == ("64", "", "test")


@pytest.mark.parametrize(
    ("severity", "sentence", "array"),
    [
        ("error", "a (4): hold label values that dataset.json does not name", labels(ORGAN, (4, (2, 2, 2), (3, 3, 3)))),
        ("warning", "a: have a label without a foreground voxel", labels()),
        ("warning", "a (cancer, 8 voxels, 0.014 ml): have a lesion of under 50 voxels", SMALL),
        ("warning", "a (cancer, 1 voxels, 0.0018 ml): have", labels(ORGAN, TUMOUR, (2, (5, 7, 9), (6, 8, 10)))),
        ("note", "a (pancreas): lack one of the labels", labels((2, (2, 2, 2), (6, 8, 10)))),
        ("warning", "a (2): have a foreground in several pieces", labels(ORGAN, (1, (2, 9, 2), (3, 10, 3)))),
        ("note", "a (along y): have a label that touches the border", AT_BORDER),
        ("note", "a (cancer, 2): have several separate lesions", labels(ORGAN, TUMOUR, (2, (2, 2, 9), (6, 8, 10)))),
    ],
)  # fmt: skip
def test_an_odd_label_is_found(task: Path, severity: str, sentence: str, array: np.ndarray) -> None:
    write(task / "labelsTr" / "a.nii.gz", array)
    findings = check(task, threads=1)
    assert [one for one in of(findings, severity) if f"1 case: {sentence}" in one]


@pytest.mark.parametrize(
    ("sentence", "scan"),
    [
        ("(0 to 2500): hold values as a CT stores them before its rescale to HU", (0, 2500)),
        ("(-1 to 1): span a range that no HU have, as after a normalisation", (-1, 1)),
        ("(from -100): hold no air", (-100, 300)),
    ],
)
def test_values_that_are_no_hu_are_found(task: Path, sentence: str, scan: tuple[int, int]) -> None:
    array = np.full((8, 10, 12), scan[0], np.int16)
    array[4:] = scan[1]
    write(task / "imagesTr" / "b.nii.gz", array)
    told = [finding.sentence for finding in check(task, threads=1) if finding.severity != "note"]
    assert len(told) == 1
    assert told[0].startswith(f"1 case: b {sentence}")


def body() -> np.ndarray:
    """Return a scan with air around it, fat, soft tissue, bone and, where `ORGAN` is, an enhanced organ."""
    scan = np.full((8, 10, 12), -1000, np.float32)
    scan[:, 1:, 1:] = -100
    scan[:, 2:, 2:] = 50
    scan[2:6, 2:8, 2:10] = 90
    scan[:, 9, 3:6] = 700
    return scan + np.random.default_rng(0).normal(0, 5, scan.shape).astype(np.float32)


def padded(scan: np.ndarray) -> np.ndarray:
    """Return it as a scanner stores it: 1024 added, and -2000 outside its circle."""
    scan = scan + 1024
    scan[:, :1, :1] = -2000
    return scan


@pytest.mark.parametrize(
    ("severity", "sentence", "change"),
    [
        ("error", "span a range that no HU have", lambda scan: scan * 0.05),
        ("error", "span a range that no HU have", lambda scan: np.clip((scan + 160) / 400, 0, 1) * 255),
        ("error", "hold values as a CT stores them", lambda scan: scan + 1024),
        ("error", "hold values as a CT stores them", padded),
        ("error", "hold values as a CT stores them", lambda scan: -scan),
        ("error", "have labelled tissue whose median is no HU of soft tissue", lambda scan: scan + 400),
        ("error", "hold hardly a value of fat or soft tissue", lambda scan: scan - 1024),
        ("error", "hold hardly a value of fat or soft tissue", lambda scan: scan * 10),
        ("warning", "hold no air (about -1000)", lambda scan: scan / 2),
    ],
)
def test_a_wrong_scale_of_hu_is_found(
    task: Path, severity: str, sentence: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    write(task / "imagesTr" / "b.nii.gz", np.round(body()).astype(np.int16))
    assert not [one for one in check(task, threads=1) if one.severity != "note"]
    write(task / "imagesTr" / "b.nii.gz", np.round(change(body())).astype(np.int16))
    found = check(task, threads=1)
    assert [one for one in of(found, severity) if one.startswith("1 case: b") and sentence in one], found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_number_are_counted_and_the_rest_is_examined(task: Path, value: float) -> None:
    scan = body()
    scan[3, 4, 5] = value
    write(task / "imagesTr" / "b.nii.gz", scan)
    write(task / "labelsTr" / "c.nii.gz", labels())
    found = check(task, threads=1)
    assert of(found, "error") == ["1 case: b (1 voxels): hold NaN or infinite voxels; replace them"]
    assert len(of(found, "warning")) == 1
    assert "have a label without a foreground voxel" in of(found, "warning")[0]


def test_a_number_beyond_float32_is_examined_like_any(task: Path) -> None:
    """pytest turns the warning of a cast into an error."""
    scan = body().astype(np.float64)
    scan[0, 0, 0] = 1e300
    write(task / "imagesTr" / "a.nii.gz", scan)
    assert any(
        "beyond HU" in said or "hardly a value" in said for said in of(check(task, threads=1), "error")
    )


def test_the_same_scan_in_another_type_and_order_is_found(task: Path) -> None:
    whole = np.round(body()).astype(np.int16)
    write(task / "imagesTr" / "b.nii.gz", whole)
    image = sitk.DICOMOrient(sitk.ReadImage(str(task / "imagesTr" / "b.nii.gz"), sitk.sitkFloat32), "SAR")
    sitk.WriteImage(image, str(task / "imagesTs" / "t.nii.gz"))
    (said,) = of(check(task, threads=1), "warning")
    assert "under several names" in said
    assert "b = t" in said


def test_labels_of_test_cases_are_checked_too(task: Path) -> None:
    write(task / "labelsTs" / "t.nii.gz", labels(ORGAN, TUMOUR))
    sound = check(task, threads=1)
    assert of(sound, "error") == of(sound, "warning") == []
    write(task / "labelsTs" / "t.nii.gz", labels(ORGAN, (9, (2, 2, 2), (3, 3, 3))))
    (said,) = of(check(task, threads=1), "error")
    assert "1 case: t (9): hold label values that dataset.json does not name" in said


def test_a_window_without_an_end_is_refused(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "dataset", str(task), "--window-hu", "-100", "inf"]) == 1
    assert "--window-hu must be a lower and a higher finite value" in capsys.readouterr().err


def test_files_and_dataset_json_must_agree(task: Path) -> None:
    (task / "imagesTr" / "a.nii.gz").unlink()
    (task / "imagesTr" / "._b.nii.gz").write_bytes(b"macOS")
    shutil.copy(task / "imagesTs" / "t.nii.gz", task / "imagesTs" / "u.nii.gz")
    shutil.copy(task / "imagesTr" / "b.nii.gz", task / "imagesTr" / "c.nii.gz")
    write(task / "labelsTr" / "c.nii.gz", labels(ORGAN), spacing_xyz_mm=(0.8, 0.9, 5.0))
    (task / "labelsTr" / "b.nii.gz").write_bytes((task / "labelsTr" / "b.nii.gz").read_bytes()[:60])
    rewrite(task, numTraining=281)
    findings = check(task, threads=1)
    errors, warnings = of(findings, "error"), of(findings, "warning")
    assert errors[0] == (
        "1 of 7 files that dataset.json lists are not there: imagesTr/a.nii.gz; download the data set again"
    )
    assert any(one.startswith("1 case: b (") and "cannot be read" in one for one in errors)
    assert any("c (spacing (5, 0.9, 0.8) against" in one and "on another grid" in one for one in errors)
    assert any("left by macOS and are not read, 1 of them: ._b.nii.gz" in one for one in warnings)
    assert any("not used, 1 of them: imagesTs/u.nii.gz" in one for one in warnings)
    assert any("under several names" in one and "b = c" in one for one in warnings)
    assert '"numTraining" in dataset.json is 281, but 3 cases are listed' in warnings


def write_channels(path: Path, channels: int, cut: int = 0) -> None:
    volumes = [sitk.GetImageFromArray(np.full((8, 10, 12), n, np.float32)) for n in range(channels)]
    sitk.WriteImage(sitk.JoinSeries(volumes), str(path))
    if cut:
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:-cut]))


def test_images_with_several_mr_channels_are_read(task: Path) -> None:
    rewrite(task, modality={"0": "T2", "1": "ADC"})
    write_channels(task / "imagesTr" / "a.nii.gz", 2)
    write_channels(task / "imagesTr" / "b.nii.gz", 3)
    write_channels(task / "imagesTr" / "c.nii.gz", 2, cut=4000)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    for name in "abc":
        write(
            task / "labelsTr" / f"{name}.nii.gz",
            labels(ORGAN, TUMOUR),
            spacing_xyz_mm=(1, 1, 1),
            origin_xyz_mm=(0, 0, 0),
            direction=identity,
        )
    errors = of(check(task, threads=1), "error")
    assert any(
        "b (3 instead of 2), t (1 instead of 2): have another number of channels" in one for one in errors
    )
    assert any(one.startswith("1 case: c (") and "cut off" in one for one in errors)
    assert len(errors) == 2


def test_the_command_fails_with_an_error_and_passes_without(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "dataset", str(task), "--threads", "2"]) == 0
    assert capsys.readouterr().out.endswith("no error, 0 warnings\n")
    assert main(["doctor", "dataset", str(task), "--window-hu", "5", "5"]) == 1
    assert "--window-hu must be a lower and a higher finite value" in capsys.readouterr().err
    (task / "dataset.json").write_text("{")
    assert main(["doctor", "dataset", str(task)]) == 1
    assert "dataset.json" in capsys.readouterr().err.splitlines()[-1]
