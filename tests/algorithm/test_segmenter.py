from __future__ import annotations

import itertools
from collections.abc import Sequence
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


def reference_maps(
    image: sitk.Image, bundles: Sequence[Bundle], views: Sequence[tuple[int, ...]] = ((),)
) -> NDArray[np.float64]:
    """Compute class maps (K, z, y, x) on the grid of an LPS scan plainly: whole maps, resampled by SimpleITK."""
    about = bundles[0].description
    geometry = Geometry.of(image)
    shape_zyx = [
        max(1, int(size * spacing / new + 0.5))
        for size, spacing, new in zip(
            geometry.shape_zyx, geometry.spacing_zyx_mm, about.spacing_zyx_mm, strict=True
        )
    ]
    grid = sitk.Image([int(size) for size in shape_zyx[::-1]], sitk.sitkFloat32)
    geometry.resampled(tuple(shape_zyx)).set_on(grid)

    def resample(source: sitk.Image, onto: sitk.Image) -> NDArray[np.float64]:
        # Beyond the outermost voxel centres SimpleITK would say "outside"; the nearest voxel counts instead.
        padded = sitk.ZeroFluxNeumannPad(source, [2, 2, 2], [2, 2, 2])
        out: NDArray[np.float64] = sitk.GetArrayFromImage(
            sitk.Resample(padded, onto, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat64)
        )
        return out

    clipped = np.clip(resample(image, grid), *about.window_hu)
    patch, overlap = about.patch_shape_zyx, about.stitching.overlap_zyx
    tiles = [axis_tiles(*axis) for axis in zip(clipped.shape, patch, overlap, strict=True)]
    pad = [
        (max(0, size - n) // 2, -(-max(0, size - n) // 2))
        for n, size in zip(clipped.shape, patch, strict=True)
    ]
    padded = np.pad(clipped, pad, mode="edge")
    total, weight = np.zeros((3, *padded.shape)), np.zeros(padded.shape)
    for (zs, zk), (ys, yk), (xs, xk) in itertools.product(*tiles):
        corner = (zs, ys, xs)
        here = tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))
        importance = gaussian(patch)
        if about.stitching.blend == "centre":
            inside = tuple(
                slice(k[0] - start, k[1] - start) for k, start in zip((zk, yk, xk), corner, strict=True)
            )
            importance = np.zeros(patch)
            importance[inside] = 1
        total[(slice(None), *here)] += importance * mean_probabilities(padded[here], bundles, views)
        weight[here] += importance
    maps = total / weight
    crop = tuple(slice(before, before + n) for (before, _), n in zip(pad, clipped.shape, strict=True))
    onto = sitk.Cast(image, sitk.sitkFloat64)
    back = []
    for values in maps[(slice(None), *crop)]:
        one = sitk.GetImageFromArray(np.ascontiguousarray(values))
        one.CopyInformation(grid)
        back.append(resample(one, onto))
    return np.stack(back)


def gaussian(patch: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return the importance of a patch's voxels, an eighth of its size as deviation, as nnU-Net and MONAI have it."""
    offsets = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / (n / 8) for n in patch), indexing="ij")
    weights: NDArray[np.float64] = np.exp(-sum(offset**2 for offset in offsets) / 2)
    return weights


def mean_probabilities(
    patch: NDArray[np.float64], bundles: Sequence[Bundle], views: Sequence[tuple[int, ...]]
) -> NDArray[np.float64]:
    found = []
    for bundle, axes in itertools.product(bundles, views):
        about = bundle.description
        normalised = ((np.flip(patch, axes) - about.mean[0]) / about.std[0]).astype(np.float32)
        with torch.inference_mode():
            logits = bundle.network(torch.from_numpy(np.ascontiguousarray(normalised))[None, None])
            probabilities = torch.softmax(logits, 1)[0].numpy().astype(np.float64)
        found.append(np.flip(probabilities, [axis + 1 for axis in axes]))
    mean: NDArray[np.float64] = np.mean(found, axis=0)
    return mean


def axis_tiles(n: int, patch: int, overlap: int) -> list[tuple[int, tuple[int, int]]]:
    """Return (start, (keep from, keep to)) for the fewest evenly spread patches of one padded axis."""
    if n <= patch:
        return [(0, (0, patch))]
    count = -(-(n - overlap) // (patch - overlap))
    starts = [int(np.floor(i * (n - patch) / (count - 1) + 0.5)) for i in range(count)]
    cuts = [0, *((a + patch + b) // 2 for a, b in itertools.pairwise(starts)), n]
    return [(start, (cuts[i], cuts[i + 1])) for i, start in enumerate(starts)]


@pytest.mark.parametrize("axes", ["LPS", "RAS", "ASL"])
@pytest.mark.parametrize("way", ["centre", "gaussian", "mirrored", "ensemble"])
def test_labels_are_those_of_a_plain_whole_volume_reference(way: str, axes: str) -> None:
    """All of them, but where rounding decides: where the reference's two most probable labels are as good as equal."""
    blend: Any = "gaussian" if way == "gaussian" else "centre"
    stitching = Stitching(blend, (4, 8, 8))
    bundles = [random_bundle(stitching=stitching)]
    if way == "ensemble":
        bundles.append(other_weights(stitching=stitching, mean=(10.0,), std=(50.0,)))
    mirror = (False, True, True) if way == "mirrored" else (False, False, False)
    views = [(), (1,), (2,), (1, 2)] if way == "mirrored" else [()]
    image = scan((40, 70, 66))
    image.SetDirection(oblique())
    maps = reference_maps(image, bundles, views)
    expected = sitk.GetImageFromArray(maps.argmax(axis=0).astype(np.uint8))
    second, first = np.sort(maps, axis=0)[-2:]
    clear = sitk.GetImageFromArray((first - second > 2e-5).astype(np.uint8))
    expected.CopyInformation(image)
    clear.CopyInformation(image)
    turned, labels, sure = (sitk.DICOMOrient(one, axes) for one in (image, expected, clear))
    found = sitk.GetArrayFromImage(Segmenter(bundles, mirror_zyx=mirror).segment(turned))
    decided = sitk.GetArrayFromImage(sure).astype(bool)
    assert decided.mean() > 0.999
    assert set(np.unique(found)) == {0, 1, 2}
    np.testing.assert_array_equal(found[decided], sitk.GetArrayFromImage(labels)[decided])


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


def test_what_is_no_scan_is_refused_in_memory_as_in_a_file() -> None:
    image, bundle = scan(), random_bundle()
    values, geometry = sitk.GetArrayFromImage(image), Geometry.of(image)
    with pytest.raises(TypeError, match=r"a SimpleITK image or a plain NumPy array, got str"):
        algorithm.segment("scan.nii.gz", bundle)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="got MaskedArray"):
        algorithm.segment(np.ma.masked_less(values, 0), bundle, geometry)
    with pytest.raises(ValueError, match="integers or floating-point numbers, got bool"):
        algorithm.segment(values > 0, bundle, geometry)
    image.SetSpacing((1e-3, 1e-3, 1e-3))  # metres, taken for millimetres
    with pytest.raises(
        InputError, match=r"the image covers .* which is no patient; its spacing must be in mm"
    ):
        algorithm.segment(image, bundle)
    with pytest.raises(
        InputError, match=r"the array covers .* which is no patient; its spacing must be in mm"
    ):
        algorithm.segment(values, bundle, Geometry.of(image))


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
