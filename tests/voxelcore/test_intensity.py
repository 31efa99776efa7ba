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


@given(shape=shapes, new=shapes, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_preprocess_equals_its_three_steps(shape: Shape, new: Shape, seed: int) -> None:
    volume = np.random.default_rng(seed).integers(-1024, 3072, shape).astype(np.int16)
    resampled = voxelcore.resample_linear(volume.astype(np.float32), new)
    expected = (np.clip(resampled, -100, 200) - np.float32(61.7)) / np.float32(71.3)
    result = voxelcore.preprocess(volume, new, window_hu=(-100, 200), mean=61.7, std=71.3)
    np.testing.assert_array_equal(result, expected)
    half = voxelcore.preprocess(volume, new, window_hu=(-100, 200), mean=61.7, std=71.3, dtype=np.float16)
    np.testing.assert_array_equal(half, expected.astype(np.float16))


@given(shape=shapes, new=shapes, cuts=st.lists(st.integers(1, 11), max_size=4), more=st.integers(0, 2))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=60, deadline=None)
def test_planes_of_slabs_are_those_of_the_whole(
    dtype: Any, shape: Shape, new: Shape, cuts: list[int], more: int
) -> None:
    volume = np.random.default_rng(1).integers(-1024, 3072, shape).astype(np.int16)
    how = {"window_hu": (-100, 200), "mean": 61.7, "std": 71.3, "dtype": dtype}
    whole = voxelcore.preprocess(volume, new, **how)
    preprocess = voxelcore.SlabPreprocessor(shape, new, **how)
    edges = sorted({0, new[0], *(cut for cut in cuts if cut < new[0])})
    for begin, end in itertools.pairwise(edges):
        first, stop = preprocess.needs(begin, end)
        first, stop = max(0, first - more), min(shape[0], stop + more)
        out = np.empty((end - begin, *new[1:]), dtype)
        assert preprocess(volume[first:stop].copy(), first, begin, end, out=out) is out
        np.testing.assert_array_equal(out, whole[begin:end])


def test_a_slab_must_hold_what_its_planes_are_made_of() -> None:
    preprocess = voxelcore.SlabPreprocessor((6, 2, 2), (9, 3, 3), window_hu=(-100, 200), mean=0, std=1)
    volume = np.zeros((6, 2, 2), np.int16)
    first, stop = preprocess.needs(2, 5)
    assert (first, stop) == (1, 4)  # planes 2 to 4 lie at 1.17, 1.83 and 2.5
    for start, end in ((first + 1, stop), (first, stop - 1)):
        with pytest.raises(ValueError, match="slab must hold every plane that the planes 2 to 5"):
            preprocess(volume[start:end].copy(), start, 2, 5)
    with pytest.raises(ValueError, match=r"slab must have shape \(d, 2, 2\), got \(3, 2, 3\)"):
        preprocess(np.zeros((3, 2, 3), np.int16), 1, 2, 5)
    with pytest.raises(ValueError, match="planes must be 0 <= begin < end <= 9, got 4 to 4"):
        preprocess.needs(4, 4)
    with pytest.raises(ValueError, match="first_z must be"):
        preprocess(volume[1:4].copy(), 4, 2, 5)
    with pytest.raises(TypeError, match="slab must have dtype int16, got float32"):
        preprocess(np.zeros((3, 2, 2), np.float32), 1, 2, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape_zyx must be three sizes of at least 1"):
        voxelcore.SlabPreprocessor((6, 2, 2), (9, 3), window_hu=(-100, 200), mean=0, std=1)


def test_preprocess_by_hand() -> None:
    volume = np.array([[[-3024, -100, 50, 200, 3071]]], np.int16)
    result = voxelcore.preprocess(volume, (1, 1, 5), window_hu=(-100, 200), mean=50, std=150)
    assert result.ravel().tolist() == [-1, -1, 0, 1, 1]
    out = np.empty((1, 1, 5), np.float16)
    given_out = voxelcore.preprocess(
        volume, (1, 1, 5), window_hu=(-100, 200), mean=50, std=150, dtype=np.float16, out=out
    )
    assert given_out is out
    assert out.ravel().tolist() == [-1, -1, 0, 1, 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32])
def test_clip_agrees_with_numpy_and_is_idempotent(dtype: Any) -> None:
    volume = np.random.default_rng(0).integers(0, 256, (40, 50, 60)).astype(dtype)
    result = voxelcore.clip(volume, 30, 200)
    np.testing.assert_array_equal(result, np.clip(volume, 30, 200))
    np.testing.assert_array_equal(voxelcore.clip(result, 30, 200), result)
    assert volume.min() < 30


