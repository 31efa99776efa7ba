"""Image files and DICOM folders in, label maps out. SimpleITK stays in here."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.dicom import read_series
from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.geometry import Geometry, difference

log = logging.getLogger(__name__)

READERS = {
    ".nii.gz": "NiftiImageIO",
    ".nii": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
}
WRITABLE = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
LARGEST_IMAGE_BYTES = 16 * 2**30
LARGEST_RATIO = 1040  # deflate packs at most 1032 bytes into one


def image_suffix(path: Path) -> str | None:
    """Return the image suffix of a file name (".nii.gz", …), or None when it has none that can be read."""
    name = path.name.lower()
    return next((suffix for suffix in READERS if name.endswith(suffix)), None)


def case_name(path: Path) -> str:
    """Return the file or folder name without its image suffix: "pancreas_001.nii.gz" → "pancreas_001"."""
    suffix = image_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder by name; hidden files (macOS "._*" among them) are no images.

    Raises InputError when `folder` is no folder, or two files would have one case name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder of images, but {_what_is(folder)}")
    found = sorted(
        path
        for path in folder.iterdir()
        if image_suffix(path) and not path.name.startswith(".") and path.is_file()
    )
    by_case: dict[str, Path] = {}
    for path in found:
        other = by_case.setdefault(case_name(path), path)
        if other != path:
            raise InputError(
                f"{folder} holds {other.name} and {path.name}, two images of one case; keep one of them"
            )
    return found


def read_image(path: Path) -> sitk.Image:
    """Read a 3-D scalar image from a file or a folder of DICOM slices.

    Raises InputError in one sentence.
    """
    path = Path(path)
    if path.is_dir():
        return read_series(path)
    suffix = image_suffix(path)
    if not path.is_file():
        raise InputError(f"{path} must be an image file or a folder of DICOM slices, but {_what_is(path)}")
    if suffix is None:
        raise InputError(f"{path} must end in one of {', '.join(READERS)}, or be a folder of DICOM slices")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(READERS[suffix])
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} is not a readable {suffix} image: {itk_reason(error)}") from None
    size = tuple(reader.GetSize())
    if len(size) < 3 or any(n != 1 for n in size[3:]):
        raise InputError(f"{path} must be a 3-D volume, but has size {size} (x, y, z, …)")
    if reader.GetNumberOfComponents() != 1:
        raise InputError(
            f"{path} must have one value per voxel, but has {reader.GetNumberOfComponents()} (a colour or vector image)"
        )
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read: {itk_reason(error)}") from None
    if image.GetDimension() > 3:
        image = sitk.Extract(image, (*size[:3], *(0 for _ in size[3:])))
    try:
        Geometry.of(image)
    except ValueError as error:
        raise InputError(f"{path} has no usable grid: {error}") from None
    return image


def itk_reason(error: BaseException) -> str:
    """Return the one useful line of ITK's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if not line.startswith("Exception thrown")), "unknown")
    text = re.sub(r"^(sitk::)?(ERROR|ITK ERROR): *", "", text)
    return re.sub(r"^(ITK ERROR: )?\w+\(0x[0-9a-f]+\): *", "", text).rstrip(". ")


def hounsfield(image: sitk.Image) -> NDArray[np.int16]:
    """Return the voxels of a scalar image as int16 (z, y, x): rounded half to even, saturated to int16.

    NaN and -inf become the darkest finite value of the image.
    """
    view = sitk.GetArrayViewFromImage(image)
    if view.dtype == np.int16:
        return np.array(view, dtype=np.int16)
    low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    if view.dtype.kind in "iu":
        info = np.iinfo(view.dtype)
        return np.clip(view, max(low, info.min), min(high, info.max)).astype(np.int16)
    finite = np.isfinite(view)
    darkest = view[finite].min() if finite.any() else 0
    values = np.where(np.isnan(view) | (view == -np.inf), darkest, view)
    return np.clip(np.rint(values), low, high).astype(np.int16)


def read_hounsfield(path: Path) -> tuple[NDArray[np.int16], Geometry]:
    """Read an image as int16 (z, y, x) with its grid. Raises InputError as `read_image` does."""
    image = read_image(path)
    return hounsfield(image), Geometry.of(image)


def read_labels(path: Path) -> tuple[NDArray[np.uint8], Geometry]:
    """Read a label map as uint8 (z, y, x) with its grid.

    Raises InputError as `read_image` does, and when a value is not a whole number from 0 to 255.
    """
    image = read_image(path)
    view: NDArray[Any] = sitk.GetArrayViewFromImage(image)
    labels = np.array(view, dtype=np.uint8) if view.dtype == np.uint8 else None
    if labels is None:
        wrong = view[~((view >= 0) & (view <= 255) & (view == np.trunc(view)))]
        if wrong.size:
            raise InputError(f"{path} must hold whole label values from 0 to 255, but has {wrong[0]}")
        labels = view.astype(np.uint8)
    return labels, Geometry.of(image)


def write_labels(path: Path, labels: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write uint8 labels (z, y, x) on a grid, compressed; the format follows the suffix.

    Raises InputError on an unknown suffix, ValueError when labels and grid disagree, RuntimeError when the written
    header does not say the same grid.
    """
    path = Path(path)
    suffix = image_suffix(path)
    if suffix not in WRITABLE:
        raise InputError(f"{path} must end in one of {', '.join(WRITABLE)}")
    if labels.dtype != np.uint8 or labels.shape != geometry.shape_zyx:
        raise ValueError(
            f"labels must be uint8 {geometry.shape_zyx} (z, y, x), got {labels.dtype} {labels.shape}"
        )
    image = sitk.GetImageFromArray(labels)
    geometry.set_on(image)
    with replacing(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(temporary))
        reader.ReadImageInformation()
        wrong = difference(
            Geometry.of(reader), geometry, origin_mm=1e-4, spacing_relative=1e-6, direction=1e-6
        )
        if wrong:
            raise RuntimeError(f"{path} was written with another grid: {wrong}")


def _what_is(path: Path) -> str:
    return "is neither" if path.exists() else "it does not exist"
