"""A small data set in Decathlon layout, written by SimpleITK alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SPACING_XYZ_MM = (0.8, 0.9, 2.5)
ORIGIN_XYZ_MM = (-30.0, 12.5, 7.0)
RAS = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
IN_4D = {
    "spacing_xyz_mm": (*SPACING_XYZ_MM, 1.0),
    "origin_xyz_mm": (*ORIGIN_XYZ_MM, 0.0),
    "direction": (-1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
}  # the same grid for `write` of channels (c, z, y, x)


def write(
    path: Path,
    array: np.ndarray,
    *,
    spacing_xyz_mm: tuple[float, ...] = SPACING_XYZ_MM,
    origin_xyz_mm: tuple[float, ...] = ORIGIN_XYZ_MM,
    direction: tuple[float, ...] = RAS,
) -> Path:
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing(spacing_xyz_mm)
    image.SetOrigin(origin_xyz_mm)
    image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def labels(*boxes: tuple[int, tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    """Return uint8 (8, 10, 12) with boxes (value, start_zyx, stop_zyx) painted in order."""
    array = np.zeros((8, 10, 12), dtype=np.uint8)
    for value, start, stop in boxes:
        array[tuple(slice(*edges) for edges in zip(start, stop, strict=True))] = value
    return array


def make_task(
    folder: Path,
    training: Mapping[str, np.ndarray],
    test: tuple[str, ...] = (),
    *,
    name: str = "Task07_Pancreas",
) -> Path:
    """Write FOLDER/Task07_Pancreas with these label maps, constant images, and empty test scans."""
    task = folder / name
    scan = np.full((8, 10, 12), 40, dtype=np.int16)
    for case, array in training.items():
        write(task / "imagesTr" / f"{case}.nii.gz", scan)
        write(task / "labelsTr" / f"{case}.nii.gz", array)
    for case in test:
        write(task / "imagesTs" / f"{case}.nii.gz", scan)
    document = {
        "name": "Pancreas",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in training
        ],
        "test": [f"./imagesTs/{case}.nii.gz" for case in test],
    }
    task.mkdir(parents=True, exist_ok=True)
    (task / "dataset.json").write_text(json.dumps(document))
    return task
