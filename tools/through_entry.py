"""Segment a folder through the container's own entry and compare with what `decathlon predict` made of it.

    python tools/through_entry.py IMAGES BUNDLE PREDICTIONS WORK

Scans are handed over as Grand Challenge does: one .mha each in an input folder. Exits with 1 when a voxel or a
grid differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.geometry import same_grid
from algorithm.images import case_name, list_images, read_image, read_labels


def main(images: Path, bundle: Path, predictions: Path, work: Path) -> int:
    """Run the comparison; return the exit status."""
    inputs = work / "input"
    inputs.mkdir(parents=True, exist_ok=True)
    scans = list_images(images)
    for scan in scans:
        image = read_image(scan)
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)  # NIfTI's fields, of each of which the MetaImage writer would warn
        sitk.WriteImage(image, inputs / f"{case_name(scan)}.mha", useCompression=True)
    environment = {
        "DECATHLON_INPUT": str(inputs),
        "DECATHLON_OUTPUT": str(work / "output"),
        "DECATHLON_MODEL": str(bundle),
    }
    subprocess.run([sys.executable, "-m", "algorithm"], env={**os.environ, **environment}, check=True)
    for scan in scans:
        labels, geometry = read_labels(work / "output" / "images" / f"{case_name(scan)}.mha")
        expected, expected_geometry = read_labels(predictions / scan.name)
        if difference := same_grid(expected_geometry, geometry):
            sys.stderr.write(
                f"{scan.name}: the entry's result has another grid than predict's: {difference}\n"
            )
            return 1
        if wrong := int(np.count_nonzero(labels != expected)):
            sys.stderr.write(f"{scan.name}: {wrong} voxels differ between the entry and predict\n")
            return 1
    sys.stdout.write(f"{len(scans)} scans: the container's entry and predict agree in every voxel and grid\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*(Path(argument) for argument in sys.argv[1:5])))
