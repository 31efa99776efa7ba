"""Files that are either complete under their final name or not there."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from algorithm.errors import InputError


def check_replaceable(folder: Path, names: Collection[str]) -> None:
    """Raise InputError unless `folder` can be replaced as a whole: it is missing, or holds nothing but `names`.

    Hidden files, which file managers leave, are no reason.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, and a folder is to be written; choose another place")
    visible = (path.name for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    other = next((name for name in visible if name not in names), None)
    if other is not None:
        raise InputError(
            f"{folder} is replaced as a whole, but holds {other}, which would be lost; choose a new folder"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on failure.

    The temporary name keeps every suffix of `path`, since image writers choose the format by it. What was at
    `path` before stays until the new file is complete. A folder can be written the same way; a kill between
    the two renames that replace one leaves the previous folder as `.old-…` beside its place. What a killed
    process was writing stays as `.tmp-…`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            previous = path.with_name(f".old-{uuid.uuid4().hex[:8]}-{path.name}")
            path.rename(previous)
            try:
                temporary.rename(path)
            except OSError:
                previous.rename(path)
                raise
            shutil.rmtree(previous)
        else:
            temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
