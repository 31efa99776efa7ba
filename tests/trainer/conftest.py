"""A Decathlon data set small enough for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from trainer.cli import main

SPACING_ZYX_MM = (2.5, 0.8, 0.8)
LABELS = ("background", "pancreas", "cancer")
MakeTask = Callable[..., Path]


def write_nifti(path: Path, array: np.ndarray, spacing_zyx_mm: tuple[float, ...] = SPACING_ZYX_MM) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_zyx_mm[::-1])
    sitk.WriteImage(image, str(path))


def small_case(shape_zyx: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise around an organ with a tumour, int16, and its labels, uint8."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape_zyx)
    centre = np.array(shape_zyx) * rng.uniform(0.35, 0.65, 3)
    distance = np.sqrt((2 * (z - centre[0])) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    labels = np.where(distance < 2.5, 2, np.where(distance < 6, 1, 0)).astype(np.uint8)
    image = rng.normal(20, 120, shape_zyx) + 60 * (labels == 1) - 40 * (labels == 2)
    return np.rint(image).astype(np.int16), labels


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Return a function that writes TaskNN_Name with one case a shape and returns its folder."""

    def make(shapes_zyx: list[tuple[int, int, int]], *, suffix: str = ".nii.gz", seed: int = 0) -> Path:
        folder = tmp_path / "Task07_Pancreas"
        (folder / "imagesTr").mkdir(parents=True)
        (folder / "labelsTr").mkdir()
        training = []
        for number, shape in enumerate(shapes_zyx):
            name = f"pancreas_{number:03d}{suffix}"
            image, labels = small_case(shape, seed + number)
            write_nifti(folder / "imagesTr" / name, image)
            write_nifti(folder / "labelsTr" / name, labels)
            training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        description = {
            "name": "Pancreas",
            "modality": {"0": "CT"},
            "labels": {str(value): label for value, label in enumerate(LABELS)},
            "numTraining": len(training),
            "numTest": 0,
            "training": training,
            "test": [],
        }
        (folder / "dataset.json").write_text(json.dumps(description))
        return folder

    return make


@pytest.fixture
def work(make_task: MakeTask, tmp_path: Path) -> Path:
    """Prepare eight training and two validation patches of 16x16x32."""
    task = make_task([(20, 40, 44), (18, 44, 40), (22, 36, 48)])
    preset = tmp_path / "tiny.toml"
    preset.write_text(
        "[prepare]\nspacing_zyx_mm = [2.5, 0.8, 0.8]\nwindow_hu = [-100, 200]\npatch_shape_zyx = [16, 16, 32]\n"
        'train_patches = 8\nval_patches = 2\nquotas = { "2" = 1.0 }\nseed = 0\n\n[train]\n'
    )
    assert main(["prepare", str(task), "--preset", str(preset), "--out", str(tmp_path / "work")]) == 0
    return tmp_path / "work"
