"""Whether a file holds every byte of voxels that its header claims.

ITK fills a truncated NIfTI with zeros and hands on a damaged compressed MetaImage as garbage, both without an
error. Streams are decoded in small pieces and thrown away: memory does not follow the header's claim.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

from algorithm.errors import InputError

PIECE_BYTES = 1 << 20


def check_plain(path: Path, start: int, wanted: int) -> None:
    """Raise InputError unless `path` has `wanted` bytes from byte `start` on."""
    _enough(path, path.stat().st_size - start, wanted)


def check_gzip(path: Path, wanted: int) -> None:
    """Raise InputError unless `path` unpacks to at least `wanted` bytes with the checksum that it carries."""
    there = 0
    try:
        with gzip.open(path) as stream:
            # Past the voxels a little may follow; an endless stream is left before its checksum.
            while there <= 2 * wanted + PIECE_BYTES and (piece := stream.read(PIECE_BYTES)):
                there += len(piece)
    except gzip.BadGzipFile as error:
        if there < wanted or "CRC" in str(error):
            raise _damaged(path) from None
    except EOFError:
        raise InputError(f"{path} is cut off in its compressed data; copy or download it again") from None
    except zlib.error:
        raise _damaged(path) from None
    _enough(path, there, wanted)


def check_zlib(path: Path, file: BinaryIO, wanted: int) -> None:
    """Raise InputError unless `file` unpacks, from where it is, to exactly `wanted` sound bytes."""
    decoder = zlib.decompressobj()
    there = 0
    try:
        while (
            not decoder.eof
            and there <= wanted
            and (piece := decoder.unconsumed_tail or file.read(PIECE_BYTES))
        ):
            there += len(decoder.decompress(piece, PIECE_BYTES))
    except zlib.error:
        raise _damaged(path) from None
    _enough(path, there, wanted)
    if not decoder.eof:
        raise _damaged(path)


def _enough(path: Path, there: int, wanted: int) -> None:
    if there < wanted:
        raise InputError(
            f"{path} is cut off: its header claims {wanted} bytes and {max(there, 0)} are there; "
            "copy or download it again"
        )


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} has damaged compressed data; copy or download it again")
