from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape, exact_label_weights, scipy_resample

Method = Literal["linear", "nearest"]
shapes = st.tuples(*[st.integers(1, 6)] * 3)


@given(shape=shapes, new=shapes, seed=st.integers(0, 99), labels=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_linear_is_the_heaviest_label_in_exact_arithmetic(
    shape: Shape, new: Shape, seed: int, labels: int
) -> None:
    volume = np.random.default_rng(seed).integers(0, labels, shape).astype(np.uint8)
    result = voxelcore.resample_labels(volume, new)
    for z, y, x in itertools.product(*map(range, new)):
        voxel = (z, y, x)
        weights = exact_label_weights(volume, new, voxel)
        assert result[voxel] == min(weights, key=lambda label: (-weights[label], label)), voxel


@pytest.mark.parametrize("new", [(31, 40, 50), (9, 17, 60), (64, 64, 20)])
def test_linear_agrees_with_scipy_per_class(new: Shape) -> None:
    volume = np.random.default_rng(0).integers(0, 4, (23, 30, 31)).astype(np.uint8)
    scores = np.stack([scipy_resample(volume == label, new, order=1) for label in range(4)])
    ordered = np.sort(scores, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-9
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(voxelcore.resample_labels(volume, new)[clear], scores.argmax(axis=0)[clear])


def test_a_tie_goes_to_the_lower_label() -> None:
    assert voxelcore.resample_labels(np.array([[[7, 2]]], np.uint8), (1, 1, 1)).tolist() == [[[2]]]
    assert voxelcore.resample_labels(np.array([[[255], [254]]], np.uint8), (1, 1, 1)).tolist() == [[[254]]]
    eight = np.array([[[9, 8], [7, 6]], [[5, 6], [7, 200]]], np.uint8)
    assert voxelcore.resample_labels(eight, (1, 1, 1)).tolist() == [[[6]]]


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_the_same_shape_is_the_identity_for_every_label(method: Method) -> None:
    volume = np.random.default_rng(1).permutation(256).astype(np.uint8).reshape(4, 8, 8)
    np.testing.assert_array_equal(voxelcore.resample_labels(volume, (4, 8, 8), method=method), volume)


@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_whole_multiples_give_back_the_original(method: Method) -> None:
    volume = np.random.default_rng(2).integers(0, 200, (3, 4, 5)).astype(np.uint8)
    tripled = voxelcore.resample_labels(volume, (9, 12, 15), method=method)
    np.testing.assert_array_equal(tripled[1::3, 1::3, 1::3], volume)
    np.testing.assert_array_equal(voxelcore.resample_labels(tripled, (3, 4, 5), method=method), volume)


@given(shape=shapes, new=st.tuples(*[st.integers(1, 30)] * 3), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_nearest_takes_the_voxel_that_holds_the_centre(shape: Shape, new: Shape, seed: int) -> None:
    volume = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    axes = [[(2 * i + 1) * n // (2 * m) for i in range(m)] for n, m in zip(shape, new, strict=True)]
    np.testing.assert_array_equal(
        voxelcore.resample_labels(volume, new, method="nearest"), volume[np.ix_(*axes)]
    )


def test_a_small_structure_keeps_its_volume_in_millimetres() -> None:
    z, y, x = np.ogrid[:40, :100, :100]
    ball = (((z - 20) * 2.5) ** 2 + (y - 50) ** 2 + (x - 50) ** 2 < 20**2).astype(np.uint8)
    resampled = voxelcore.resample_labels(ball, (100, 80, 125))
    assert resampled.mean() == pytest.approx(ball.mean(), rel=0.02)
