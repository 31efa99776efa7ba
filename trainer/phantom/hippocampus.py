"""A hippocampus in a small box of a T1-weighted head, as Task04_Hippocampus has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.mr import Grid, ellipsoid, seen, share, write_case

SMALLEST_ZYX, LARGEST_ZYX = (30, 44, 31), (41, 58, 40)  # voxels of 1 mm, around Task04's 35 x 51 x 35
LENGTH_MM = 38.0
GREY, WHITE, FLUID = 0.62, 1.0, 0.22


def make_hippocampus(seed: int, case: int, image: Path, label: Path) -> None:
    """Write one case: float32 (z, y, x), whose scale is arbitrary, and labels 1 anterior, 2 posterior."""
    rng = generator(seed, case, "hippocampus")
    shape = rng.integers(SMALLEST_ZYX, LARGEST_ZYX, endpoint=True)
    grid = Grid((int(shape[0]), int(shape[1]), int(shape[2])), 1.0, rng)
    side = 1 if rng.random() < 0.5 else -1  # left or right
    points = grid.warped(1.0, 14.0, 5.0)
    points = [axis - np.float32(shift) for axis, shift in zip(points, rng.normal(0.0, 2.0, 3), strict=True)]
    points[2] = points[2] * side
    z, y, x = points
    coarse, fine = grid.noise(9.0), grid.noise(4.0)
    along = y / np.float32(LENGTH_MM * rng.normal(1.0, 0.06)) + 0.5  # 0 at the front, 1 at the back
    gland = _hippocampus(along, z, x, rng) + 0.5 * fine
    # The amygdala lies in front of it and is as grey; fluid beside it; cortex below and white matter around.
    amygdala = ellipsoid([z, y, x], (4, -LENGTH_MM / 2 - 2, 1), (8, 8, 8)) + coarse
    horn = np.maximum(np.abs(gland - 1.6) - 0.9, np.maximum(-1.0 - x + coarse, y - 14))
    cortex = np.maximum(z + 9 + 1.5 * coarse, -(z + 15 + 1.5 * coarse))
    signal = np.full(grid.shape_zyx, WHITE, np.float32)
    tissues = (
        (6.0 * (1.2 - coarse), GREY),
        (cortex, GREY),
        (7.0 * (1.8 + coarse), FLUID),
        (amygdala, GREY),
        (horn, FLUID),
        (gland, GREY),
    )
    for distance, value in tissues:
        tone = np.float32(value * rng.normal(1.0, 0.04)) * (1 + 0.03 * fine)
        signal += share(distance, 1.4) * (tone - signal)
    labels = np.where(share(gland, 1.0) >= 0.5, np.where(along < 0.45, 1, 2), 0).astype(np.uint8)
    scan = seen(signal, grid, noise=rng.uniform(0.03, 0.06), bias=0.12)
    scale = np.float32(10.0 ** rng.uniform(0.0, 4.5))
    write_case(grid, [scan * scale], labels, image, label)


def _hippocampus(along: Floats, z: Floats, x: Floats, rng: np.random.Generator) -> Floats:
    """Return the distance to a bent body: a thick head in front, a thin tail that rises behind."""
    inside = np.clip(along, 0.0, 1.0)
    middle_x = 3.0 - 7.0 * (inside - 0.35) ** 2 * np.float32(rng.uniform(1.5, 2.5))
    middle_z = -2.0 + 9.0 * inside**2 * np.float32(rng.uniform(0.8, 1.2))
    radius = np.float32(rng.uniform(5.4, 6.6)) - 2.4 * inside
    beyond = (along - inside) * np.float32(LENGTH_MM)
    squashed = np.sqrt(((x - middle_x) * 0.85) ** 2 + ((z - middle_z) * 1.15) ** 2 + beyond**2)
    return np.asarray(squashed - radius, np.float32)
