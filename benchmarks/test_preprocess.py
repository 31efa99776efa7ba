"""Resampling, clipping and normalising a scan for the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import voxelcore
from benchmarks import resamplers
from benchmarks.agreement import assert_close
from benchmarks.compare import Peer
from benchmarks.volumes import Shape, Size, ct

WINDOW_HU = (-100, 200)
MEAN, STD = 80.0, 60.0
# In standard deviations; float16 has 11 bits for values of at most 3.
WITHIN = {"float32": 1e-4, "float16": 2e-3}
TORCH = 1e-3  # its positions are float32
WHOLE_HU = 1.01 / STD  # SimpleITK truncates
KINK = 40 / STD  # clipping bends the volume, and interpolating twice cuts the bend


def normalised(volume: NDArray[Any]) -> NDArray[Any]:
    return (np.clip(volume.astype(np.float32), *WINDOW_HU) - MEAN) / STD


def torch_chain(volume: Any, shape_zyx: Shape, within: float, *, whole: bool) -> Peer:
    """torch's interpolate, alone or with what the network needs after it."""

    def make() -> Callable[[], Any]:
        import torch

        tensor = torch.from_numpy(volume)[None, None]

        def run() -> Any:
            image = torch.nn.functional.interpolate(
                tensor.float(), size=shape_zyx, mode="trilinear", align_corners=False
            )
            return image.clamp_(*WINDOW_HU).sub_(MEAN).div_(STD) if whole else image

        return run

    def check(ours: Any, theirs: Any) -> None:
        image = theirs[0, 0].numpy()
        assert_close(ours, image if whole else normalised(image), within=within)

    return Peer(
        "torch, all" if whole else "torch, resample alone",
        "torch",
        "`interpolate`, `clamp_`, `sub_`, `div_` on a float32 copy: allocates twice; four passes"
        if whole
        else "`interpolate` of a float32 copy, without clipping and normalising: allocates twice",
        make,
        check,
        threaded=True,
    )


def scipy_chain(volume: Any, shape_zyx: Shape, within: float) -> Peer:
    def make() -> Callable[[], Any]:
        from scipy import ndimage

        factors = [b / a for a, b in zip(volume.shape, shape_zyx, strict=True)]

        def run() -> Any:
            image = ndimage.zoom(volume, factors, np.float32, order=1, mode="nearest", grid_mode=True)
            np.clip(image, *WINDOW_HU, out=image)
            image -= MEAN
            image /= STD
            return image

        return run

    return Peer(
        "SciPy, NumPy",
        "scipy",
        "`ndimage.zoom` to float32, then NumPy in place: interpolates in float64, one thread, four passes",
        make,
        resamplers.close(within),
    )


def monai_chain(volume: Any, size: Size, within: float) -> Peer:
    def make_then() -> Callable[[Any], Any]:
        from monai.transforms import ScaleIntensityRange

        low, high = ((each - MEAN) / STD for each in WINDOW_HU)
        return ScaleIntensityRange(*WINDOW_HU, low, high, clip=True)

    scale: list[Callable[[Any], Any]] = []

    def then(image: Any) -> Any:
        if not scale:
            scale.append(make_then())
        return scale[0](image)

    return resamplers.monai(
        volume,
        size,
        mode="bilinear",
        check=resamplers.in_space(size, within),
        then=then,
        difference="`Spacing`, `ScaleIntensityRange`: keeps the first voxel's centre and exactly the spacing asked "
        "for; `grid_sample` on a grid of positions in float64; a new array for each transform",
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_preprocess(compare: Callable[..., Any], size: Size, dtype: str, threads: int) -> None:
    run(compare, size, threads, dtype, np.ones(size.network_shape_zyx, dtype))


def test_preprocess_into_a_new_array(
    compare: Callable[..., Any], sizes: dict[str, Size], threads: int
) -> None:
    run(compare, sizes["full"], threads, "float32", None)


def run(compare: Callable[..., Any], size: Size, threads: int, dtype: str, out: NDArray[Any] | None) -> None:
    volume, shape = ct(size.shape_zyx, "int16"), size.network_shape_zyx
    within = WITHIN[dtype]

    def ours() -> NDArray[Any]:
        return voxelcore.preprocess(
            volume, shape, window_hu=WINDOW_HU, mean=MEAN, std=STD, dtype=dtype, out=out, threads=threads
        )

    def check_resampled(mine: Any, theirs: Any) -> None:
        assert_close(mine, normalised(theirs), within=WHOLE_HU + within)

    peers = [
        resamplers.simpleitk(
            volume,
            shape,
            threads,
            order=1,
            check=check_resampled,
            name="SimpleITK, resample alone",
            difference="linear resample, without clipping and normalising: allocates; any affine grid; int16 result",
        ),
        torch_chain(volume, shape, within + TORCH, whole=False),
        torch_chain(volume, shape, within + TORCH, whole=True),
    ]
    if out is not None:
        peers += [scipy_chain(volume, shape, within), monai_chain(volume, size, KINK)]
    compare(
        kernel="preprocess",
        case=f"{size.name}, int16 to {dtype}" + (", new array" if out is None else ""),
        threads=threads,
        ours=ours,
        copied_bytes=(volume.nbytes + int(np.prod(shape)) * np.dtype(dtype).itemsize) // 2,
        peers=peers,
    )
