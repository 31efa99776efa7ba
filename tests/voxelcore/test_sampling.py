from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import voxelcore
from tests.voxelcore.oracles import philox4x32, philox_uniform
from voxelcore import _core

FIRST_RESERVED = 2**31

# The known-answer tests of the authors' Random123 library: counter, key, Philox4x32-10.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_generator_gives_the_published_vectors(counter: Any, key: Any, expected: Any) -> None:
    assert philox4x32(counter, key) == expected
    signed = np.array([counter[0] | counter[1] << 32], np.uint64).view(np.int64)
    result = _core.uniform(signed, key[0] | key[1] << 32, counter[2], counter[3])
    assert result[0] == ((expected[0] | expected[1] << 32) >> 11) / 2**53


@given(
    counter=st.integers(-(2**63), 2**63 - 1),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
    stream=st.integers(0, FIRST_RESERVED - 1),
)
def test_uniform_is_philox_for_any_argument(counter: int, seed: int, epoch: int, stream: int) -> None:
    result = voxelcore.uniform(np.array([[counter]]), seed=seed, epoch=epoch, stream=stream)
    assert result.shape == (1, 1)
    assert result[0, 0] == philox_uniform(counter, seed=seed, epoch=epoch, stream=stream)


def test_uniform_does_not_depend_on_the_batch_and_leaves_the_global_state_alone() -> None:
    before = np.random.get_state()  # noqa: NPY002 - the state that must not change
    counters = np.arange(1000)
    together = voxelcore.uniform(counters, seed=3)
    apart = np.concatenate([voxelcore.uniform(part, seed=3) for part in np.array_split(counters, 7)])
    np.testing.assert_array_equal(together, apart)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_uniform_is_uniform_and_its_arguments_are_independent() -> None:
    counters = np.arange(100_000)
    columns = np.stack(
        [
            voxelcore.uniform(counters, seed=0),
            voxelcore.uniform(counters + 1, seed=0),
            voxelcore.uniform(counters, seed=1),
            voxelcore.uniform(counters, seed=0, epoch=1),
            voxelcore.uniform(counters, seed=0, stream=1),
        ]
    )
    assert columns.min() >= 0
    assert columns.max() < 1
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    off_diagonal = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(counters.size)
    pairs, _, _ = np.histogram2d(columns[0], columns[1], bins=16)
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_volumes_come_in_proportion_to_their_weights() -> None:
    weights = np.array([0, 37, 192, 0, 96, 683, 0])
    drawn = voxelcore.draw_volumes(weights, np.arange(100_000), seed=5)
    counts = np.bincount(drawn, minlength=7)
    assert counts[[0, 3, 6]].tolist() == [0, 0, 0]
    kept = weights > 0
    assert stats.chisquare(counts[kept], 100_000 * weights[kept] / weights.sum()).pvalue > 1e-3


def test_volumes_are_found_in_the_cumulative_weights() -> None:
    weights = [0.1, 0.0, 2.5, 1e-300, 7.0]
    counters = np.arange(-200, 200).reshape(20, 20)
    drawn = voxelcore.draw_volumes(weights, counters, seed=9, epoch=4)
    fractions = [philox_uniform(int(c), seed=9, epoch=4, stream=FIRST_RESERVED) for c in counters.ravel()]
    expected = np.searchsorted(np.cumsum(weights), np.array(fractions) * sum(weights), side="right")
    np.testing.assert_array_equal(drawn, expected.reshape(20, 20))


def test_a_subnormal_weight_is_never_overrun() -> None:
    drawn = voxelcore.draw_volumes([5e-324, 0.0], np.arange(1000), seed=0)
    assert np.unique(drawn).tolist() == [0]


def test_the_sum_of_many_weights_is_not_lost() -> None:
    weights = np.full(200_001, 1.0)
    weights[0] = 2.0**30
    drawn = voxelcore.draw_volumes(weights, np.arange(200_000), seed=1)
    assert (drawn > 0).sum() == pytest.approx(200_000 * 200_000 / weights.sum(), abs=30)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], r"one axis that is not empty, got shape \(0,\)"),
        ([[1.0]], r"one axis that is not empty, got shape \(1, 1\)"),
        ([1, -2], r"finite and >= 0, got -2\.0+ at index 1"),
        ([np.nan], r"finite and >= 0, got nan at index 0"),
        ([1, np.inf], r"finite and >= 0, got inf at index 1"),
        ([0, 0], r"sum above 0, got 0"),
        ([1e308, 1e308], r"finite sum above 0, got inf"),
    ],
)
def test_bad_weights_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voxelcore.draw_volumes(weights, np.arange(3), seed=0)


