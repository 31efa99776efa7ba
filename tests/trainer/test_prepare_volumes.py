"""Cases on the common grid: what they hold, what is refused, what is kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import InputError
from trainer.dataset import Case, Dataset
from trainer.volumes import Volume, VolumeSettings, prepare_volume, prepare_volumes

from .conftest import LABELS, MakeTask, write_nifti

SETTINGS = VolumeSettings((2.5, 0.8, 0.8), (-100, 200), LABELS, ("CT",))


def case_of(folder: Path, image: np.ndarray, labels: np.ndarray, spacing: tuple[float, ...]) -> Case:
    case = Case("a", folder / "a.nii.gz", folder / "a_label.nii.gz")
    write_nifti(case.image, image, spacing)
    write_nifti(case.label, labels, spacing)
    return case


def interpolated(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear resampling with aligned voxel edges, one axis after the other, in float64."""
    result = volume.astype(np.float64)
    for axis, count in enumerate(shape):
        length = result.shape[axis]
        where = (np.arange(count) + 0.5) * length / count - 0.5
        result = np.apply_along_axis(
            lambda line, at=where: np.interp(at, np.arange(line.size), line), axis, result
        )
    return result


def test_image_is_resampled_then_clipped_and_labels_follow(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hounsfield = rng.integers(-400, 400, (6, 20, 16)).astype(np.int16)
    labels = np.zeros((6, 20, 16), np.uint8)
    labels[2:5, 4:12, 4:12] = 1
    labels[3, 6:9, 6:9] = 2
    case = case_of(tmp_path, hounsfield, labels, (5.0, 0.6, 0.7))
    volume = prepare_volume(case, tmp_path / "volumes" / "a", SETTINGS)
    assert volume.shape_zyx == (12, 15, 14)
    assert volume.voxels == 12 * 15 * 14
    image = volume.image()
    assert (image.dtype, image.shape) == (np.int16, (1, 12, 15, 14))
    expected = np.clip(interpolated(hounsfield, volume.shape_zyx), -100, 200)
    assert np.abs(image[0] - expected).max() <= 0.51
    shares = np.stack([interpolated(labels == value, volume.shape_zyx) for value in range(3)])
    top = np.sort(shares, axis=0)
    clear = top[-1] - top[-2] > 1e-4
    found = volume.label()
    assert found.dtype == np.uint8
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear], shares.argmax(axis=0)[clear])
    np.testing.assert_array_equal(
        volume.label_slices, [[np.sum(plane == value) for plane in found] for value in range(3)]
    )


def test_the_window_and_spacing_are_those_asked_for(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.int16) * 10, (4, 8, 40))
    case = case_of(tmp_path, ramp, np.zeros((4, 8, 40), np.uint8), (2.0, 1.0, 1.0))
    settings = replace(SETTINGS, spacing_zyx_mm=(2.0, 1.0, 2.0), window_hu=(35, 305))
    image = prepare_volume(case, tmp_path / "v", settings).image()
    assert image.shape == (1, 4, 8, 20)
    expected = np.clip(np.arange(20) * 20 + 5, 35, 305)
    np.testing.assert_array_equal(image, np.broadcast_to(expected, image.shape))


def test_storage_order_does_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    image = sitk.GetImageFromArray(rng.integers(-200, 300, (5, 9, 7)).astype(np.int16))
    labels = sitk.GetImageFromArray(rng.integers(0, 3, (5, 9, 7)).astype(np.uint8))
    for stored in (image, labels):
        stored.SetSpacing((0.7, 0.9, 3.0))
    volumes = []
    for orientation in ("LPS", "RAS", "PSL"):
        folder = tmp_path / orientation
        folder.mkdir()
        case = Case("a", folder / "image.nii.gz", folder / "label.nii.gz")
        sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(case.image))
        sitk.WriteImage(sitk.DICOMOrient(labels, orientation), str(case.label))
        volumes.append(prepare_volume(case, folder / "volume", SETTINGS))
    for other in volumes[1:]:
        np.testing.assert_array_equal(other.image(), volumes[0].image())
        np.testing.assert_array_equal(other.label(), volumes[0].label())


def refused(tmp_path: Path, case: Case, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_volume(case, tmp_path / "volumes" / "a", SETTINGS)
    assert not (tmp_path / "volumes").exists() or not list((tmp_path / "volumes").iterdir())


@pytest.mark.parametrize(
    ("label_shape", "label_spacing", "message"),
    [
        ((4, 8, 7), (2.5, 0.8, 0.8), r"grid of its image, but has size \(4, 8, 7\) against \(4, 8, 8\)"),
        (
            (4, 8, 8),
            (5.0, 0.8, 0.8),
            r"grid of its image, but has spacing \(5, 0\.8, 0\.8\) against \(2\.5, 0",
        ),
    ],
)
def test_a_label_on_another_grid_is_refused(
    tmp_path: Path, label_shape: tuple[int, ...], label_spacing: tuple[float, ...], message: str
) -> None:
    case = Case("a", tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    write_nifti(case.image, np.zeros((4, 8, 8), np.int16), (2.5, 0.8, 0.8))
    write_nifti(case.label, np.zeros(label_shape, np.uint8), label_spacing)
    refused(tmp_path, case, message + r".*label\.nii\.gz against .*image\.nii\.gz")


def test_a_label_value_without_a_name_is_refused(tmp_path: Path) -> None:
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1, 2, 3] = 3
    case = case_of(tmp_path, np.zeros((4, 8, 8), np.int16), labels, (2.5, 0.8, 0.8))
    refused(
        tmp_path, case, r"label values must be 0 to 2 as dataset\.json names them, but 3 is in .*a_label\.nii"
    )


def test_a_corrupt_image_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 100, (8, 32, 32)).astype(np.int16)
    case = case_of(tmp_path, image, np.zeros((8, 32, 32), np.uint8), (2.5, 0.8, 0.8))
    case.image.write_bytes(case.image.read_bytes()[:2000])
    refused(tmp_path, case, r"a\.nii\.gz")


