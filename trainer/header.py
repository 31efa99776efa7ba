"""What an image file says about itself, without its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.images import READERS, image_suffix, itk_reason


@dataclass(frozen=True)
class Header:
    """The grid of an image file, the number of its dimensions (4 with several channels), its voxel type."""

    grid: Geometry
    dimensions: int
    is_uint8: bool


def read_header(path: Path) -> Header:
    """Read the header of an image file; of a 4-D one, as the MR tasks have, the grid is that of a channel.

    Raises InputError in one sentence.
    """
    suffix = image_suffix(path)
    if suffix is None or not path.is_file():
        raise InputError(f"{path} must be an image file that ends in one of {', '.join(READERS)}")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(READERS[suffix])
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} is not a readable {suffix} image: {itk_reason(error)}") from None
    dimensions = reader.GetDimension()
    if dimensions not in (3, 4):
        raise InputError(f"{path} must be a volume, or a volume a channel, but has {dimensions} dimensions")
    size, spacing, origin = reader.GetSize()[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3]
    matrix = reader.GetDirection()
    direction = tuple(matrix[row * dimensions + column] for row in range(3) for column in range(3))
    try:
        grid = Geometry(tuple(size[::-1]), tuple(spacing[::-1]), tuple(origin), direction)
    except ValueError as error:
        raise InputError(f"{path} has no usable grid: {error}") from None
    return Header(grid, dimensions, is_uint8=reader.GetPixelID() == sitk.sitkUInt8)
