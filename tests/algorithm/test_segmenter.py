from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import algorithm
from algorithm.bundle import Bundle, Stitching
from algorithm.errors import InputError
from algorithm.geometry import Geometry, same_grid
from algorithm.images import hounsfield, read_image
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle

ORIENTATIONS = ("RAS", "LPI", "SAR", "ASL", "IRP", "PIL")


def scan(shape_zyx: tuple[int, int, int] = (9, 40, 36)) -> sitk.Image:
    z, y, x = np.indices(shape_zyx)
    values = 60 * np.sin(z / 2.0) + 80 * np.cos(y / 5.0) + 3 * x
    noise = np.random.default_rng(0).normal(0, 10, shape_zyx)
    image = sitk.GetImageFromArray((values + noise).astype(np.int16))
    image.SetSpacing((0.8, 0.9, 2.5))
    image.SetOrigin((-100.0, 20.0, 5.0))
    return image


def reference_labels(image: sitk.Image) -> NDArray[np.uint8]:
    """Compute the labels of an LPS scan the plain way: whole maps, SimpleITK for every resampling."""
    bundle = random_bundle()
    about, network = bundle.description, bundle.network
    geometry = Geometry.of(image)
    shape_zyx = [
        max(1, int(size * spacing / new + 0.5))
        for size, spacing, new in zip(
            geometry.shape_zyx, geometry.spacing_zyx_mm, about.spacing_zyx_mm, strict=True
        )
    ]
    grid = sitk.Image([int(size) for size in shape_zyx[::-1]], sitk.sitkFloat32)
    geometry.resampled(tuple(shape_zyx)).set_on(grid)

    def resample(source: sitk.Image, onto: sitk.Image) -> NDArray[np.float32]:
        # Beyond the outermost voxel centres SimpleITK would say "outside"; the nearest voxel counts instead.
        padded = sitk.ZeroFluxNeumannPad(source, [2, 2, 2], [2, 2, 2])
        out: NDArray[np.float32] = sitk.GetArrayFromImage(
            sitk.Resample(padded, onto, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
        )
        return out

    low, high = about.window_hu
    network_input = (np.clip(resample(image, grid), low, high) - about.mean[0]) / about.std[0]
    patch, overlap = about.patch_shape_zyx, about.stitching.overlap_zyx
    tiles = [axis_tiles(*axis) for axis in zip(network_input.shape, patch, overlap, strict=True)]
    pad = [
        (max(0, size - n) // 2, -(-max(0, size - n) // 2))
        for n, size in zip(network_input.shape, patch, strict=True)
    ]
    padded = np.pad(network_input, pad, mode="edge")
    maps = np.full((3, *padded.shape), np.nan, dtype=np.float32)
    for zs, zk in tiles[0]:
        for ys, yk in tiles[1]:
            for xs, xk in tiles[2]:
                box = padded[zs : zs + patch[0], ys : ys + patch[1], xs : xs + patch[2]]
                with torch.inference_mode():
                    logits = network(torch.from_numpy(np.ascontiguousarray(box))[None, None])
                    probabilities = torch.softmax(logits, 1)[0].numpy()
                keep = (slice(*zk), slice(*yk), slice(*xk))
                local = tuple(slice(k.start - s, k.stop - s) for k, s in zip(keep, (zs, ys, xs), strict=True))
                maps[(slice(None), *keep)] = probabilities[(slice(None), *local)]
    crop = tuple(slice(before, before + n) for (before, _), n in zip(pad, network_input.shape, strict=True))
    onto = sitk.Cast(image, sitk.sitkFloat32)
    back = []
    for values in maps[(slice(None), *crop)]:
        assert np.isfinite(values).all()
        one = sitk.GetImageFromArray(np.ascontiguousarray(values))
        one.CopyInformation(grid)
        back.append(resample(one, onto))
    return np.argmax(np.stack(back), axis=0).astype(np.uint8)


def axis_tiles(n: int, patch: int, overlap: int) -> list[tuple[int, tuple[int, int]]]:
    """Return (start, (keep from, keep to)) for the fewest evenly spread patches of one padded axis."""
    if n <= patch:
        return [(0, (0, patch))]
    count = -(-(n - overlap) // (patch - overlap))
    starts = [int(np.floor(i * (n - patch) / (count - 1) + 0.5)) for i in range(count)]
    cuts = [0, *((a + patch + b) // 2 for a, b in itertools.pairwise(starts)), n]
    return [(start, (cuts[i], cuts[i + 1])) for i, start in enumerate(starts)]


def test_labels_are_those_of_a_plain_whole_volume_reference() -> None:
    image = scan((40, 70, 66))
    labels = sitk.GetArrayFromImage(Segmenter(random_bundle()).segment(image))
    expected = reference_labels(image)
    assert set(np.unique(expected)) == {0, 1, 2}
    # Sums are taken in another order, so a voxel on the very border between two classes may fall either way.
    assert np.count_nonzero(labels != expected) <= 1e-4 * labels.size


def test_the_result_lies_on_the_scans_grid_and_holds_its_labels() -> None:
    image = scan()
    result = Segmenter(random_bundle()).segment(image)
    assert same_grid(Geometry.of(image), Geometry.of(result)) is None
    assert result.GetSpacing() == image.GetSpacing()
    assert result.GetOrigin() == image.GetOrigin()
    assert result.GetDirection() == image.GetDirection()
    assert result.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayViewFromImage(result))) == {0, 1, 2}


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_orientation_does_not_change_the_segmentation(axes: str) -> None:
    segmenter, image = Segmenter(random_bundle()), scan()
    turned = sitk.DICOMOrient(image, axes)
    assert turned.GetDirection() != image.GetDirection()
    result = segmenter.segment(turned)
    assert same_grid(Geometry.of(turned), Geometry.of(result)) is None
    back = sitk.DICOMOrient(result, "LPS")
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(segmenter.segment(image))
    )


@pytest.mark.parametrize("shape_zyx", [(1, 64, 64), (3, 8, 8), (70, 5, 5)])
def test_thin_scans_pass(shape_zyx: tuple[int, int, int]) -> None:
    labels = Segmenter(random_bundle()).segment(scan(shape_zyx))
    assert sitk.GetArrayFromImage(labels).shape == shape_zyx


def test_the_number_of_patches_at_once_changes_nothing() -> None:
    image = scan((30, 60, 60))
    one = sitk.GetArrayFromImage(Segmenter(random_bundle()).segment(image))
    many = sitk.GetArrayFromImage(Segmenter(random_bundle(), patches_at_once=5).segment(image))
    assert (
        np.count_nonzero(one != many) <= 1e-4 * one.size
    )  # convolutions of a batch may add up in another order


def test_a_bundle_for_several_channels_refuses_one_image() -> None:
    bundle = random_bundle(channels=("FLAIR", "T1w"))
    with pytest.raises(InputError, match=r"wants 2 channels \(FLAIR, T1w\), got one image"):
        Segmenter(bundle).segment(scan())


def test_a_landmark_stays_where_it_is() -> None:
    bundle = random_bundle(window_hu=(0.0, 1000.0), mean=(0.0,), std=(1000.0,))

    class Threshold(torch.nn.Module):
        """Call bright voxels cancer, so that labels show where a bright ball comes to lie."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat((torch.full_like(x, 0.5), torch.zeros_like(x), x), dim=1) * 20

    segmenter = Segmenter(bundle)
    segmenter.members[0].network = Threshold()  # type: ignore[assignment]
    image = sitk.Image([60, 50, 20], sitk.sitkInt16)
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((11.0, -7.0, 100.0))
    image.SetDirection(oblique())
    centre_mm = image.TransformContinuousIndexToPhysicalPoint((30.3, 24.6, 9.4))
    z, y, x = np.indices((20, 50, 60)).reshape(3, -1)
    points = np.array(
        [
            image.TransformIndexToPhysicalPoint((int(i), int(j), int(k)))
            for i, j, k in zip(x, y, z, strict=True)
        ]
    )
    bright = (np.linalg.norm(points - centre_mm, axis=1) < 9.0).reshape(20, 50, 60)
    values = sitk.GetImageFromArray((1000 * bright).astype(np.int16))
    values.CopyInformation(image)
    labels = sitk.GetArrayFromImage(segmenter.segment(values))
    found = points[(labels == 2).reshape(-1)].mean(axis=0)
    assert np.abs(found - points[bright.reshape(-1)].mean(axis=0)).max() < 0.35  # half the smallest spacing


def oblique() -> tuple[float, ...]:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(0.2, -0.1, 0.3)
    matrix: tuple[float, ...] = transform.GetMatrix()
    return matrix


def test_real_scans_keep_their_grids(real_data: Path) -> None:
    segmenter = Segmenter(random_bundle())
    for name in (
        "abdomen_crlm_1004/tiny_ct.nii.gz",
        "totalsegmentator_example/ct_small.nii.gz",
    ):
        image = read_image(real_data / name)
        result = segmenter.segment(image)
        assert same_grid(Geometry.of(image), Geometry.of(result)) is None, name
        assert hounsfield(image).shape == sitk.GetArrayFromImage(result).shape


def test_an_output_that_is_not_finite_is_no_empty_pancreas() -> None:
    bundle = random_bundle()
    with torch.no_grad():
        bundle.network.head.weight.fill_(3e38)
    with pytest.raises(InputError, match="network's output is not finite"):
        Segmenter(bundle).segment(scan())


def probabilities_of(segmenter: Segmenter, patches: NDArray[np.float32]) -> NDArray[np.float32]:
    return segmenter._forward(patches, segmenter.engines)


def test_mirrored_views_are_averaged() -> None:
    bundle = random_bundle()
    patches = np.random.default_rng(0).normal(0, 1, (1, 1, 16, 32, 32)).astype(np.float32)
    plain = Segmenter(bundle)
    expected = [
        np.flip(probabilities_of(plain, np.flip(patches, axes).copy()), axes)
        for axes in ((), (2,), (4,), (2, 4))
    ]
    mirrored = Segmenter(bundle, mirror_zyx=(True, False, True))
    np.testing.assert_allclose(probabilities_of(mirrored, patches), np.mean(expected, axis=0), atol=1e-6)


def other_weights(**changes: Any) -> Bundle:
    bundle = random_bundle(**changes)
    with torch.no_grad():
        for weight in bundle.network.parameters():
            weight.mul_(1.5)
    return bundle


def test_an_ensemble_is_the_mean_of_what_each_member_says_of_its_own_input() -> None:
    one, other = random_bundle(), other_weights(mean=(10.0,), std=(50.0,))
    hu = np.random.default_rng(0).normal(30, 80, (1, 1, 16, 32, 32)).astype(np.float32)
    inputs = [
        (hu - np.float32(each.description.mean[0])) / np.float32(each.description.std[0])
        for each in (one, other)
    ]
    expected = [
        probabilities_of(Segmenter(each), patches) for each, patches in zip((one, other), inputs, strict=True)
    ]
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    both = Segmenter([one, other])
    np.testing.assert_allclose(probabilities_of(both, inputs[0]), np.mean(expected, axis=0), atol=2e-5)


def test_bundles_that_see_scans_in_different_ways_are_no_ensemble() -> None:
    with pytest.raises(
        InputError, match=r"'spacing_zyx_mm' is \(5.0, 2.0, 2.0\) in one and \(5.0, 1.0, 1.0\)"
    ):
        Segmenter([random_bundle(), random_bundle(spacing_zyx_mm=(5.0, 1.0, 1.0))])


@pytest.mark.parametrize(
    "dtype", [np.int16, np.int32, np.float32, np.float64, np.int8, ">i2", ">f4", np.float16, np.longdouble]
)
def test_an_array_in_memory_gives_the_labels_of_its_image(dtype: Any, tmp_path: Path) -> None:
    image = scan()
    values = sitk.GetArrayFromImage(image)
    if dtype is np.int8:
        values = values.clip(-128, 127)
    values = values.astype(dtype)
    storable = {">i2": np.int16, ">f4": np.float32, np.float16: np.float32, np.longdouble: np.float64}.get(
        dtype, dtype
    )
    stored = sitk.GetImageFromArray(values.astype(storable))
    stored.CopyInformation(image)
    expected = sitk.GetArrayFromImage(Segmenter(random_bundle()).segment(stored))
    folder = write_random_bundle(tmp_path / "bundle")
    geometry = Geometry.of(image)
    for model in (folder, str(folder), random_bundle(), Segmenter(random_bundle())):
        found = algorithm.segment(values, model, geometry)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    result = algorithm.segment(stored, folder)
    assert same_grid(Geometry.of(result), geometry) is None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), expected)


def test_an_array_needs_its_geometry_and_an_image_none() -> None:
    image, bundle = scan(), random_bundle()
    values = sitk.GetArrayFromImage(image)
    with pytest.raises(TypeError, match="an array needs the geometry"):
        algorithm.segment(values, bundle)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a SimpleITK image knows its geometry"):
        algorithm.segment(image, bundle, Geometry.of(image))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"must have shape \(9, 40, 36\), got \(8, 40, 36\)"):
        algorithm.segment(values[1:], bundle, Geometry.of(image))


@pytest.mark.parametrize("blend", ["centre", "gaussian"])
def test_a_deep_scan_is_never_whole_in_memory(blend: Any) -> None:
    """Class maps of a scan ten patches deep would be ten slabs; what is allocated at a time is about one."""
    bundle = random_bundle(stitching=Stitching(blend, (8, 16, 16)))
    segmenter, shape_zyx = Segmenter(bundle), (160, 48, 48)
    asked: list[tuple[int, int]] = []

    def prepared(begin: int, end: int) -> NDArray[np.float32]:
        asked.append((begin, end))
        return np.zeros((1, end - begin, *shape_zyx[1:]), np.float32)

    depths = [planes.shape[1] for planes in segmenter.class_maps(shape_zyx, prepared)]
    assert sum(depths) == 160
    assert max(depths) <= 16
    assert max(end - begin for begin, end in asked) == 16
    assert len(asked) == len(set(asked)), "each layer is prepared once"
