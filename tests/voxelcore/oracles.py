"""Independent answers: SciPy, exact fractions and plain Python, written from the documented conventions."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

# tests/sanitize.sh preloads the runtime of a sanitizer, which makes everything slower and larger.
SANITIZED = "san.so" in os.environ.get("LD_PRELOAD", "")
Shape = tuple[int, int, int]


def positions(n_in: int, n_out: int) -> npt.NDArray[np.float64]:
    """Return where each output voxel lies on the input axis, edges aligned, clamped to the edge voxels."""
    return np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)


def scipy_resample(
    volume: npt.NDArray[Any], shape: Shape, *, order: Literal[1, 3]
) -> npt.NDArray[np.float64]:
    axes = [positions(n_in, n_out) for n_in, n_out in zip(volume.shape, shape, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    mode: Literal["nearest", "mirror"] = "nearest" if order == 1 else "mirror"
    result = np.empty(shape)
    map_coordinates(volume.astype(np.float64), np.stack(grid), output=result, order=order, mode=mode)
    return result


def exact_label_weights(labels: npt.NDArray[np.uint8], shape: Shape, voxel: Shape) -> dict[int, Fraction]:
    """Return the exact trilinear weight of each label in one output voxel."""
    axes = []
    for n_in, n_out, i in zip(labels.shape, shape, voxel, strict=True):
        position = Fraction((2 * i + 1) * n_in, 2 * n_out) - Fraction(1, 2)
        position = min(max(position, Fraction(0)), Fraction(n_in - 1))
        lower = position.numerator // position.denominator
        weight = position - lower
        axes.append([(lower, 1 - weight), (min(lower + 1, n_in - 1), weight)])
    weights: dict[int, Fraction] = {}
    for z, weight_z in axes[0]:
        for y, weight_y in axes[1]:
            for x, weight_x in axes[2]:
                label = int(labels[z, y, x])
                weights[label] = weights.get(label, Fraction(0)) + weight_z * weight_y * weight_x
    return weights


def philox4x32(counter: list[int], key: list[int], rounds: int = 10) -> list[int]:
    """Return Philox4x32 as published, in Python integers."""
    mask = 2**32 - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ k0,
            product1 & mask,
            (product0 >> 32) ^ c3 ^ k1,
            product0 & mask,
        )
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


def philox_uniform(counter: int, *, seed: int, epoch: int, stream: int) -> float:
    mask = 2**32 - 1
    unsigned = counter % 2**64
    low, high, _, _ = philox4x32([unsigned & mask, unsigned >> 32, epoch, stream], [seed & mask, seed >> 32])
    return float(((high << 32 | low) >> 11) * 2.0**-53)
