"""Scans of several channels: files, orientations, scales, refusals, and the container's entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

import algorithm
from algorithm.bundle import Bundle, read_bundle, write_bundle
from algorithm.entry import main
from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation, same_grid
from algorithm.images import read_geometry, read_image, read_labels, read_scan
from algorithm.network import UNet3D
from algorithm.predict import predict
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle

CHANNELS = ("FLAIR", "T1w", "T2w")
ORIENTATIONS = ("RAS", "LPI", "SAR", "ASL", "IRP", "PIL")


def volumes(seed: int = 0, count: int = 3) -> list[sitk.Image]:
    """Return channels of one oblique scan: smooth shapes and noise in a box, zero around it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((12, 34, 30))
    inside = (z > 1) & (y > 4) & (y < 30) & (x > 3) & (x < 27)
    images = []
    for number in range(count):
        values = (
            300 + 80 * np.sin(z / 2.0 + number) + 90 * np.cos(y / 5.0) + 3 * x + rng.normal(0, 9, z.shape)
        )
        image = sitk.GetImageFromArray(np.where(inside, values, 0).astype(np.float32))
        turn = sitk.Euler3DTransform()
        turn.SetRotation(0.1, -0.06, 0.2)
        image.SetSpacing((0.9, 1.1, 2.5))
        image.SetOrigin((-31.0, 12.5, 7.25))
        image.SetDirection(turn.GetMatrix())
        images.append(image)
    return images


def write(path: Path, images: list[sitk.Image], *, vector: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    together = sitk.Compose(images) if vector else sitk.JoinSeries(images)
    sitk.WriteImage(together, path, useCompression=True)
    return path


def mr_bundle(**changes: Any) -> Bundle:
    """Return random weights that see three channels as z-scores."""
    network = UNet3D(in_channels=3, num_classes=3, base_filters=2, dropout=0.0, depth=3)
    fields: dict[str, Any] = {
        "network": network.arguments,
        "channels": CHANNELS,
        "normalisation": "zscore_foreground",
        "window_hu": (-10000.0, 10000.0),
        "mean": (0.0,) * 3,
        "std": (1000.0,) * 3,
    }
    return Bundle(network.eval(), random_bundle(**{**fields, **changes}).description)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return mr_bundle()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.mhd", "vector.mha", "vector.mhd"])
def test_every_layout_is_read_with_its_grid(tmp_path: Path, name: str) -> None:
    images = volumes()
    path = write(tmp_path / name, images, vector="vector" in name)
    found, geometry = read_scan(path, CHANNELS)
    assert found.dtype == np.int16
    expected = np.stack([np.rint(sitk.GetArrayFromImage(image)) for image in images])
    np.testing.assert_array_equal(found, expected)
    assert same_grid(geometry, Geometry.of(images[0])) is None
    assert same_grid(read_geometry(path, CHANNELS), geometry) is None


def test_one_scan_in_any_orientation_gives_the_same_labels(bundle: Bundle, tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_bundle(model, bundle)
    for axes in ("LPS", *ORIENTATIONS):
        turned = [sitk.DICOMOrient(image, axes) for image in volumes()]
        write(tmp_path / "scans" / f"{axes}.nii.gz", turned)
    predict(tmp_path / "scans", model, tmp_path / "out")
    results = {}
    for axes in ("LPS", *ORIENTATIONS):
        labels, geometry = read_labels(tmp_path / "out" / f"{axes}.nii.gz")
        scan = read_geometry(tmp_path / "scans" / f"{axes}.nii.gz", CHANNELS)
        assert same_grid(geometry, scan) is None
        results[axes] = canonical_orientation(geometry).to_canonical(labels)
    assert set(np.unique(results["LPS"])) == {0, 1, 2}
    for axes in ORIENTATIONS:
        np.testing.assert_array_equal(results[axes], results["LPS"])


def test_each_channel_may_have_any_scale_and_offset(bundle: Bundle) -> None:
    segmenter = Segmenter(bundle)
    images = volumes()
    expected = segmenter.segment(sitk.JoinSeries(images))
    scaled = [images[0] * 0.01 + 5.0, images[1] * 40.0 - 900.0, images[2] * 3.0]
    found = segmenter.segment(sitk.JoinSeries(scaled))
    one, two = sitk.GetArrayFromImage(expected), sitk.GetArrayFromImage(found)
    assert set(np.unique(one)) == {0, 1, 2}
    # A z-score is kept in thousandths: rounded the other way, it moves a probability by next to nothing.
    assert (one != two).mean() < 1e-3


def test_the_channels_are_not_mixed_up(bundle: Bundle) -> None:
    segmenter, images = Segmenter(bundle), volumes()
    one, two = (
        sitk.GetArrayFromImage(segmenter.segment(sitk.JoinSeries(order))) for order in (images, images[::-1])
    )
    assert (one != two).mean() > 0.01


def test_arrays_and_images_in_memory_are_segmented_alike(bundle: Bundle) -> None:
    images = volumes()
    segmenter = Segmenter(bundle)
    labels = [
        algorithm.segment(image, segmenter) for image in (sitk.JoinSeries(images), sitk.Compose(images))
    ]
    array = np.stack([sitk.GetArrayFromImage(image) for image in images])
    found: NDArray[np.uint8] = algorithm.segment(array, segmenter, Geometry.of(images[0]))
    for image in labels:
        assert same_grid(Geometry.of(image), Geometry.of(images[0])) is None
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), found)
    with pytest.raises(InputError, match=r"wants 3 channels \(FLAIR, T1w, T2w\), got an image of 2 channels"):
        algorithm.segment(array[:2], segmenter, Geometry.of(images[0]))
    with pytest.raises(InputError, match=r"wants 3 channels \(FLAIR, T1w, T2w\), got one image"):
        algorithm.segment(images[0], segmenter)


