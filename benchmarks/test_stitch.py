"""Stitching at a realistic size: 72 patches of 3 classes, 64 x 128 x 128, into 96 x 448 x 448."""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np
import pytest

import voxelcore

TILING = voxelcore.tile((96, 448, 448), (64, 128, 128), overlap_zyx=(32, 64, 64))
CHANNELS = 3


@pytest.fixture(scope="module", params=["float32", "float16"])
def patches(request: pytest.FixtureRequest) -> Any:
    """Return patches whose every voxel holds its patch's index plus its class."""
    values = np.arange(len(TILING))[:, np.newaxis] + np.arange(CHANNELS)
    shape = (len(TILING), CHANNELS, *TILING.patch_shape_zyx)
    return np.broadcast_to(values.reshape(*values.shape, 1, 1, 1), shape).astype(request.param)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("blend", ["centre", "gaussian"])
def test_stitch(
    benchmark: Any,
    capsys: pytest.CaptureFixture[str],
    patches: Any,
    blend: Literal["centre", "gaussian"],
    threads: int,
) -> None:
    result = benchmark.pedantic(
        voxelcore.stitch, (patches, TILING), {"blend": blend, "threads": threads}, rounds=3, warmup_rounds=1
    )
    if benchmark.stats is not None:
        rate = len(TILING) / benchmark.stats.stats.median
        benchmark.extra_info["patches_per_s"] = rate
        with capsys.disabled():
            sys.stdout.write(f"\n{blend}, {patches.dtype}, {threads} threads: {rate:.0f} patches/s\n")
    assert result.shape == (CHANNELS, 96, 448, 448)
    assert result.min() == pytest.approx(0, abs=1e-5)
    assert result.max() == pytest.approx(len(TILING) - 1 + CHANNELS - 1, rel=1e-5)
    np.testing.assert_allclose(np.diff(result[:, ::8, ::64, ::64], axis=0), 1, rtol=1e-3)
    if blend == "centre":
        z, y, x = ((TILING.keep_start_zyx + TILING.keep_stop_zyx) // 2).T
        np.testing.assert_array_equal(result[:, z, y, x], patches[:, :, 0, 0, 0].T)
