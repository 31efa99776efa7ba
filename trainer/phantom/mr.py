"""What the two MR phantoms share: coordinates, smooth noise, ramps, and how a scanner without a unit sees tissue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.files import replacing
from trainer.phantom.fields import Floats

Triple = tuple[float, float, float]
Reals = NDArray[np.floating[Any]]
BIAS_MM = 90.0  # the coils' sensitivity changes over this distance


@dataclass(frozen=True)
class Grid:
    """A canonical grid (x left, y back, z head) about the middle of what it shows, and its case's random numbers."""

    shape_zyx: tuple[int, int, int]
    spacing_mm: float
    rng: np.random.Generator

    def axes_zyx(self) -> list[Floats]:
        """Return z, y and x in mm from the middle, each broadcast along the others."""
        return [
            ((np.arange(n) - (n - 1) / 2) * self.spacing_mm)
            .astype(np.float32)
            .reshape([-1 if a == axis else 1 for a in range(3)])
            for axis, n in enumerate(self.shape_zyx)
        ]

    def noise(self, scale_mm: float) -> Floats:
        """Return noise (z, y, x) of mean 0 and deviation 1 that is smooth over `scale_mm`."""
        coarse = [max(4, round(n * self.spacing_mm / scale_mm) + 3) for n in self.shape_zyx]
        white = self.rng.standard_normal(coarse, dtype=np.float32)
        where = [
            np.linspace(1, size - 2, n, dtype=np.float32)
            for size, n in zip(coarse, self.shape_zyx, strict=True)
        ]
        for axis, positions in enumerate(where):
            first = positions.astype(np.int64)
            t = (positions - first).reshape([-1 if a == axis else 1 for a in range(3)])
            t = t * t * (3 - 2 * t)
            low, high = np.take(white, first, axis=axis), np.take(white, first + 1, axis=axis)
            white = low * (1 - t) + high * t
        result: Floats = ((white - white.mean()) / white.std()).astype(np.float32)
        return result

    def warped(self, reach_mm: float, scale_mm: float, turn_deg: float) -> list[Floats]:
        """Return z, y, x in mm of a body that lies turned and bent in this grid."""
        axes = self.axes_zyx()
        angles = np.deg2rad(self.rng.normal(0.0, turn_deg, 3))
        matrix = np.eye(3)
        for angle, (i, j) in zip(angles, ((0, 1), (0, 2), (1, 2)), strict=True):
            turn = np.eye(3)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            matrix = turn @ matrix
        turned = [sum(np.float32(m) * axis for m, axis in zip(row, axes, strict=True)) for row in matrix]
        return [np.asarray(axis + reach_mm * self.noise(scale_mm), np.float32) for axis in turned]


def ellipsoid(points_zyx: Sequence[Reals], centre_zyx: Triple, radii_zyx: Triple) -> Floats:
    """Return the distance to an ellipsoid in mm, about right near its surface; negative inside."""
    square = sum(((p - c) / r) ** 2 for p, c, r in zip(points_zyx, centre_zyx, radii_zyx, strict=True))
    return np.asarray((np.sqrt(square) - 1) * min(radii_zyx), np.float32)


def share(distance: Reals, width_mm: float) -> Floats:
    """Return how much of a voxel is inside a surface: a ramp of this width."""
    return np.asarray(np.clip(0.5 - distance / width_mm, 0.0, 1.0), np.float32)


def seen(signal: Floats, grid: Grid, *, noise: float, bias: float) -> Floats:
    """Return a signal (z, y, x) as a coil sees it: under a smooth bias field and Rician noise (Gudbjartsson, 1995)."""
    field = np.exp(np.float32(bias) * grid.noise(BIAS_MM))
    real, imaginary = grid.rng.standard_normal((2, *grid.shape_zyx), dtype=np.float32) * np.float32(noise)
    return np.asarray(np.hypot(signal * field + real, imaginary), np.float32)


def write_case(
    grid: Grid, channels: Sequence[NDArray[np.generic]], labels: NDArray[np.uint8], image: Path, label: Path
) -> None:
    """Write the channels, along a fourth axis if there are several, and uint8 labels, as the Decathlon does (RAS)."""
    origin = np.round(grid.rng.uniform(-60, 60, 3), 3)
    for arrays, path in ((channels, image), ([labels], label)):
        volumes = [_stored(array, grid, origin) for array in arrays]
        with replacing(path) as temporary:
            sitk.WriteImage(volumes[0] if len(volumes) == 1 else sitk.JoinSeries(volumes), temporary)


def _stored(array: NDArray[np.generic], grid: Grid, origin_xyz_mm: NDArray[np.float64]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array[:, ::-1, ::-1]))
    image.SetSpacing((grid.spacing_mm,) * 3)
    image.SetOrigin(origin_xyz_mm.tolist())
    image.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    return image
