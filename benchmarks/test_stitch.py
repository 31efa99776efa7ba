"""Stitching 72 patches of 3 classes, 64x128x128, into 96x448x448, beside TorchIO and MONAI.

`pytest benchmarks/test_stitch.py --benchmark-only` prints patches and gigabytes a second of each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import voxelcore
from benchmarks.agreement import assert_close
from benchmarks.compare import Peer
from benchmarks.volumes import CLASSES, Shape, Size, ct

STEP = 0.01  # between patches, so that weights matter
STEPS = 5
ROUNDING = {"float32": 1e-5, "float16": 15e-3}  # of sums up to 3; peers add in the dtype of the patches


@functools.lru_cache(maxsize=1)
def tiles(shape_zyx: Shape, patch_shape_zyx: Shape, dtype: str) -> tuple[voxelcore.Tiling, NDArray[Any]]:
    """Return patches of smooth class maps, each lifted by a small multiple of `STEP`."""
    half = [n // 2 for n in patch_shape_zyx]
    tiling = voxelcore.tile(shape_zyx, patch_shape_zyx, overlap_zyx=half)
    volume = ct(shape_zyx, "float32") / 1500
    patches = np.empty((len(tiling), CLASSES, *patch_shape_zyx), dtype)
    for number, start in enumerate(tiling.starts_zyx):
        box = tuple(slice(a, a + n) for a, n in zip(start, patch_shape_zyx, strict=True))
        for label in range(CLASSES):
            patches[number, label] = volume[box] * (label + 1) + STEP * (number % STEPS)
    return tiling, patches


def torchio(
    tiling: voxelcore.Tiling, patches: NDArray[Any], mode: str, difference: str, *, within: float
) -> Peer:
    def make() -> Callable[[], Any]:
        import torch
        import torchio as tio

        image = torch.zeros(1, *tiling.shape_zyx, dtype=torch.uint8)
        overlap = tuple(n // 2 for n in tiling.patch_shape_zyx)
        sampler = tio.GridSampler(
            tio.Subject(image=tio.ScalarImage(tensor=image)), tiling.patch_shape_zyx, overlap
        )
        np.testing.assert_array_equal(sampler.locations[:, :3], tiling.starts_zyx)
        tensor, locations = torch.from_numpy(patches), torch.as_tensor(sampler.locations)

        def run() -> Any:
            aggregator = tio.GridAggregator(sampler, overlap_mode=mode)
            aggregator.add_batch(tensor, locations)
            return aggregator.get_output_tensor()

        return run

    return Peer(
        f"TorchIO, {mode}",
        "torchio",
        difference,
        make,
        lambda ours, theirs: assert_close(ours, theirs.numpy(), within=within),
        threaded=True,
    )


def assert_same_gaussian(
    tiling: voxelcore.Tiling, ours: NDArray[Any], theirs: NDArray[Any], *, within: float, anywhere: float
) -> None:
    """On the lines between the centres of patches results agree, and elsewhere as any two convex sums do.

    MONAI raises small weights, which shows away from those lines.
    """
    assert_close(ours, theirs, within=anywhere)
    half = [n // 2 for n in tiling.patch_shape_zyx]
    centres = [np.unique(tiling.starts_zyx[:, axis]) + half[axis] for axis in range(3)]
    for axis in range(3):
        along = [
            each if other != axis else np.arange(each[0], each[-1]) for other, each in enumerate(centres)
        ]
        lines = np.ix_(np.arange(CLASSES), *along)
        assert_close(ours[lines], theirs[lines], within=within)


def monai(tiling: voxelcore.Tiling, patches: NDArray[Any], *, within: float, anywhere: float) -> Peer:
    scratch = np.empty_like(patches)

    def make() -> Callable[[], Any]:
        import torch
        from monai.inferers import sliding_window_inference

        image = torch.zeros(1, 1, *tiling.shape_zyx, dtype=torch.from_numpy(patches[:0]).dtype)
        tensor = torch.from_numpy(scratch)

        def run() -> Any:
            order = iter(range(len(tiling)))

            def predictor(_window: Any) -> Any:
                number = next(order)
                return tensor[number : number + 1]

            return sliding_window_inference(
                image, tiling.patch_shape_zyx, 1, predictor, overlap=0.5, mode="gaussian"
            )

        return run

    return Peer(
        "MONAI, Gaussian",
        "monai",
        "`sliding_window_inference` whose predictor returns the patches: adds in the dtype of the patches, keeps a "
        "volume of weights and divides by it at the end, raises weights below 0.001 to it, overwrites the patches",
        make,
        lambda ours, theirs: assert_same_gaussian(
            tiling, ours, theirs[0].numpy(), within=within, anywhere=anywhere
        ),
        threaded=True,
        before=lambda: np.copyto(scratch, patches),
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("blend", ["centre", "gaussian"])
def test_stitch(
    compare: Callable[..., Any],
    sizes: dict[str, Size],
    blend: Literal["centre", "gaussian"],
    dtype: str,
    threads: int,
) -> None:
    size = sizes["full"]
    tiling, patches = tiles(size.network_shape_zyx, size.patch_shape_zyx, dtype)
    rounding = ROUNDING[dtype]
    spread = STEP * (STEPS - 1) + rounding  # whatever the weights, if they sum to one
    result_bytes = CLASSES * int(np.prod(tiling.shape_zyx)) * 4
    kept = patches.nbytes if blend == "gaussian" else result_bytes * patches.itemsize // 4
    if blend == "centre":
        peers = [
            torchio(
                tiling,
                patches,
                "crop",
                "`GridAggregator`: the same boxes; the result has the dtype of the patches",
                within=0,
            )
        ]
    else:
        peers = [
            monai(tiling, patches, within=0.1 * STEP + rounding, anywhere=spread),
            torchio(
                tiling,
                patches,
                "hann",
                "`GridAggregator`: another window, a Hann's; float32; keeps a volume of weights for each class and "
                "divides by it at the end",
                within=spread,
            ),
            torchio(
                tiling,
                patches,
                "average",
                "`GridAggregator`: equal weights; adds in the dtype of the patches; keeps a volume of counts for each "
                "class and divides by it at the end",
                within=spread,
            ),
        ]
    out = np.zeros((CLASSES, *tiling.shape_zyx), np.float32)
    result = compare(
        kernel=f"stitch, {blend}",
        case=f"{size.name}, {len(tiling)} of {CLASSES}x{'x'.join(map(str, tiling.patch_shape_zyx))}, {dtype}",
        threads=threads,
        ours=lambda: voxelcore.stitch(patches, tiling, blend=blend, out=out, threads=threads),
        copied_bytes=(kept + result_bytes) // 2,
        patches=len(tiling),
        peers=peers,
    )
    volume = ct(tiling.shape_zyx, "float32") / 1500
    lift = result[0] - volume
    assert -rounding <= lift.min()
    assert lift.max() <= spread
