"""Smooth random fields: noise on a periodic lattice, read between its nodes by cubic B-splines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NODES = 64

Floats = NDArray[np.float32]


def noise_lattice(rng: np.random.Generator, octaves: list[tuple[float, float]]) -> Floats:
    """Return a periodic (64, 64, 64) lattice: a sum of Gaussian-smoothed white noises.

    `octaves` holds (smoothing in nodes, standard deviation after B-spline reading) pairs.
    """
    total = np.zeros((NODES,) * 3, np.float32)
    for smoothing, deviation in octaves:
        white = rng.standard_normal((NODES,) * 3, dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, smoothing, mode="wrap", truncate=3.0)
        read = smooth
        for axis in range(3):
            read = ndimage.convolve1d(read, np.array([1, 4, 1]) / 6.0, axis=axis, mode="wrap")
        total += np.float32(deviation / float(read.std())) * smooth
    return total


def spline_taps(positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], Floats]:
    """Return the first node and the four cubic B-spline weights (4, n) of each position, in nodes."""
    first = np.floor(positions).astype(np.int64)
    t = positions - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6.0
    return first - 1, weights.astype(np.float32)


def spline_along(values: Floats, positions: NDArray[np.float64], axis: int) -> Floats:
    """Read a periodic lattice along one axis at `positions` (n,), in nodes."""
    first, weights = spline_taps(positions)
    shape = [1] * values.ndim
    shape[axis] = -1
    total = np.take(values, first % NODES, axis=axis) * weights[0].reshape(shape)
    for tap in range(1, 4):
        total += np.take(values, (first + tap) % NODES, axis=axis) * weights[tap].reshape(shape)
    return np.asarray(total, np.float32)


class LatticeField:
    """A lattice field read on the planes of one scan grid.

    Planes of the lattice that were already spread over the (y, x) grid are kept, since neighbouring slices
    share them: reading a scan slice by slice then costs four multiplications a voxel.
    """

    def __init__(self, lattice: Floats, step_mm: float, y_mm: NDArray[np.float64], x_mm: NDArray[np.float64]):
        self.lattice = lattice
        self.step_mm = step_mm
        self.y_nodes = y_mm / step_mm
        self.x_nodes = x_mm / step_mm
        self.planes: dict[int, Floats] = {}

    def plane(self, node: int) -> Floats:
        """Return the (y, x) plane of one lattice node along z."""
        if node not in self.planes:
            rows = spline_along(self.lattice[node % NODES], self.x_nodes, axis=1)
            self.planes[node] = spline_along(rows, self.y_nodes, axis=0)
        return self.planes[node]

    def read(self, z_mm: NDArray[np.float64]) -> Floats:
        """Return the field (z, y, x) at ascending positions `z_mm`."""
        first, weights = spline_taps(z_mm / self.step_mm)
        for node in [node for node in self.planes if node < first[0]]:
            del self.planes[node]
        values = np.empty((z_mm.size, self.y_nodes.size, self.x_nodes.size), np.float32)
        scratch = np.empty(values.shape[1:], np.float32)
        for index in range(z_mm.size):
            np.multiply(self.plane(int(first[index])), weights[0, index], out=values[index])
            for tap in range(1, 4):
                np.multiply(self.plane(int(first[index]) + tap), weights[tap, index], out=scratch)
                values[index] += scratch
        return values
