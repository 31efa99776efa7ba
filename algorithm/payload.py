"""Whether a file holds every byte of voxels that its header claims.

ITK fills a truncated NIfTI with zeros and hands on a damaged compressed MetaImage as garbage, both without an
error. Streams are decoded in small pieces and thrown away: memory does not follow the header's claim.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from algorithm.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 1 << 20
LINE_BREAK_BYTES = 2


@dataclass(frozen=True)
class Header:
    """The fields of a text header by name, the file with the voxels, and the byte where they begin in it."""

    fields: dict[str, str]
    data_file: Path
    data_start: int


def check_plain(path: Path, start: int, wanted: int) -> None:
    """Raise InputError unless `path` has `wanted` bytes from byte `start` on."""
    _enough(path, path.stat().st_size - start, wanted)


def check_end(path: Path, end: int) -> None:
    """Raise InputError where a file goes on behind the byte `end` by more than a line break."""
    over = path.stat().st_size - end
    if over > LINE_BREAK_BYTES:
        raise InputError(
            f"{path} has {over} bytes more than its header claims, so its voxels may begin elsewhere or have another "
            "type; correct the header"
        )


def check_gzip(path: Path, file: BinaryIO, wanted: int, *, exactly: bool = False) -> None:
    """Raise InputError unless `file` unpacks, from where it is, to `wanted` bytes or more, undamaged.

    Gzip members that follow each other count as one stream; what follows the last is left alone. With `exactly`, more
    bytes are refused, too.
    """
    there = 0
    rest = file.read(PIECE_BYTES)
    while rest[:2] == GZIP_MAGIC and there <= 2 * wanted + PIECE_BYTES:
        unpacked, rest = _unpack(path, file, rest, zlib.MAX_WBITS | 16, 2 * wanted + PIECE_BYTES)
        there += unpacked
    _enough(path, there, wanted)
    if exactly and there > wanted:
        raise InputError(
            f"{path} unpacks to more than the {wanted} bytes that its header claims; correct the header"
        )


def is_one_gzip_stream(path: Path) -> bool:
    """Return whether a file is one gzip stream from its first byte to its last; readers differ in what they do else."""
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    with path.open("rb") as file:
        piece = file.read(PIECE_BYTES)
        while piece and not decoder.eof:
            try:
                decoder.decompress(piece, PIECE_BYTES)
            except zlib.error:
                return False
            piece = decoder.unconsumed_tail or (b"" if decoder.eof else file.read(PIECE_BYTES))
        return decoder.eof and not decoder.unused_data and not file.read(1)


def check_zlib(path: Path, file: BinaryIO, wanted: int) -> None:
    """Raise InputError unless `file` unpacks, from where it is, to exactly `wanted` bytes, undamaged."""
    there, _ = _unpack(path, file, file.read(PIECE_BYTES), zlib.MAX_WBITS, wanted)
    _enough(path, there, wanted)
    if there > wanted:
        raise _damaged(path)


def _unpack(path: Path, file: BinaryIO, piece: bytes, wbits: int, limit: int) -> tuple[int, bytes]:
    """Return how many bytes one stream unpacks to, and what follows it; stop beyond `limit` bytes."""
    decoder = zlib.decompressobj(wbits)
    there = 0
    while not decoder.eof and there <= limit:
        if not piece:
            raise InputError(f"{path} is cut off in its compressed data; copy or download it again")
        try:
            there += len(decoder.decompress(piece, PIECE_BYTES))
        except zlib.error:
            raise _damaged(path) from None
        piece = decoder.unconsumed_tail or (b"" if decoder.eof else file.read(PIECE_BYTES))
    return there, decoder.unused_data or file.read(PIECE_BYTES)


def _enough(path: Path, there: int, wanted: int) -> None:
    if there < wanted:
        raise InputError(
            f"{path} is cut off: its header claims {wanted} bytes and {max(there, 0)} are there; "
            "copy or download it again"
        )


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} has damaged compressed data; copy or download it again")
