"""What ITK lets pass in a MetaImage (.mha, .mhd): no spacing, data elsewhere, damaged compressed data."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

from algorithm import payload
from algorithm.errors import InputError

log = logging.getLogger(__name__)

LONGEST_HEADER_BYTES = 1 << 20
# MetaIO reads a number that is none as 0 and goes on.
NUMBERS = {"ElementSpacing", "ElementSize", "Offset", "Position", "Origin"}
NUMBERS |= {"TransformMatrix", "Rotation", "Orientation"}


@dataclass(frozen=True)
class Header:
    """The fields of a MetaImage header by name, the file with the voxels, and where they begin in it."""

    fields: dict[str, str]
    data_file: Path
    data_start: int


def check_header(path: Path) -> Header:
    """Return the header of a .mha or .mhd.

    Logs a warning when the file does not say how it is oriented. Raises InputError when it is no MetaImage,
    states no spacing, or keeps its voxels in several files, outside its own folder, or in a file not there.
    """
    fields, end = _fields(path)
    if not fields.keys() & {"ElementSpacing", "ElementSize"}:
        raise InputError(f"{path} states no spacing (ElementSpacing is missing from its header); add it")
    for key in fields.keys() & NUMBERS:
        _check_numbers(path, key, fields[key])
    if not fields.keys() & {"TransformMatrix", "Rotation", "Orientation"}:
        log.warning(
            "%s does not say how it is oriented (no TransformMatrix); taken as x left, y back, z up", path
        )
    name = fields["ElementDataFile"]
    if name.lower() == "local":
        return Header(fields, path, end)
    return Header(fields, data_file_beside(path, name), 0)


def check_data(header: Header, wanted: int) -> None:
    """Raise InputError unless the `wanted` bytes of voxels are there, undamaged."""
    if header.fields.get("CompressedData", "").lower() in ("true", "1"):
        with header.data_file.open("rb") as file:
            file.seek(header.data_start)
            payload.check_zlib(header.data_file, file, wanted)
    else:
        payload.check_plain(header.data_file, header.data_start, wanted)


def data_file_beside(path: Path, name: str) -> Path:
    """Return the file that a header names for its voxels; InputError unless it is one, in the same folder."""
    if name.upper().startswith("LIST") or "%" in name:
        raise InputError(
            f"{path} keeps its voxels in several files ({name!r}); write it as one .mha or .nii.gz"
        )
    folder = os.path.normpath(path.absolute().parent)
    found = Path(os.path.normpath(os.path.join(folder, name)))  # noqa: PTH118 # resolves ".." without following links
    if Path(folder) not in found.parents:
        raise InputError(
            f"{path} keeps its voxels outside its own folder ({name!r}); put the two files side by side"
        )
    if not found.is_file():
        raise InputError(
            f"{path} keeps its voxels in {name!r}, which is not there; put the two files side by side"
        )
    return found


def _check_numbers(path: Path, key: str, value: str) -> None:
    try:
        finite = all(math.isfinite(float(part)) for part in value.split())
    except ValueError:
        finite = False
    if not finite:
        raise InputError(f"{path} has a damaged header: {key} = {value}")


def _fields(path: Path) -> tuple[dict[str, str], int]:
    with path.open("rb") as file:
        raw = file.read(LONGEST_HEADER_BYTES)
    fields: dict[str, str] = {}
    at = 0
    while (end := raw.find(b"\n", at)) >= 0:
        key, separator, value = raw[at:end].decode("latin-1").partition("=")
        at = end + 1
        if not separator:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, at
    raise InputError(f"{path} is not a MetaImage, or its header is damaged")
