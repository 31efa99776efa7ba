"""What an image file says about itself, without its voxels: of volumes, and of volumes with channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.images import READERS, image_suffix, read_geometry
from algorithm.itk import ONE_AT_A_TIME, quiet, reason


@dataclass(frozen=True)
class Header:
    """The grid of an image file, how many dimensions it has (4 with several channels), its voxel type."""

    grid: Geometry
    dimensions: int
    is_uint8: bool


def read_header(path: Path) -> Header:
    """Read the header of an image file; of one with several channels, as MR tasks have, the grid is that of a channel.

    Raises InputError in one sentence.
    """
    reader = _information(path)
    dimensions = reader.GetDimension()
    several = (dimensions == 4 and reader.GetSize()[3] > 1) or reader.GetNumberOfComponents() > 1
    grid = _grid_of_a_channel(path, reader) if several else read_geometry(path)
    return Header(grid, dimensions, is_uint8=reader.GetPixelID() == sitk.sitkUInt8)


def count_channels(path: Path) -> int:
    """Return how many numbers an image has at each place; InputError as `read_header`."""
    reader = _information(path)
    return int(math.prod(reader.GetSize()[3:]) * reader.GetNumberOfComponents())


def _information(path: Path) -> sitk.ImageFileReader:
    """Return a reader that has read the header."""
    suffix = image_suffix(path)
    if suffix is None or not path.is_file():
        raise InputError(f"{path} must be an image file that ends in one of {', '.join(READERS)}")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(READERS[suffix])
    try:
        with quiet(), ONE_AT_A_TIME:
            reader.ReadImageInformation()
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"{path} has a header that cannot be read: {reason(error)}") from None
    return reader


def _grid_of_a_channel(path: Path, reader: sitk.ImageFileReader) -> Geometry:
    try:
        return Geometry.of(reader)
    except ValueError as error:
        raise InputError(f"{path} has no usable grid: {error}") from None