def test_every_start_inside_is_equally_likely() -> None:
    shape, patch = (5, 4, 6), (3, 4, 2)
    starts = voxelcore.draw_starts(shape, patch, np.arange(60_000), seed=2)
    found, counts = np.unique(starts, axis=0, return_counts=True)
    assert found.tolist() == [list(s) for s in itertools.product(range(3), range(1), range(5))]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_thin_axis_has_one_centred_start() -> None:
    starts = voxelcore.draw_starts((37, 10, 9), (64, 11, 10), np.arange(5), seed=0)
    assert np.unique(starts, axis=0).tolist() == [[-13, 0, 0]]
    around = voxelcore.draw_starts(
        (37, 10, 9), (64, 13, 10), np.arange(1), seed=0, around=np.array([37 * 90 - 1])
    )
    assert around.tolist() == [[-13, -1, 0]]


@pytest.mark.parametrize("voxel", [(0, 0, 0), (4, 3, 5), (2, 1, 3)])
def test_starts_around_a_voxel_are_all_that_contain_it(voxel: tuple[int, int, int]) -> None:
    shape, patch = (5, 4, 6), (3, 2, 4)
    flat = np.full(30_000, np.ravel_multi_index(voxel, shape))
    starts = voxelcore.draw_starts(shape, patch, np.arange(30_000), seed=2, around=flat)
    expected = [
        list(start)
        for start in itertools.product(*[range(n - p + 1) for n, p in zip(shape, patch, strict=True)])
        if all(s <= v < s + p for s, v, p in zip(start, voxel, patch, strict=True))
    ]
    found, counts = np.unique(starts, axis=0, return_counts=True)
    assert found.tolist() == expected
    assert len(expected) == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_draws_of_one_counter_are_independent_of_each_other() -> None:
    counters = np.arange(50_000)
    starts = voxelcore.draw_starts((1000, 1000, 1000), (1, 1, 1), counters, seed=0)
    volumes = voxelcore.draw_volumes(np.ones(1000), counters, seed=0)
    fractions = voxelcore.uniform(counters, seed=0)
    correlation = np.corrcoef([*starts.T, volumes, fractions]) - np.eye(5)
    assert np.abs(correlation).max() < 5 / np.sqrt(counters.size)


def test_no_counters_give_no_draws() -> None:
    none = np.zeros(0, np.int64)
    assert voxelcore.uniform(none, seed=0).shape == (0,)
    assert voxelcore.draw_volumes([1], none, seed=0).shape == (0,)
    assert voxelcore.draw_starts((1, 1, 1), (1, 1, 1), none, seed=0, around=none).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, r"seed must be 0 to 2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, ValueError, r"seed must be 0 to 2\*\*64 - 1, got 18446744073709551616"),
        ({"seed": 0.5}, TypeError, r"seed must be a whole number, got 0.5"),
        ({"seed": 0, "epoch": 2**32}, ValueError, r"epoch must be 0 to 4294967295, got 4294967296"),
        (
            {"seed": 0, "stream": FIRST_RESERVED},
            ValueError,
            r"stream must be 0 to 2147483647, got 2147483648",
        ),
        ({"seed": 0, "stream": -1}, ValueError, r"stream must be 0 to 2147483647, got -1"),
    ],
)
def test_uniform_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        voxelcore.uniform(np.arange(3), **arguments)


def test_draw_starts_refuses() -> None:
    with pytest.raises(ValueError, match=r"below 8, got 8 at index 1"):
        voxelcore.draw_starts((2, 2, 2), (1, 1, 1), np.arange(2), seed=0, around=np.array([0, 8]))
    with pytest.raises(ValueError, match=r"one voxel for each counter, got shape \(3,\) for 2 counters"):
        voxelcore.draw_starts((2, 2, 2), (1, 1, 1), np.arange(2), seed=0, around=np.arange(3))
    with pytest.raises(ValueError, match=r"counters must have one axis, got shape \(1, 2\)"):
        voxelcore.draw_starts((2, 2, 2), (1, 1, 1), np.zeros((1, 2), np.int64), seed=0)
    with pytest.raises(TypeError, match=r"counters must have dtype int64, got int32"):
        voxelcore.draw_starts((2, 2, 2), (1, 1, 1), np.zeros(2, np.int32), seed=0)
