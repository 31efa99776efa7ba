"""Every real CT goes through both doors, `decathlon predict` and the container's entry, and comes back on its grid."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.bundle import Stitching
from algorithm.entry import main as run_entry
from algorithm.geometry import Geometry, same_grid
from algorithm.images import read_image, read_labels
from algorithm.locate import CoarseToFine
from algorithm.postprocessing import Postprocessing
from tests.bundles import random_bundle, write_random_bundle
from trainer.cli import main as decathlon

SCANS = (
    "abdomen_crlm_1004/ct.nii.gz",
    "abdomen_crlm_1004/tiny_ct.nii.gz",
    "abdomen_crlm_1004/dicom.zip",
    "totalsegmentator_example/ct.nii.gz",
    "totalsegmentator_example/ct_small.nii.gz",
    "totalsegmentator_example/dicom.zip",
    "tilted_gantry/phantom_tilt_plus16p5.mha",
)
ORIENTATIONS = ("RAS", "LAI", "SAR", "ASL", "IRP", "PIL")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("model") / "bundle")


def on_disk(source: Path, folder: Path) -> Path:
    """Return a scan as a user has it: the file, or the unpacked folder of a DICOM archive."""
    if source.suffix != ".zip":
        return source
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    return folder


def through_predict(scan: Path, model: Path, out: Path, *options: str) -> Path:
    """Predict with a bundle, or with the ensemble of those in a folder."""
    arguments = ["predict", str(scan), "--model", str(model), "--out", str(out), "--device", "cpu", *options]
    assert decathlon(arguments) == 0
    (result,) = (path for path in out.glob("[!.]*") if path.is_file())
    return result


def through_entry(image: sitk.Image, model: Path, work: Path) -> Path:
    (work / "input").mkdir(parents=True)
    sitk.WriteImage(image, work / "input" / "scan.mha")
    environment = {
        "DECATHLON_INPUT": str(work / "input"),
        "DECATHLON_OUTPUT": str(work / "output"),
        "DECATHLON_MODEL": str(model),
    }
    assert run_entry(environment) == 0
    return work / "output" / "images" / "scan.mha"


@pytest.mark.parametrize("name", SCANS)
def test_a_real_ct_comes_back_on_its_grid(name: str, real_data: Path, model: Path, tmp_path: Path) -> None:
    scan = on_disk(real_data / name, tmp_path / "dicom")
    image = read_image(scan)
    predicted = through_predict(scan, model, tmp_path / "predicted")
    entered = through_entry(image, model, tmp_path / "entry")
    labels, grid = read_labels(predicted)
    entry_labels, entry_grid = read_labels(entered)
    for result in (predicted, entered):
        assert read_image(result).GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert np.unique(labels).size > 1, "nothing was segmented, so nothing was shown"
    np.testing.assert_array_equal(entry_labels, labels)
    assert entry_grid == Geometry.of(image)  # MetaImage writes every digit
    assert grid.shape_zyx == entry_grid.shape_zyx
    np.testing.assert_allclose(grid.spacing_zyx_mm, entry_grid.spacing_zyx_mm, rtol=1e-6)
    np.testing.assert_allclose(grid.origin_xyz_mm, entry_grid.origin_xyz_mm, atol=1e-4)
    np.testing.assert_allclose(grid.direction, entry_grid.direction, atol=1e-6)


def test_the_sheared_series_is_refused(
    real_data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = on_disk(real_data / "tilted_gantry" / "dicom_12_slices.zip", tmp_path / "dicom")
    arguments = ["predict", str(series), "--model", str(model), "--out", str(tmp_path / "out")]
    assert decathlon(arguments) == 1
    assert "16.5°" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("out/[!.]*"))


def test_a_scan_stored_in_six_other_orientations_gives_the_same_voxels(
    real_data: Path, model: Path, tmp_path: Path
) -> None:
    image = read_image(real_data / "abdomen_crlm_1004" / "tiny_ct.nii.gz")
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    expected, _ = read_labels(
        through_predict(real_data / "abdomen_crlm_1004" / "tiny_ct.nii.gz", model, tmp_path / "as_stored")
    )
    for axes in ORIENTATIONS:
        assert axes != stored
        path = tmp_path / axes / "tiny_ct.nii.gz"
        path.parent.mkdir()
        sitk.WriteImage(sitk.DICOMOrient(image, axes), path)
        result = sitk.ReadImage(through_predict(path, model, tmp_path / axes / "out"))
        back = sitk.GetArrayFromImage(sitk.DICOMOrient(result, stored))
        np.testing.assert_array_equal(back, expected, err_msg=axes)


# What members an ensemble has, how their bundles differ from the plain one, and the options of the command.
COARSE = random_bundle(spacing_zyx_mm=(10.0, 4.0, 4.0))
WAYS: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "mirrored views": ([{}], ("--mirror", "yx")),
    "two patches at once": ([{}], ("--patches-at-once", "2")),
    "an ensemble": ([{}, {"mean": (60.0,), "std": (50.0,)}], ()),
    "Gaussian blending": ([{"stitching": Stitching("gaussian", (8, 16, 16))}], ()),
    "postprocessing": ([{"postprocessing": Postprocessing(True, 4.0, 0.05)}], ()),
    "coarse to fine": (
        [{"coarse": COARSE, "coarse_to_fine": CoarseToFine()}],
        (),
    ),
    "probabilities": ([{}], ("--probabilities",)),
    "OpenVINO": ([{}], ("--engine", "openvino")),
}
# The coarse pass has random weights, too, and finds something everywhere: its box is the whole scan.
SAME_LABELS = ("two patches at once", "coarse to fine", "probabilities", "OpenVINO")


TINY, SMALL = "abdomen_crlm_1004/tiny_ct.nii.gz", "totalsegmentator_example/ct_small.nii.gz"
WAY_OF_A_SCAN = [
    *((way, TINY, "PIL") for way in WAYS),
    ("two patches at once", SMALL, "ASL"),
    ("postprocessing", SMALL, "IRP"),
]


@pytest.fixture(scope="module")
def plain(
    real_data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], NDArray[np.uint8]]:
    """Return a function from a scan to its labels without any option; each scan is segmented once."""
    folder = tmp_path_factory.mktemp("plain")
    return functools.cache(
        lambda name: read_labels(through_predict(real_data / name, model, folder / Path(name).parent))[0]
    )


@pytest.mark.parametrize(("way", "name", "axes"), WAY_OF_A_SCAN)
def test_every_option_gives_the_same_voxels_in_two_orientations(
    way: str,
    name: str,
    axes: str,
    real_data: Path,
    plain: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    changes, options = WAYS[way]
    models = tmp_path / "models"
    for number, change in enumerate(changes):
        write_random_bundle(models / str(number), **change)
    image = read_image(real_data / name)
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    turned = sitk.DICOMOrient(image, axes)
    sitk.WriteImage(turned, tmp_path / "turned.mha")
    labels, grid = read_labels(through_predict(real_data / name, models, tmp_path / "as_stored", *options))
    again = through_predict(tmp_path / "turned.mha", models, tmp_path / "out", *options)
    assert same_grid(grid, Geometry.of(image)) is None
    assert read_labels(again)[1] == Geometry.of(turned)
    back = sitk.DICOMOrient(sitk.ReadImage(again), stored)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), labels)
    assert np.unique(labels).size > 1, "nothing was segmented, so nothing was shown"
    changed = np.mean(labels != plain(name))
    # Convolutions may add up in another order; any other option must make a difference.
    assert changed <= 1e-4 if way in SAME_LABELS else changed > 1e-4
