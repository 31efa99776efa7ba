"""A folder of DICOM slices as one volume, on a grid that was checked slice by slice.

GDCM decodes the pixels. The grid comes from each slice's own position, orientation and pixel spacing (DICOM
PS3.3, C.7.6.2), because a reader that takes it from the first two slices turns a sheared stack (tilted
gantry) or one with a slice missing into a regular volume without a word.
"""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.dicom_elements import Stated, check_elements, damaged
from algorithm.errors import InputError
from algorithm.geometry import ORTHONORMAL_TOLERANCE, Geometry, numbers
from algorithm.itk import ONE_AT_A_TIME, PIXEL_TYPES, check_size, quiet, reason
from algorithm.memory import check_memory

log = logging.getLogger(__name__)

# How far a slice may lie from its place on the regular grid: along the normal a tenth of the distance between
# slices and what positions rounded to 0.1 mm make, and half a pixel within its plane.
STEP_TOLERANCE = 0.1
ROUNDED_MM = 0.1
SHIFT_TOLERANCE = 0.5
SAME_POSITION_MM = 0.01

# Noise keeps a scan of a patient from being compressed to less than a twentieth; slices of nothing but air may be.
LARGEST_RATIO = 500
ANY_SERIES_BYTES = 64 << 20

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
NOT_AN_IMAGE = (
    "1.2.840.10008.1.3.10",  # DICOMDIR
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.66",  # raw data, registrations, segmentations
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.481.",  # radiotherapy structures, plans, doses
)


@dataclass(frozen=True)
class Slice:
    """What one DICOM image says about itself; an array is empty where its tag is missing."""

    path: Path
    series: str
    size_xy: tuple[int, int]
    frames: int
    dtype: np.dtype[Any]  # object where a pixel is not one number
    position: NDArray[np.float64]  # (3,): centre of the first pixel, LPS mm
    axes: NDArray[np.float64]  # (6,): unit vectors along a row and down a column
    spacing_yx_mm: NDArray[np.float64]  # (2,)
    thickness_mm: NDArray[np.float64]  # (1,): SpacingBetweenSlices, or else SliceThickness
    tilt_deg: float
    description: str
    no_hu: str  # why ITK would not give HU, "" where it does


def read_series(folder: Path) -> sitk.Image:
    """Read the one DICOM series in a folder and its subfolders, with each slice's own rescale applied.

    Other files, and DICOM objects that are no slices (reports, structures, screen captures), are left aside.
    Raises InputError in one sentence when there is no series or more than one, a slice cannot be read, or the
    slices are no regular grid: sheared by a tilted gantry, unevenly spaced, missing, doubled, or of unequal
    size or orientation; multi-frame objects are refused. A single slice needs SpacingBetweenSlices or SliceThickness.
    """
    slices, geometry = series_slices(folder)
    dtype = np.result_type(*(one.dtype for one in slices))
    kind = next(kind for kind, known in PIXEL_TYPES.items() if known == dtype)
    check_memory(folder, math.prod(geometry.shape_zyx) * dtype.itemsize)
    with quiet():
        _pixels(slices[0])  # before anything is reserved for all
        image = _empty(folder, geometry, kind)
        for number, one in enumerate(slices):  # a volume beside the image would double what a deep scan takes
            image[:, :, number : number + 1] = sitk.GetImageFromArray(_pixels(one)[np.newaxis].astype(dtype))
    geometry.set_on(image)
    return image


def _empty(folder: Path, geometry: Geometry, kind: int) -> sitk.Image:
    try:
        return sitk.Image(geometry.shape_zyx[::-1], kind)
    except (RuntimeError, MemoryError):
        raise MemoryError(f"{folder}: memory ran out") from None


def series_geometry(folder: Path) -> Geometry:
    """Return the grid of the one DICOM series in a folder from its headers; errors as `read_series`."""
    return series_slices(folder)[1]


