"""One command at a time in a folder, and nothing left of one that was killed."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from algorithm.errors import InputError

log = logging.getLogger(__name__)

LOCK = ".lock"
LOOK_AGAIN_S = 0.1
REMOVED_AT_MOST = 100  # times in a row that the folder may go away under the one who wants it
HELD = (errno.EAGAIN, errno.EACCES)
UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # a file system that has no locks
LEFTOVER = re.compile(r"\.(?:tmp|old)-[0-9a-f]{8}-(.+)")  # as `algorithm.files.replacing` names them


class BusyError(InputError):
    """Another process holds the folder."""


@contextmanager
def alone_in(folder: Path, command: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a folder, made if it is missing, for this process.

    The lock is the system's, on an open file: it goes with the process, however that ends, so that no dead one keeps a
    folder. The file says who holds it, for the one who is refused.

    Args:
        folder: what is to be written to by nobody else.
        command: the word for what is at work.
        wait_s: seconds to wait for another process to end.

    Raises:
        BusyError: another process holds it.
        InputError: it cannot be written to.

    """
    until = time.monotonic() + wait_s
    try:
        while (lock := _take(folder)) is None:
            if time.monotonic() >= until:
                raise BusyError(f"{_holder(folder)} is at work in {folder}: wait for it to end")
            time.sleep(LOOK_AGAIN_S)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written to: {error.strerror}") from error
    try:
        who = f"{command} (process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')})"
        with suppress(OSError):  # on a full disk it stays without a name
            os.ftruncate(lock, 0)
            os.pwrite(lock, who.encode(), 0)
        yield
    finally:
        os.close(lock)


def _take(folder: Path) -> int | None:
    """Return the open lock file of a folder, None where another process has it."""
    path = folder / LOCK
    for _ in range(REMOVED_AT_MOST):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # the folder was removed by the one who held it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNKNOWN:
                log.warning("%s cannot be locked here: see to it that nothing else writes to it", folder)
                return lock
            os.close(lock)
            if error.errno in HELD:
                return None
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)  # the file was removed before it was held: it guards nothing
    return None


def _holder(folder: Path) -> str:
    """Return who holds a folder, as it said itself."""
    try:
        said = (folder / LOCK).read_text(encoding="utf-8", errors="replace")
    except OSError:
        said = ""
    return " ".join(said.split()) or "another process"


def remove_leftovers(*folders: Path) -> None:
    """Remove what a killed process left unfinished in folders; `algorithm.files.replacing` names such files.

    A folder that was moved aside for its successor, which did not come, gets its name back. Who calls this holds the
    folders, since what another process is writing looks the same.
    """
    for folder in folders:
        _remove(path for path in folder.glob(".*") if LEFTOVER.fullmatch(path.name))


def remove_leftovers_of(path: Path) -> None:
    """Remove what a killed process left of one file or folder beside it; else as `remove_leftovers`."""
    beside = path.parent.glob(".*")
    _remove(other for other in beside if (name := LEFTOVER.fullmatch(other.name)) and name[1] == path.name)


def _remove(leftovers: Iterator[Path]) -> None:
    for path in sorted(leftovers):
        place = path.with_name(path.name.split("-", 2)[-1])
        if path.name.startswith(".old-") and not place.exists():
            path.rename(place)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_held(folder: Path) -> None:
    """Remove a folder that this process holds, so that the next one finds all of it or nothing."""
    gone = folder.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone)
