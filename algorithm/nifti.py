"""The header of a NIfTI file, read on its own account before ITK is asked.

ITK takes a spacing of 0 or NaN as 1 mm, a negative one as it is, an Analyze file as an identity direction,
and the scale of the sform as a mere warning. Here they are refused. Fields are those of nifti1.h
(NIfTI-1.1, 2007).
"""

from __future__ import annotations

import gzip
import logging
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithm import payload
from algorithm.errors import InputError
from algorithm.geometry import ORTHONORMAL_TOLERANCE, Geometry, canonical_orientation, difference, numbers
from algorithm.intensities import Planes
from algorithm.itk import check_size, wanted_volume

log = logging.getLogger(__name__)

HEADER_BYTES = 348
LARGEST_START = 64 << 20  # behind extensions, which are reserved before they are read
# The sform and the qform differ by up to 7e-4 from the rounding of a quaternion near 180 degrees alone.
FORM_DIRECTION = 1e-3
FORM_ORIGIN_VOXELS = 0.1
# The sform's columns must be as long as the spacing, or the two disagree on the size of a voxel.
SCALE_TOLERANCE = 1e-3
QUATERNION_TOLERANCE = 1e-4
# A sform whose shear moves no voxel further is taken as regular, as a DICOM series is.
SHEARED_VOXELS = 0.5
WRONG_UNITS = {1: "metres", 3: "micrometres"}
TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
OTHER_TYPES = {1: "bits", 32: "complex numbers", 128: "colours", 1792: "complex numbers", 2304: "colours"}