def test_clip_in_place() -> None:
    volume = np.array([[[-500, 0, 500]]], np.int16)
    assert voxelcore.clip(volume, -100, 200, out=volume) is volume
    assert volume.tolist() == [[[-100, 0, 200]]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_clip_keeps_nan_and_takes_one_sided_bounds(dtype: Any) -> None:
    volume = np.array([[[np.nan, -np.inf, -1, 2, np.inf]]], dtype)
    np.testing.assert_array_equal(
        voxelcore.clip(volume, -np.inf, 1).ravel(), np.array([np.nan, -np.inf, -1, 1, 1], dtype)
    )


def test_clip_bounds_beyond_the_dtype_limit_nothing() -> None:
    volume = np.array([[[-32768, 0, 32767]]], np.int16)
    np.testing.assert_array_equal(voxelcore.clip(volume, -1e9, np.inf), volume)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "message"),
    [
        (np.int16, 5, 4, r"low must be <= high, got 5 and 4"),
        (np.float32, np.nan, 4, r"low must be <= high, got nan and 4"),
        (np.int16, 0.5, 4, r"must be whole numbers for int16, got 0.5 and 4"),
        (np.uint8, 256, 300, r"must leave a value of uint8, got 256 and 300"),
        (np.uint8, -9, -1, r"must leave a value of uint8, got -9 and -1"),
    ],
)
def test_clip_refuses(dtype: Any, low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voxelcore.clip(np.zeros((1, 1, 1), dtype), low, high)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window_hu": (200, -100)}, r"window_hu must be finite with low < high, got \(200, -100\)"),
        ({"window_hu": (0, np.inf)}, r"window_hu must be finite"),
        ({"window_hu": (0, 1, 2)}, r"window_hu must be two numbers"),
        ({"mean": np.nan}, r"mean must be finite, got nan"),
        ({"std": 0}, r"std must be finite and above 0, got 0"),
        ({"std": -1}, r"std must be finite and above 0, got -1"),
    ],
)
def test_preprocess_refuses(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"window_hu": (-100, 200), "mean": 0, "std": 1} | change
    with pytest.raises(ValueError, match=message):
        voxelcore.preprocess(np.zeros((1, 1, 1), np.int16), (1, 1, 1), **arguments)
    with pytest.raises(TypeError, match="the result must have dtype float16 or float32, got float64"):
        voxelcore.preprocess(
            np.zeros((1, 1, 1), np.int16), (1, 1, 1), window_hu=(0, 1), mean=0, std=1, dtype=np.float64
        )


def test_a_bound_is_rounded_to_float16_once() -> None:
    low = 1 + 2**-11 + 2**-30  # above the middle of two halves, which the nearest float is
    assert float(np.float16(low)) > 1
    clipped = voxelcore.clip(np.zeros((1, 1, 2), np.float16), low, 10)
    np.testing.assert_array_equal(clipped, np.float16(low))
    for seed in range(200):
        value = float(np.random.default_rng(seed).normal() * 10.0 ** (seed % 9 - 6))
        expected = np.float16(value)
        np.testing.assert_array_equal(
            voxelcore.clip(np.full((1, 1, 1), 6e4, np.float16), -6e4, value), expected
        )


def test_a_window_beyond_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="window_hu must be finite"):
        voxelcore.preprocess(np.zeros((1, 1, 1), np.int16), (1, 1, 1), window_hu=(0, 1e39), mean=0, std=1)


@pytest.mark.parametrize("offset", [0, 1, 3, 13])
def test_a_large_result_is_the_same_wherever_it_begins(offset: int) -> None:
    """From 16 MiB on, results are streamed in whole lines of the cache, with what is before and after them."""
    volume = np.random.default_rng(0).integers(-1000, 1000, (5, 300, 301)).astype(np.int16)
    new = (17, 601, 449)
    size = int(np.prod(new))
    options: Any = {"window_hu": (-100, 200), "mean": 10.0, "std": 50.0, "threads": 2}
    memory = np.full(size + 64, 7.5, np.float32)
    out = memory[offset : offset + size].reshape(new)
    voxelcore.preprocess(volume, new, out=out, **options)
    expected = [voxelcore.preprocess(volume, (17, 601, 449), **options)[z] for z in (0, 8, 16)]
    np.testing.assert_array_equal(out[[0, 8, 16]], expected)
    assert np.all(memory[:offset] == 7.5)
    assert np.all(memory[offset + size :] == 7.5)
    small = voxelcore.preprocess(volume[:1], (1, 601, 449), **options)
    np.testing.assert_array_equal(out[0], small[0])
