"""Hypothesis strategies that make hostile scans of sound ones: headers field by field, bodies byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import strategies as st

from tests.fuzz.seeds import Files, Seed

Edit = Callable[[bytes], bytes]

NUMBERS = (
    "0",
    "-1",
    "1",
    "3",
    "-0.0",
    "1e-320",
    "0.001",
    "70000",
    "1000000",
    "2147483648",
    "4294967296",
    "9223372036854775808",
    "1e38",
    "1e308",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "1_0",
    "1,5",
    "9" * 5000,
)
PLACES = (
    "/etc/passwd",
    "/dev/zero",
    "../../etc/passwd",
    "..",
    ".",
    "/proc/self/mem",
    "nothing.raw",
    "LIST",
    "slice%03d.raw 1 4 1",
    "LOCAL",
    "scan.mhd",
    "\n",
    "a\0b",
)
WORDS = (
    "",
    "True",
    "False",
    "MET_UCHAR",
    "MET_DOUBLE",
    "MET_OTHER",
    "none",
    "gzip",
    "raw",
    "ascii",
    "hex",
    "bzip2",
    "double",
    "block",
    "left-posterior-superior",
    "(1,0,0) (0,0,0) (0,0,1)",
    "(1,0,0) none (0,0,1)",
    "1 0 0 0 0 0 0 0 0",
    "%s%n%x",
    "\udc80é\r",
    "x" * 70_000,
)
CONTROLS = b"\x0b\x0c\x1c\x1f\r\t \0\x7f"
METAIMAGE_FIELDS = (
    "NDims",
    "DimSize",
    "ElementSpacing",
    "ElementSize",
    "Offset",
    "TransformMatrix",
    "CompressedData",
    "CompressedDataSize",
    "BinaryDataByteOrderMSB",
    "ElementNumberOfChannels",
    "ElementType",
    "HeaderSize",
    "ElementToIntensityFunctionSlope",
    "ElementDataFile",
    *(
        "Origin",
        "Position",
        "Rotation",
        "DistanceUnits",
        "ElementToIntensityFunctionOffset",
        "ParentID",
        "ImagePosition",
    ),
    *(
        "ObjectType",
        "ObjectSubType",
        "Comment",
        "Name",
        "ID",
        "Color",
        "CenterOfRotation",
        "AnatomicalOrientation",
    ),
    *(
        "BinaryData",
        "ElementNBits",
        "ElementMin",
        "ElementMax",
        "Modality",
        "SequenceID",
        "CompressedDataDelta",
    ),
)
NRRD_FIELDS = (
    "dimension",
    "sizes",
    "type",
    "encoding",
    "endian",
    "space",
    "space directions",
    "space origin",
    "spacings",
    "kinds",
    "block size",
    "byte skip",
    "line skip",
    "data file",
    "content",
    "old min",
    *("number", "min", "max", "centers", "labels", "units", "thicknesses", "space dimension", "space units"),
    *("sample units", "measurement frame", "axis mins", "# comment", "key:=", "no field"),
)
# Of nifti1.h: where a field stands, and its type.
NIFTI_FIELDS = (
    *((0, "i"), (39, "B")),
    *((at, "h") for at in range(40, 56, 2)),
    *((70, "h"), (72, "h")),
    *((at, "f") for at in range(76, 108, 4)),
    *((108, "f"), (112, "f"), (116, "f"), (123, "B"), (252, "h"), (254, "h")),
    *((at, "f") for at in range(256, 328, 4)),
    *((344, "i"), (348, "i"), (352, "i")),
)
FLOATS = (0.0, -1.0, 1e-30, 0.5, 1e9, 3e38, float("nan"), float("inf"), -float("inf"))
WHOLE = (0, 1, -1, 2, 7, 8, 16, 64, 128, 255, 512, 768, 32767, -32768, 2**31 - 1, -(2**31))

MISUSED_TAGS = (
    (0x0002, 0x0010),
    (0x0008, 0x0005),
    (0x0020, 0x0032),
    (0x0020, 0x0037),
    (0x0028, 0x0002),
    (0x0028, 0x0008),
    (0x0028, 0x0010),
    (0x0028, 0x0011),
    (0x0028, 0x0030),
    (0x0028, 0x0100),
    (0x0028, 0x0101),
    (0x0028, 0x0102),
    (0x0028, 0x0103),
    (0x0028, 0x1052),
    (0x0028, 0x1053),
    (0x7FE0, 0x0010),
)
KINDS = (b"DS", b"IS", b"US", b"UL", b"OW", b"OB", b"UN", b"SQ", b"LO", b"FD", b"\0\0", b"??")
LENGTHS = (0, 1, 2, 3, 255, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
SYNTAXES = (
    b"1.2.840.10008.1.2\0",
    b"1.2.840.10008.1.2.2\0",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.50",
    b"1.2.840.10008.1.2.4.70",
    b"1.2.840.10008.1.2.4.80",
    b"1.2.840.10008.1.2.4.90",
    b"1.2.840.10008.1.2.5\0",
)


def hostile(seed: Seed) -> st.SearchStrategy[Files]:
    """Return a strategy for the files of a scan with one to three things wrong in them."""
    edits = st.lists(
        st.tuples(st.sampled_from(sorted(seed.files)), st.integers(0, 9)), min_size=1, max_size=4
    )
    return edits.flatmap(lambda chosen: _edited(seed, chosen))


@st.composite
def _edited(draw: st.DrawFn, seed: Seed, chosen: list[tuple[str, int]]) -> Files:
    files = dict(seed.files)
    for name, dice in chosen:
        of_header = name in seed.headers and dice < 7  # a header is where most can go wrong
        edit = draw(_header_edit(seed) if of_header else _byte_edit())
        files[name] = edit(files[name])
    return files


def _header_edit(seed: Seed) -> st.SearchStrategy[Edit]:
    kind = seed.format.partition(",")[0]
    if kind in ("mha", "mhd"):
        return _text_edit(METAIMAGE_FIELDS, " = ")
    if kind in ("nrrd", "nhdr"):
        return _text_edit(NRRD_FIELDS, ": ")
    if kind == "nii":
        return _nifti_edit()
    if kind == "nii.gz":
        return _nifti_edit().map(_within_gzip)
    return _dicom_edit()


def _text_edit(fields: tuple[str, ...], separator: str) -> st.SearchStrategy[Edit]:
    """Return a strategy that sets a field, moves it to the front, doubles it, drops it or adds it."""
    numbers = st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=9).map(" ".join)
    words = st.sampled_from((*WORDS, *PLACES)) | numbers | st.sampled_from(NUMBERS) | st.text(max_size=20)
    ways = st.sampled_from(("set", "one number", "fewer numbers", "control", "front", "double", "drop"))

    def edit(field: str, way: str, value: str, at: int) -> Edit:
        said = value.encode("utf-8", "surrogateescape" if "\udc80" in value else "replace")

        def change(content: bytes) -> bytes:
            lines = content.split(b"\n")
            key = (field + separator).encode()
            place = next((i for i, line in enumerate(lines) if line.startswith(key)), None)
            if place is None:
                return b"\n".join([*lines[:1], key + said, *lines[1:]])
            if way == "one number":
                parts = lines[place][len(key) :].split()
                parts[at % max(1, len(parts)) : at % max(1, len(parts)) + 1] = [said]
                lines[place] = key + b" ".join(parts)
            elif way == "fewer numbers":
                lines[place] = key + b" ".join(lines[place][len(key) :].split()[:at])
            elif way == "control":
                lines.insert(place + at % 2, CONTROLS[at : at + 1] + key + said)
            elif way == "front":
                lines.insert(0, lines.pop(place))
            elif way == "double":
                lines.insert(place, key + said)
            elif way == "drop":
                del lines[place]
            else:
                lines[place] = key + said
            return b"\n".join(lines)

        return change

    return st.builds(edit, st.sampled_from(fields), ways, words, st.integers(0, 8))


def _nifti_edit() -> st.SearchStrategy[Edit]:
    def edit(field: tuple[int, str], real: float, whole: int) -> Edit:
        at, form = field
        if form == "f":
            raw = struct.pack("<f", real)
        else:
            size = struct.calcsize(form)
            raw = (whole % (1 << 8 * size)).to_bytes(size, "little")
        return lambda content: content[:at] + raw + content[at + len(raw) :]

    reals = st.sampled_from(FLOATS) | st.floats(width=32)
    whole = st.sampled_from(WHOLE) | st.integers(-(2**31), 2**31 - 1)
    return st.builds(edit, st.sampled_from(NIFTI_FIELDS), reals, whole)


def _within_gzip(edit: Edit) -> Edit:
    import gzip
    import zlib

    def change(content: bytes) -> bytes:
        try:
            plain = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):  # an earlier edit damaged the stream
            return edit(content)
        return gzip.compress(edit(plain), 1, mtime=0)

    return change


def _dicom_edit() -> st.SearchStrategy[Edit]:
    """Return a strategy that changes an element's value, length, kind or tag, drops it, or puts another before it."""
    values = (
        st.sampled_from(NUMBERS).map(str.encode)
        | st.sampled_from(SYNTAXES)
        | st.sampled_from(LENGTHS).map(lambda length: struct.pack("<H", length & 0xFFFF))
        | st.binary(max_size=24)
    )

    def edit(which: tuple[int, int], way: str, value: bytes, kind: bytes, length: int) -> Edit:
        tag = struct.pack("<HH", *which)

        def change(content: bytes) -> bytes:
            at = content.find(tag)
            if at < 0 or at + 8 > len(content):
                return content + tag + kind + struct.pack("<H", len(value) & 0xFFFF) + value
            long = content[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
            head, form = (12, "<I") if long else (8, "<H")
            if at + head > len(content):
                return content[:at]
            old = struct.unpack_from(form, content, at + head - struct.calcsize(form))[0]
            end = min(len(content), at + head + old)
            if way == "value":
                even = value[:0xFFFE] + b" " * (len(value[:0xFFFE]) % 2)
                start = content[at : at + head - struct.calcsize(form)]
                return content[:at] + start + struct.pack(form, len(even)) + even + content[end:]
            if way == "length":
                said = struct.pack(form, length & (0xFFFFFFFF if long else 0xFFFF))
                return content[: at + head - len(said)] + said + content[at + head :]
            if way == "kind":
                return content[: at + 4] + kind + content[at + 6 :]
            if way == "long kind":
                wide = content[at : at + 4] + kind + b"\0\0" + struct.pack("<I", length)
                return content[:at] + wide + content[at + head :]
            if way == "drop":
                return content[:at] + content[end:]
            nested = tag + kind + b"\0\0" + struct.pack("<I", length) + value
            return content[:at] + nested + content[at:]

        return change

    ways = st.sampled_from(("value", "length", "kind", "long kind", "drop", "before"))
    return st.builds(
        edit,
        st.sampled_from(MISUSED_TAGS),
        ways,
        values,
        st.sampled_from(KINDS),
        st.sampled_from(LENGTHS) | st.integers(0, 2**32 - 1),
    )


def _byte_edit() -> st.SearchStrategy[Edit]:
    """Return a strategy that cuts, adds, repeats or overwrites bytes anywhere in a file."""

    def edit(way: str, share: float, other: float, piece: bytes) -> Edit:
        def change(content: bytes) -> bytes:
            first, last = sorted((int(share * len(content)), int(other * len(content))))
            if way == "cut":
                return content[:first]
            if way == "remove":
                return content[:first] + content[last:]
            if way == "insert":
                return content[:first] + piece + content[first:]
            if way == "repeat":
                return content[:last] + content[first:]
            return content[:first] + piece + content[first + len(piece) :]

        return change

    ways = st.sampled_from(("cut", "remove", "insert", "repeat", "overwrite"))
    return st.builds(edit, ways, st.floats(0, 1), st.floats(0, 1), st.binary(min_size=1, max_size=16))
