from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings

import voxelcore
from tests.voxelcore.oracles import SANITIZED, Shape
from tests.voxelcore.test_tiling import tilings


def cut(volume: npt.NDArray[Any], tiling: voxelcore.Tiling) -> npt.NDArray[Any]:
    """Return the patches (n, c, z, y, x) of a volume (c, z, y, x)."""
    channels = [voxelcore.extract_patches(v, tiling.starts_zyx, tiling.patch_shape_zyx) for v in volume]
    return np.stack(channels, axis=1)


def gaussian_oracle(patches: npt.NDArray[Any], tiling: voxelcore.Tiling) -> npt.NDArray[np.float64]:
    """Return the weighted mean in double, with one dense importance map as nnU-Net and MONAI have it."""
    offsets = [(np.arange(p) - (p - 1) / 2) / (p / 8) for p in tiling.patch_shape_zyx]
    z, y, x = np.meshgrid(*offsets, indexing="ij")
    importance = np.exp(-(z**2 + y**2 + x**2) / 2)
    total = np.zeros((patches.shape[1], *tiling.shape_zyx))
    weight = np.zeros(tiling.shape_zyx)
    for start, patch in zip(tiling.starts_zyx, patches, strict=True):
        low = np.maximum(start, 0)
        high = np.minimum(start + tiling.patch_shape_zyx, tiling.shape_zyx)
        there = tuple(map(slice, low, high))
        here = tuple(map(slice, low - start, high - start))
        total[(slice(None), *there)] += importance[here] * patch[(slice(None), *here)]
        weight[there] += importance[here]
    return total / weight


@given(tilings())
@settings(max_examples=80, deadline=None)
def test_centre_stitching_of_tiles_is_the_identity(case: tuple[Shape, Shape, Shape]) -> None:
    shape, patch, overlap = case
    tiling = voxelcore.tile(shape, patch, overlap_zyx=overlap)
    volume = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(voxelcore.stitch(cut(volume, tiling), tiling, blend="centre"), volume)


@pytest.mark.parametrize("shape", [(127, 127, 127), (69, 70, 70), (10, 130, 64)])
def test_centre_stitching_keeps_each_voxel_from_the_patch_whose_box_holds_it(shape: Shape) -> None:
    tiling = voxelcore.tile(shape, (32, 64, 48), overlap_zyx=(8, 17, 20))
    patches = np.broadcast_to(
        np.arange(len(tiling), dtype=np.float16).reshape(-1, 1, 1, 1, 1), (len(tiling), 1, 32, 64, 48)
    ).copy()
    result = voxelcore.stitch(patches, tiling, blend="centre")
    assert result.dtype == np.float32
    for index, (low, high) in enumerate(zip(tiling.keep_start_zyx, tiling.keep_stop_zyx, strict=True)):
        assert np.all(result[0][tuple(map(slice, low, high))] == index)


@given(tilings())
@settings(max_examples=60, deadline=None)
def test_gaussian_stitching_is_the_weighted_mean(case: tuple[Shape, Shape, Shape]) -> None:
    shape, patch, overlap = case
    tiling = voxelcore.tile(shape, patch, overlap_zyx=overlap)
    patches = np.random.default_rng(1).normal(size=(len(tiling), 2, *patch)).astype(np.float32)
    result = voxelcore.stitch(patches, tiling, blend="gaussian")
    np.testing.assert_allclose(result, gaussian_oracle(patches, tiling), atol=3e-6)


@given(tilings())
@settings(max_examples=40, deadline=None)
def test_gaussian_stitching_of_constant_patches_is_the_constant(case: tuple[Shape, Shape, Shape]) -> None:
    shape, patch, overlap = case
    tiling = voxelcore.tile(shape, patch, overlap_zyx=overlap)
    patches = np.full((len(tiling), 1, *patch), -1234.5, np.float32)
    np.testing.assert_allclose(voxelcore.stitch(patches, tiling, blend="gaussian"), -1234.5, rtol=1e-6)


