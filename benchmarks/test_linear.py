"""Trilinear resampling to the network's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import voxelcore
from benchmarks import resamplers
from benchmarks.compare import Peer
from benchmarks.volumes import Shape, Size, ct


def torch_interpolate(volume: Any, shape_zyx: Shape, *, within: float) -> Peer:
    def make() -> Callable[[], Any]:
        import torch

        tensor = torch.from_numpy(volume)[None, None]
        interpolate = torch.nn.functional.interpolate
        return lambda: interpolate(tensor.float(), size=shape_zyx, mode="trilinear", align_corners=False)

    return Peer(
        "torch",
        "torch",
        "`interpolate`, align_corners=False: allocates, works in float32 (the conversion is timed) and leaves the "
        "result in it, unrounded",
        make,
        lambda ours, theirs: resamplers.close(within)(ours, theirs[0, 0].numpy()),
        threaded=True,
    )


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_resample_linear(compare: Callable[..., Any], size: Size, dtype: str, threads: int) -> None:
    volume, shape = ct(size.shape_zyx, dtype), size.network_shape_zyx
    out = np.ones(shape, dtype)
    whole = {"int16": 1, "uint8": 1, "float32": 0.01}[
        dtype
    ]  # SimpleITK truncates integers, SciPy rounds up halves
    unrounded = {"int16": 0.5, "uint8": 0.5, "float32": 0}[dtype] + 0.05  # torch's positions are float32
    in_space = resamplers.in_space(size, {"int16": 10, "uint8": 2, "float32": 10}[dtype])
    compare(
        kernel="resample_linear",
        case=f"{size.name}, {dtype}",
        threads=threads,
        ours=lambda: voxelcore.resample_linear(volume, shape, out=out, threads=threads),
        copied_bytes=(volume.nbytes + out.nbytes) // 2,
        peers=[
            torch_interpolate(volume, shape, within=unrounded),
            resamplers.simpleitk(
                volume,
                shape,
                threads,
                order=1,
                check=resamplers.close(whole),
                difference="allocates; any affine grid, in float64",
            ),
            resamplers.scipy(
                volume,
                shape,
                order=1,
                mode="nearest",
                check=resamplers.close(whole),
                difference="`ndimage.zoom`: allocates, float64, one thread",
            ),
            resamplers.torchio(
                volume,
                size,
                check=in_space,
                label=False,
                difference="`Resample`: centres a grid of exactly the spacing asked for on the volume; copies the "
                "subject, resamples with SimpleITK",
            ),
            resamplers.monai(
                volume,
                size,
                mode="bilinear",
                check=in_space,
                difference="`Spacing`: keeps the first voxel's centre and exactly the spacing asked for; "
                "`grid_sample` on a grid of positions in float64; float32 result",
            ),
        ],
    )