def series_slices(folder: Path) -> tuple[list[Slice], Geometry]:
    """Return the slices of the one series in a folder and their common grid; errors as `read_series`.

    They come in the order of the planes of `read_series`: along the normal of their plane.
    """
    with quiet():
        found = [one for path in _files(folder) if (one := _header(path))]
    slices = _one_series(folder, found)
    _check_alike(folder, slices)
    first = slices[0]
    _check_plane(folder, first)
    along_row, down_column = _unit_axes(first)
    normal = np.cross(along_row, down_column)
    heights = np.array([normal @ one.position for one in slices])
    order = np.argsort(heights, kind="stable")
    slices, heights = [slices[i] for i in order], heights[order]
    positions = np.array([one.position for one in slices])
    _check_doubles(folder, slices, heights)
    _check_shift(folder, slices, positions, normal)
    if len(slices) > 1:
        _check_steps(folder, slices, heights)
    if abs(first.tilt_deg) > 0.01:
        log.warning(
            "%s: GantryDetectorTilt is %g°, but the slices lie straight above each other; taken as corrected",
            folder,
            first.tilt_deg,
        )
    row, column = first.spacing_yx_mm.tolist()
    width, height = first.size_xy
    x, y, z = positions[0].tolist()
    step = (heights[-1] - heights[0]) / (len(slices) - 1) if len(slices) > 1 else _thickness(folder, first)
    shape = len(slices), height, width
    wanted = check_size(folder, shape, max(one.dtype.itemsize for one in slices))
    there = sum(one.path.stat().st_size for one in slices)
    if wanted > LARGEST_RATIO * there + ANY_SERIES_BYTES:
        raise InputError(
            f"{folder} claims {wanted >> 20} MiB of pixels in files of {there >> 10} KiB, which no scan is compressed "
            "to; export it anew"
        )
    direction = np.column_stack([along_row, down_column, normal])
    try:
        geometry = Geometry(shape, (float(step), row, column), (x, y, z), tuple(direction.ravel().tolist()))
    except ValueError as error:
        raise InputError(f"{folder} has no usable grid: {error}") from None
    return slices, geometry


