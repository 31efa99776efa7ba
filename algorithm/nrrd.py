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
FIELDS = (
    "content|number|type|block ?size|dimension|space|space dimension|sizes|spacings|thicknesses|axis ?mins|axis ?maxs|"
    "space directions|centers|centerings|kinds|labels|units|min|max|old ?min|old ?max|data ?file|endian|encoding|"
    "line ?skip|byte ?skip|sample ?units|space units|space origin|measurement frame"
)
LONGEST_VALUE = 500
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
    with path.open("rb") as file:
        raw = file.read(LONGEST_HEADER_BYTES)
    if not raw.startswith(b"NRRD000"):
        raise InputError(f"{path} is not an NRRD, or its header is damaged")
    blank = re.search(rb"\r?\n\r?\n", raw)
    end = blank.end() if blank else len(raw)
    fields = _fields(path, raw[:end])
    if not fields.keys() & {"space directions", "spacings"}:
        raise InputError(f"{path} states no spacing ('space directions' is missing from its header); add it")
    _check_grid(path, fields)
    _check_place(path, fields)
    if fields.get("space", "").lower() not in ANATOMICAL_SPACES:
        log.warning(
            "%s does not say how it is oriented (no anatomical space); taken as x left, y back, z up", path
        )
    name = fields.get("data file", fields.get("datafile", ""))
    return Header(fields, data_file_beside(path, name), 0) if name else Header(fields, path, end)


def _fields(path: Path, header: bytes) -> dict[str, str]:
    """Return the fields by their names in lower case; InputError for what is no field, too long, or there twice."""
    fields: dict[str, str] = {}
    for line in header.decode("ascii", "backslashreplace").splitlines()[1:]:
        key, colon, value = line.partition(": ")
        if not line or line.startswith("#") or ":=" in key:  # a comment, or a pair that is of no field
            continue
        key = key.lower()
        if not colon or not re.fullmatch(FIELDS, key) or key in fields or len(value) > LONGEST_VALUE:
            raise InputError(
                f"{path} has a damaged header: {line[:SHOWN]!r} is no field, too long, or there twice"
            )
        fields[key] = value.strip()
        if key in ("data file", "datafile") and value.startswith("LIST"):
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
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(key, "0") != "0":
            raise InputError(
                f"{path} must keep its voxels from the first byte on, but has {key}: {shown(fields, key)}; "
                "write it anew"
            )


def check_data(header: Header, wanted: int) -> None:
    """Raise InputError unless the `wanted` bytes of raw or gzip voxels are there, undamaged."""
    encoding = header.fields.get("encoding", "").lower()
    if encoding == "raw":
        payload.check_plain(header.data_file, header.data_start, wanted)
    else:
        with header.data_file.open("rb") as file:
            file.seek(header.data_start)
            payload.check_gzip(header.data_file, file, wanted)
