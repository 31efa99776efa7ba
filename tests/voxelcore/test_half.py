"""float16 is converted in software; NumPy is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import voxelcore


def every_half() -> npt.NDArray[np.float16]:
    return np.arange(65536, dtype=np.uint16).view(np.float16).reshape(1, 256, 256)


def test_all_65536_values_become_the_float_that_numpy_gives() -> None:
    halves = every_half()
    tiling = voxelcore.tile((1, 256, 256), (1, 256, 256), overlap_zyx=(0, 0, 0))
    floats = voxelcore.stitch(halves[np.newaxis, np.newaxis], tiling, blend="centre")[0]
    expected = halves.astype(np.float32)
    assert np.array_equal(np.isnan(floats), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(floats.view(np.uint32)[numbers], expected.view(np.uint32)[numbers])


def test_all_65536_values_survive_there_and_back() -> None:
    halves = every_half()
    back = voxelcore.resample_linear(halves, halves.shape)
    numbers = ~np.isnan(halves)
    np.testing.assert_array_equal(back.view(np.uint16)[numbers], halves.view(np.uint16)[numbers])
    assert np.all(np.isnan(back[~numbers]))


def test_floats_are_rounded_as_numpy_rounds_them() -> None:
    every_int16 = np.arange(-32768, 32768).astype(np.int16).reshape(1, 256, 256)
    random = np.exp(np.random.default_rng(0).uniform(np.log(1e-3), np.log(1e13), 12))
    seen = []
    for std in [1.0, 0.25, 2.0**-7, 3.0, 2.0**30, 2.0**40, *random]:
        arguments: dict[str, Any] = {"window_hu": (-32768, 32767), "mean": 0.0, "std": float(std)}
        floats = voxelcore.preprocess(every_int16, every_int16.shape, **arguments)
        halves = voxelcore.preprocess(every_int16, every_int16.shape, dtype=np.float16, **arguments)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(halves.view(np.uint16), floats.astype(np.float16).view(np.uint16))
        seen.append(halves)
    magnitudes = np.abs(np.stack(seen))
    assert np.isinf(magnitudes).any()
    assert np.any((magnitudes > 0) & (magnitudes < 2**-14))
