"""Scans that cannot be segmented, each a file of one job, and the sentence that refuses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk


@dataclass(frozen=True)
class Hostile:
    """What a file is, how it is made from a sound scan, and what is said of it."""

    what: str
    make: Callable[[Path, bytes], object]
    sentence: str


def _header(**changes: str) -> Callable[[Path, bytes], object]:
    """Return what writes a scan with fields of its header replaced; an empty one is left out."""

    def make(path: Path, scan: bytes) -> None:
        header, marker, voxels = scan.partition(b"ElementDataFile = LOCAL\n")
        lines = [line for line in header.decode().splitlines() if line.split(" = ")[0] not in changes]
        # the type of the object and its dimensions must come first
        kept, rest = lines[:2], lines[2:]
        added = [f"{key} = {value}" for key, value in changes.items() if value]
        path.write_bytes("\n".join([*kept, *added, *rest, ""]).encode() + marker + voxels)

    return make


def _image(array: np.ndarray, *, vector: bool = False) -> Callable[[Path, bytes], object]:
    def make(path: Path, _: bytes) -> None:
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))

    return make


def _damaged(path: Path, scan: bytes) -> None:
    content = bytearray(scan)
    content[-200:-100] = bytes(100)
    path.write_bytes(content)


def _unreadable(path: Path, scan: bytes) -> None:
    path.write_bytes(scan)
    path.chmod(0)


VOLUME = (6, 20, 24)
HOSTILE = (
    Hostile("an empty file", lambda path, _: path.write_bytes(b""), "is empty; copy or download it again"),
    Hostile(
        "text", lambda path, _: path.write_text("no image\n"), "is not a MetaImage, or its header is damaged"
    ),
    Hostile(
        "a NIfTI called .mha",
        lambda path, _: path.write_bytes(b"\x5c\1\0\0" + bytes(344)),
        "is not a MetaImage",
    ),
    Hostile(
        "half of a scan",
        lambda path, scan: path.write_bytes(scan[: len(scan) // 2]),
        "is cut off: its header claims",
    ),
    Hostile("a damaged stream", _damaged, "has damaged compressed data; copy or download it again"),
    Hostile("terabytes claimed", _header(DimSize="99999 99999 99999"), "GiB, and the limit is 8 GiB"),
    Hostile("99 axes", _header(NDims="99"), "has a damaged header: "),
    Hostile(
        "two volumes", _image(np.zeros((2, *VOLUME), np.int16)), "must be one 3-D volume, but its size is"
    ),
    Hostile(
        "one slice in 2-D", _image(np.zeros((20, 24), np.int16)), "must be one 3-D volume, but its size is"
    ),
    Hostile(
        "colours", _image(np.zeros((*VOLUME, 3), np.int16), vector=True), "must have one number per voxel"
    ),
    Hostile(
        "no number at all",
        _image(np.full(VOLUME, np.nan, np.float32)),
        ".mha: no voxel of the scan is a finite number",
    ),
    Hostile("no spacing", _header(ElementSpacing=""), "states no spacing (ElementSpacing is missing"),
    Hostile(
        "a spacing of 0",
        _header(ElementSpacing="0 0.8 2.5"),
        "has no usable grid: spacing must be finite and > 0",
    ),
    Hostile(
        "a spacing in metres",
        _header(ElementSpacing="8e-7 8e-7 2e-6"),
        "which is no patient; its spacing must be in mm",
    ),
    Hostile(
        "sheared axes",
        _header(TransformMatrix="1 0 0 0.3 1 0 0 0 1"),
        "axes must be perpendicular unit vectors",
    ),
    Hostile(
        "voxels elsewhere",
        lambda path, scan: path.write_bytes(scan.replace(b"= LOCAL", b"= /etc/passwd")),
        "keeps its voxels outside its own folder ('/etc/passwd')",
    ),
    Hostile(
        "DICOM, one slice of it",
        lambda path, _: path.write_bytes(bytes(128) + b"DICM" + bytes(64)),
        "is not a MetaImage",
    ),
)
UNREADABLE = Hostile("a file that the user may not read", _unreadable, "permission denied")
