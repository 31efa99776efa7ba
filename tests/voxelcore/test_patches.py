from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape

shapes = st.tuples(*[st.integers(1, 8)] * 3)


@given(shape=shapes, patch=shapes, data=st.data())
@settings(max_examples=80, deadline=None)
def test_agrees_with_numpy_edge_padding(shape: Shape, patch: Shape, data: st.DataObject) -> None:
    volume = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    start = st.tuples(*[st.integers(1 - p, n - 1) for n, p in zip(shape, patch, strict=True)])
    starts = np.array(data.draw(st.lists(start, min_size=1, max_size=4)))
    padded = np.pad(volume, 8, mode="edge")
    expected = [
        padded[tuple(slice(s + 8, s + 8 + p) for s, p in zip(at, patch, strict=True))] for at in starts
    ]
    np.testing.assert_array_equal(voxelcore.extract_patches(volume, starts, patch), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32])
def test_every_dtype_is_copied_bit_for_bit(dtype: Any) -> None:
    raw = np.random.default_rng(1).integers(0, 256, 6 * 7 * 8 * 4).astype(np.uint8)
    volume = raw.view(dtype)[: 6 * 7 * 8].reshape(6, 7, 8).copy()
    starts = np.array([[0, 0, 0], [2, 3, 4]])
    patches = voxelcore.extract_patches(volume, starts, (4, 4, 4), pad="error")
    assert patches.dtype == dtype
    assert patches[0].tobytes() == volume[:4, :4, :4].tobytes()
    assert patches[1].tobytes() == volume[2:, 3:, 4:].tobytes()


def test_a_thin_scan_is_padded_on_both_sides_with_its_edge_slices() -> None:
    volume = np.arange(3, dtype=np.int16).reshape(3, 1, 1)
    patch = voxelcore.extract_patches(volume, np.array([[-2, 0, 0]]), (8, 1, 1))
    assert patch.ravel().tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_no_starts_give_no_patches_and_out_is_filled() -> None:
    volume = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert voxelcore.extract_patches(volume, np.zeros((0, 3), np.int64), (2, 1, 2)).shape == (0, 2, 1, 2)
    out = np.empty((1, 1, 1, 2), np.float32)
    assert voxelcore.extract_patches(volume, np.array([[1, 0, 0]]), (1, 1, 2), out=out) is out
    assert out.ravel().tolist() == [4, 5]


@pytest.mark.parametrize(
    ("start", "pad", "message"),
    [
        ((0, -1, 0), "error", r"inside the volume, got \(0, -1, 0\) at index 1 .* pass pad='edge'"),
        ((0, 0, 7), "error", r"inside the volume, got \(0, 0, 7\) at index 1"),
        ((-2, 0, 0), "edge", r"touching the volume, got \(-2, 0, 0\) at index 1 for a patch \(2, 3, 4\)"),
        ((0, 0, 10), "edge", r"touching the volume, got \(0, 0, 10\)"),
        ((2**63 - 1, 0, 0), "edge", r"touching the volume, got \(9223372036854775807, 0, 0\)"),
        ((-(2**63), 0, 0), "error", r"inside the volume, got \(-9223372036854775808, 0, 0\)"),
        ((0, 0, 0), "wrap", r"pad must be 'edge' or 'error', got 'wrap'"),
    ],
)
def test_patches_outside_are_refused(start: Shape, pad: Any, message: str) -> None:
    volume = np.zeros((8, 9, 10), np.int16)
    with pytest.raises(ValueError, match=message):
        voxelcore.extract_patches(volume, np.array([(0, 0, 0), start]), (2, 3, 4), pad=pad)
