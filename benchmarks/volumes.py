"""What the benchmarks work on: smooth CT-like volumes, labels and class maps, the same in every run."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import voxelcore

NETWORK_SPACING_ZYX_MM = (2.5, 0.8, 0.8)
CLASSES = 3
COARSE = 32  # voxels of a volume for each of the noise that it is interpolated from

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Size:
    """A scan and the grid of the network that belongs to it."""

    name: str
    shape_zyx: Shape
    spacing_zyx_mm: tuple[float, float, float]
    patch_shape_zyx: Shape

    @property
    def network_shape_zyx(self) -> Shape:
        return voxelcore.resampled_shape(self.shape_zyx, self.spacing_zyx_mm, NETWORK_SPACING_ZYX_MM)


FULL = {
    "full": Size("full", (96, 512, 512), (2.5, 0.7, 0.7), (64, 128, 128)),
    "thin": Size("thin", (37, 512, 512), (5.0, 0.66, 0.66), (64, 128, 128)),
}
# The same spacings, so that the same code runs.
SMALL = {
    "full": Size("full", (24, 64, 64), (2.5, 0.7, 0.7), (16, 16, 16)),
    "thin": Size("thin", (12, 64, 64), (5.0, 0.66, 0.66), (16, 16, 16)),
}


@functools.lru_cache(maxsize=4)
def ct(shape_zyx: Shape, dtype: str) -> NDArray[Any]:
    """Return smooth noise between -1000 and 1500 HU; for uint8 between 0 and 250."""
    coarse = [max(2, n // COARSE) for n in shape_zyx]
    noise = np.random.default_rng(0).normal(0, 1, coarse).astype(np.float32)
    for axis, (few, many) in enumerate(zip(coarse, shape_zyx, strict=True)):
        basis = ndimage.zoom(
            np.eye(few, dtype=np.float32), (many / few, 1), order=3, mode="nearest", grid_mode=True
        )
        noise = np.moveaxis(np.tensordot(basis, noise, axes=(1, axis)), 0, axis)
    volume = np.ascontiguousarray(250 + 1250 * np.tanh(noise))
    if dtype == "uint8":
        return np.rint((volume + 1000) / 10).astype(np.uint8)
    return np.rint(volume).astype(np.int16).astype(dtype)


@functools.lru_cache(maxsize=4)
def labels(shape_zyx: Shape) -> NDArray[np.uint8]:
    """Return a bent ellipsoid of about one per cent (1) with a ball at its end (2)."""
    return np.argmax(_scores(shape_zyx, 0, shape_zyx[0]), axis=0).astype(np.uint8)


@functools.lru_cache(maxsize=2)
def class_maps(shape_zyx: Shape, dtype: str) -> NDArray[Any]:
    """Return smooth scores (c, z, y, x) whose largest makes such labels."""
    return _scores(shape_zyx, 0, shape_zyx[0]).astype(dtype, copy=False)


def class_map_planes(shape_zyx: Shape, first: int, stop: int) -> NDArray[np.float32]:
    """Return some planes of `class_maps`, float32."""
    return _scores(shape_zyx, first, stop)


def _scores(shape_zyx: Shape, first: int, stop: int) -> NDArray[np.float32]:
    grids = [(np.arange(n, dtype=np.float32) + np.float32(0.5)) / np.float32(n) for n in shape_zyx]
    z, y, x = np.meshgrid(grids[0][first:stop], grids[1], grids[2], indexing="ij", sparse=True)
    y = y + 0.1 * np.sin(9 * x)
    scores = np.empty((CLASSES, stop - first, *shape_zyx[1:]), np.float32)
    scores[0] = 0
    scores[1] = 4 - 4 * (((z - 0.5) / 0.12) ** 2 + ((y - 0.5) / 0.12) ** 2 + ((x - 0.45) / 0.16) ** 2)
    scores[2] = 6 - 6 * (((z - 0.5) / 0.06) ** 2 + ((y - 0.5) / 0.05) ** 2 + ((x - 0.55) / 0.05) ** 2)
    return scores
