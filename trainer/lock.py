"""One command at a time in a folder, and nothing left of one that was killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from algorithm.errors import InputError


@contextmanager
def alone_in(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder, made if it is missing, for this process; the lock goes with it, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be written to; `command` is the word for what is at work.

    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"another {command} is at work in {folder}: wait for it to end") from None
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written to: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(*folders: Path) -> None:
    """Remove what a killed process left unfinished; `algorithm.files.replacing` names such files and folders.

    A folder that was moved aside for its successor, which did not come, gets its name back.
    """
    for folder in folders:
        for path in folder.glob(".old-*"):
            place = folder / path.name.split("-", 2)[-1]
            if not place.exists():
                path.rename(place)
        for path in (*folder.glob(".tmp-*"), *folder.glob(".old-*")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
