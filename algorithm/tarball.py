"""Tarballs of model bundles, opened so that neither a member nor a header of the archive can be a bomb."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from algorithm.errors import InputError

# Weights are noise, which compression leaves nearly as it is.
LARGEST_RATIO, ANY_BYTES = 20, 32 << 20
MOST_MEMBERS = 1000


@contextmanager
def open_tarball(path: Path) -> Iterator[tarfile.TarFile]:
    """Yield an archive to be read once, from its first member to its last, and read it to its end.

    Raises:
        InputError: no tarball, a damaged one, or one that unpacks to far more than weights are compressed to.

    """
    budget = ANY_BYTES + LARGEST_RATIO * path.stat().st_size
    try:
        with _unpacked(path) as stream:
            bounded = _Bounded(stream, budget, path)
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                yield archive
            # The checksum of a compressed tarball is at its very end.
            while bounded.read(1 << 20):
                pass
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a readable tarball of a model bundle: {error}") from None


def members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive; InputError for more than 1000."""
    for number, member in enumerate(archive):
        if number == MOST_MEMBERS:
            raise InputError(f"{path} holds more than {MOST_MEMBERS} files, and a bundle has four")
        yield member


class _Bounded(io.RawIOBase):
    """A stream that raises InputError where more than so many bytes are read from it."""

    def __init__(self, stream: IO[bytes], most: int, path: Path) -> None:
        self.stream, self.left, self.path = stream, most, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.stream.read(len(buffer))
        self.left -= len(piece)
        if self.left < 0:
            raise InputError(
                f"{self.path} unpacks to far more than weights are compressed to, so it is no bundle"
            )
        buffer[: len(piece)] = piece
        return len(piece)


def _unpacked(path: Path) -> IO[bytes]:
    """Open a tarball that is compressed with gzip, bzip2 or xz, or not at all."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if start.startswith(magic):
            return cast(IO[bytes], opened(path))
    return path.open("rb")
