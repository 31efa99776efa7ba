"""The voxels that a scan's header states, read by NumPy and pydicom alone, to compare ITK's with."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError

from algorithm import metaimage, nifti, nrrd
from algorithm.images import READERS, image_suffix

# What pydicom raises for a slice that GDCM reads all the same.
UNREADABLE = (
    AttributeError,
    BytesLengthException,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
)
METAIMAGE_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
NRRD_TYPES = {
    "signed char": "i1",
    "unsigned char": "u1",
    "uchar": "u1",
    "short": "i2",
    "unsigned short": "u2",
    "ushort": "u2",
    "int": "i4",
    "unsigned int": "u4",
    "float": "f4",
    "double": "f8",
}


def stated_voxels(scan: Path) -> NDArray[Any] | None:
    """Return the voxels (z, y, x) of a scan that was accepted; None where this module does not know how to."""
    if scan.is_dir():
        return _dicom(scan)
    of = {"NiftiImageIO": _nifti, "MetaImageIO": _metaimage, "NrrdImageIO": _nrrd}
    return of[READERS[image_suffix(scan) or ""]](scan)


def _metaimage(scan: Path) -> NDArray[Any] | None:
    header = metaimage.check_header(scan)
    fields = header.fields
    kind = METAIMAGE_TYPES.get(fields["ElementType"])
    if kind is None or fields.keys() & {"ElementToIntensityFunctionSlope", "HeaderSize"}:
        return None
    content = header.data_file.read_bytes()[header.data_start :]
    if fields.get("CompressedData", "").lower() in ("true", "1"):
        content = zlib.decompress(content[: int(fields["CompressedDataSize"])])
    swapped = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "")).lower()
    return _shaped(content, (">" if swapped in ("true", "1") else "<") + kind, fields["DimSize"].split())


def _nrrd(scan: Path) -> NDArray[Any] | None:
    header = nrrd.check_header(scan)
    fields = header.fields
    kind = NRRD_TYPES.get(fields.get("type", ""))
    if kind is None or fields.keys() & {"byte skip", "byteskip", "line skip", "lineskip"}:
        return None
    content = header.data_file.read_bytes()[header.data_start :]
    if fields["encoding"].lower() != "raw":
        content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content)
    return _shaped(content, (">" if fields.get("endian") == "big" else "<") + kind, fields["sizes"].split())


def _nifti(scan: Path) -> NDArray[Any] | None:
    header = nifti.check_header(scan)
    content = scan.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    little = content[:4] == (348).to_bytes(4, "little")
    intercept = np.frombuffer(content, "<f4" if little else ">f4", 1, 116)[0]
    if header.slope not in (0.0, 1.0) or (header.slope and intercept):
        return None
    return _shaped(content[int(header.data_start) :], header.dtype.str, [str(n) for n in header.size[:3]])


def _shaped(content: bytes, kind: str, sides: list[str]) -> NDArray[Any]:
    x, y, z = map(int, sides[:3])
    return np.frombuffer(content, kind, x * y * z).reshape(z, y, x)


def _dicom(folder: Path) -> NDArray[Any] | None:
    """Return the slices of a series whose planes are axial, stored as they are or in RLE."""
    slices = []
    for path in sorted(folder.iterdir()):
        try:
            one = pydicom.dcmread(path)
            if one.file_meta.TransferSyntaxUID.startswith("1.2.840.10008.1.2.4"):
                return None
            values = one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept)
            slices.append((float(one.ImagePositionPatient[2]), values))
        except UNREADABLE:
            return None
    return np.stack([values for _, values in sorted(slices, key=lambda one: one[0])])
