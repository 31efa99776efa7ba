"""What ITK lets pass in an NRRD (.nrrd, .nhdr): no spacing, no named space, data elsewhere."""

from __future__ import annotations

import logging
from pathlib import Path

from algorithm.errors import InputError
from algorithm.metaimage import LONGEST_HEADER_BYTES, data_file_beside

log = logging.getLogger(__name__)

ANATOMICAL_SPACES = (
    "left-posterior-superior",
    "right-anterior-superior",
    "left-anterior-superior",
    "lps",
    "ras",
    "las",
)


def check_header(path: Path) -> None:
    """Look through the header of a .nrrd or .nhdr (format definition: teem.sourceforge.net/nrrd/format.html).

    Logs a warning when the file does not say how it is oriented. Raises InputError when it is no NRRD, states
    no spacing, or keeps its voxels in several files, outside its own folder, or in a file not there.
    """
    with path.open("rb") as file:
        lines = (
            file.read(LONGEST_HEADER_BYTES)
            .split(b"\n\n")[0]
            .split(b"\r\n\r\n")[0]
            .decode("latin-1")
            .splitlines()
        )
    if not lines or not lines[0].startswith("NRRD000"):
        raise InputError(f"{path} is not an NRRD, or its header is damaged")
    fields = {
        key.lower(): value.strip()
        for key, colon, value in (line.partition(": ") for line in lines[1:])
        if colon
    }
    if not fields.keys() & {"space directions", "spacings"}:
        raise InputError(f"{path} states no spacing ('space directions' is missing from its header); add it")
    if fields.get("space", "").lower() not in ANATOMICAL_SPACES:
        log.warning(
            "%s does not say how it is oriented (no anatomical space); taken as x left, y back, z up", path
        )
    if name := fields.get("data file", fields.get("datafile", "")):
        data_file_beside(path, name)
