"""Voxels that lie further into an array than 32 bits count: sparse memory makes such arrays cheap."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import voxelcore
from tests.voxelcore.oracles import SANITIZED
from voxelcore import _core

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer's shadow of such arrays takes gigabytes")
PLANE = (2**15, 2**16 + 1)  # 2^31 voxels and a column
rng = np.random.default_rng(3)


def sparse(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Return zeros whose memory is taken when it is written to."""
    return np.zeros(shape, dtype)


def corner(scan: npt.NDArray[Any], shape_zyx: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Return a view of the far corner, filled with noise."""
    view = scan[..., -shape_zyx[0] :, -shape_zyx[1] :, -shape_zyx[2] :]
    view[...] = rng.integers(1, 200, view.shape)
    return view


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_patches_at_the_far_corner(dtype: Any) -> None:
    scan = sparse((3, *PLANE), dtype)
    expected = corner(scan, (2, 3, 40)).copy()
    start = np.array([[1, PLANE[0] - 3, PLANE[1] - 40]])
    np.testing.assert_array_equal(voxelcore.extract_patches(scan, start, (2, 3, 40))[0], expected)


def test_stitching_into_the_far_corner() -> None:
    shape = (2, 2**15, 2**15 + 8)  # times two channels and four bytes: 17 GB, of which pages are touched
    tiling = voxelcore.tile(shape, shape, overlap_zyx=(0, 0, 0))
    assert int(np.prod(shape)) * 2 > 2**32
    out = sparse((2, *shape), np.float32)
    patch = rng.normal(size=(1, 2, 2, 3, 40)).astype(np.float32)
    start = np.array([[0, shape[1] - 3, shape[2] - 40]])
    _core.stitch(patch, start, start, start + np.array([2, 3, 40]), None, out, False, 2)
    np.testing.assert_array_equal(out[:, :, -3:, -40:], patch[0])
    assert not out[:, 0, :3, :40].any()
    assert len(tiling) == 1


def test_labels_are_exported_into_the_far_planes() -> None:
    far = sparse((2**13, 2**10, 2**10), np.uint8)
    maps = rng.normal(loc=[[0], [1], [2]], size=(3, 2**13)).reshape(3, -1, 1, 1).astype(np.float32)
    _core.export_planes(np.ascontiguousarray(maps[:, -2:]), 2**13 - 2, 2**13, 2**13 - 1, 2**13, far, 2)
    assert far[-1].min() == far[-1].max() == maps[:, -1, 0, 0].argmax()
    assert not far[-2].any()
    assert not far[0].any()


def test_runs_of_a_label_at_the_far_end() -> None:
    labels = sparse((3, *PLANE), np.uint8)
    labels[-1, -1, -5:] = 2
    where, lengths = _core.label_runs(labels, 2)
    assert where.tolist() == [labels.size - 5]
    assert lengths.tolist() == [5]


def test_resampling_reads_the_far_end() -> None:
    volume = sparse((2**12, 2**10, 2**10 + 1), np.int16)
    volume[-1] = 100
    small = voxelcore.resample_linear(volume, (2**11, 2, 2))
    assert (small[-1] == 50).all()
    assert not small[:-1].any()


@pytest.mark.skipif(os.environ.get("VOXELCORE_LARGE") != "1", reason="writes 9 GB; set VOXELCORE_LARGE=1")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kernel", ["linear", "labels", "clip", "classes"])
def test_whole_results_beyond_32_bits(kernel: str) -> None:
    shape = (2**12 + 1, 2**10, 2**10)
    ramp = np.arange(5, dtype=np.uint8).reshape(5, 1, 1)
    if kernel == "clip":
        scan = sparse(shape, np.uint8)
        scan[-1, -1, -3:] = 9
        result = voxelcore.clip(scan, 1, 5)
        assert result[-1, -1, -4:].tolist() == [1, 5, 5, 5]
    elif kernel == "linear":
        result = voxelcore.resample_linear(ramp, shape)
    elif kernel == "labels":
        result = voxelcore.resample_labels(ramp, shape)
    else:
        result = voxelcore.class_maps_to_labels(np.eye(5, dtype=np.float32).reshape(5, 5, 1, 1), shape)
    assert result.shape == shape
    if kernel != "clip":
        assert (result[-1] == 4).all()
        assert (result[0] == 0).all()
        assert (result[2**11] == 2).all()
