from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape, scipy_resample

shapes = st.tuples(*[st.integers(1, 9)] * 3)


@given(shape=shapes, new=shapes, channels=st.integers(1, 5), seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=40, deadline=None)
def test_agrees_with_scipy_and_argmax(dtype: Any, shape: Shape, new: Shape, channels: int, seed: int) -> None:
    maps = np.random.default_rng(seed).normal(size=(channels, *shape)).astype(dtype)
    scores = np.stack([scipy_resample(channel, new, order=1) for channel in maps])
    result = voxelcore.class_maps_to_labels(maps, new)
    assert result.dtype == np.uint8
    chosen = np.take_along_axis(scores, result[np.newaxis].astype(int), axis=0)[0]
    assert np.all(chosen >= scores.max(axis=0) - 1e-5)


def test_equals_resampling_each_class_and_taking_the_first_largest() -> None:
    maps = np.random.default_rng(0).integers(-2, 3, (4, 11, 12, 13)).astype(np.float32)
    new = (9, 24, 13)
    scores = np.stack([voxelcore.resample_linear(channel, new) for channel in maps])
    ordered = np.sort(scores, axis=0)
    assert np.any(ordered[-1] == ordered[-2])
    np.testing.assert_array_equal(voxelcore.class_maps_to_labels(maps, new), scores.argmax(axis=0))


def test_indicators_give_what_resample_labels_gives() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (10, 11, 12)).astype(np.uint8)
    indicators = np.stack([labels == label for label in range(3)]).astype(np.float32)
    new = (20, 22, 24)
    np.testing.assert_array_equal(
        voxelcore.class_maps_to_labels(indicators, new), voxelcore.resample_labels(labels, new)
    )


def test_a_nan_never_wins() -> None:
    maps = np.array([[np.nan, np.nan, 1.0, -np.inf], [np.nan, -5.0, np.nan, -np.inf]], np.float32)
    assert voxelcore.class_maps_to_labels(maps.reshape(2, 1, 1, 4), (1, 1, 4)).ravel().tolist() == [
        0,
        1,
        0,
        0,
    ]


def test_256_classes_are_the_most_a_label_can_hold() -> None:
    maps = np.zeros((256, 1, 1, 2), np.float16)
    maps[255, 0, 0, 1] = 1
    assert voxelcore.class_maps_to_labels(maps, (1, 1, 2)).ravel().tolist() == [0, 255]
    with pytest.raises(ValueError, match="1 to 256 classes"):
        voxelcore.class_maps_to_labels(np.zeros((257, 1, 1, 1), np.float32), (1, 1, 1))