def is_dicom(path: Path) -> bool:
    """Tell whether a file carries the DICOM preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.name.startswith(".") and path.name.upper() != "DICOMDIR" and path.is_file()
    )


def _header(path: Path) -> Slice | None:
    """Read the header of one file; None when it is no DICOM image, InputError when it is a damaged one."""
    with path.open("rb") as file:
        start = file.read(4096)
    claims = start[128:132] == b"DICM" or path.suffix.lower() in DICOM_SUFFIXES
    # Files older than the preamble begin with their first element, of group 0002 or 0008.
    if not claims and start[:2] not in (b"\x02\x00", b"\x08\x00"):
        return None
    if _storage_class(start).startswith(NOT_AN_IMAGE):
        return None
    reader = _reader(path)
    try:
        stated = check_elements(path)
        with ONE_AT_A_TIME:
            reader.ReadImageInformation()
    except (InputError, RuntimeError) as error:
        if not claims:
            return None
        raise error if isinstance(error, InputError) else damaged(path) from None
    if _tag(reader, "0008|0016").startswith(NOT_AN_IMAGE):
        return None
    size = reader.GetSize()
    if tuple(size[:2]) != stated.size_xy:
        raise damaged(
            path, f": {size[0]} x {size[1]} pixels, and it claims {stated.size_xy[0]} x {stated.size_xy[1]}"
        )
    _numbers(path, reader, "0028|1052", "RescaleIntercept", 1)
    slope = _numbers(path, reader, "0028|1053", "RescaleSlope", 1)
    bits = [_tag(reader, key) or "0" for key in ("0028|0100", "0028|0101", "0028|0102")]
    if not (all(map(str.isdecimal, bits)) and 0 < int(bits[1]) <= int(bits[2]) + 1 <= int(bits[0])):
        raise InputError(
            f"{path} has a damaged header: {bits[1]} bits stored of {bits[0]} allocated, the highest of them {bits[2]}"
        )
    between = _numbers(path, reader, "0018|0088", "SpacingBetweenSlices", 1)
    thickness = _numbers(path, reader, "0018|0050", "SliceThickness", 1)
    tilt = _tag(reader, "0018|1120")
    number, text = _tag(reader, "0020|0011"), _tag(reader, "0008|103e")
    return Slice(
        path=path,
        series=_tag(reader, "0020|000e"),
        size_xy=(size[0], size[1]),
        frames=math.prod(size[2:]),
        dtype=PIXEL_TYPES.get(reader.GetPixelID(), np.dtype(object)),
        position=_numbers(path, reader, "0020|0032", "ImagePositionPatient", 3),
        axes=_numbers(path, reader, "0020|0037", "ImageOrientationPatient", 6),
        spacing_yx_mm=_numbers(path, reader, "0028|0030", "PixelSpacing", 2),
        thickness_mm=between if between.size else thickness,
        tilt_deg=_tilt(tilt),
        no_hu=_no_hu(reader, slope, stated),
        description=" ".join(word for word in (f"number {number}" if number else "", text) if word),
    )


def _no_hu(reader: sitk.ImageFileReader, slope: NDArray[np.float64], stated: Stated) -> str:
    """Return what keeps ITK from giving HU: it inverts MONOCHROME1, and knows no tables and no slope of 0."""
    interpretation = _tag(reader, "0028|0004")
    if interpretation != "MONOCHROME2":
        return f"its PhotometricInterpretation is {interpretation or 'missing'}, and must be MONOCHROME2"
    if stated.modality_lut:
        return "a table (ModalityLUTSequence) turns its pixels into HU, which is not supported"
    return "its RescaleSlope is 0" if slope.size and slope[0] == 0 else ""


def _storage_class(start: bytes) -> str:
    """Return MediaStorageSOPClassUID (0002,0002) from the start of a file, "" when it is not there."""
    at = 132
    while at + 12 <= len(start) and start[at : at + 2] == b"\x02\x00":
        element, kind = struct.unpack_from("<H2s", start, at + 2)
        long = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        length, value = (
            (struct.unpack_from("<I", start, at + 8)[0], at + 12)
            if long
            else (struct.unpack_from("<H", start, at + 6)[0], at + 8)
        )
        if element == 2:
            return start[value : value + length].decode("ascii", "replace").strip("\0 ")
        at = value + length
    return ""


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _tag(reader: sitk.ImageFileReader, key: str) -> str:
    return str(reader.GetMetaData(key)).strip("\0 ") if reader.HasMetaDataKey(key) else ""


def _numbers(
    path: Path, reader: sitk.ImageFileReader, key: str, name: str, count: int
) -> NDArray[np.float64]:
    text = _tag(reader, key)
    if not text:
        return np.array([])
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        values = np.array([])
    if len(values) != count or not np.isfinite(values).all():
        raise InputError(f"{path} has a damaged {name}: {text!r} instead of {count} numbers")
    return values


def _tilt(text: str) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _pixels(one: Slice) -> NDArray[Any]:
    reader = _reader(one.path)
    try:
        with ONE_AT_A_TIME:
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{one.path} has pixels that cannot be decoded: {reason(error)}") from None
    pixels: NDArray[Any] = sitk.GetArrayFromImage(image)
    return pixels.reshape(one.size_xy[::-1])


def _one_series(folder: Path, found: list[Slice]) -> list[Slice]:
    series: dict[str, list[Slice]] = {}
    for one in found:
        series.setdefault(one.series, []).append(one)
    # Screen captures and dose sheets travel with scans; a series in which no image has a place is one of
    # them.
    placed = {uid: members for uid, members in series.items() if any(m.position.size for m in members)}
    if not placed:
        what = f"{len(found)} DICOM images, but none states its position" if found else "no image"
        raise InputError(
            f"{folder} holds {what}; it must hold one DICOM series (or name an image file: .nii.gz, "
            ".mha, .nrrd)"
        )
    for uid in series.keys() - placed.keys():
        log.info("%s: left aside %d images without a position", folder, len(series[uid]))
    if len(placed) > 1:
        listed = "; ".join(
            f"{one[0].description or 'without a name'}: {len(one)} slices, first {_name(folder, one[0])}"
            for one in sorted(placed.values(), key=len, reverse=True)
        )
        raise InputError(
            f"{folder} holds {len(placed)} DICOM series and must hold one ({listed}); "
            "put the one to segment in a folder of its own"
        )
    return next(iter(placed.values()))


def _check_alike(folder: Path, slices: list[Slice]) -> None:
    """Raise InputError unless every slice has a place, and all have one size, pixel spacing, orientation."""
    for one in slices:
        if one.frames != 1:
            raise InputError(
                f"{one.path} is a multi-frame DICOM object ({one.frames} frames), which is not supported; "
                "convert it to NIfTI first, with dcm2niix for example"
            )
        if one.dtype == object:
            raise InputError(f"{one.path} must have one number per pixel, but is a colour image")
        if one.no_hu:
            raise InputError(f"{one.path} cannot be read as HU: {one.no_hu}; export it anew")
        for name, value in (
            ("ImagePositionPatient", one.position),
            ("ImageOrientationPatient", one.axes),
            ("PixelSpacing", one.spacing_yx_mm),
        ):
            if not value.size:
                raise InputError(
                    f"{one.path} does not state its {name}, so the slice has no place in the patient"
                )
    first = slices[0]
    for one in slices[1:]:
        clause = None
        if one.size_xy != first.size_xy:
            clause = f"size {one.size_xy} against {first.size_xy} pixels (x, y)"
        elif not np.allclose(one.axes, first.axes, rtol=0, atol=ORTHONORMAL_TOLERANCE):
            clause = f"orientation {numbers(one.axes.tolist())} against {numbers(first.axes.tolist())}"
        elif not np.allclose(one.spacing_yx_mm, first.spacing_yx_mm, rtol=1e-4, atol=0):
            spacings = numbers(one.spacing_yx_mm.tolist()), numbers(first.spacing_yx_mm.tolist())
            clause = f"pixel spacing {spacings[0]} against {spacings[1]} mm (y, x)"
        if clause:
            raise InputError(
                f"{folder} holds slices that are not of one volume: {_name(folder, one)} and "
                f"{_name(folder, first)} "
                f"differ in {clause}; leave localisers and other reconstructions out"
            )


def _check_plane(folder: Path, one: Slice) -> None:
    """Refuse a slice that is no grid by itself, before distances between slices are taken along its axes."""
    axes = one.axes.reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > ORTHONORMAL_TOLERANCE:
        raise InputError(
            f"{folder} has no usable grid: ImageOrientationPatient must be two perpendicular unit vectors, "
            f"got {numbers(one.axes.tolist())} in {_name(folder, one)}"
        )
    if not (one.spacing_yx_mm > 0).all():
        raise InputError(
            f"{folder} has no usable grid: PixelSpacing must be > 0, "
            f"got {numbers(one.spacing_yx_mm.tolist())} mm in {_name(folder, one)}"
        )


def _unit_axes(one: Slice) -> NDArray[np.float64]:
    """Return the perpendicular unit vectors nearest to those of a slice, which were printed with few digits."""
    left, _, right = np.linalg.svd(one.axes.reshape(2, 3), full_matrices=False)
    axes: NDArray[np.float64] = left @ right
    return axes


def _thickness(folder: Path, only: Slice) -> float:
    """Return how thick the only slice of a series is, in mm."""
    if not (only.thickness_mm.size and only.thickness_mm[0] > 0):
        raise InputError(
            f"{folder} holds one DICOM slice, {_name(folder, only)}, that states neither SpacingBetweenSlices nor "
            "SliceThickness, so its volume is unknown; give the folder of the whole series"
        )
    thickness = float(only.thickness_mm[0])
    log.warning("%s holds one slice only, of %g mm; is the series complete?", folder, thickness)
    return thickness


def _check_doubles(folder: Path, slices: list[Slice], heights: NDArray[np.float64]) -> None:
    doubled = np.flatnonzero(np.diff(heights) < SAME_POSITION_MM)
    if len(doubled):
        one, other = slices[doubled[0]], slices[doubled[0] + 1]
        raise InputError(
            f"{folder} holds {len(doubled)} slices at a position that another has, {_name(folder, one)} and "
            f"{_name(folder, other)} first; leave one phase, reconstruction or copy of the scan in it"
        )


def _check_shift(
    folder: Path, slices: list[Slice], positions: NDArray[np.float64], normal: NDArray[np.float64]
) -> None:
    """Raise InputError where slices do not lie straight above the first one, within half a pixel."""
    steps = positions - positions[0]
    shifts = steps - np.outer(steps @ normal, normal)
    pixel = min(slices[0].spacing_yx_mm)
    worst = int(np.argmax(np.linalg.norm(shifts, axis=1)))
    if np.linalg.norm(shifts[worst]) <= SHIFT_TOLERANCE * pixel:
        return
    slope = shifts.T @ (steps @ normal) / np.sum((steps @ normal) ** 2)
    if np.linalg.norm(shifts - np.outer(steps @ normal, slope), axis=1).max() <= SHIFT_TOLERANCE * pixel:
        angle = math.degrees(math.atan(np.linalg.norm(slope)))
        raise InputError(
            f"{folder} holds a sheared scan: its slices are shifted against each other by {angle:.1f}°, "
            "as a tilted "
            "gantry makes them, and form no regular grid; resample it first with a converter that "
            "corrects the tilt, "
            "such as dcm2niix"
        )
    raise InputError(
        f"{folder} holds slices that are not of one volume: {_name(folder, slices[worst])} lies "
        f"{np.linalg.norm(shifts[worst]):.1f} mm beside {_name(folder, slices[0])}; leave other scans out"
    )


def _check_steps(folder: Path, slices: list[Slice], heights: NDArray[np.float64]) -> None:
    """Raise InputError where slices are not evenly spaced."""
    even = np.linspace(heights[0], heights[-1], len(heights))
    steps = np.diff(heights)
    mean = (heights[-1] - heights[0]) / len(steps)
    if np.abs(heights - even).max() <= STEP_TOLERANCE * mean + ROUNDED_MM:
        return
    usual = float(np.median(steps))
    worst = int(np.argmax(np.abs(steps - usual)))
    raise InputError(
        f"{folder} holds slices that are not evenly spaced: {_name(folder, slices[worst])} and "
        f"{_name(folder, slices[worst + 1])} are {steps[worst]:.4g} mm apart where {usual:.4g} mm is usual; "
        "a slice is missing, or the scan must be resampled to even spacing first"
    )


def _name(folder: Path, one: Slice) -> str:
    return str(one.path.relative_to(folder))
