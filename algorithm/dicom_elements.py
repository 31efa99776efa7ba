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
IMPLICIT = ("1.2.840.10008.1.2", "1.2.840.113619.5.2")  # the second is of General Electric
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
# JPEG, JPEG-LS and JPEG 2000 (PS3.5, annex A.4): their streams state a size of their own.
CODESTREAMS = ("1.2.840.10008.1.2.4.",)
RUN_LENGTHS = "1.2.840.10008.1.2.5"
# Value representations whose length takes four bytes, and those whose length takes two.
LONG_KINDS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
SHORT_KINDS = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
UNDEFINED = 0xFFFFFFFF
META, PIXELS = 0x0002, (0x7FE0, 0x0010)
SYNTAX = (0x0002, 0x0010)
SAMPLES, FRAMES, ROWS, COLUMNS, ALLOCATED = ((0x0028, at) for at in (0x02, 0x08, 0x10, 0x11, 0x100))
MODALITY_LUT = (0x0028, 0x3000)
READ = (SYNTAX, SAMPLES, FRAMES, ROWS, COLUMNS, ALLOCATED, MODALITY_LUT)
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
DEEPEST = 32
MOST_ELEMENTS = 20_000
MOST_TILES = 1024  # of JPEG 2000
MOST_AFTER_PIXELS = 8  # bytes that are no element, such as the newline of a careless export
STREAM_HEAD_BYTES = 1 << 16
STREAM_END = b"\xff\xd9"
# Eight times a slice of 2048 x 2048 pixels of 16 bits: whatever it is compressed to, GDCM unpacks the whole.
LARGEST_SLICE_BYTES = 64 << 20
Tag = tuple[int, int]


@dataclass(frozen=True)
class Stated:
    """What a slice states of its pixels: columns and rows, and whether a table turns them into HU."""

    size_xy: tuple[int, int]
    modality_lut: bool


@dataclass(frozen=True)
class Stream:
    """What a compressed stream states of its pixels."""

    size_xy: tuple[int, int]
    components: int
    tiles: int = 1


@dataclass(frozen=True)
class Element:
    """An element's tag, its value representation (b"" where it is implicit), and where its value lies."""

    tag: Tag
    kind: bytes
    start: int
    length: int


class _DamagedError(Exception):
    """What is wrong with a file, as a clause."""


