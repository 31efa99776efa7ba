"""What was found of a case, kept in a file, and used again while what it was made from is the same."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from algorithm.files import replacing
from algorithm.images import case_name


def file_states(paths: Iterable[Path]) -> list[list[Any]]:
    """Return path, size and time of change of files, and of those of the same case beside them; OSError as `stat`."""
    states = []
    for path in paths:
        # voxels may lie beside their header, as in .mhd with .raw
        for part in sorted(path.parent.glob(f"{glob.escape(case_name(path))}.*")):
            state = part.stat()
            states.append([str(part.resolve()), state.st_size, state.st_mtime_ns])
    return states


def write_kept(file: Path, identity: object, found: object) -> None:
    """Write what was found, as JSON has it, with its digest and what it was made from."""
    with replacing(file) as temporary:
        document = {"identity": identity, "sha256": _digest(found), "found": found}
        temporary.write_text(json.dumps(document), encoding="utf-8")


def read_kept(file: Path, identity: object) -> Any:
    """Return what was found; None where nothing sound was kept, or it was made from something else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("identity") != identity:
        return None
    found = document.get("found")
    return found if document.get("sha256") == _digest(found) else None


def _digest(found: object) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
