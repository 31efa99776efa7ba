"""What every binding refuses, in which words, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import voxelcore

GOOD = np.zeros((4, 5, 6), np.float32)
READ_ONLY = np.zeros((4, 5, 6), np.float32)
READ_ONLY.flags.writeable = False
UNALIGNED = np.frombuffer(bytes(4 * 5 * 6 * 4 + 1), np.uint8)[1:].view(np.float32).reshape(4, 5, 6)


@pytest.mark.parametrize(
    ("volume", "error", "message"),
    [
        ([[[1.0]]], TypeError, r"volume must be a numpy array, got <class 'list'>"),
        (None, TypeError, r"volume must be a numpy array, got <class 'NoneType'>"),
        (
            GOOD.astype(np.float64),
            TypeError,
            r"volume must have dtype uint8, int16, float16 or float32, got float64; convert it with \.astype",
        ),
        (GOOD.astype(np.int32), TypeError, r"got int32"),
        (GOOD.astype(bool), TypeError, r"got bool"),
        (GOOD.astype(np.int8), TypeError, r"got int8"),
        (GOOD.astype(np.uint16), TypeError, r"got uint16"),
        (GOOD.astype(">i2"), TypeError, r"got >i2"),
        (np.zeros((4, 5, 6), object), TypeError, r"got object"),
        (GOOD[0], ValueError, r"volume must have the axes \(z, y, x\), got shape \(5, 6\)"),
        (GOOD[np.newaxis], ValueError, r"got shape \(1, 4, 5, 6\)"),
        (np.float32(1), TypeError, r"volume must be a numpy array"),
        (np.zeros((4, 0, 6), np.float32), ValueError, r"on every axis, got shape \(4, 0, 6\)"),
        (
            GOOD.T,
            ValueError,
            r"C-contiguous, got strides \(4, 24, 120\) for shape \(6, 5, 4\); pass numpy\.ascontiguousarray",
        ),
        (GOOD[:, ::-1], ValueError, r"volume must be C-contiguous"),
        (np.broadcast_to(np.float32(0), (4, 5, 6)), ValueError, r"volume must be C-contiguous"),
        (UNALIGNED, ValueError, r"volume must be aligned"),
    ],
)
def test_volumes(volume: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        voxelcore.resample_linear(volume, (1, 1, 1))


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((1, 2), ValueError, r"shape_zyx must be three whole numbers \(z, y, x\), got \(1, 2\)"),
        (7, TypeError, r"shape_zyx must be three whole numbers \(z, y, x\), got 7"),
        ("abc", TypeError, r"shape_zyx must be a whole number, got 'a'"),
        ((1, 2.0, 3), TypeError, r"shape_zyx must be a whole number, got 2\.0"),
        ((1, 0, 3), ValueError, r"shape_zyx must be 1 to 1048576 on every axis, got \(1, 0, 3\)"),
        ((-1, 1, 3), ValueError, r"shape_zyx must be 1 to 1048576 on every axis, got \(-1, 1, 3\)"),
        ((1, 1, 2**20 + 1), ValueError, r"shape_zyx must be 1 to 1048576 on every axis"),
        ((1, 1, 2**70), ValueError, r"shape_zyx must fit 64 bits"),
    ],
)
def test_shapes(shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        voxelcore.resample_linear(GOOD, shape)


@pytest.mark.parametrize("shape", [[2, 3, 4], np.array([2, 3, 4]), (np.int64(2), np.uint8(3), 4)])
def test_a_shape_may_be_any_three_whole_numbers(shape: Any) -> None:
    assert voxelcore.resample_linear(GOOD, shape).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([1], TypeError, r"out must be a numpy array or None, got <class 'list'>"),
        (GOOD.astype(np.float64), TypeError, r"out must have dtype float32, got float64"),
        (np.zeros((4, 6, 5), np.float32), ValueError, r"out must have shape \(4, 5, 6\), got \(4, 6, 5\)"),
        (np.zeros((6, 5, 4), np.float32).T, ValueError, r"out must be C-contiguous"),
        (READ_ONLY, ValueError, r"out must be writable, got a read-only array"),
        (GOOD, ValueError, r"out must not share memory with the input; pass another array"),
    ],
)
@pytest.mark.parametrize("kernel", [voxelcore.resample_linear, voxelcore.resample_cubic])
def test_out(kernel: Any, out: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kernel(GOOD, (4, 5, 6), out=out)


def test_out_that_shares_a_single_voxel_is_refused() -> None:
    memory = np.zeros(100, np.float32)
    volume = memory[:60].reshape(3, 4, 5)
    with pytest.raises(ValueError, match="must not share memory"):
        voxelcore.resample_linear(volume, (2, 2, 5), out=memory[59:79].reshape(2, 2, 5))
    assert voxelcore.resample_linear(volume, (2, 2, 5), out=memory[60:80].reshape(2, 2, 5)).sum() == 0


def test_arguments_are_checked_in_the_order_of_the_signature() -> None:
    bad_dtype: Any = GOOD.astype(np.float64)
    with pytest.raises(TypeError, match="volume"):
        voxelcore.resample_linear(bad_dtype, (0, 0, 0), out=bad_dtype, threads=0)
    with pytest.raises(ValueError, match="shape_zyx"):
        voxelcore.resample_linear(GOOD, (0, 0, 0), out=bad_dtype, threads=0)
    with pytest.raises(TypeError, match="out"):
        voxelcore.resample_linear(GOOD, (4, 5, 6), out=bad_dtype, threads=0)
    with pytest.raises(ValueError, match="threads"):
        voxelcore.resample_linear(GOOD, (4, 5, 6), threads=0)


def test_each_kernel_takes_only_its_own_types() -> None:
    anything: Any = GOOD
    cubic: Any = "cubic"
    with pytest.raises(TypeError, match="labels must have dtype uint8, got float32"):
        voxelcore.resample_labels(anything, (1, 1, 1))
    with pytest.raises(TypeError, match="volume must have dtype int16, got float32"):
        voxelcore.preprocess(anything, (1, 1, 1), window_hu=(0, 1), mean=0, std=1)
    with pytest.raises(TypeError, match="volume must have dtype int16 or float32, got uint8"):
        voxelcore.resample_cubic(anything.astype(np.uint8), (1, 1, 1))
    with pytest.raises(TypeError, match="class_maps must have dtype float16 or float32, got int16"):
        voxelcore.class_maps_to_labels(anything[np.newaxis].astype(np.int16), (1, 1, 1))
    with pytest.raises(
        ValueError, match=r"class_maps must have the axes \(c, z, y, x\), got shape \(4, 5, 6\)"
    ):
        voxelcore.class_maps_to_labels(anything, (1, 1, 1))
    with pytest.raises(ValueError, match="method must be 'linear' or 'nearest', got 'cubic'"):
        voxelcore.resample_labels(np.zeros((1, 1, 1), np.uint8), (1, 1, 1), method=cubic)


def test_a_result_beyond_the_address_space_is_an_error_and_not_a_wrap() -> None:
    with pytest.raises((ValueError, MemoryError)):
        voxelcore.resample_linear(GOOD, (2**20, 2**20, 2**20))
    starts = np.zeros((9, 3), np.int64)
    with pytest.raises(ValueError, match="larger than the address space"):
        voxelcore.extract_patches(GOOD, starts, (2**20, 2**20, 2**20))


@pytest.mark.parametrize(
    ("shape", "spacing", "new_spacing", "message"),
    [
        (
            (0, 1, 1),
            (1, 1, 1),
            (1, 1, 1),
            r"shape_zyx must be finite and above 0 on every axis, got \(0, 1, 1\)",
        ),
        ((1, 1, 1), (1, -1, 1), (1, 1, 1), r"spacing_zyx_mm must be finite and above 0"),
        ((1, 1, 1), (1, 1, 1), (1, 1, np.nan), r"new_spacing_zyx_mm must be finite and above 0"),
        ((1, 1), (1, 1, 1), (1, 1, 1), r"shape_zyx must be three numbers \(z, y, x\), got \(1, 1\)"),
    ],
)
def test_resampled_shape_refuses(shape: Any, spacing: Any, new_spacing: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voxelcore.resampled_shape(shape, spacing, new_spacing)