@pytest.mark.parametrize("blend", ["centre", "gaussian"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_one_patch_at_a_time_gives_the_same_bits(blend: Any, dtype: Any) -> None:
    tiling = voxelcore.tile((20, 33, 31), (8, 16, 16), overlap_zyx=(3, 5, 9))
    patches = np.random.default_rng(2).normal(size=(len(tiling), 3, 8, 16, 16)).astype(dtype)
    stitcher = voxelcore.Stitcher(tiling, 3, blend=blend)
    for index, patch in enumerate(patches):
        stitcher.add(index, patch)
    np.testing.assert_array_equal(stitcher.result(), voxelcore.stitch(patches, tiling, blend=blend))
    backwards = voxelcore.Stitcher(tiling, 3, blend=blend, threads=2)
    for index in reversed(range(len(tiling))):
        backwards.add(index, patches[index])
    np.testing.assert_allclose(backwards.result(), stitcher.result(), atol=0 if blend == "centre" else 2e-6)


def test_a_nan_outside_the_keep_box_does_no_harm() -> None:
    tiling = voxelcore.tile((1, 1, 6), (1, 1, 4), overlap_zyx=(0, 0, 2))
    patches = np.array([[1, 2, 3, np.nan], [np.nan, 4, 5, 6]], np.float32).reshape(2, 1, 1, 1, 4)
    assert voxelcore.stitch(patches, tiling, blend="centre").ravel().tolist() == [1, 2, 3, 4, 5, 6]


def test_a_stitcher_wants_each_patch_exactly_once() -> None:
    tiling = voxelcore.tile((1, 1, 6), (1, 1, 4), overlap_zyx=(0, 0, 2))
    stitcher = voxelcore.Stitcher(tiling, 1, blend="gaussian")
    patch = np.ones((1, 1, 1, 4), np.float32)
    with pytest.raises(ValueError, match="2 are missing, the first with index 0"):
        stitcher.result()
    stitcher.add(0, patch)
    with pytest.raises(ValueError, match="got 0 of 2, which was added before"):
        stitcher.add(0, patch)
    with pytest.raises(ValueError, match="got 2 of 2, which does not exist"):
        stitcher.add(2, patch)
    with pytest.raises(ValueError, match="got -1 of 2, which does not exist"):
        stitcher.add(-1, patch)
    with pytest.raises(ValueError, match=r"patch must have shape \(1, 1, 1, 4\), got \(1, 1, 1, 5\)"):
        stitcher.add(1, np.ones((1, 1, 1, 5), np.float32))
    with pytest.raises(TypeError, match="dtype float16 or float32, got float64"):
        stitcher.add(1, patch.astype(np.float64))
    with pytest.raises(ValueError, match="1 are missing, the first with index 1"):
        stitcher.result()
    stitcher.add(1, patch)
    np.testing.assert_allclose(stitcher.result(), 1, rtol=1e-6)


def test_bad_arguments_are_refused() -> None:
    tiling = voxelcore.tile((1, 1, 6), (1, 1, 4), overlap_zyx=(0, 0, 2))
    with pytest.raises(
        ValueError, match=r"patches must have shape \(2, c, 1, 1, 4\) for this tiling, got \(1, 1"
    ):
        voxelcore.stitch(np.ones((1, 1, 1, 1, 4), np.float32), tiling, blend="centre")
    with pytest.raises(ValueError, match="blend must be 'centre' or 'gaussian', got 'mean'"):
        voxelcore.stitch(np.ones((2, 1, 1, 1, 4), np.float32), tiling, blend="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        voxelcore.Stitcher(tiling, 0, blend="centre")
    with pytest.raises(ValueError, match="patches must be C-contiguous"):
        voxelcore.stitch(np.ones((2, 1, 1, 1, 8), np.float32)[..., ::2], tiling, blend="centre")


def test_a_tiling_that_leaves_its_volume_is_refused_before_any_memory_is_touched() -> None:
    good = voxelcore.tile((1, 1, 6), (1, 1, 4), overlap_zyx=(0, 0, 2))
    bad = voxelcore.Tiling((1, 1, 6), (1, 1, 4), good.starts_zyx, good.keep_start_zyx, good.keep_stop_zyx + 1)
    with pytest.raises(ValueError, match=r"of patch 0 must lie inside the volume \(1, 1, 6\)"):
        voxelcore.stitch(np.ones((2, 1, 1, 1, 4), np.float32), bad, blend="centre")


@pytest.mark.parametrize("blend", ["centre", "gaussian"])
def test_an_array_that_is_given_is_written_over(blend: Any) -> None:
    tiling = voxelcore.tile((9, 10, 30), (4, 5, 12), overlap_zyx=(2, 2, 6))
    patches = np.random.default_rng(0).normal(size=(len(tiling), 2, 4, 5, 12)).astype(np.float32)
    out = np.full((2, 9, 10, 30), np.nan, np.float32)
    assert voxelcore.stitch(patches, tiling, blend=blend, out=out) is out
    np.testing.assert_array_equal(out, voxelcore.stitch(patches, tiling, blend=blend))
    with pytest.raises(ValueError, match=r"out must have shape \(2, 9, 10, 30\), got \(9, 10, 30\)"):
        voxelcore.stitch(patches, tiling, blend=blend, out=out[0])
    with pytest.raises(ValueError, match="out must not share memory with patches"):
        voxelcore.stitch(patches, tiling, blend=blend, out=patches.ravel()[: out.size].reshape(out.shape))
    with pytest.raises(TypeError, match="out must have dtype float32, got float64"):
        voxelcore.stitch(patches, tiling, blend=blend, out=out.astype(np.float64))  # type: ignore[arg-type]


@given(tilings())
@pytest.mark.parametrize("blend", ["centre", "gaussian"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=60, deadline=None)
def test_planes_come_as_soon_as_they_are_complete_and_are_those_of_the_whole(
    dtype: Any, blend: voxelcore.stitching.Blend, case: tuple[Shape, Shape, Shape]
) -> None:
    shape, patch, overlap = case
    tiling = voxelcore.tile(shape, patch, overlap_zyx=overlap)
    # One call each: tens of thousands of single voxels take minutes under a sanitizer.
    assume(not SANITIZED or len(tiling) <= 2000)
    patches = np.random.default_rng(0).normal(size=(len(tiling), 2, *patch)).astype(dtype)
    whole = voxelcore.Stitcher(tiling, 2, blend=blend)
    for index, one in enumerate(patches):
        whole.add(index, one)
    stitcher = voxelcore.SlabStitcher(tiling, 2, blend=blend)
    assert stitcher.depth <= min(patch[0], shape[0])
    given_planes, touched_later = [], tiling.starts_zyx[:, 0].clip(min=0)
    if blend == "centre":
        touched_later = tiling.keep_start_zyx[:, 0]
    done = 0
    for index, one in enumerate(patches):
        planes = stitcher.add(one)
        done += planes.shape[1]
        given_planes.append(planes.copy())
        assert done == (touched_later[index + 1] if index + 1 < len(patches) else shape[0])
    np.testing.assert_array_equal(np.concatenate(given_planes, axis=1), whole.result())


def test_a_slab_stitcher_takes_each_patch_once() -> None:
    tiling = voxelcore.tile((4, 4, 4), (4, 4, 4), overlap_zyx=(0, 0, 0))
    stitcher = voxelcore.SlabStitcher(tiling, 1, blend="centre")
    with pytest.raises(ValueError, match=r"patch must have shape \(1, 4, 4, 4\), got \(4, 4, 4\)"):
        stitcher.add(np.zeros((4, 4, 4), np.float32))
    stitcher.add(np.zeros((1, 4, 4, 4), np.float32))
    with pytest.raises(ValueError, match="the tiling has 1 patches, and all were added before"):
        stitcher.add(np.zeros((1, 4, 4, 4), np.float32))
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        voxelcore.SlabStitcher(tiling, 0, blend="centre")
    backwards = dataclasses.replace(
        voxelcore.tile((8, 4, 4), (4, 4, 4), overlap_zyx=(0, 0, 0)),
        keep_start_zyx=np.array([[4, 0, 0], [0, 0, 0]]),
    )
    with pytest.raises(ValueError, match="must come in the order of z"):
        voxelcore.SlabStitcher(backwards, 1, blend="centre")
