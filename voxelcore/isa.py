"""Which instruction set the kernels run with. Results never depend on it, bit for bit."""

from __future__ import annotations

from typing import Literal

from voxelcore import _core

Isa = Literal["baseline", "avx2", "avx512"]


def get_isas() -> tuple[Isa, ...]:
    """Return the sets that this processor and build have, the slowest first; "baseline" is always there."""
    return _core.get_isas()


def get_isa() -> Isa:
    """Return the set in use: at first the best, or the one that the variable VOXELCORE_ISA names."""
    return _core.get_isa()


def set_isa(name: Isa) -> None:
    """Use one of `get_isas()` in every later call of this process.

    Raises:
        TypeError: if name is not a string.
        ValueError: for a set that does not exist, or that this processor does not have.
    """
    _core.set_isa(name)
