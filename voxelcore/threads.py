"""How many threads a kernel uses where its call does not say."""

from __future__ import annotations

from voxelcore import _core


def set_threads(n: int) -> None:
    """Use `n` threads (1 to 1024) in every later call of this process that passes `threads=None`.

    Results never depend on the number of threads, bit for bit.
    """
    _core.set_threads(n)


def get_threads() -> int:
    """Return the default number of threads; at first the number of processors this process may run on."""
    return _core.get_threads()
