"""What ITK lets pass in a MetaImage (.mha, .mhd), read on its own account before ITK is asked.

MetaIO takes a missing spacing as 1 mm, a missing origin and any word as 0, and compressed data of unstated
size as garbage; 99 axes end the process.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from algorithm import payload
from algorithm.errors import InputError
from algorithm.geometry import Geometry, difference
from algorithm.itk import check_size, wanted_volume
from algorithm.payload import Header

log = logging.getLogger(__name__)

LONGEST_HEADER_BYTES = 1 << 20
SHOWN = 80
# MetaIO keeps words in buffers of 255 bytes, and copies longer ones beyond their end; of a key that it does not know it
# takes 32,767 bytes.
LONGEST_TEXT, LONGEST_VALUE = 250, 30_000
MOST_AXES = 7
# Bytes of an element, as MetaIO has them.
TYPES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
WHOLE = re.compile(r"[1-9][0-9]{0,17}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
SPACINGS, ORIGINS = ("ElementSpacing", "ElementSize"), ("Offset", "Position", "Origin")
VECTORS = (*SPACINGS, *ORIGINS, "CenterOfRotation", "ImagePosition", "SequenceID")
# How many numbers MetaIO reads for a field.
NUMBERS = {
    **dict.fromkeys(("ID", "ParentID", "HeaderSize", "ElementMin", "ElementMax", "ElementNBits"), 1),
    **dict.fromkeys(("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"), 1),
    **dict.fromkeys(("CompressionLevel", "ElementNumberOfChannels", "CompressedDataSize"), 1),
    "Color": 4,
}
MATRICES = ("TransformMatrix", "Rotation", "Orientation")
TEXTS = {
    *(
        "ObjectType",
        "ObjectSubType",
        "Comment",
        "AcquisitionDate",
        "Name",
        "ID",
        "ParentID",
        "Color",
        "DistanceUnits",
    ),
    *(
        "AnatomicalOrientation",
        "TransformType",
        "BinaryData",
        "BinaryDataByteOrderMSB",
        "ElementByteOrderMSB",
    ),
    *("CompressedData", "CompressedDataSize", "CompressionLevel", "HeaderSize", "Modality"),
    *(
        "ElementMin",
        "ElementMax",
        "ElementNumberOfChannels",
        "ElementNBits",
        "ElementType",
        "ElementDataFile",
    ),
    *("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "NDims"),
}
FLAGS = {"BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData"}
KNOWN = {*TEXTS, *VECTORS, *MATRICES, *NUMBERS, "DimSize"}
MAY_BE_EMPTY = {"Comment", "Name", "ObjectSubType", "AcquisitionDate", "Modality", "AnatomicalOrientation"}


def check_header(path: Path, channels: Sequence[str] = ()) -> Header:
    """Return the header of a .mha or .mhd.

    Several `channels` are volumes along a fourth axis, or the numbers of a voxel (ElementNumberOfChannels).
    Logs a warning when the file does not say how it is oriented. Raises InputError when it is no MetaImage, has other
    channels, states no spacing, or keeps its voxels in several files, outside its own folder, or in a file not there.
    """
    fields, end = _fields(path)
    if not fields.keys() & {"ElementSpacing", "ElementSize"}:
        raise InputError(f"{path} states no spacing (ElementSpacing is missing from its header); add it")
    _check_numbers(path, fields, channels)
    if not fields.keys() & {"Offset", "Position", "Origin"}:
        raise InputError(f"{path} states no origin (Offset is missing from its header); add it")
    if not fields.keys() & {"TransformMatrix", "Rotation", "Orientation"}:
        log.warning(
            "%s does not say how it is oriented (no TransformMatrix); taken as x left, y back, z up", path
        )
    beside = _voxel_file(path, fields)
    skipped = fields.get("HeaderSize", "0")
    allowed = "0" if beside == path or _true(fields, "CompressedData") else r"-1|[0-9]{1,9}"
    if not re.fullmatch(allowed, skipped):
        raise InputError(
            f"{path} has HeaderSize = {shown(fields, 'HeaderSize')}, which is for plain voxels in a file of their own"
        )
    if beside == path:
        return Header(fields, path, end)
    return Header(fields, beside, int(skipped))


def voxel_file(path: Path) -> Path:
    """Return the file with the voxels; InputError where the header names none that can be read."""
    return _voxel_file(path, _fields(path)[0])


def _voxel_file(path: Path, fields: dict[str, str]) -> Path:
    name = fields["ElementDataFile"]
    if not name:
        raise InputError(f"{path} has a damaged header: ElementDataFile is empty")
    return path if name in ("LOCAL", "Local", "local") else data_file_beside(path, name)


def stated_channels(path: Path) -> int:
    """Return how many volumes lie along the fourth axis, or numbers in a voxel; InputError for no number."""
    fields, _ = _fields(path)
    sides = fields.get("DimSize", "").split()
    count = sides[3] if len(sides) == 4 and sides[3] != "1" else fields.get("ElementNumberOfChannels", "1")
    if not WHOLE.fullmatch(count):
        said = (f"{key} = {shown(fields, key)}" for key in ("DimSize", "ElementNumberOfChannels"))
        raise InputError(f"{path} has a damaged header: {', '.join(said)}")
    return int(count)


def check_data(header: Header, wanted: int) -> None:
    """Raise InputError unless the `wanted` bytes of voxels are there, undamaged."""
    if _true(header.fields, "CompressedData"):
        claimed = int(header.fields["CompressedDataSize"])
        left = max(0, header.data_file.stat().st_size - header.data_start)
        if left < claimed:
            raise InputError(
                f"{header.data_file} is cut off: its header claims {claimed} bytes of compressed data, "
                f"but {left} are there; copy or download it again"
            )
        with header.data_file.open("rb") as file:
            file.seek(header.data_start)
            packed = file.read(claimed)
        payload.check_zlib(header.data_file, BytesIO(packed), wanted)
    else:
        payload.check_plain(header.data_file, max(0, header.data_start), wanted)
        if header.data_start >= 0:
            payload.check_end(header.data_file, header.data_start + wanted)


def check_grid(path: Path, header: Header, read: Geometry) -> None:
    """Raise InputError unless ITK read the grid that the header states, which it may have understood otherwise."""
    fields = header.fields
    axes = len(fields["DimSize"].split())

    def numbers_of(keys: Sequence[str]) -> list[float] | None:
        found = next((fields[key] for key in keys if key in fields), None)
        return None if found is None else [float(part) for part in found.split()]

    (nx, ny, nz), (sx, sy, sz), (x, y, z) = (
        (numbers_of(keys) or [])[:3] for keys in (("DimSize",), SPACINGS, ORIGINS)
    )
    matrix = np.array(numbers_of(MATRICES) or np.eye(axes)).reshape(axes, axes)[:3, :3]
    try:
        # A row of the file is the direction of an index axis, a column of ours is.
        stated = Geometry(
            (int(nz), int(ny), int(nx)), (sz, sy, sx), (x, y, z), tuple(matrix.T.ravel().tolist())
        )
    except ValueError as error:
        raise InputError(f"{path} has no usable grid: {error}") from None
    different = difference(read, stated, origin_mm=1e-6, spacing_relative=1e-9, direction=1e-9)
    if different:
        raise InputError(f"{path} has a header that is read in two ways: {different}; write it anew")


def data_file_beside(path: Path, name: str) -> Path:
    """Return the file that a header names for its voxels; InputError unless it is one, in the same folder."""
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(
            f"{path} keeps its voxels in several files ({name[:SHOWN]!r}); write it as one .mha or .nii.gz"
        )
    if Path(name).name != name.removeprefix("./"):
        raise InputError(
            f"{path} keeps its voxels outside its own folder ({name[:SHOWN]!r}); put the two files side by side"
        )
    found = path.parent / name
    if not found.is_file():
        raise InputError(
            f"{path} keeps its voxels in {name!r}, which is not there; put the two files side by side"
        )
    return found


def _check_numbers(path: Path, fields: dict[str, str], channels: Sequence[str]) -> None:
    """Raise InputError unless size, type and grid are sound."""
    sides = fields.get("DimSize", "").split()
    axes = len(sides)
    if (
        axes > MOST_AXES
        or fields.get("NDims", "").lstrip("0") != str(axes)
        or not all(map(WHOLE.fullmatch, sides))
    ):
        raise InputError(
            f"{path} has a damaged header: NDims = {shown(fields, 'NDims')}, DimSize = {shown(fields, 'DimSize')}"
        )
    size = tuple(map(int, sides))
    wanted, numbers = max(1, len(channels)), fields.get("ElementNumberOfChannels", "1")
    volumes = size[3] if axes == 4 else 1
    if axes < 3 or axes > 4 or volumes not in (1, wanted):
        raise InputError(f"{path} must be {wanted_volume(channels)}, but its size is {size} (x, y, z, …)")
    if numbers != str(wanted // volumes):
        if wanted == 1 or volumes > 1:
            raise InputError(f"{path} must have one number per voxel, but holds vectors of {numbers:.40}")
        raise InputError(
            f"{path} must be {wanted_volume(channels)}, but its size is {size} (x, y, z) with {numbers:.40} numbers "
            "a voxel"
        )
    for key in FLAGS & fields.keys():
        if fields[key].lower() not in ("true", "false", "1", "0"):  # MetaIO looks at the first letter alone
            raise InputError(f"{path} has a damaged header: {key} = {shown(fields, key)}")
    if "BinaryData" in fields and not _true(fields, "BinaryData"):
        raise InputError(
            f"{path} keeps its voxels as text, which is not supported; write them as binary data"
        )
    packed = fields.get("CompressedDataSize", "")
    if _true(fields, "CompressedData") != bool(WHOLE.fullmatch(packed)):
        said = (f"{key} = {shown(fields, key)}" for key in ("CompressedData", "CompressedDataSize"))
        raise InputError(f"{path} has a damaged header: {', '.join(said)}")
    if fields.get("ElementType") not in TYPES:
        raise InputError(f"{path} has a damaged header: ElementType = {shown(fields, 'ElementType')}")
    check_size(path, size, TYPES[fields["ElementType"]] * int(numbers))
    counts = {**dict.fromkeys(MATRICES, axes * axes), **dict.fromkeys(VECTORS, axes), **NUMBERS}
    for key in counts.keys() & fields.keys():
        # Of fewer MetaIO takes the rest from the next line.
        if not finite_numbers(fields[key].split(), counts[key]):
            raise InputError(f"{path} has a damaged header: {key} = {shown(fields, key)}")
    if any(not fields[key] for key in KNOWN & fields.keys() if key not in MAY_BE_EMPTY):
        empty = next(key for key in KNOWN & fields.keys() if not fields[key] and key not in MAY_BE_EMPTY)
        raise InputError(f"{path} has a damaged header: {empty} is empty")
    _check_meaning(path, fields)


def _check_meaning(path: Path, fields: dict[str, str]) -> None:
    """Raise InputError where two fields contradict each other, or say what ITK does not follow."""
    for group in (SPACINGS, ORIGINS, MATRICES, ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")):
        named = [key for key in group if key in fields]
        if len({tuple(fields[key].lower().split()) for key in named}) > 1:
            raise InputError(f"{path} has a header that contradicts itself: {' and '.join(named)} differ")
    if fields.get("DistanceUnits", "mm") not in ("mm", "?"):
        raise InputError(f"{path} states its grid in {shown(fields, 'DistanceUnits')}; it must be in mm")
    identity = {"ElementToIntensityFunctionSlope": 1.0, "ElementToIntensityFunctionOffset": 0.0}
    for key, value in identity.items():
        if float(fields.get(key, value)) != value:
            raise InputError(
                f"{path} has {key} = {shown(fields, key)}, which is not applied when it is read; store HU themselves"
            )


def shown(fields: dict[str, str], key: str) -> str:
    """Return what a header says of a field, cut short for a message."""
    value = str(fields.get(key) or None)
    return value if len(value) <= SHOWN else f"{value[:SHOWN]}…"


def _true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "").lower() in ("true", "1")


def finite_numbers(parts: list[str], wanted: int) -> bool:
    """Tell whether these words are so many finite numbers, as C reads them."""
    return len(parts) == wanted and all(
        NUMBER.fullmatch(part) and math.isfinite(float(part)) for part in parts
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields that MetaIO knows, and the byte behind ElementDataFile; InputError for what it misreads."""
    with path.open("rb") as file:
        raw = file.read(LONGEST_HEADER_BYTES)
    fields: dict[str, str] = {}
    at = 0
    while (end := raw.find(b"\n", at)) >= 0:
        line = raw[at:end].removesuffix(b"\r").decode("utf-8", "backslashreplace")
        key, separator, value = (part.strip(" \t") for part in line.partition("="))
        at = end + 1
        if not separator and not key:
            continue
        if not separator:
            break
        # MetaIO ends a key at a colon, too, and would see another field than is checked here.
        if ":" in key or not (key + value).replace("\t", " ").isprintable():
            raise InputError(
                f"{path} has a damaged header: {key[:SHOWN]!r} is no key, or has no printable value"
            )
        if len(value) > (LONGEST_TEXT if key in TEXTS else LONGEST_VALUE):
            raise InputError(f"{path} has a damaged header: {key[:SHOWN]} is too long")
        if key in fields and key in KNOWN:
            raise InputError(f"{path} has a damaged header: {key} stands there twice")
        fields[key] = value
        if key == "ElementDataFile":
            return fields, at
    raise InputError(f"{path} is not a MetaImage, or its header is damaged")
