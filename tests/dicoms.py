"""DICOM slices written element by element (PS3.5, explicit VR little endian), to say anything."""

from __future__ import annotations

import locale
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.22"
LONG_KINDS = ("OB", "OW", "SQ", "UN", "UT")
ROOT = "1.2.826.0.1.3680043.10.1"
PATIENT = "Doe^Jane"


def element(tag: tuple[int, int], kind: str, value: bytes | str | Sequence[float] | int) -> bytes:
    """Return one element; numbers become decimal strings, or a short where the kind is US."""
    if isinstance(value, int):
        data = struct.pack("<H" if kind == "US" else "<I", value)
    elif isinstance(value, str):
        data = value.encode()
    elif isinstance(value, bytes):
        data = value
    else:
        data = "\\".join(f"{number:.12g}" for number in value).encode()
    if len(data) % 2:
        data += b"\0" if kind in ("UI", "OB", "OW") else b" "
    head = struct.pack("<HH2s", *tag, kind.encode())
    if kind in LONG_KINDS:
        return head + struct.pack("<HI", 0, len(data)) + data
    return head + struct.pack("<H", len(data)) + data


def write_dicom(
    path: Path,
    pixels: NDArray[np.generic] | None,
    *,
    position: Sequence[float] | None = (0.0, 0.0, 0.0),
    orientation: Sequence[float] | None = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    spacing_yx: Sequence[float] | None = (1.0, 1.0),
    slope: float | None = 1.0,
    intercept: float | None = -1024.0,
    series: str = "1",
    description: str = "",
    tilt: float | None = None,
    thickness: float | None = None,
    between: float | None = None,
    frame_of_reference: str | None = f"{ROOT}.0",
    storage: str = CT_STORAGE,
    frames: int | None = None,
    samples: int = 1,
    preamble: bool = True,
) -> Path:
    """Write one image of 16-bit (or 8-bit) pixels (rows, columns), or an object without pixels for None."""
    instance = f"{ROOT}.{series}.{zlib.crc32('/'.join(path.parts[-2:]).encode())}"
    meta = b"".join(
        [
            element((2, 1), "OB", b"\0\1"),
            element((2, 2), "UI", storage),
            element((2, 3), "UI", instance),
            element((2, 0x10), "UI", "1.2.840.10008.1.2.1"),
        ]
    )
    body = [
        element((8, 0x16), "UI", storage),
        element((8, 0x18), "UI", instance),
        element((8, 0x60), "CS", "CT"),
        element((8, 0x103E), "LO", description),
        element((0x10, 0x10), "PN", PATIENT),
        element((0x10, 0x20), "LO", "P-7"),
    ]
    for at, value in ((0x50, thickness), (0x88, between)):
        if value is not None:
            body.append(element((0x18, at), "DS", (value,)))
    if tilt is not None:
        body.append(element((0x18, 0x1120), "DS", (tilt,)))
    body += [element((0x20, 0xD), "UI", ROOT), element((0x20, 0xE), "UI", f"{ROOT}.{series}")]
    body += [element((0x20, 0x11), "IS", series)]
    if position is not None:
        body.append(element((0x20, 0x32), "DS", position))
    if orientation is not None:
        body.append(element((0x20, 0x37), "DS", orientation))
    if frame_of_reference is not None:
        body.append(element((0x20, 0x52), "UI", frame_of_reference))
    if pixels is not None:
        rows, columns = pixels.shape[-2:] if samples == 1 else pixels.shape[:2]
        bits = pixels.dtype.itemsize * 8
        body.append(element((0x28, 2), "US", samples))
        body.append(element((0x28, 4), "CS", "MONOCHROME2" if samples == 1 else "RGB"))
        if samples > 1:
            body.append(element((0x28, 6), "US", 0))
        if frames is not None:
            body.append(element((0x28, 8), "IS", str(frames)))
        body += [element((0x28, 0x10), "US", rows), element((0x28, 0x11), "US", columns)]
        if spacing_yx is not None:
            body.append(element((0x28, 0x30), "DS", spacing_yx))
        signed = int(np.issubdtype(pixels.dtype, np.signedinteger))
        for at, value in ((0x100, bits), (0x101, bits), (0x102, bits - 1), (0x103, signed)):
            body.append(element((0x28, at), "US", value))
        if intercept is not None:
            body.append(element((0x28, 0x1052), "DS", (intercept,)))
        if slope is not None:
            body.append(element((0x28, 0x1053), "DS", (slope,)))
        body.append(element((0x7FE0, 0x10), "OW" if bits == 16 else "OB", pixels.tobytes()))
    start = b"\0" * 128 + b"DICM" + element((2, 0), "UL", len(meta)) + meta if preamble else b""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + b"".join(body))
    return path


def compress(source: Path, target: Path, compressor: str) -> None:
    """Write a slice again with its pixels as GDCM compresses them: "JPEG" (lossless) or "JPEG2000"."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(target))
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(True)
    writer.SetCompressor(compressor)
    image = sitk.ReadImage(str(source), sitk.sitkUInt16)
    for tag, value in (("0008|0020", "20260101"), ("0008|0030", "120000")):  # else the date and time of now
        image.SetMetaData(tag, value)
    before = locale.setlocale(locale.LC_ALL)
    writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)  # GDCM's writer leaves the one of C


def write_series(
    folder: Path,
    volume: NDArray[np.generic],
    *,
    step: Sequence[float] = (0.0, 0.0, 2.5),
    origin: Sequence[float] = (-10.0, 20.0, 30.0),
    **tags: object,
) -> list[Path]:
    """Write the slices of a volume (z, y, x), `step` mm (x, y, z) apart, named against their order."""
    places = np.array(origin) + np.outer(np.arange(len(volume)), step)
    return [
        write_dicom(folder / f"{len(volume) - z:03d}.dcm", plane, position=place.tolist(), **tags)  # type: ignore[arg-type]
        for z, (plane, place) in enumerate(zip(volume, places, strict=True))
    ]