def check_elements(path: Path) -> Stated:
    """Return what a DICOM file states whose elements lie within it, and whose pixels are as many as it says.

    Raises:
        InputError: values and sequences that are longer than the file, sequences in each other more than 32 deep, fewer
            bytes of pixels than rows, columns, bits, samples and frames make, more than 64 MiB of them in one file,
            compressed pixels whose stream is of another size or has no end, or none where the file says so.

    """
    try:
        with path.open("rb") as file:
            return _Walk(file, path.stat().st_size).check()
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
        self.order, self.explicit, self.syntax = "<", True, ""
        self.seen = 0
        self.pixels: list[Element] = []
        self.values: dict[Tag, bytes] = {}

    def check(self) -> Stated:
        """Return what the file states; raise _DamagedError where it is shorter than it says."""
        at = self._meta()
        self.syntax = self.values.get(SYNTAX, b"").decode("ascii", "replace").strip("\0 ")
        if self.syntax == DEFLATED:
            raise _DamagedError("its elements are deflated, which is not supported")
        # Some scanners wrote implicit elements whatever they said.
        self.explicit = self.syntax not in IMPLICIT and self._looks_explicit(at)
        if self.compressed and not self.explicit:
            raise _DamagedError(
                "it says that its pixels are compressed, but its elements are implicit, which cannot be"
            )
        self.order = ">" if self.syntax == BIG_ENDIAN else "<"
        self._walk(at, self.size, 0)
        for pixels in self.pixels:  # now that the size is known, wherever it stands
            self._check_pixels(pixels)
        return Stated((self._short(COLUMNS, 0), self._short(ROWS, 0)), MODALITY_LUT in self.values)

    @property
    def compressed(self) -> bool:
        return self.syntax.startswith((*CODESTREAMS, RUN_LENGTHS))

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
        while at < end and not (depth == 0 and self.pixels and self._only_padding(at)):
            element = self._element(at)
            if item and element.tag == ITEM_END:
                return element.start
            if depth == 0:  # an icon or a referenced image has a size, too
                self._keep(element)
            stop = end if element.length == UNDEFINED else element.start + element.length
            if stop > end:
                raise _DamagedError(f"{_name(element.tag)} claims {element.length} bytes, more than are left")
            if element.tag == PIXELS and depth == 0:
                self.pixels.append(element)
            if element.tag == PIXELS and element.length == UNDEFINED:
                stop = self._fragments(element.start)[1]
            elif element.kind == b"SQ" or element.length == UNDEFINED:
                stop = self._items(element, stop, depth)
            at = stop
        if item:
            raise _DamagedError("an item has no end")
        return at

    def _count(self) -> None:
        self.seen += 1
        if self.seen > MOST_ELEMENTS:
            raise _DamagedError(f"it has more than {MOST_ELEMENTS} elements")

    def _element(self, at: int) -> Element:
        self._count()
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
            if item.tag == SEQUENCE_END:
                at = item.start
                if closed and at < end:  # superfluous, but seen
                    continue
                break
            open_item = item.length == UNDEFINED
            stop = end if open_item else item.start + item.length
            if item.tag != ITEM or stop > end:
                raise _DamagedError(f"{_name(sequence.tag)} is no sequence of items")
            at = self._walk(item.start, stop, depth + 1, item=open_item)
        self.explicit = explicit
        return at

    def _fragments(self, at: int) -> tuple[list[tuple[int, int]], int]:
        """Return where the items of encapsulated pixels lie and how long they are, and where the pixels end."""
        items = []
        while (tag := self._tag(at)) != SEQUENCE_END:
            self._count()
            length = self._number("I", at + 4)
            if tag != ITEM or at + 8 + length > self.size:
                raise _DamagedError("its compressed pixels are cut off")
            items.append((at + 8, length))
            at += 8 + length
        return items, at + 8

    def _check_pixels(self, pixels: Element) -> None:
        """Raise _DamagedError unless the pixels are there and no more than a slice has."""
        if self.compressed and pixels.length != UNDEFINED:
            raise _DamagedError("it says that its pixels are compressed, but they are not")
        rows, columns, allocated = (self._short(tag, 0) for tag in (ROWS, COLUMNS, ALLOCATED))
        frames = self.values.get(FRAMES, b"1").decode("ascii", "replace").strip("\0 ") or "1"
        if not (frames.isascii() and frames.isdecimal() and len(frames) < 10):
            raise _DamagedError(f"it claims {frames!r} frames")
        samples = self._short(SAMPLES, 1)
        count = rows * columns * samples
        if math.ceil(count * allocated / 8) > LARGEST_SLICE_BYTES:
            raise _DamagedError(f"it claims {columns} x {rows} pixels of {allocated} bits, which is no slice")
        wanted = count * int(frames) * allocated // 8
        if samples == 3:  # colours may be kept at half the resolution
            wanted //= 2
        if pixels.length != UNDEFINED and pixels.length < wanted:
            raise _DamagedError(f"it claims {wanted} bytes of pixels, and {pixels.length} are there")
        if pixels.length == UNDEFINED and self.syntax.startswith(CODESTREAMS):
            fragments = [item for item in self._fragments(pixels.start)[0][1:] if item[1]]
            self._check_stream(fragments, Stream((columns, rows), samples))

    def _check_stream(self, fragments: list[tuple[int, int]], claimed: Stream) -> None:
        """Raise _DamagedError unless compressed pixels are as many as the elements say, and the stream has an end."""
        if not fragments:
            raise _DamagedError("its compressed pixels are not there")
        (first, length), (last, its_length) = fragments[0], fragments[-1]
        found = stream_of(self._read(first, min(length, STREAM_HEAD_BYTES)))
        if found is None:
            raise _DamagedError("its compressed pixels state no size")
        if (found.size_xy, found.components) != (claimed.size_xy, claimed.components):
            said = (f"{one.size_xy[0]} x {one.size_xy[1]} of {one.components}" for one in (found, claimed))
            raise _DamagedError("its compressed pixels are {}, and it claims {}".format(*said))
        if found.tiles > MOST_TILES:
            raise _DamagedError(f"its compressed pixels are in {found.tiles} tiles")
        tail = self._read(max(last, last + its_length - 64), min(its_length, 64))
        if not tail.rstrip(b"\0").endswith(STREAM_END):
            raise _DamagedError("its compressed pixels are cut off")

    def _only_padding(self, at: int) -> bool:
        """Return whether nothing but zeros or a few bytes follow, as some exports leave them."""
        if self.size - at < MOST_AFTER_PIXELS:
            return True
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


def stream_of(head: bytes) -> Stream | None:
    """Return what a JPEG, JPEG-LS or JPEG 2000 stream states at its start, None where it states nothing.

    The markers are those of ISO/IEC 10918-1 (B.2.2), 14495-1 (C.2.2) and 15444-1 (A.5.1).
    """
    if head.startswith(b"\xff\x4f\xff\x51") and len(head) >= 42:
        right, bottom, left, top, across, down = struct.unpack_from(">6I", head, 8)
        width, height = right - left, bottom - top
        tiles = math.ceil(right / max(1, across)) * math.ceil(bottom / max(1, down))
        return Stream((width, height), int(struct.unpack_from(">H", head, 40)[0]), tiles)
    at = 2
    while head.startswith(b"\xff\xd8") and at + 10 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = struct.unpack_from(">2H", head, at + 5)
            return Stream((width, height), head[at + 9])
        else:
            at += 2 + int(struct.unpack_from(">H", head, at + 2)[0])
    return None
