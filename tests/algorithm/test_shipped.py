"""The bundle that comes with the software: found by its name, and loud."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm import entry, job, segment, shipped
from algorithm.bundle import read_bundle
from algorithm.errors import InputError
from algorithm.predict import predict
from algorithm.shipped import located
from tests.bundles import random_bundle, write_random_bundle
from tests.dicoms import write_series
from trainer.doctor.bundle import check as check_bundle
from trainer.lesions import match_lesions
from trainer.metrics import Overlap, confusion_matrix
from trainer.phantom.case import as_stored, make_volume

NOTICE = "Trained on synthetic scans: not for patients."


@pytest.fixture
def phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a bundle with a notice that stands for the one that comes with the software."""
    folder = write_random_bundle(tmp_path / "software" / "phantom", notice=NOTICE)
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def scan() -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-200, 300, (5, 16, 20)).astype(np.int16))
    image.SetSpacing((0.75, 0.75, 5.0))
    return image


def test_its_name_finds_it_unless_there_is_a_path_of_that_name(phantom: Path, tmp_path: Path) -> None:
    assert located("phantom") == phantom
    assert read_bundle("phantom").description.notice == NOTICE
    assert located("./phantom/x") == Path("phantom/x")
    (tmp_path / "phantom").mkdir()
    assert located("phantom") == Path("phantom")


@pytest.mark.usefixtures("phantom")
def test_what_it_segments_is_said_to_be_for_no_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("a.mha", "b.mha"):
        sitk.WriteImage(scan(), tmp_path / "scans" / name)
    predict(tmp_path / "scans", Path("phantom"), tmp_path / "out")
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in said if NOTICE in record.getMessage()] == [NOTICE] * 2
    caplog.clear()
    segment(scan(), "phantom")
    assert NOTICE in caplog.text
    caplog.clear()
    segment(scan(), random_bundle())
    assert NOTICE not in caplog.text


@pytest.mark.usefixtures("phantom")
def test_a_job_takes_it_when_asked_to_and_says_so_of_each_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "MODEL_FOLDERS", (str(tmp_path / "none"),))
    environment = {f"DECATHLON_{name}": str(tmp_path / name.lower()) for name in ("INPUT", "OUTPUT")}
    (tmp_path / "input").mkdir()
    sitk.WriteImage(scan(), tmp_path / "input" / "a.mha")
    assert entry.main(environment) == 1
    assert "set DECATHLON_MODEL: to phantom for a first try" in capsys.readouterr().err.splitlines()[-1]
    assert entry.main({**environment, "DECATHLON_MODEL": "phantom"}) == 0
    assert NOTICE in capsys.readouterr().err
    (result,) = json.loads((tmp_path / "output" / "results.json").read_text())
    assert result["notices"] == [NOTICE]
    assert result["error_messages"] == []


def test_what_it_segments_becomes_no_dicom(phantom: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    write_series(tmp_path / "series", np.zeros((5, 16, 20), np.uint16))
    with pytest.raises(
        InputError,
        match=f"may end up in a patient's record, but of this model's labels is to be said: {NOTICE}",
    ):
        predict(tmp_path / "series", phantom, tmp_path / "out", dicom_seg=True)
    assert not list((tmp_path / "out").glob("*.dcm"))


@pytest.mark.parametrize("notice", [7, "two\nlines", "x" * 301])
def test_a_notice_that_is_no_line_is_refused(tmp_path: Path, notice: object) -> None:
    folder = write_random_bundle(tmp_path / "bundle")
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, "notice": notice}))
    with pytest.raises(InputError, match="'notice' must be at most 300 characters on one line"):
        read_bundle(folder)


def test_the_one_that_comes_with_the_software_is_small_loud_and_sees_a_phantom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A regression of the weights."""
    folder = Path(shipped.__file__).parent / "bundles" / "phantom"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10e6
    bundle = read_bundle("phantom")
    assert "synthetic" in bundle.description.notice
    assert "not for patients" in bundle.description.notice
    assert [finding.severity for finding in check_bundle(Path("phantom"))] == ["note"]
    # A plain phantom, of an easier kind than those that it was trained on, and of another seed.
    volume = make_volume(77, 1, "small")
    labels = segment(as_stored(volume.image, volume), bundle)
    reference = sitk.GetArrayFromImage(as_stored(volume.labels, volume))
    found = sitk.GetArrayFromImage(labels)
    confusion = confusion_matrix(reference, found, 3)
    dice = Overlap.of(confusion, (1, 2)).dice
    assert dice is not None
    assert dice > 0.6
    tumours = match_lesions(reference == 2, found == 2, voxel_ml=float(np.prod(labels.GetSpacing())) / 1000)
    assert tumours.found == (True,)
    assert len(tumours.false_positive_ml) <= 1
    assert bundle.description.notice in caplog.text
