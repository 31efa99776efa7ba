"""Ten small synthetic tasks in the layout of the Decathlon, their counts reduced, and predictions for them."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tests.decathlon import write

SHAPE_ZYX = (8, 10, 12)


@dataclass(frozen=True)
class Kind:
    """A task as the Decathlon has it: channels, labels beside the background, the names of two test cases."""

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    cases: tuple[str, str]


KINDS = {
    "Task01_BrainTumour": Kind(
        ("FLAIR", "T1w", "t1gd", "T2w"),
        ("edema", "non-enhancing tumor", "enhancing tumour"),
        ("BRATS_485", "BRATS_486"),
    ),
    "Task02_Heart": Kind(("MRI",), ("left atrium",), ("la_001", "la_002")),
    "Task03_Liver": Kind(("CT",), ("liver", "cancer"), ("liver_132", "liver_141")),
    "Task04_Hippocampus": Kind(("MRI",), ("Anterior", "Posterior"), ("hippocampus_002", "hippocampus_005")),
    "Task05_Prostate": Kind(("T2", "ADC"), ("PZ", "TZ"), ("prostate_03", "prostate_05")),
    "Task06_Lung": Kind(("CT",), ("cancer",), ("lung_002", "lung_007")),
    "Task07_Pancreas": Kind(("CT",), ("pancreas", "cancer"), ("pancreas_002", "pancreas_044")),
    "Task08_HepaticVessel": Kind(("CT",), ("Vessel", "Tumour"), ("hepaticvessel_003", "hepaticvessel_006")),
    "Task09_Spleen": Kind(("CT",), ("spleen",), ("spleen_1", "spleen_7")),
    "Task10_Colon": Kind(("CT",), ("colon cancer primaries",), ("colon_002", "colon_003")),
}


def spacing_xyz_mm(case: str) -> tuple[float, float, float]:
    """Return a spacing of the case's own, so that no other case's label map lies on its grid."""
    return (0.8, 0.8, 1.0 + zlib.crc32(case.encode()) % 40 / 10)


def make_ten_tasks(folder: Path) -> Path:
    """Write FOLDER/TaskNN_Name for all ten, with test images only; those of MR have their channels on a fourth axis."""
    for task, kind in KINDS.items():
        for case in kind.cases:
            path = folder / task / "imagesTs" / f"{case}.nii.gz"
            channel = np.full(SHAPE_ZYX, 40, dtype=np.int16)
            write(path, channel, spacing_xyz_mm=spacing_xyz_mm(case))
            if len(kind.channels) > 1:
                joined = sitk.JoinSeries([sitk.ReadImage(str(path))] * len(kind.channels))
                sitk.WriteImage(joined, str(path))
        names = ("background", *kind.labels)
        document = {
            "name": task.partition("_")[2],
            "modality": {str(number): name for number, name in enumerate(kind.channels)},
            "labels": {str(value): name for value, name in enumerate(names)},
            "numTest": len(kind.cases),
            "training": [],
            "test": [f"./imagesTs/{case}.nii.gz" for case in kind.cases],
        }
        (folder / task / "dataset.json").write_text(json.dumps(document))
    return folder


def write_predictions(folder: Path, *tasks: str) -> Path:
    """Write FOLDER/TaskNN_Name/<case>.nii.gz, every label a box, for some tasks or for all ten."""
    for task in tasks or KINDS:
        for case in KINDS[task].cases:
            array = np.zeros(SHAPE_ZYX, dtype=np.uint8)
            for value in range(1, 1 + len(KINDS[task].labels)):
                array[value : value + 3, 2:6, 3:7] = value
            write(folder / task / f"{case}.nii.gz", array, spacing_xyz_mm=spacing_xyz_mm(case))
    return folder
