"""Sound scans in every format that is read, small enough to mutate by the thousand."""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tests.dicoms import compress, element, write_series

SHAPE_ZYX = (4, 10, 12)
SPACING_XYZ_MM = (20.0, 24.0, 30.0)
ORIGIN_XYZ_MM = (-120.0, 80.0, -40.0)
LEFT_AND_DOWN = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)

# A scan's files by their place in a folder.
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A sound scan.

    Attributes:
        format: as in `SEEDS`.
        files: all of its files.
        scan: what is given to a reader: a file of them, or "" for the folder itself.
        headers: the files whose headers are mutated as such.

    """

    format: str
    files: Files
    scan: str
    headers: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """Of the file that is given to a reader, "" for a folder."""
        return self.scan.removeprefix("scan")


def scan_image() -> sitk.Image:
    """Return a small int16 image with a grid of its own on every axis."""
    image = sitk.GetImageFromArray(_voxels())
    image.SetSpacing(SPACING_XYZ_MM)
    image.SetOrigin(ORIGIN_XYZ_MM)
    image.SetDirection(LEFT_AND_DOWN)
    return image


def make_seed(name: str) -> Seed:
    """Return the sound scan of a format: a key of `SEEDS`."""
    return SEEDS[name](name)


def _voxels() -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1000, 1000, SHAPE_ZYX, dtype=np.int16)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _of_itk(suffix: str, *, compress: bool, pixel: int = sitk.sitkInt16) -> Callable[[str], Seed]:
    def make(name: str) -> Seed:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scan{suffix}"
            sitk.WriteImage(sitk.Cast(scan_image(), pixel), str(path), useCompression=compress)
            return Seed(name, _contents(Path(folder)), path.name, (path.name,))

    return make


def _nhdr(name: str) -> Seed:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nrrd"
        sitk.WriteImage(scan_image(), str(path), useCompression=False)
        header, _, voxels = path.read_bytes().partition(b"\n\n")
    files = {"scan.nhdr": header + b"\ndata file: scan.raw\n", "scan.raw": voxels}
    return Seed(name, files, "scan.nhdr", ("scan.nhdr",))


def _dicom(name: str) -> Seed:
    with tempfile.TemporaryDirectory() as folder:
        unsigned = (_voxels() + 1024).astype(np.uint16)
        series = Path(folder) / "series"  # UIDs depend on it
        series.mkdir()
        write_series(series, unsigned, spacing_yx=SPACING_XYZ_MM[1::-1], step=(0, 0, SPACING_XYZ_MM[2]))
        files = _contents(series)
    return Seed(name, files, "", tuple(files))


def _dicom_rle(name: str) -> Seed:
    """Return the series with its pixels in RLE Lossless (PS3.5, annex G): a fragment of two segments a slice."""
    plain = _dicom(name)
    return Seed(name, {file: _packed(content) for file, content in plain.files.items()}, "", plain.headers)


def _packed(slice_file: bytes) -> bytes:
    head, _, pixels = slice_file.partition(struct.pack("<HH", 0x7FE0, 0x10))
    words = np.frombuffer(pixels[8:], "<u2")
    segments = [_literal((words >> 8).astype(np.uint8)), _literal((words & 255).astype(np.uint8))]
    offsets = [64, 64 + len(segments[0])]
    frame = struct.pack("<16I", 2, *offsets, *[0] * 13) + b"".join(segments)
    items = b"".join(
        struct.pack("<HHI", 0xFFFE, tag, len(content)) + content
        for tag, content in ((0xE000, b""), (0xE000, frame), (0xE0DD, b""))
    )
    syntax = element((2, 0x10), "UI", "1.2.840.10008.1.2.1")
    changed = element((2, 0x10), "UI", "1.2.840.10008.1.2.5")
    meta = head.replace(syntax, changed)
    return meta + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + items


def _dicom_by_gdcm(compressor: str) -> Callable[[str], Seed]:
    """Return what makes the series with its pixels as GDCM compresses them."""

    def make(name: str) -> Seed:
        plain = _dicom(name)
        files = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "slice.dcm"
            for file, content in plain.files.items():
                path.write_bytes(content)
                compress(path, path, compressor)
                files[file] = path.read_bytes()
        return Seed(name, files, "", plain.headers)

    return make


def _dicom_implicit(name: str) -> Seed:
    """Return the series in implicit VR, with a sequence of open length in each slice."""
    plain = _dicom(name)
    return Seed(name, {file: _implicit(content) for file, content in plain.files.items()}, "", plain.headers)


def _implicit(slice_file: bytes) -> bytes:
    start = slice_file.index(struct.pack("<HH2s", 8, 0x16, b"UI"))
    explicit, implicit = (element((2, 0x10), "UI", f"1.2.840.10008.1.2{end}") for end in (".1", ""))
    parts = [slice_file[:start].replace(explicit, implicit)]
    at = start
    while at < len(slice_file):
        tag, kind = slice_file[at : at + 4], slice_file[at + 4 : at + 6]
        head, form = (12, "<I") if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT") else (8, "<H")
        length = struct.unpack_from(form, slice_file, at + head - struct.calcsize(form))[0]
        value = slice_file[at + head : at + head + length]
        if tag == struct.pack("<HH", 0x28, 2):
            parts.append(_open_sequence())
        parts.append(tag + struct.pack("<I", length) + value)
        at += head + length
    return b"".join(parts)


def _open_sequence() -> bytes:
    inner = struct.pack("<HHI", 8, 0x104, 4) + b"name"
    ends = (struct.pack("<HHI", 0xFFFE, tag, 0) for tag in (0xE00D, 0xE0DD))
    head = struct.pack("<HHIHHI", 0x20, 0x9111, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    return head + inner + b"".join(ends)


def _literal(values: NDArray[np.uint8]) -> bytes:
    """Return PackBits of literal runs alone, of an even length."""
    runs = [values[first : first + 128] for first in range(0, len(values), 128)]
    packed = b"".join(bytes([len(run) - 1]) + run.tobytes() for run in runs)
    return packed + b"\0" * (len(packed) % 2)


def _bomb(name: str) -> Seed:
    """Return a MetaImage of a small grid whose compressed stream goes on for 64 MiB."""
    seed = SEEDS["mha, compressed"](name)
    header, marker, _ = seed.files["scan.mha"].partition(b"ElementDataFile = LOCAL\n")
    stream = zlib.compress(bytes(64 << 20), 9)
    lines = [
        f"CompressedDataSize = {len(stream)}".encode() if line.startswith(b"CompressedDataSize") else line
        for line in header.splitlines()
    ]
    content = b"\n".join([*lines, marker]) + stream
    return Seed(name, {"scan.mha": content}, "scan.mha", ("scan.mha",))


SEEDS: dict[str, Callable[[str], Seed]] = {
    "mha": _of_itk(".mha", compress=False),
    "mha, compressed": _of_itk(".mha", compress=True),
    "mha, float64": _of_itk(".mha", compress=False, pixel=sitk.sitkFloat64),
    "mha, bomb": _bomb,
    "mhd": _of_itk(".mhd", compress=False),
    "mhd, compressed": _of_itk(".mhd", compress=True),
    "nii": _of_itk(".nii", compress=False),
    "nii, float32": _of_itk(".nii", compress=False, pixel=sitk.sitkFloat32),
    "nii.gz": _of_itk(".nii.gz", compress=True),
    "nrrd": _of_itk(".nrrd", compress=False),
    "nrrd, compressed": _of_itk(".nrrd", compress=True),
    "nhdr": _nhdr,
    "dicom": _dicom,
    "dicom, implicit": _dicom_implicit,
    "dicom, RLE": _dicom_rle,
    "dicom, JPEG": _dicom_by_gdcm("JPEG"),
    "dicom, JPEG2000": _dicom_by_gdcm("JPEG2000"),
}
