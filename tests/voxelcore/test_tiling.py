from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape


@st.composite
def tilings(draw: st.DrawFn) -> tuple[Shape, Shape, Shape]:
    shape = draw(st.tuples(*[st.integers(1, 30)] * 3))
    patch = draw(st.tuples(*[st.integers(1, 12)] * 3))
    overlap = tuple(draw(st.integers(0, p - 1)) for p in patch)
    return shape, patch, overlap  # type: ignore[return-value]


@given(tilings())
@settings(max_examples=150, deadline=None)
def test_keep_boxes_partition_the_volume_inside_their_patches(case: tuple[Shape, Shape, Shape]) -> None:
    shape, patch, overlap = case
    tiling = voxelcore.tile(shape, patch, overlap_zyx=overlap)
    visits = np.zeros(shape, int)
    for keep_start, keep_stop in zip(tiling.keep_start_zyx, tiling.keep_stop_zyx, strict=True):
        visits[tuple(map(slice, keep_start, keep_stop))] += 1
    assert np.all(visits == 1)
    assert np.all(tiling.keep_start_zyx >= tiling.starts_zyx)
    assert np.all(tiling.keep_stop_zyx <= tiling.starts_zyx + patch)
    assert np.all(tiling.keep_start_zyx < tiling.keep_stop_zyx)
    assert len(tiling) == len(tiling.starts_zyx)
    assert sorted(map(tuple, tiling.starts_zyx)) == list(map(tuple, tiling.starts_zyx))


@given(n=st.integers(1, 200), patch=st.integers(1, 40), data=st.data())
@settings(max_examples=150, deadline=None)
def test_an_axis_has_the_fewest_evenly_spread_starts(n: int, patch: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, patch - 1))
    tiling = voxelcore.tile((n, 1, 1), (patch, 1, 1), overlap_zyx=(overlap, 0, 0))
    starts = tiling.starts_zyx[:, 0]
    if n <= patch:
        assert starts.tolist() == [-((patch - n) // 2)]
        return
    assert (starts[0], starts[-1]) == (0, n - patch)
    steps = np.diff(starts)
    assert steps.max() <= patch - overlap
    assert steps.max() - steps.min() <= 1
    assert (len(starts) - 2) * (patch - overlap) < n - patch
    cuts = tiling.keep_stop_zyx[:-1, 0]
    before, after = starts[:-1] + patch - cuts, cuts - starts[1:]
    assert np.all((before - after == 0) | (before - after == 1))


def test_the_patches_of_the_paper_by_hand() -> None:
    tiling = voxelcore.tile((37, 200, 128), (64, 128, 128), overlap_zyx=(32, 32, 32))
    assert tiling.starts_zyx.tolist() == [[-13, 0, 0], [-13, 72, 0]]
    assert tiling.keep_start_zyx.tolist() == [[0, 0, 0], [0, 100, 0]]
    assert tiling.keep_stop_zyx.tolist() == [[37, 100, 128], [37, 200, 128]]


def test_a_tiling_cannot_be_changed() -> None:
    tiling = voxelcore.tile((4, 4, 4), (2, 2, 2), overlap_zyx=(0, 0, 0))
    with pytest.raises(ValueError, match="read-only"):
        tiling.starts_zyx[0, 0] = 1
    with pytest.raises(AttributeError):
        tiling.shape_zyx = (1, 1, 1)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("shape", "patch", "overlap", "error", "message"),
    [
        (
            (0, 1, 1),
            (1, 1, 1),
            (0, 0, 0),
            ValueError,
            r"shape_zyx must be >= 1 on every axis, got \(0, 1, 1\)",
        ),
        ((1, 1, 1), (1, 0, 1), (0, 0, 0), ValueError, r"patch_shape_zyx must be >= 1"),
        ((1, 1, 1), (1, 1, 1), (0, 0, -1), ValueError, r"overlap_zyx must be >= 0"),
        (
            (9, 9, 9),
            (4, 4, 4),
            (0, 4, 0),
            ValueError,
            r"smaller than the patch on every axis, got \(0, 4, 0\)",
        ),
        ((9, 9), (4, 4, 4), (0, 0, 0), ValueError, r"shape_zyx must be three whole numbers"),
        (
            (9, 9, 9.5),
            (4, 4, 4),
            (0, 0, 0),
            TypeError,
            r"shape_zyx must be three whole numbers \(z, y, x\), got \(9, 9, 9\.5\)",
        ),
    ],
)
def test_bad_sizes_are_refused(
    shape: Any, patch: Any, overlap: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        voxelcore.tile(shape, patch, overlap_zyx=overlap)
