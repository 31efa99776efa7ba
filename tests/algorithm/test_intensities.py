"""Z-scores of MR: what they are, what they do not depend on, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from algorithm.errors import InputError
from algorithm.intensities import Stored, background_share, rounded, standardised


def brain(seed: int = 0) -> NDArray[np.float32]:
    """Return two channels (2, 12, 14, 16) of noise in a ball, zero around it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((12, 14, 16))
    ball = (z - 6) ** 2 + (y - 7) ** 2 + (x - 8) ** 2 < 25
    channels = rng.normal([[[[400.0]]], [[[9.0]]]], [[[[60.0]]], [[[0.5]]]], (2, 12, 14, 16))
    return np.where(ball, channels, 0).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16, np.int32])
def test_a_channel_gets_mean_0_and_deviation_1(dtype: type) -> None:
    channels = (brain() * 10 + 500).astype(dtype)
    found = standardised(Stored(channels), foreground=False)
    assert found.dtype == np.int16
    for result, channel in zip(found, channels.astype(np.float64), strict=True):
        expected = (channel - channel.mean()) / channel.std() * 1000
        assert np.abs(result - expected).max() < 0.51


def test_background_is_left_out_of_the_statistics() -> None:
    channels = brain()
    inside = channels[0] != 0
    found = standardised(Stored(channels), foreground=True)
    for result, channel in zip(found, channels.astype(np.float64), strict=True):
        mean, deviation = channel[inside].mean(), channel[inside].std()
        expected = np.clip((channel - mean) / deviation * 1000, -10000, 10000)
        assert np.abs(result - expected).max() < 1.01  # sums are taken over 2 ** 20 levels
        assert abs(result[inside].mean()) < 0.5
        assert result[inside].std() == pytest.approx(1000, rel=1e-3)
    assert background_share(Stored(channels)) == pytest.approx(1 - inside.mean())


@pytest.mark.parametrize("foreground", [False, True])
def test_scale_and_offset_of_a_channel_change_nothing(foreground: bool) -> None:
    channels = brain().astype(np.float64)
    other = np.stack([channels[0] * 0.037 - 12.5, channels[1] * 2900 + 4000])
    one, two = (standardised(Stored(c), foreground=foreground) for c in (channels, other))
    assert np.abs(one.astype(int) - two).max() <= 1  # a z-score at a half may be rounded the other way
    assert (one != two).mean() < 1e-3


@pytest.mark.parametrize("foreground", [False, True])
def test_the_order_of_storage_changes_no_bit(foreground: bool) -> None:
    channels = brain()
    expected = standardised(Stored(channels), foreground=foreground)
    turned = channels.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1]
    found = standardised(Stored(turned), foreground=foreground)
    np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1])


def test_values_that_are_no_numbers_are_dark_and_count_for_nothing() -> None:
    channels = brain()
    channels[1, 6, 7, 6:9] = np.nan, np.inf, -np.inf
    whole = channels[1][np.isfinite(channels[1])].astype(np.float64)
    found = standardised(Stored(channels), foreground=False)[1]
    darkest = (whole.min() - whole.mean()) / whole.std() * 1000
    assert found[6, 7, 6:9] == pytest.approx([darkest, 10000, darkest], abs=1)


def test_a_channel_that_shows_nothing_is_refused() -> None:
    channels = brain()
    channels[1] = 7
    with pytest.raises(
        InputError, match=r"channel 1 \(T1w\) of the scan has one value everywhere, 7, so no z"
    ):
        standardised(Stored(channels, ("FLAIR", "T1w")), foreground=True)
    channels[1] = np.nan
    for make in (rounded, lambda stored: standardised(stored, foreground=False)):
        with pytest.raises(InputError, match="no voxel of the scan is a finite number"):
            make(Stored(channels))
