"""What ITK lets pass in an NRRD (.nrrd, .nhdr): no spacing, no named space, data elsewhere."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from algorithm import payload
from algorithm.errors import InputError
from algorithm.itk import check_size
from algorithm.metaimage import LONGEST_HEADER_BYTES, SHOWN, WHOLE, data_file_beside, finite_numbers, shown
from algorithm.payload import Header

log = logging.getLogger(__name__)

# Of teem.sourceforge.net/nrrd/format.html. Teem trusts what follows a known name: digits without end have ended it.
NAMES = (
    "content|number|type|block size|dimension|space|space dimension|sizes|spacings|thicknesses|axis mins|axis maxs|"
    "space directions|centers|centerings|kinds|labels|units|min|max|old min|old max|data file|endian|encoding|"
    "line skip|byte skip|sample units|space units|space origin|measurement frame"
)
# teem also takes a name without its blank.
FIELDS = {spelt: name for name in NAMES.split("|") for spelt in (name, name.replace(" ", ""))}
LONGEST_VALUE = 500
MILLIMETRES = ("", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "???")
ENCODINGS = ("raw", "gzip", "gz")
ANATOMICAL_SPACES = (
    "left-posterior-superior",
    "right-anterior-superior",
    "left-anterior-superior",
    "lps",
    "ras",
    "las",
)


def check_header(path: Path) -> Header:
    """Return the header of a .nrrd or .nhdr with its names in lower case (teem.sourceforge.net/nrrd/format.html).

    Logs a warning when the file does not say how it is oriented. Raises InputError when it is no NRRD, states
    no spacing, or keeps its voxels in several files, outside its own folder, or in a file not there.
    """
    fields, end = _header(path)
    if not fields.keys() & {"space directions", "spacings"}:
        raise InputError(f"{path} states no spacing ('space directions' is missing from its header); add it")
    _check_grid(path, fields)
    _check_place(path, fields)
    if fields.get("space", "").lower() not in ANATOMICAL_SPACES:
        log.warning(
            "%s does not say how it is oriented (no anatomical space); taken as x left, y back, z up", path
        )
    beside = _voxel_file(path, fields)
    return Header(fields, path, end) if beside == path else Header(fields, beside, 0)


def voxel_file(path: Path) -> Path:
    """Return the file with the voxels; InputError where the header names none that can be read."""
    return _voxel_file(path, _header(path)[0])


def _voxel_file(path: Path, fields: dict[str, str]) -> Path:
    name = fields.get("data file", "")
    if name != name.strip():
        raise InputError(
            f"{path} has a damaged header: the name of its data file, {name[:SHOWN]!r}, ends in a blank"
        )
    return data_file_beside(path, name) if name else path


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields, and the byte behind the blank line that ends them."""
    with path.open("rb") as file:
        raw = file.read(LONGEST_HEADER_BYTES)
    if not raw.startswith(b"NRRD000"):
        raise InputError(f"{path} is not an NRRD, or its header is damaged")
    blank = re.search(rb"\r?\n\r?\n", raw)
    end = blank.end() if blank else len(raw)
    return _fields(path, raw[:end]), end


def _fields(path: Path, header: bytes) -> dict[str, str]:
    """Return the fields by their names in lower case; InputError for what is no field, too long, or there twice."""
    fields: dict[str, str] = {}
    for raw in header.split(b"\n")[1:]:  # not at other characters, which teem leaves in the line
        line = raw.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        key, colon, value = line.partition(": ")
        if not line or line.startswith("#") or ":=" in key:  # a comment, or a pair that is of no field
            continue
        name = FIELDS.get(key.lower())
        too_long = len(value) > LONGEST_VALUE and name != "content"
        if not (colon and name and line.replace("\t", " ").isprintable()) or too_long:
            raise InputError(f"{path} has a damaged header: {line[:SHOWN]!r} is no field, or too long")
        if name in fields:
            raise InputError(f"{path} has a damaged header: {name!r} stands there twice")
        fields[name] = value if name == "data file" else value.strip()
        if name == "data file" and value.startswith("LIST"):
            break  # the names of several files follow, which are refused
    return fields


def _check_grid(path: Path, fields: dict[str, str]) -> None:
    """Raise InputError unless there are three axes with a number each: teem takes "none" for 1 mm."""
    sizes = fields.get("sizes", "").split()
    if not all(map(WHOLE.fullmatch, sizes)) or fields.get("dimension") != str(len(sizes)):
        said = (f"{key}: {shown(fields, key)}" for key in ("dimension", "sizes"))
        raise InputError(f"{path} has a damaged header: {', '.join(said)}")
    if len(sizes) != 3:
        raise InputError(
            f"{path} must be one 3-D volume of one number per voxel, but its sizes are {shown(fields, 'sizes')}"
        )
    check_size(path, tuple(map(int, sizes)), 1)
    for key in ("units", "space units"):
        other = [unit for unit in re.findall(r'"([^"]*)"', fields.get(key, "")) if unit not in MILLIMETRES]
        if other:
            raise InputError(f"{path} states its grid in {other[0]!r} ({key}); it must be in mm")
    if not fields.keys() & {"space origin", "axis mins"}:
        raise InputError(f"{path} states no origin ('space origin' is missing from its header); add it")
    for key in ("space directions", "spacings", "space origin"):
        numbers = re.split(r"[\s(),]+", fields[key].strip("() ")) if key in fields else []
        if key in fields and not finite_numbers(numbers, 9 if key == "space directions" else 3):
            raise InputError(f"{path} has a damaged header: {key}: {shown(fields, key)}")


def _check_place(path: Path, fields: dict[str, str]) -> None:
    """Raise InputError unless the voxels are raw or gzip, from the first byte behind the header on."""
    if fields.get("encoding", "").lower() not in ENCODINGS:
        raise InputError(
            f"{path} must keep its voxels raw or in gzip, but its encoding is {shown(fields, 'encoding')}; "
            "write it anew"
        )
    allowed = r"-1|[0-9]{1,9}" if fields["encoding"].lower() == "raw" else "0"
    for key, form in (("line skip", "0"), ("byte skip", allowed)):
        if not re.fullmatch(form, fields.get(key, "0")):
            raise InputError(f"{path} has {key}: {shown(fields, key)}, which cannot be read; write it anew")


def check_data(header: Header, wanted: int) -> None:
    """Raise InputError unless the `wanted` bytes of raw or gzip voxels are there, undamaged."""
    encoding = header.fields.get("encoding", "").lower()
    if encoding == "raw":
        skip = int(header.fields.get("byte skip", "0"))
        start = header.data_start + max(0, skip)
        payload.check_plain(header.data_file, start, wanted)
        if skip >= 0:  # else they are the last of the file
            payload.check_end(header.data_file, start + wanted)
    else:
        with header.data_file.open("rb") as file:
            file.seek(header.data_start)
            payload.check_gzip(header.data_file, file, wanted, exactly=True)
