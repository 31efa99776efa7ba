"""How much memory is left, so that a scan that does not fit is refused and does not end the process."""

from __future__ import annotations

from pathlib import Path

from algorithm.errors import InputError

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# The limit of this process's container, and what counts against it and cannot be given back, in versions 2 and 1.
LIMITS = (
    ("memory.max", "memory.stat", "anon"),
    ("memory/memory.limit_in_bytes", "memory/memory.stat", "total_rss"),
)


def free_bytes() -> int | None:
    """Return the memory that can be taken without swapping, of the machine or of the container, None where unknown."""
    found = [left for left in (_of_machine(), *_of_container()) if left is not None]
    return min(found, default=None)


def check_memory(what: Path, wanted: int) -> None:
    """Raise InputError unless twice the bytes of an image are free, which reading it takes."""
    free = free_bytes()
    if free is not None and 2 * wanted > free:
        raise InputError(
            f"{what} takes {2 * wanted / 2**30:.1f} GiB of memory while it is read, and {free / 2**30:.1f} GiB are "
            "free; close other programs, or segment it on a machine with more"
        )


def _of_machine() -> int | None:
    kilobytes = _field(MEMINFO, "MemAvailable:")
    return None if kilobytes is None else kilobytes << 10


def _of_container() -> list[int]:
    left = []
    for limit, statistics, held in LIMITS:
        try:
            most = int((CGROUP / limit).read_text())
        except (OSError, ValueError):  # "max" is no limit
            continue
        left.append(max(0, most - (_field(CGROUP / statistics, held) or 0)))
    return left


def _field(file: Path, name: str) -> int | None:
    """Return the number behind a name at the start of a line."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if words and words[0] == name), None)
