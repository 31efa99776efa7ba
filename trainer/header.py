"""What an image file says about itself, without its voxels: of volumes, and of volumes with channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from algorithm.geometry import Geometry
from algorithm.images import open_image, stated_channels
from algorithm.itk import quiet


@dataclass(frozen=True)
class Header:
    """The grid of an image file, how many dimensions it has (4 with several channels), its voxel type."""

    grid: Geometry
    dimensions: int
    is_uint8: bool


def read_header(path: Path) -> Header:
    """Read the header of an image file; of one with several channels, as MR tasks have, the grid is that of a channel.

    Raises:
        InputError: as `algorithm.images.read_geometry`.

    """
    with quiet(), open_image(path, whole=False, channels=stated_names(path)) as reader:
        return Header(Geometry.of(reader), reader.GetDimension(), reader.GetPixelID() == sitk.sitkUInt8)


def stated_names(path: Path) -> list[str]:
    """Return names by number for the channels that an image states; InputError as `read_header`."""
    return [f"channel {number}" for number in range(stated_channels(path))]