def test_channels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path, np.zeros((4, 8, 8), np.int16), np.zeros((4, 8, 8), np.uint8), (2.5, 0.8, 0.8))
    settings = replace(SETTINGS, channels=("FLAIR", "T1w"))
    with pytest.raises(
        InputError, match=r"a\.nii\.gz must be one 3-D volume of 2 channels \(FLAIR, T1w\), but"
    ):
        list(prepare_volumes([case], tmp_path / "volumes", settings, threads=1))


def test_an_image_without_contrast_is_named(tmp_path: Path) -> None:
    case = case_of(tmp_path, np.zeros((4, 8, 8), np.int16), np.zeros((4, 8, 8), np.uint8), (2.5, 0.8, 0.8))
    settings = replace(SETTINGS, channels=("T1w",), normalisation="zscore", window_hu=(-10000, 10000))
    with pytest.raises(
        InputError, match=r"a\.nii\.gz: channel 0 \(T1w\) of the scan has one value everywhere, 0"
    ):
        prepare_volume(case, tmp_path / "volumes" / "a", settings)


@pytest.fixture
def kept(make_task: MakeTask, tmp_path: Path) -> tuple[Case, Path, Volume]:
    case = Dataset.read(make_task([(6, 20, 20)])).training[0]
    folder = tmp_path / "volumes" / case.name
    return case, folder, prepare_volume(case, folder, SETTINGS)


def inode(folder: Path) -> int:
    return (folder / "image.npy").stat().st_ino


def test_a_volume_is_kept_while_nothing_changes(kept: tuple[Case, Path, Volume]) -> None:
    case, folder, volume = kept
    before = inode(folder)
    again = prepare_volume(case, folder, SETTINGS)
    assert inode(folder) == before
    assert again.sha256 == volume.sha256
    np.testing.assert_array_equal(again.label_slices, volume.label_slices)
    assert (again.case, again.shape_zyx) == (volume.case, volume.shape_zyx)


def test_a_copied_source_with_another_time_is_the_same(kept: tuple[Case, Path, Volume]) -> None:
    case, folder, _ = kept
    before = inode(folder)
    os.utime(case.image, ns=(1, 1))
    prepare_volume(case, folder, SETTINGS)
    assert inode(folder) == before


def test_a_changed_source_is_prepared_again(kept: tuple[Case, Path, Volume]) -> None:
    case, folder, volume = kept
    image = sitk.ReadImage(str(case.image))
    sitk.WriteImage(image + 7, str(case.image))
    again = prepare_volume(case, folder, SETTINGS)
    assert again.sha256 != volume.sha256
    expected = np.clip(sitk.GetArrayFromImage(image).astype(int) + 7, -100, 200)
    np.testing.assert_array_equal(again.image()[0], expected)


def test_other_settings_prepare_again(kept: tuple[Case, Path, Volume]) -> None:
    case, folder, volume = kept
    other = prepare_volume(case, folder, replace(SETTINGS, window_hu=(-50, 50)))
    assert (volume.shape_zyx, other.image().min(), other.image().max()) == ((6, 20, 20), -50, 50)


@pytest.mark.parametrize("file", ["image.npy", "label.npy", "volume.json"])
@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_volume_is_prepared_again(kept: tuple[Case, Path, Volume], file: str, damage: str) -> None:
    case, folder, volume = kept
    expected = np.array(volume.image()), np.array(volume.label())
    if damage == "removed":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes((folder / file).read_bytes()[:-10])
    again = prepare_volume(case, folder, SETTINGS)
    np.testing.assert_array_equal(again.image(), expected[0])
    np.testing.assert_array_equal(again.label(), expected[1])


def test_a_failing_case_stops_the_rest_and_keeps_what_was_done(make_task: MakeTask, tmp_path: Path) -> None:
    cases = Dataset.read(make_task([(4, 12, 12)] * 6)).training
    shutil.copy(cases[2].image, cases[3].label)
    with pytest.raises(InputError, match=r"pancreas_003"):
        list(prepare_volumes(cases, tmp_path / "volumes", SETTINGS, threads=2))
    done = {path.name for path in (tmp_path / "volumes").iterdir()}
    assert {"pancreas_000", "pancreas_001", "pancreas_002"} <= done
    assert not any(name.startswith(".") for name in done)
