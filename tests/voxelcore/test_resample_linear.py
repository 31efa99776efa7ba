from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape, scipy_resample

CASES: list[tuple[Shape, Shape]] = [
    ((7, 9, 11), (5, 20, 6)),
    ((1, 1, 1), (3, 2, 4)),
    ((5, 1, 8), (5, 7, 8)),
    ((6, 5, 4), (1, 1, 1)),
    ((69, 70, 70), (70, 69, 71)),
    ((2, 300, 3), (900, 2, 3)),
]
shapes = st.tuples(*[st.integers(1, 12)] * 3)


@pytest.mark.parametrize(("shape", "new"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16, np.uint8])
def test_agrees_with_scipy(shape: Shape, new: Shape, dtype: Any) -> None:
    values = np.random.default_rng(0).uniform(0, 255, shape)
    volume = (values if dtype == np.uint8 else 200 * (values - 128)).astype(dtype)
    result = voxelcore.resample_linear(volume, new)
    expected = scipy_resample(volume, new, order=1)
    assert result.dtype == dtype
    assert result.shape == new
    tolerance = {np.float32: 0.01, np.float16: 16.1, np.int16: 0.505, np.uint8: 0.505}[dtype]
    assert np.abs(result - expected).max() <= tolerance


@given(shape=shapes, new=shapes, seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_agrees_with_scipy_for_any_shape(shape: Shape, new: Shape, seed: int) -> None:
    volume = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = scipy_resample(volume, new, order=1)
    np.testing.assert_allclose(voxelcore.resample_linear(volume, new), expected, atol=2e-6)


def test_agrees_with_simpleitk_on_an_edge_aligned_grid() -> None:
    volume = np.random.default_rng(1).integers(-1000, 1000, (11, 20, 17)).astype(np.float32)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.7, 0.8, 5.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    new_zyx = (22, 13, 17)
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), new_zyx[::-1], strict=True)]
    origin = [
        o + (s_new - s) / 2
        for o, s, s_new in zip(image.GetOrigin(), image.GetSpacing(), spacing, strict=True)
    ]
    expected = sitk.Resample(
        image, new_zyx[::-1], sitk.Transform(), sitk.sitkLinear, origin, spacing, image.GetDirection()
    )
    np.testing.assert_allclose(
        voxelcore.resample_linear(volume, new_zyx), sitk.GetArrayViewFromImage(expected), atol=1e-2
    )


def test_a_real_scan_agrees_with_simpleitk(real_data: Path) -> None:
    image = sitk.ReadImage(str(real_data / "abdomen_crlm_1004" / "tiny_ct.nii.gz"), sitk.sitkFloat32)
    volume = sitk.GetArrayFromImage(image)
    new = voxelcore.resampled_shape(volume.shape, image.GetSpacing()[::-1], (2.5, 0.8, 0.8))
    spacing = [n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), new[::-1], strict=True)]
    first = [(s_new / s - 1) / 2 for s, s_new in zip(image.GetSpacing(), spacing, strict=True)]
    origin = image.TransformContinuousIndexToPhysicalPoint(first)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(
            image, new[::-1], sitk.Transform(), sitk.sitkLinear, origin, spacing, image.GetDirection()
        )
    )
    np.testing.assert_allclose(voxelcore.resample_linear(volume, new), expected, atol=0.05)
    whole = voxelcore.resample_linear(volume.astype(np.int16), new)
    assert np.abs(whole - expected).max() <= 0.55


