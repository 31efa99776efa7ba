"""Whether a DICOM file is as long as its elements say, found by walking over them before GDCM is asked.

GDCM reserves what an element claims before it looks for it: 784 bytes that claimed a long value took 7 GB. Elements
follow DICOM PS3.5, chapter 7; encapsulated pixels its annex A.4.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from algorithm.errors import InputError

PREAMBLE_BYTES = 132
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
# Value representations whose length takes four bytes, and those whose length takes two.
LONG_KINDS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
SHORT_KINDS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
UNDEFINED = 0xFFFFFFFF
META, PIXELS = 0x0002, (0x7FE0, 0x0010)
SYNTAX = (0x0002, 0x0010)
SAMPLES, FRAMES, ROWS, COLUMNS, ALLOCATED = ((0x0028, at) for at in (0x02, 0x08, 0x10, 0x11, 0x100))
READ = (SYNTAX, SAMPLES, FRAMES, ROWS, COLUMNS, ALLOCATED)
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
DEEPEST = 32
MOST_ELEMENTS = 200_000
# Eight times a slice of 2048 x 2048 pixels of 16 bits: whatever it is compressed to, GDCM unpacks the whole.
LARGEST_SLICE_BYTES = 64 << 20
Tag = tuple[int, int]


@dataclass(frozen=True)
class Element:
    """An element's tag, its value representation (b"" where it is implicit), and where its value lies."""

    tag: Tag
    kind: bytes
    start: int
    length: int


class _DamagedError(Exception):
    """What is wrong with a file, as a clause."""


def check_elements(path: Path) -> None:
    """Raise InputError unless every element of a DICOM file lies within it, and its pixels are as many as it says.

    Refused are values and sequences that are longer than the file, sequences in each other more than 32 deep, fewer
    bytes of pixels than rows, columns, bits, samples and frames make, and more than 64 MiB of them in one file.
    """
    try:
        with path.open("rb") as file:
            _Walk(file, path.stat().st_size).check()
    except _DamagedError as damage:
        raise damaged(path, f": {damage}") from None


def damaged(path: Path, why: str = "") -> InputError:
    """Return the error of a file that cannot be read; `why` is a clause behind a colon."""
    return InputError(
        f"{path} is not a readable DICOM image (empty, truncated or damaged{why}); "
        "restore it, or remove it if it is no slice of the scan"
    )