@dataclass(frozen=True)
class Header:
    """The fields of a NIfTI-1 header; `sform` and `qform` are affines (3, 4) from index xyz to RAS."""

    dim: tuple[int, ...]
    pixdim: tuple[float, ...]
    dtype: np.dtype[Any]
    data_start: float
    slope: float
    sform_code: int
    qform_code: int
    sform: NDArray[np.float64]
    quaternion: tuple[float, float, float]
    q_offset: tuple[float, float, float]
    unit: int

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y, z, and what follows: channels where there are several."""
        return self.dim[1 : self.dim[0] + 1]

    @property
    def qform(self) -> NDArray[np.float64]:
        """The affine of the quaternion, as nifti1.h (method 2) defines it."""
        b, c, d = self.quaternion
        a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        x, y, z = self.pixdim[1:4]
        scale = (x, y, -z if self.pixdim[0] < 0 else z)
        return np.column_stack([rotation * scale, self.q_offset])


def check_header(path: Path, channels: Sequence[str] = ()) -> Header:
    """Return the header of a .nii or .nii.gz after looking for everything that ITK would let pass.

    Several `channels` are volumes along the fourth axis, as in the MR tasks of the Decathlon. Logs a
    warning when the file does not say how it is oriented. Raises InputError in one sentence when the header is
    damaged, states no grid or has other channels.
    """
    header = _parse(path)
    rank = header.dim[0]
    if not 1 <= rank <= 7:
        raise InputError(f"{path} has a damaged header: its number of axes is {rank}")
    if min(header.size) < 1:
        raise InputError(f"{path} has a damaged header: its size is {header.size} (x, y, z)")
    volumes = header.size[3:4] or (1,)
    if rank < 3 or volumes != (max(1, len(channels)),) or any(n != 1 for n in header.size[4:]):
        raise InputError(
            f"{path} must be {wanted_volume(channels)}, but its size is {header.size} (x, y, z, …)"
        )
    if not HEADER_BYTES <= header.data_start <= LARGEST_START:
        raise InputError(f"{path} has a damaged header: its voxels begin at byte {header.data_start}")
    spacing = header.pixdim[1:4]
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise InputError(
            f"{path} has no usable spacing: it must be > 0 and is {numbers(spacing)} mm (x, y, z)"
        )
    if header.unit in WRONG_UNITS:
        raise InputError(
            f"{path} states its grid in {WRONG_UNITS[header.unit]}; it must be in mm (xyzt_units 2)"
        )
    b, c, d = header.quaternion
    if header.qform_code > 0 and b * b + c * c + d * d > 1 + QUATERNION_TOLERANCE:
        raise InputError(f"{path} has a damaged qform or sform: its quaternion is no rotation")
    _check_sform(path, header)
    check_size(path, header.size, header.dtype.itemsize)
    return header


def stated_channels(path: Path) -> int:
    """Return how many volumes lie along the fourth axis; InputError where the header is damaged."""
    rank, *size = _parse(path).dim
    return max(1, size[3]) if rank > 3 else 1


def check_grid(path: Path, header: Header, read: Geometry) -> None:
    """Compare the grid that ITK read with the sform and the qform of the header.

    Logs a warning when the two forms differ. Raises InputError when they turn the volume to different sides
    of the patient, or ITK's grid is neither of them.
    """
    forms = {"sform": (header.sform_code, header.sform), "qform": (header.qform_code, header.qform)}
    try:
        stated = {name: _geometry(header, affine) for name, (code, affine) in forms.items() if code > 0}
    except ValueError as error:
        raise InputError(f"{path} has a damaged qform or sform: {error}") from None
    differences = {
        name: difference(
            read,
            grid,
            origin_mm=FORM_ORIGIN_VOXELS * min(read.spacing_zyx_mm),
            spacing_relative=SCALE_TOLERANCE,
            direction=FORM_DIRECTION,
        )
        for name, grid in stated.items()
    }
    apart = {name: clause for name, clause in differences.items() if clause}
    if not apart:
        return
    if len({canonical_orientation(grid) for grid in (read, *stated.values())}) > 1:
        raise InputError(
            f"{path} states two orientations that contradict each other: its sform and its qform turn "
            "it to different "
            "sides of the patient; remove the wrong one"
        )
    if len(apart) == len(stated):
        raise InputError(
            f"{path} has a grid that cannot be read with certainty: {next(iter(apart.values()))}"
        )
    for name, clause in apart.items():
        log.warning("%s states two grids, and its %s is not used: %s", path, name, clause)


def check_data(path: Path, header: Header) -> None:
    """Raise InputError unless the file holds every voxel that the header claims, undamaged."""
    wanted = math.prod(header.size) * header.dtype.itemsize
    if _is_gzip(path):
        with path.open("rb") as file:
            payload.check_gzip(path, file, int(header.data_start) + wanted)
    else:
        payload.check_plain(path, int(header.data_start), wanted)
        over = path.stat().st_size - int(header.data_start) - wanted
        if over > payload.LINE_BREAK_BYTES:
            log.warning(
                "%s has %d bytes more than its header claims; does it state the right type?", path, over
            )


def not_finite(path: Path, header: Header) -> Planes:
    """Return the planes that have NaN or infinite voxels: those values, and 0 where a voxel is finite.

    They are counted from 0 through all channels, one after the other. The library that ITK reads NIfTI with turns
    them into 0, which is water, not the air they stand for.
    """
    if header.dtype.kind != "f":
        return {}
    nx, ny, *others = header.size
    sign = np.float16(-1 if header.slope < 0 else 1)
    planes = {}
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
        file.seek(int(header.data_start))
        for number in range(math.prod(others)):
            stored = np.frombuffer(file.read(nx * ny * header.dtype.itemsize), header.dtype).reshape(ny, nx)
            finite = np.isfinite(stored)
            if not finite.all():
                with np.errstate(invalid="ignore"):  # signalling NaN
                    planes[number] = np.where(finite, 0, stored).astype(np.float16) * sign
    return planes


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == payload.GZIP_MAGIC


def _parse(path: Path) -> Header:
    packed = _is_gzip(path)
    if packed != path.name.lower().endswith(".gz"):
        remedy = "rename it to .nii.gz" if packed else "rename it to .nii if it is a NIfTI, or restore it"
        raise InputError(
            f"{path} is {'' if packed else 'not '}compressed with gzip, against its name; {remedy}"
        )
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error):
        raise InputError(f"{path} has damaged compressed data; copy or download it again") from None
    for order in "<>":
        if len(raw) == HEADER_BYTES and struct.unpack_from(f"{order}i", raw)[0] == 348:
            return _fields(path, raw, order)
        if len(raw) >= 8 and struct.unpack_from(f"{order}i", raw)[0] == 540:
            raise InputError(f"{path} is a NIfTI-2 file, which cannot be read; convert it to NIfTI-1")
    raise InputError(f"{path} is not a NIfTI file, or its header is damaged")


def _fields(path: Path, raw: bytes, order: str) -> Header:
    if raw[344:348] != b"n+1\0":
        raise InputError(
            f"{path} must be a single-file NIfTI, but is marked {raw[344:347].decode('ascii', 'replace')!r} "
            "(Analyze and .hdr/.img pairs do not say which side is left); convert it to .nii.gz"
        )

    def get(form: str, at: int) -> tuple[float, ...]:
        return struct.unpack_from(order + form, raw, at)

    datatype, bits = struct.unpack_from(f"{order}2h", raw, 70)
    if datatype in OTHER_TYPES:
        raise InputError(f"{path} must have one number per voxel, but it holds {OTHER_TYPES[datatype]}")
    dtype = np.dtype(order + TYPES.get(datatype, "V0"))
    if dtype.itemsize * 8 != bits or not bits:
        raise InputError(f"{path} has a damaged header: voxels of type {datatype} cannot have {bits} bits")
    codes = struct.unpack_from(f"{order}2h", raw, 252)
    b, c, d, qx, qy, qz = get("6f", 256)
    return Header(
        dim=struct.unpack_from(f"{order}8h", raw, 40),
        pixdim=get("8f", 76),
        dtype=dtype,
        data_start=get("f", 108)[0],
        slope=get("f", 112)[0],
        qform_code=codes[0],
        sform_code=codes[1],
        sform=np.array(get("12f", 280)).reshape(3, 4),
        quaternion=(b, c, d),
        q_offset=(qx, qy, qz),
        unit=raw[123] & 7,
    )


def _check_sform(path: Path, header: Header) -> None:
    if header.sform_code <= 0:
        if header.qform_code <= 0:
            log.warning("%s does not say how it is oriented (no sform, no qform); left may be right", path)
        return
    lengths = np.linalg.norm(header.sform[:, :3], axis=0)
    if not np.allclose(lengths, header.pixdim[1:4], rtol=SCALE_TOLERANCE, atol=0):
        raise InputError(
            f"{path} states two spacings: {numbers(header.pixdim[1:4])} mm in pixdim and "
            f"{numbers(lengths.tolist())} mm in its sform (x, y, z); correct the wrong one"
        )
    axes = header.sform[:, :3] / lengths
    cosines = np.abs(axes.T @ axes - np.eye(3))
    # ITK may then take the axes of the qform without a word; over the whole volume that moves a voxel this far.
    moved_voxels = np.outer(1.0 / lengths, lengths * header.dim[1:4]) * cosines
    if cosines.max() > ORTHONORMAL_TOLERANCE or moved_voxels.max() > SHEARED_VOXELS:
        raise InputError(
            f"{path} has a sheared grid: the axes of its sform are not perpendicular, as in a scan with "
            "a tilted "
            "gantry; resample it to a regular grid first"
        )


def _geometry(header: Header, affine: NDArray[np.float64]) -> Geometry:
    x, y, z = header.pixdim[1:4]
    nx, ny, nz = header.dim[1:4]
    to_lps = np.array([[-1.0], [-1.0], [1.0]])
    direction = to_lps * affine[:, :3] / np.linalg.norm(affine[:, :3], axis=0)
    ox, oy, oz = (to_lps[:, 0] * affine[:, 3]).tolist()
    return Geometry((nz, ny, nx), (z, y, x), (ox, oy, oz), tuple(direction.ravel().tolist()))