def test_the_same_shape_is_the_identity_even_with_nan_and_infinity() -> None:
    volume = np.array([1.5, np.nan, np.inf, -np.inf, 3e38, 1e-45], np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(voxelcore.resample_linear(volume, (1, 2, 3)), volume)


def test_doubling_and_halving_by_hand() -> None:
    volume = np.array([[[0, 8, 16, 40]]], np.int16)
    assert voxelcore.resample_linear(volume, (1, 1, 8)).tolist() == [[[0, 2, 6, 10, 14, 22, 34, 40]]]
    assert voxelcore.resample_linear(volume, (1, 1, 2)).tolist() == [[[4, 28]]]
    assert voxelcore.resample_linear(volume, (1, 1, 1)).tolist() == [[[12]]]
    assert voxelcore.resample_linear(volume, (2, 1, 4)).tolist() == [[[0, 8, 16, 40]]] * 2


def test_integers_are_rounded_to_nearest_with_ties_to_even() -> None:
    volume = np.array([[[-3, -2], [0, 1], [1, 2], [-32768, -32767], [32766, 32767]]], np.int16)
    assert voxelcore.resample_linear(volume, (1, 5, 1)).ravel().tolist() == [-2, 0, 2, -32768, 32766]


@pytest.mark.parametrize("value", [0.1, -1e30, 65504.0])
@pytest.mark.parametrize("new", [(3, 50, 7), (9, 2, 40)])
def test_a_constant_stays_exactly(value: float, new: Shape) -> None:
    volume = np.full((5, 11, 13), value, np.float32)
    assert np.all(voxelcore.resample_linear(volume, new) == np.float32(value))


def test_a_ramp_stays_a_ramp_between_the_edge_centres() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (2, 3, 40)).copy()
    result = voxelcore.resample_linear(ramp, (2, 3, 64))[1, 2]
    expected = (np.arange(64) + 0.5) * 40 / 64 - 0.5
    np.testing.assert_allclose(result, np.clip(expected, 0, 39), atol=1e-5)


def test_nan_reaches_exactly_the_voxels_in_which_it_has_a_weight() -> None:
    volume = np.zeros((1, 1, 9), np.float32)
    volume[0, 0, 3] = np.nan
    assert np.isnan(voxelcore.resample_linear(volume, (1, 1, 3))).ravel().tolist() == [False, False, False]
    assert np.flatnonzero(np.isnan(voxelcore.resample_linear(volume, (1, 1, 18)))).tolist() == [5, 6, 7, 8]
    turned = volume.reshape(9, 1, 1)
    assert np.flatnonzero(np.isnan(voxelcore.resample_linear(turned, (18, 1, 1)))).tolist() == [5, 6, 7, 8]
    assert not np.isnan(voxelcore.resample_linear(turned, (3, 1, 1))).any()


def test_a_huge_ratio_loses_no_voxel() -> None:
    volume = np.array([[[3, 7]]], np.uint8)
    stretched = voxelcore.resample_linear(volume, (1, 1, 2**20))
    assert np.all(np.diff(stretched.astype(int)) >= 0)
    assert np.unique(stretched).tolist() == [3, 4, 5, 6, 7]
    assert voxelcore.resample_linear(stretched, (1, 1, 2)).tolist() == [[[3, 7]]]


def test_out_is_filled_and_returned() -> None:
    volume = np.random.default_rng(2).normal(size=(4, 5, 6)).astype(np.float32)
    out = np.full((3, 7, 6), np.nan, np.float32)
    assert voxelcore.resample_linear(volume, (3, 7, 6), out=out) is out
    np.testing.assert_array_equal(out, voxelcore.resample_linear(volume, (3, 7, 6)))


@pytest.mark.parametrize(
    ("shape", "spacing", "new_spacing", "expected"),
    [
        ((41, 512, 512), (5.0, 0.797, 0.797), (2.5, 0.8, 0.8), (82, 510, 510)),
        ((3, 3, 3), (1.0, 1.0, 1.0), (2.0, 100.0, 0.3), (2, 1, 10)),
        ((96, 512, 512), (2.5, 0.8, 0.8), (2.5, 0.8, 0.8), (96, 512, 512)),
    ],
)
def test_resampled_shape(shape: Shape, spacing: Any, new_spacing: Any, expected: Shape) -> None:
    assert voxelcore.resampled_shape(shape, spacing, new_spacing) == expected
