"""What is the machine's fault and not the input's: memory that ran out, a GPU that broke."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from algorithm.errors import InputError, printable

log = logging.getLogger(__name__)

# What PyTorch's RuntimeErrors, ITK's and HDF5's say of it; each library has an exception of its own.
NO_MEMORY = ("out of memory", "defaultcpuallocator", "alloc_cpu", "bad_alloc", "failed to allocate memory")
BROKEN_GPU = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_INTERNAL_ERROR")


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory, of the machine or of a GPU, ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in NO_MEMORY)


def broken_gpu(error: BaseException) -> bool:
    """Return whether a GPU failed, after which this process can seldom use it; its memory running out is no failure."""
    return not out_of_memory(error) and any(word in str(error) for word in BROKEN_GPU)


def first_line(error: BaseException) -> str:
    """Return what an error says, without the stack that PyTorch adds."""
    return " ".join((str(error).splitlines() or [""])[0].split())


def said_of(error: Exception, scan: Path) -> str:
    """Return in one sentence that names the scan why it could not be segmented; log what nobody foresaw."""
    if out_of_memory(error):
        log.debug("%s failed", scan, exc_info=True)
        said = f"{scan}: memory ran out; close other programs, or segment it on a machine with more"
    elif isinstance(error, InputError):
        said = str(error)
    elif isinstance(error, OSError):
        log.debug("%s failed", scan, exc_info=True)
        said = f"{error.filename or scan}: {(error.strerror or str(error)).lower()}"
    elif broken_gpu(error):
        log.debug("%s failed", scan, exc_info=True)
        said = f"{scan}: the GPU failed ({first_line(error)}); the same command tries it again"
    else:
        log.exception("%s failed", scan)
        said = f"{scan}: unexpected {type(error).__name__}: {error}"
    # What a library says may have several lines; a name may hold anything.
    said = printable(" ".join(said.split()) if not isinstance(error, InputError) else said)
    return said if printable(scan.name) in said else f"{printable(str(scan))}: {said}"