@pytest.mark.parametrize(
    ("name", "count", "vector", "message"),
    [
        (
            "a.nii.gz",
            2,
            False,
            r"must be one 3-D volume of 3 channels \(FLAIR, T1w, T2w\), but its size is \(",
        ),
        ("a.nii.gz", 4, False, r"30, 34, 12, 4\) \(x, y, z, …\)"),
        ("a.mha", 4, False, r"volume of 3 channels \(FLAIR, T1w, T2w\), but its size is \(30, 34, 12, 4\)"),
        ("a.mha", 2, True, r"volume of 3 channels .* \(30, 34, 12\) \(x, y, z\) with 2 numbers a voxel"),
        ("a.nrrd", 3, True, r"volume of 3 channels .*, in a \.nii\.gz, \.nii, \.mha or \.mhd"),
    ],
)
def test_other_channels_are_refused_in_one_sentence(
    tmp_path: Path, name: str, count: int, vector: bool, message: str
) -> None:
    path = write(tmp_path / name, volumes(count=count), vector=vector)
    with pytest.raises(InputError, match=message) as caught:
        read_scan(path, CHANNELS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_volume_is_not_several_and_several_are_not_one(tmp_path: Path) -> None:
    sitk.WriteImage(volumes()[0], tmp_path / "one.nii.gz")
    with pytest.raises(InputError, match=r"of 3 channels .*, but its size is \(30, 34, 12\)"):
        read_scan(tmp_path / "one.nii.gz", CHANNELS)
    for name in ("a.nii.gz", "a.mha"):
        with pytest.raises(InputError, match=r"must be one 3-D volume, but its size is \(30, 34, 12, 3\)"):
            read_image(write(tmp_path / name, volumes()))
    with pytest.raises(InputError, match=r"one number per voxel, but holds vectors of 3"):
        read_image(write(tmp_path / "b.mha", volumes(), vector=True))
    with pytest.raises(
        InputError, match=r"must be one 3-D volume of 3 channels .* in a file, but is a folder"
    ):
        read_image(tmp_path, CHANNELS)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha"])
def test_a_file_that_lacks_its_last_channel_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, volumes())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(InputError, match=r"cut off|damaged"):
        read_scan(path, CHANNELS)


def test_lost_voxels_come_back_to_their_own_channel(tmp_path: Path) -> None:
    images = volumes()
    values = sitk.GetArrayFromImage(images[1])
    values[5, 10:14, 8:20] = np.nan
    hurt = sitk.GetImageFromArray(values)
    hurt.CopyInformation(images[1])
    path = write(tmp_path / "a.nii.gz", [images[0], hurt, images[2]])
    found = sitk.GetArrayFromImage(read_image(path, CHANNELS))
    np.testing.assert_array_equal(found[1], values)
    assert np.isfinite(found[0]).all()
    assert np.isfinite(found[2]).all()
    scores, _ = read_scan(path, CHANNELS, "zscore_foreground")
    assert (scores[1, 5, 10:14, 8:20] == scores[1].min()).all()


def test_a_sheared_grid_of_several_channels_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", volumes())
    raw = bytearray(path.read_bytes())
    rows = np.frombuffer(raw, "<f4", 12, 280).reshape(3, 4).copy()
    rows[:, 2] += 0.4 * rows[:, 1]
    rows[:, 2] *= 2.5 / np.linalg.norm(rows[:, 2])
    raw[280:328] = rows.astype("<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"has a sheared grid"):
        read_scan(path, CHANNELS)


def test_a_bundle_says_how_it_sees_a_scan(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(tmp_path / "mr", bundle)
    assert read_bundle(tmp_path / "mr").description == bundle.description
    values = json.loads((tmp_path / "mr" / "model.json").read_text())
    # A release that would take z-scores for HU refuses this version.
    assert values["format_version"] == 2
    (tmp_path / "mr" / "model.json").write_text(json.dumps({**values, "normalisation": "minmax"}))
    with pytest.raises(
        InputError, match=r"'normalisation' must be 'window' or 'zscore' or 'zscore_foreground'"
    ):
        read_bundle(tmp_path / "mr")
    with pytest.raises(InputError, match=r"must see scans alike, but 'normalisation' is zscore"):
        Segmenter([bundle, mr_bundle(normalisation="zscore")])


@pytest.mark.parametrize("vector", [False, True])
def test_the_container_takes_several_channels_in_one_file(
    bundle: Bundle, tmp_path: Path, vector: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    images = volumes()
    write_bundle(tmp_path / "model", bundle)
    write(tmp_path / "input" / "a.mha", images, vector=vector)
    environment = {
        "DECATHLON_INPUT": str(tmp_path / "input"),
        "DECATHLON_OUTPUT": str(tmp_path / "output"),
        "DECATHLON_MODEL": str(tmp_path / "model"),
    }
    assert main(environment) == 0, capsys.readouterr().err
    labels, geometry = read_labels(tmp_path / "output" / "images" / "a.mha")
    expected = Segmenter(bundle).segment(sitk.JoinSeries(images))
    assert same_grid(geometry, Geometry.of(expected)) is None
    np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(expected))
