"""One case from (seed, case) to two files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.files import replacing
from trainer.phantom.acquisition import Size, acquire, draw_acquisition
from trainer.phantom.difficulty import Difficulty
from trainer.phantom.draws import generator
from trainer.phantom.grid import ScanGrid
from trainer.phantom.scene import build_scene
from trainer.phantom.statistics import draw_facts


@dataclass(frozen=True)
class Volume:
    """A scan with its labels, both (z, y, x), on a canonical grid whose axes `direction` turns into LPS."""

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    grid: ScanGrid
    direction: NDArray[np.float64]
    origin_xyz_mm: NDArray[np.float64]


def make_volume(seed: int, case: int, size: Size, difficulty: Difficulty | None = None) -> Volume:
    """Make the image and labels of a case; a function of its arguments only."""
    facts = draw_facts(seed, case)
    scene = build_scene(seed, case, facts, difficulty)
    region = scene.body.pose.scan_box(scene.gland.core_box())
    scan = draw_acquisition(
        seed, case, facts, size, region, (0.0, scene.trunk.middle_y_mm * scene.body.pose.scale)
    )
    if difficulty is not None:
        scan = replace(scan, noise_hu=difficulty.noise * scan.noise_hu)
    image, labels = acquire(scene, scan, seed, case)
    table = generator(seed, case, "table position").uniform((-15, -180, -900), (15, -120, 200))
    start = np.array(scan.grid.start_zyx_mm[::-1])
    return Volume(image, labels, scan.grid, np.eye(3), np.round(start + table, 3))


def as_stored(array: NDArray[np.int16] | NDArray[np.uint8], volume: Volume) -> sitk.Image:
    """Return an array as Task07 stores its volumes: x to the right, y to the front, z to the head (RAS)."""
    flipped = sitk.GetImageFromArray(np.ascontiguousarray(array[:, ::-1, ::-1]))
    spacing = np.array(volume.grid.spacing_zyx_mm[::-1])
    count = np.array(volume.grid.shape_zyx[::-1])
    corner = (count - 1) * spacing * np.array([1.0, 1.0, 0.0])
    turned = volume.direction @ np.diag([-1.0, -1.0, 1.0])
    flipped.SetSpacing(spacing.tolist())
    flipped.SetDirection(turned.ravel().tolist())
    flipped.SetOrigin((volume.origin_xyz_mm + volume.direction @ corner).tolist())
    return flipped


def write_volume(volume: Volume, image_path: Path, label_path: Path) -> None:
    """Write int16 image and uint8 labels as compressed NIfTI, each complete or not there."""
    for array, path in ((volume.image, image_path), (volume.labels, label_path)):
        with replacing(path) as temporary:
            sitk.WriteImage(as_stored(array, volume), temporary)