class _Walk:
    """A walk over the elements of an open file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.order, self.explicit = "<", True
        self.seen, self.pixels_seen = 0, False
        self.values: dict[Tag, bytes] = {}

    def check(self) -> None:
        """Raise _DamagedError where the file is shorter than it says."""
        at = self._meta()
        syntax = self.values.get(SYNTAX, b"").decode("ascii", "replace").strip("\0 ")
        if syntax == DEFLATED:
            raise _DamagedError("its elements are deflated, which is not supported")
        self.explicit = syntax != IMPLICIT if syntax else self._looks_explicit(at)
        self.order = ">" if syntax == BIG_ENDIAN else "<"
        self._walk(at, self.size, 0)

    def _meta(self) -> int:
        """Walk over the group 0002, which is explicit and little endian; return where the rest begins."""
        at = PREAMBLE_BYTES if self._read(128, 4) == b"DICM" else 0
        while self._read(at, 2) == struct.pack("<H", META):
            element = self._element(at)
            self._keep(element)
            at = element.start + element.length
        return at

    def _looks_explicit(self, at: int) -> bool:
        kind = self._read(at + 4, 2)
        return len(kind) == 2 and kind.isalpha() and kind.isupper()

    def _walk(self, at: int, end: int, depth: int, *, item: bool = False) -> int:
        """Walk over elements from `at` to `end`, or of an item of undefined length to its delimiter; return the end."""
        while at < end and not (depth == 0 and self.pixels_seen and self._only_zeros(at)):
            element = self._element(at)
            if item and element.tag == ITEM_END:
                return element.start
            self._keep(element)
            stop = end if element.length == UNDEFINED else element.start + element.length
            if stop > end:
                raise _DamagedError(f"{_name(element.tag)} claims {element.length} bytes, more than are left")
            if element.tag == PIXELS and depth == 0:
                self.pixels_seen = True
                self._check_pixels(element)
            if element.tag == PIXELS and element.length == UNDEFINED:
                stop = self._fragments_end(element.start)
            elif element.kind == b"SQ" or element.length == UNDEFINED:
                stop = self._items(element, stop, depth)
            at = stop
        if item:
            raise _DamagedError("an item has no end")
        return at

    def _element(self, at: int) -> Element:
        self.seen += 1
        if self.seen > MOST_ELEMENTS:
            raise _DamagedError(f"it has more than {MOST_ELEMENTS} elements")
        tag = self._tag(at)
        if tag[0] == 0xFFFE or not self.explicit:
            return Element(tag, b"", at + 8, self._number("I", at + 4))
        kind = self._read(at + 4, 2)
        if kind in LONG_KINDS:
            return self._inside(Element(tag, kind, at + 12, self._number("I", at + 8)))
        if kind not in SHORT_KINDS:  # GDCM would go on elsewhere than this walk
            raise _DamagedError(f"{_name(tag)} has no known value representation")
        return self._inside(Element(tag, kind, at + 8, self._number("H", at + 6)))

    def _inside(self, element: Element) -> Element:
        if element.length != UNDEFINED and element.start + element.length > self.size:
            raise _DamagedError(f"{_name(element.tag)} claims {element.length} bytes, more than are left")
        return element

    def _items(self, sequence: Element, end: int, depth: int) -> int:
        """Walk over the items of a sequence; return where it ends, which is `end` where its length is defined."""
        if depth == DEEPEST:
            raise _DamagedError(f"it has sequences in each other more than {DEEPEST} deep")
        explicit = self.explicit
        if sequence.kind == b"UN":
            self.explicit = False  # PS3.5, 6.2.2, note 2: within it all is implicit
        at, closed = sequence.start, sequence.length != UNDEFINED
        while not (closed and at == end):
            item = self._element(at)
            if item.tag == SEQUENCE_END and not closed:
                at = item.start
                break
            open_item = item.length == UNDEFINED
            stop = end if open_item else item.start + item.length
            if item.tag != ITEM or stop > end:
                raise _DamagedError(f"{_name(sequence.tag)} is no sequence of items")
            at = self._walk(item.start, stop, depth + 1, item=open_item)
        self.explicit = explicit
        return at

    def _fragments_end(self, at: int) -> int:
        """Return where encapsulated pixels end."""
        while (tag := self._tag(at)) != SEQUENCE_END:
            length = self._number("I", at + 4)
            if tag != ITEM or at + 8 + length > self.size:
                raise _DamagedError("its compressed pixels are cut off")
            at += 8 + length
            self.seen += 1
        return at + 8

    def _check_pixels(self, pixels: Element) -> None:
        """Raise _DamagedError unless the pixels are there and no more than a slice has."""
        rows, columns, allocated = (self._short(tag, 0) for tag in (ROWS, COLUMNS, ALLOCATED))
        frames = self.values.get(FRAMES, b"1").decode("ascii", "replace").strip("\0 ") or "1"
        if not (frames.isascii() and frames.isdecimal() and len(frames) < 10):
            raise _DamagedError(f"it claims {frames!r} frames")
        count = rows * columns * self._short(SAMPLES, 1)
        if math.ceil(count * allocated / 8) > LARGEST_SLICE_BYTES:
            raise _DamagedError(f"it claims {columns} x {rows} pixels of {allocated} bits, which is no slice")
        wanted = count * int(frames) * allocated // 8
        if pixels.length != UNDEFINED and pixels.length < wanted:
            raise _DamagedError(f"it claims {wanted} bytes of pixels, and {pixels.length} are there")

    def _only_zeros(self, at: int) -> bool:
        """Return whether nothing but padding follows, as some exports leave it."""
        self.file.seek(at)
        while piece := self.file.read(1 << 16):
            if piece.strip(b"\0"):
                return False
        return True

    def _short(self, tag: Tag, otherwise: int) -> int:
        value = self.values.get(tag, b"")
        return int(struct.unpack_from(f"{self.order}H", value)[0]) if len(value) >= 2 else otherwise

    def _keep(self, element: Element) -> None:
        if element.tag in READ:
            self.values.setdefault(element.tag, self._read(element.start, min(element.length, 64)))

    def _tag(self, at: int) -> Tag:
        group, number = struct.unpack(f"{self.order}2H", self._exactly(at, 4))
        return group, number

    def _number(self, form: str, at: int) -> int:
        return int(struct.unpack(self.order + form, self._exactly(at, struct.calcsize(form)))[0])

    def _exactly(self, at: int, count: int) -> bytes:
        content = self._read(at, count)
        if len(content) < count:
            raise _DamagedError("it ends amid an element")
        return content

    def _read(self, at: int, count: int) -> bytes:
        self.file.seek(at)
        return self.file.read(count)


def _name(tag: Tag) -> str:
    return f"({tag[0]:04x},{tag[1]:04x})"
