"""What every reader needs of ITK: silence, one line of its errors, its pixel types, a limit on size."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from algorithm.errors import InputError

# More than any CT: 2,000 slices of 1024 x 1024 voxels in float32. A header that claims more is wrong.
LARGEST_IMAGE_BYTES = 8 * 2**30

# ITK's readers and writers share state: two at a time have ended a process (SimpleITK issues 74 and 805).
ONE_AT_A_TIME = threading.Lock()

PIXEL_TYPES: dict[int, np.dtype[Any]] = {
    sitk.sitkInt8: np.dtype(np.int8),
    sitk.sitkUInt8: np.dtype(np.uint8),
    sitk.sitkInt16: np.dtype(np.int16),
    sitk.sitkUInt16: np.dtype(np.uint16),
    sitk.sitkInt32: np.dtype(np.int32),
    sitk.sitkUInt32: np.dtype(np.uint32),
    sitk.sitkInt64: np.dtype(np.int64),
    sitk.sitkUInt64: np.dtype(np.uint64),
    sitk.sitkFloat32: np.dtype(np.float32),
    sitk.sitkFloat64: np.dtype(np.float64),
}

# The types of an image of vectors, by that of their numbers.
VECTOR_TYPES: dict[int, np.dtype[Any]] = {
    sitk.sitkVectorInt8: np.dtype(np.int8),
    sitk.sitkVectorUInt8: np.dtype(np.uint8),
    sitk.sitkVectorInt16: np.dtype(np.int16),
    sitk.sitkVectorUInt16: np.dtype(np.uint16),
    sitk.sitkVectorInt32: np.dtype(np.int32),
    sitk.sitkVectorUInt32: np.dtype(np.uint32),
    sitk.sitkVectorInt64: np.dtype(np.int64),
    sitk.sitkVectorUInt64: np.dtype(np.uint64),
    sitk.sitkVectorFloat32: np.dtype(np.float32),
    sitk.sitkVectorFloat64: np.dtype(np.float64),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's warnings off stderr, where they would bury the sentence that says what went wrong."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def reason(error: BaseException) -> str:
    """Return the one useful line of an ITK error, without source files, addresses and file names."""
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("Exception thrown", "/", "Reason: "))]
    text = re.sub(r"^(sitk::|ITK )?ERROR: *", "", useful[-1] if useful else "no reason given")
    text = re.sub(r"^\w+\(0x[0-9a-f]+\): *", "", text)
    text = re.sub(r"^(\[nrrd\] *)?(\w+: +)?", "", text)
    text = re.sub(r'^"?/\S+?"? is not', "it is not", text)
    return text.rstrip(". ")


def wanted_volume(channels: Sequence[str]) -> str:
    """Return what an image must be, for messages; the names of its channels matter where there are several."""
    if len(channels) < 2:
        return "one 3-D volume"
    return f"one 3-D volume of {len(channels)} channels ({', '.join(channels)})"


def check_size(path: Path, shape: Sequence[int], bytes_per_voxel: int) -> int:
    """Return the bytes that an image takes; raise InputError when there are more than LARGEST_IMAGE_BYTES."""
    wanted = math.prod(shape) * bytes_per_voxel
    if wanted > LARGEST_IMAGE_BYTES:
        raise InputError(
            f"{path} claims {' x '.join(map(str, shape))} voxels, {wanted / 2**30:.0f} GiB, and the limit is "
            f"{LARGEST_IMAGE_BYTES // 2**30} GiB; crop it or check its header"
        )
    return wanted
