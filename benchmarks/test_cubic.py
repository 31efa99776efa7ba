"""Cubic B-spline resampling, prefilter included, to the network's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import voxelcore
from benchmarks import resamplers
from benchmarks.agreement import assert_close, nearest_planes
from benchmarks.compare import Peer
from benchmarks.volumes import NETWORK_SPACING_ZYX_MM, Size, ct

BORDER = 6  # voxels in which how a spline goes on beyond the volume can be seen
HALF_HU = 0.5


def nnunet(volume: Any, size: Size) -> Peer:
    def make() -> Callable[[], Any]:
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

        data = volume[np.newaxis].astype(np.float32)
        return lambda: resample_data_or_seg_to_shape(
            data,
            size.network_shape_zyx,
            size.spacing_zyx_mm,
            NETWORK_SPACING_ZYX_MM,
            is_seg=False,
            order=3,
            order_z=0,
            force_separate_z=None,
        )

    def check(_ours: Any, theirs: Any) -> None:
        depth, *plane = size.network_shape_zyx
        flat = voxelcore.resample_cubic(volume.astype(np.float32), (size.shape_zyx[0], *plane))
        assert_close(flat[nearest_planes(size.shape_zyx[0], depth)], theirs[0], within=HALF_HU, border=BORDER)

    return Peer(
        "nnU-Net",
        "nnunetv2",
        "`resample_data_or_seg_to_shape` with its default plans, which for such spacings means: cubic within each "
        "plane, and the nearest plane along z; float64 throughout; one thread (nnU-Net runs several processes)",
        make,
        check,
    )


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_resample_cubic(compare: Callable[..., Any], size: Size, dtype: str, threads: int) -> None:
    volume, shape = ct(size.shape_zyx, dtype), size.network_shape_zyx
    out = np.ones(shape, dtype)
    # Both sides round to whole HU where the dtype is whole, and SimpleITK truncates.
    within = {"float32": HALF_HU, "int16": 1}[dtype]
    compare(
        kernel="resample_cubic",
        case=f"{size.name}, {dtype}",
        threads=threads,
        ours=lambda: voxelcore.resample_cubic(volume, shape, out=out, threads=threads),
        copied_bytes=(volume.nbytes + out.nbytes) // 2,
        peers=[
            resamplers.simpleitk(
                volume,
                shape,
                threads,
                order=3,
                check=resamplers.close(within, BORDER),
                difference="`sitkBSpline`: allocates; coefficients in float64; 64 products a voxel; its prefilter "
                "is included, as is ours",
            ),
            resamplers.scipy(
                volume,
                shape,
                order=3,
                mode="mirror",
                check=resamplers.close(within, BORDER),
                difference="`ndimage.zoom`: allocates, float64, 64 products a voxel, one thread",
            ),
            nnunet(volume, size),
            resamplers.monai(
                volume,
                size,
                mode=3,
                check=resamplers.in_space(size, 10),
                difference="`Spacing(mode=3)`: keeps the first voxel's centre and exactly the spacing asked for; "
                "SciPy's `map_coordinates` underneath, one thread; float32 result",
            ),
        ],
    )
