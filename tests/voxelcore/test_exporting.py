from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.oracles import Shape

shapes = st.tuples(*[st.integers(1, 12)] * 3)


@given(shape=shapes, new=shapes, cuts=st.lists(st.integers(1, 11), max_size=6), seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=60, deadline=None)
def test_slabs_of_any_depth_give_the_labels_of_the_whole(
    dtype: Any, shape: Shape, new: Shape, cuts: list[int], seed: int
) -> None:
    maps = np.random.default_rng(seed).normal(size=(3, *shape)).astype(dtype)
    out = np.full(new, 99, np.uint8)
    exporter = voxelcore.LabelExporter(shape, out)
    edges = sorted({0, shape[0], *(cut for cut in cuts if cut < shape[0])})
    done = 0
    for first, stop in itertools.pairwise(edges):
        before = out.copy()
        ready = exporter.add(np.ascontiguousarray(maps[:, first:stop]))
        assert ready >= done
        np.testing.assert_array_equal(out[:done], before[:done])
        np.testing.assert_array_equal(out[ready:], 99)
        done = ready
    assert done == exporter.done == new[0]
    np.testing.assert_array_equal(out, voxelcore.class_maps_to_labels(maps, new))


def test_a_plane_is_exported_as_soon_as_those_it_is_made_of_are_there() -> None:
    exporter = voxelcore.LabelExporter((4, 1, 1), np.empty((8, 1, 1), np.uint8))
    done = [exporter.add(np.zeros((2, 1, 1, 1), np.float32)) for _ in range(4)]
    # labels lie at -0.25 (clamped), 0.25, 0.75, 1.25, … of the input's planes
    assert done == [1, 3, 5, 8]


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (2,), (0, 1, 2)])
def test_the_orientation_of_a_view_is_undone(axes: Shape, flips: tuple[int, ...]) -> None:
    maps = np.random.default_rng(2).normal(size=(4, 7, 9, 11)).astype(np.float32)
    canonical = (6, 8, 19)
    scan = np.empty(tuple(canonical[axes.index(axis)] for axis in range(3)), np.uint8)
    view = np.flip(scan.transpose(axes), flips)
    assert view.shape == canonical
    exporter = voxelcore.LabelExporter(maps.shape[1:], view)
    exporter.add(maps[:, :4])
    exporter.add(maps[:, 4:])
    expected = voxelcore.class_maps_to_labels(maps, canonical)
    np.testing.assert_array_equal(scan, np.flip(expected, flips).transpose(np.argsort(axes)))


def test_labels_of_part_of_an_array_leave_the_rest_alone() -> None:
    scan = np.full((5, 10, 10), 77, np.uint8)
    maps = np.ones((1, 5, 4, 4), np.float32)
    voxelcore.LabelExporter((5, 4, 4), scan[:, 3:7, 3:7]).add(maps)
    assert np.all(scan[:, 3:7, 3:7] == 0)
    assert np.count_nonzero(scan == 77) == 5 * (100 - 16)


def test_what_does_not_fit_is_refused() -> None:
    out = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(TypeError, match="out must be a uint8 array, got int8"):
        voxelcore.LabelExporter((4, 5, 6), np.zeros((4, 5, 6), np.int8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a place for every label"):
        voxelcore.LabelExporter((4, 5, 6), np.lib.stride_tricks.as_strided(out, strides=(0, 6, 1)))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writable"):
        voxelcore.LabelExporter((4, 5, 6), out)
    out = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(ValueError, match="three sizes of at least 1"):
        voxelcore.LabelExporter((4, 0, 6), out)
    with pytest.raises(ValueError, match="a place for every label"):
        voxelcore.LabelExporter((4, 5, 6), np.lib.stride_tricks.as_strided(out, strides=(1, 1, 1)))
    with pytest.raises(TypeError, match="integer"):
        voxelcore.LabelExporter((4.9, 5, 6), out)  # type: ignore[arg-type]
    late = voxelcore.LabelExporter((4, 5, 6), out[:1])  # whose first label needs later planes
    with pytest.raises(TypeError, match="class_maps must have dtype float16 or float32, got float64"):
        late.add(np.zeros((2, 1, 5, 6)))
    with pytest.raises(TypeError, match="class_maps must have dtype float16 or float32, got <class 'list'>"):
        late.add([[0.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 to 256 classes"):
        late.add(np.zeros((257, 1, 5, 6), np.float32))
    memory = np.zeros(480, np.float32)
    shared = memory.view(np.uint8)[:120].reshape(4, 5, 6)
    with pytest.raises(ValueError, match="must not share memory with out"):
        voxelcore.LabelExporter((4, 5, 6), shared).add(memory[:240].reshape(2, 4, 5, 6))
    exporter = voxelcore.LabelExporter((4, 5, 6), out)
    with pytest.raises(ValueError, match=r"class_maps must be \(c, d, 5, 6\) with d of 1 to 4 planes"):
        exporter.add(np.zeros((2, 5, 5, 6), np.float32))
    with pytest.raises(TypeError, match="class_maps must have dtype float16 or float32, got float64"):
        exporter.add(np.zeros((2, 1, 5, 6)))
    with pytest.raises(ValueError, match="C-contiguous within each class"):
        exporter.add(np.zeros((2, 1, 6, 5), np.float32).transpose(0, 1, 3, 2))
    exporter = voxelcore.LabelExporter((4, 5, 6), out)
    exporter.add(np.zeros((2, 1, 5, 6), np.float32))
    with pytest.raises(ValueError, match="class_maps must stay 2 classes of float32, got 3 of float32"):
        exporter.add(np.zeros((3, 1, 5, 6), np.float32))
    exporter.add(np.zeros((2, 3, 5, 6), np.float32))
    with pytest.raises(ValueError, match="d of 1 to 0 planes"):
        exporter.add(np.zeros((2, 1, 5, 6), np.float32))
