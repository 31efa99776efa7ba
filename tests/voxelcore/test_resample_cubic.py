from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape, positions, scipy_resample

CASES: list[tuple[Shape, Shape]] = [
    ((7, 9, 11), (5, 20, 6)),
    ((1, 1, 1), (3, 2, 4)),
    ((5, 1, 8), (5, 7, 8)),
    ((2, 2, 2), (7, 5, 3)),
    ((6, 5, 4), (1, 1, 1)),
    ((2, 130, 90), (2, 300, 45)),
    ((40, 33, 100), (41, 34, 99)),
]
shapes = st.tuples(*[st.integers(1, 12)] * 3)


@pytest.mark.parametrize(("shape", "new"), CASES)
def test_agrees_with_scipy(shape: Shape, new: Shape) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    volume = values.astype(np.float32)
    np.testing.assert_allclose(
        voxelcore.resample_cubic(volume, new), scipy_resample(volume, new, order=3), atol=5e-6
    )
    whole = (1000 * values).astype(np.int16)
    expected = scipy_resample(whole, new, order=3)
    assert np.abs(voxelcore.resample_cubic(whole, new) - expected).max() <= 0.505


@given(shape=shapes, new=shapes, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_agrees_with_scipy_for_any_shape(shape: Shape, new: Shape, seed: int) -> None:
    volume = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = scipy_resample(volume, new, order=3)
    np.testing.assert_allclose(voxelcore.resample_cubic(volume, new), expected, atol=5e-6)


def test_agrees_with_simpleitk_inside_the_volume() -> None:
    volume = np.random.default_rng(1).normal(size=(20, 24, 30)).astype(np.float32)
    image = sitk.GetImageFromArray(volume)
    new = (31, 17, 45)
    spacing = [n / m for n, m in zip(volume.shape[::-1], new[::-1], strict=True)]
    origin = [(s - 1) / 2 for s in spacing]
    expected = sitk.Resample(
        image, new[::-1], sitk.Transform(), sitk.sitkBSpline, origin, spacing, image.GetDirection()
    )
    inside = np.ix_(
        *[
            np.flatnonzero((positions(n, m) > 0) & (positions(n, m) < n - 1))
            for n, m in zip(volume.shape, new, strict=True)
        ]
    )
    result = voxelcore.resample_cubic(volume, new)
    np.testing.assert_allclose(result[inside], sitk.GetArrayFromImage(expected)[inside], atol=1e-5)


def test_the_same_shape_is_the_identity() -> None:
    volume = np.random.default_rng(2).normal(size=(5, 6, 7)).astype(np.float32)
    volume[2, 3, 4] = np.nan
    np.testing.assert_array_equal(voxelcore.resample_cubic(volume, volume.shape), volume)


def test_the_spline_passes_through_the_voxels() -> None:
    volume = np.random.default_rng(3).normal(size=(4, 9, 70)).astype(np.float32)
    tripled = voxelcore.resample_cubic(volume, (12, 27, 210))
    np.testing.assert_allclose(tripled[1::3, 1::3, 1::3], volume, atol=2e-6)


def test_a_cubic_polynomial_is_reproduced_away_from_the_edges() -> None:
    x = np.arange(80, dtype=np.float64)
    volume = (((x - 40) / 20) ** 3).astype(np.float32).reshape(1, 1, -1)
    at = (np.arange(200) + 0.5) * 80 / 200 - 0.5
    inside = (at > 20) & (at < 60)
    result = voxelcore.resample_cubic(volume, (1, 1, 200)).ravel()
    np.testing.assert_allclose(result[inside], (((at - 40) / 20) ** 3)[inside], atol=2e-6)


def test_int16_saturates_where_the_spline_overshoots() -> None:
    volume = np.full((1, 1, 12), -32768, np.int16)
    volume[..., 6:] = 32767
    assert scipy_resample(volume, (1, 1, 60), order=3).max() > 33000
    result = voxelcore.resample_cubic(volume, (1, 1, 60))
    assert (result.min(), result.max()) == (-32768, 32767)
    assert np.all(np.diff(result.ravel()[28:33].astype(int)) > 0)


def test_out_is_filled_and_returned() -> None:
    volume = np.random.default_rng(4).normal(size=(4, 5, 6)).astype(np.float32)
    out = np.full((3, 7, 6), np.nan, np.float32)
    assert voxelcore.resample_cubic(volume, (3, 7, 6), out=out) is out
    np.testing.assert_array_equal(out, voxelcore.resample_cubic(volume, (3, 7, 6)))
