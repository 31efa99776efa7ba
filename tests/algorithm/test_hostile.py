"""Scans that were made to do harm: refused in one sentence, before anything is reserved or read elsewhere."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm import dicom_elements, memory, metaimage
from algorithm.bundle import read_bundle
from algorithm.dicom_elements import LARGEST_SLICE_BYTES, check_elements, stream_of
from algorithm.entry import main as entry
from algorithm.errors import InputError, printable
from algorithm.geometry import Geometry
from algorithm.images import check_sides, read_geometry, read_image
from tests.bundles import write_random_bundle
from tests.dicoms import compress, element, write_dicom, write_series
from tests.fuzz.seeds import SEEDS, make_seed, scan_image
from trainer.doctor.bundle import check as check_bundle

REPOSITORY = Path(__file__).parents[2]
# More than a process needs that has imported ITK and reads a small scan, and less than any of these headers claims.
SPARE_BYTES = 256 << 20


def place(folder: Path, name: str) -> Path:
    """Write the sound scan of a format; return what a reader is given."""
    seed = make_seed(name)
    for file, content in seed.files.items():
        (folder / file).write_bytes(content)
    return folder / seed.scan


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    said = str(caught.value)
    assert "\n" not in said
    return said


def field(name: str, value: str, separator: str = " = ", *, drop: bool = False) -> Callable[[bytes], bytes]:
    """Return what sets a field of a text header, or drops it."""

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}{separator}".encode()))
        lines[at : at + 1] = [] if drop else [f"{name}{separator}{value}".encode()]
        return b"\n".join(lines)

    return change


def nifti(at: int, form: str, *values: float) -> Callable[[bytes], bytes]:
    """Return what sets fields of a NIfTI header."""

    def change(content: bytes) -> bytes:
        packed = content[:2] == b"\x1f\x8b"
        plain = bytearray(gzip.decompress(content) if packed else content)
        struct.pack_into(f"<{form}", plain, at, *values)
        return gzip.compress(plain) if packed else bytes(plain)

    return change


MILLION = "1000000 1000000 1000000"
BESIDE = "keeps its voxels outside its own folder"
HEADERS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("mha", field("DimSize", MILLION), "GiB, and the limit is 8 GiB"),
    ("mha", field("DimSize", "9" * 5000 + " 10 4"), "has a damaged header: NDims = 3, DimSize = 9999"),
    ("mha", field("DimSize", "9" * 50_000 + " 10 4"), "has a damaged header: DimSize is too long"),
    ("mha", field("DimSize", "12 10 -4"), "has a damaged header: NDims = 3, DimSize = 12 10 -4"),
    ("mha", field("ElementSpacing", "1 nan 1"), "has a damaged header: ElementSpacing = 1 nan 1"),
    ("mha", field("ElementSpacing", "1 -1 1"), "spacing must be finite and > 0"),
    ("mha", field("ElementSpacing", "0 1 1"), "spacing must be finite and > 0"),
    (
        "mha",
        field("ElementSpacing", "5 5 51"),
        "has a spacing of (51, 5, 5) mm (z, y, x), and the limit is 50 mm",
    ),
    ("mha", field("TransformMatrix", "1 0 0 1 0 0 0 0 1"), "axes must be perpendicular unit vectors"),
    ("mha", field("TransformMatrix", "0 0 0 0 0 0 0 0 0"), "has no usable grid"),
    ("mha", field("ElementDataFile", "/etc/passwd"), f"{BESIDE} ('/etc/passwd')"),
    ("mha", field("ElementDataFile", "../../etc/passwd"), BESIDE),
    ("mha", field("ElementDataFile", "folder/scan.raw"), BESIDE),
    ("mha", field("ElementDataFile", "a\0b"), "has no printable value"),
    ("mha", field("ElementDataFile", "x" * 1000), "has a damaged header: ElementDataFile is too long"),
    ("mha", field("ElementType", "MET_OTHER"), "has a damaged header: ElementType = MET_OTHER"),
    ("mha", field("ElementType", "MET_SHORT\nName = " + "x" * 300), "has a damaged header: Name is too long"),
    ("mha", field("ElementType", "MET_SHORT\nElementSpacing: 9 9 9 ="), "'ElementSpacing: 9 9 9' is no key"),
    ("mha", field("ElementType", "MET_SHORT\nDimSize = 1 1 1"), "DimSize stands there twice"),
    # MetaIO takes numbers that a field lacks from the next line, whose field is then lost.
    ("mha", field("ElementType", "MET_SHORT\nColor = 1 2"), "has a damaged header: Color = 1 2"),
    ("mha", field("ElementType", "MET_SHORT\nElementMin ="), "has a damaged header: ElementMin = None"),
    ("mha", field("CenterOfRotation", "0 0"), "has a damaged header: CenterOfRotation = 0 0"),
    (
        "mha",
        field("ElementType", "MET_SHORT\nTransformType ="),
        "has a damaged header: TransformType is empty",
    ),
    ("mha", field("ElementType", "MET_SHORT\n\x1fElementNBits = 8"), "'\\x1fElementNBits' is no key"),
    ("mha", field("ElementDataFile", "\x1fscan.raw"), "has no printable value"),
    ("mha", field("ElementDataFile", "lOCAL"), "keeps its voxels in 'lOCAL', which is not there"),
    (
        "mha",
        field("ElementType", "MET_SHORT\nHeaderSize = 10"),
        "has HeaderSize = 10, which is for plain voxels",
    ),
    (
        "mhd, compressed",
        field("ElementType", "MET_SHORT\nHeaderSize = -1"),
        "has HeaderSize = -1, which is for plain",
    ),
    (
        "mha",
        field("ElementType", "MET_SHORT\nOrigin = 1 2 3"),
        "contradicts itself: Offset and Origin differ",
    ),
    ("mha", field("ElementType", "MET_SHORT\nDistanceUnits = cm"), "states its grid in cm; it must be in mm"),
    (
        "mha",
        field("ElementType", "MET_SHORT\nElementToIntensityFunctionSlope = 2"),
        "is not applied when it is read",
    ),
    ("mha", field("ElementType", "MET_UCHAR"), "has 480 bytes more than its header claims"),
    ("mhd", field("DimSize", "12 10 3"), "has 240 bytes more than its header claims"),
    ("nrrd", field("type", "uchar", ": "), "has 480 bytes more than its header claims"),
    (
        "nrrd, compressed",
        field("type", "uchar", ": "),
        "unpacks to more than the 480 bytes that its header claims",
    ),
    (
        "nrrd",
        field("encoding", 'raw\nspace units: "cm" "cm" "cm"', ": "),
        "states its grid in 'cm' (space units)",
    ),
    (
        "nrrd",
        field("space origin", "(0,0,0)", ": ", drop=True),
        "states no origin ('space origin' is missing",
    ),
    (
        "nhdr",
        field("data file", "scan.raw ", ": "),
        "the name of its data file, 'scan.raw ', ends in a blank",
    ),
    ("nii", nifti(256, "3f", 2, 2, 2), "its quaternion is no rotation"),
    ("mha", field("CompressedData", "Tomorrow"), "has a damaged header: CompressedData = Tomorrow"),
    ("mha", field("BinaryDataByteOrderMSB", "1e9"), "has a damaged header: BinaryDataByteOrderMSB = 1e9"),
    ("mha, compressed", field("CompressedDataSize", "1" + "0" * 200), "CompressedDataSize = 1000"),
    (
        "mha, compressed",
        field("CompressedDataSize", "10" * 8),
        "is cut off: its header claims 1010101010101010",
    ),
    ("mhd", field("ElementDataFile", "/dev/zero"), BESIDE),
    ("nrrd", field("sizes", MILLION, ": "), "GiB, and the limit is 8 GiB"),
    ("nrrd", field("sizes", "9" * 400 + " 10 4", ": "), "has a damaged header: dimension: 3, sizes: 9999"),
    ("nrrd", field("dimension", "9" * 5000, ": "), "is no field, or too long"),
    ("nrrd", field("encoding", "raw\nencoding: gzip", ": "), "'encoding' stands there twice"),
    ("nrrd", field("endian", "little\nsquare: 4", ": "), "'square: 4' is no field, or too long"),
    ("nrrd", field("endian", "little\rspacings: 1 1 1", ": "), "is no field, or too long"),
    ("nrrd", field("space directions", "(nan,0,0) (0,1,0) (0,0,1)", ": "), "has a damaged header: space"),
    ("nrrd", field("space directions", "(0,0,0) (0,1,0) (0,0,1)", ": "), "has no usable grid"),
    (
        "nrrd",
        field("encoding", "ascii", ": "),
        "must keep its voxels raw or in gzip, but its encoding is ascii",
    ),
    ("nrrd", field("encoding", "raw\nbyte skip: -2", ": "), "has byte skip: -2, which cannot be read"),
    ("nrrd", field("encoding", "raw\nline skip: 1", ": "), "has line skip: 1, which cannot be read"),
    ("nhdr", field("data file", "/etc/passwd", ": "), BESIDE),
    ("nii", nifti(40, "4h", 3, 32767, 32767, 32767), "GiB, and the limit is 8 GiB"),
    ("nii", nifti(76, "4f", 1, 0, 1, 1), "has no usable spacing"),
    ("nii", nifti(76, "4f", 1, 1, -1, 1), "has no usable spacing"),
    ("nii", nifti(76, "4f", 1, 1, 1, float("nan")), "has no usable spacing"),
    ("nii", nifti(108, "f", 1e9), "has a damaged header: its voxels begin at byte 1000000000"),
    ("nii", nifti(280, "12f", *[0.0] * 12), "states two spacings"),
    ("nii.gz", nifti(40, "4h", 3, 2000, 1024, 1024), "is cut off: its header claims"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), HEADERS)
def test_hostile_headers_are_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], sentence: str
) -> None:
    scan = place(tmp_path, name)
    scan.write_bytes(change(scan.read_bytes()))
    said = refusal(scan)
    assert sentence in said
    assert said.startswith(str(scan.with_suffix("")))
    assert len(said) < 400 + len(str(scan))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    assert "has damaged compressed data" in refusal(place(tmp_path, "mha, bomb"))


CLAIMS = {
    "mha": lambda scan: scan.write_bytes(field("DimSize", "2000 1000 1000")(scan.read_bytes())),
    "mha, compressed": lambda scan: scan.write_bytes(
        field("CompressedDataSize", "4000000000")(scan.read_bytes())
    ),
    "nrrd": lambda scan: scan.write_bytes(field("sizes", "2000 1000 1000", ": ")(scan.read_bytes())),
    "nrrd, compressed": lambda scan: scan.write_bytes(
        field("sizes", "2000 1000 1000", ": ")(scan.read_bytes())
    ),
    "nii": lambda scan: scan.write_bytes(nifti(40, "4h", 3, 2000, 1000, 1000)(scan.read_bytes())),
    "nii.gz": lambda scan: scan.write_bytes(nifti(40, "4h", 3, 2000, 1000, 1000)(scan.read_bytes())),
    "dicom": lambda scan: claim_pixels(scan / "001.dcm"),
}


def claim_pixels(slice_file: Path) -> None:
    """Let the pixels of a slice claim 3 GB."""
    head, tag, pixels = slice_file.read_bytes().partition(struct.pack("<HH", 0x7FE0, 0x10))
    slice_file.write_bytes(head + tag + pixels[:4] + struct.pack("<I", 3_000_000_000) + pixels[8:])


@pytest.mark.parametrize("name", CLAIMS)
def test_nothing_is_reserved_for_what_a_header_claims(tmp_path: Path, name: str) -> None:
    """A process that has little memory to spare refuses in the same words as one that has all."""
    scan = place(tmp_path, name)
    CLAIMS[name](scan)
    program = """
        import resource, sys
        from pathlib import Path
        from algorithm.errors import InputError, printable
        from algorithm.images import read_image

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]),) * 2)
        try:
            read_image(Path(sys.argv[1]))
        except InputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(scan), str(SPARE_BYTES)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == refusal(scan)


def slice_with(path: Path, *extra: bytes, before: tuple[int, int] = (0x7FE0, 0x10)) -> Path:
    """Write a slice with elements put before another."""
    write_dicom(path, np.zeros((4, 6), np.uint16))
    head, tag, rest = path.read_bytes().partition(struct.pack("<HH", *before))
    path.write_bytes(head + b"".join(extra) + tag + rest)
    return path


def sequence(content: bytes, length: int | None = None) -> bytes:
    said = len(content) if length is None else length
    return struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, said) + content


def item(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


OPEN = 0xFFFFFFFF
ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
INNER = element((0x0008, 0x0104), "LO", "contrast")
SOUND_SEQUENCES = {
    "no item": sequence(b""),
    "of known length": sequence(item(INNER)),
    "of open length": sequence(item(INNER + ITEM_END, OPEN) + SEQUENCE_END, OPEN),
    "open in known": sequence(item(INNER + ITEM_END, OPEN)),
    "in each other": sequence(item(sequence(item(INNER)))),
    "unknown, implicit within": struct.pack("<HH2sHI", 0x0041, 0x10, b"UN", 0, OPEN)
    + item(struct.pack("<HHI", 0x8, 0x104, 4) + b"abcd")
    + SEQUENCE_END,
}


@pytest.mark.parametrize("name", SOUND_SEQUENCES)
def test_sequences_are_walked_over(tmp_path: Path, name: str) -> None:
    path = slice_with(tmp_path / "a.dcm", SOUND_SEQUENCES[name])
    check_elements(path)
    assert sitk.ReadImage(str(path)).GetSize()[:2] == (6, 4)


def test_padding_behind_the_pixels_is_no_damage(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 6), np.uint16))
    path.write_bytes(path.read_bytes() + bytes(100_001))
    check_elements(path)


def nested(depth: int) -> bytes:
    content = INNER
    for _ in range(depth):
        content = sequence(item(content + ITEM_END, OPEN) + SEQUENCE_END, OPEN)
    return content


DAMAGED_ELEMENTS = {
    "a value beyond the end": (
        struct.pack("<HH2sHI", 0x0041, 0x10, b"OB", 0, 3_000_000_000),
        "(0041,0010) claims 3000000000 bytes, more than are left",
    ),
    "within a sequence": (
        sequence(item(struct.pack("<HH2sHI", 0x0041, 0x10, b"OB", 0, 3_000_000_000))),
        "(0041,0010) claims 3000000000 bytes, more than are left",
    ),
    "out of its sequence": (
        sequence(item(struct.pack("<HH2sHI", 0x0041, 0x10, b"OB", 0, 40))),
        "(0041,0010) claims 40 bytes, more than are left",
    ),
    "no kind": (
        struct.pack("<HH2sH", 0x0041, 0x10, b"\0\0", 0),
        "(0041,0010) has no known value representation",
    ),
    "an item that is none": (sequence(INNER), "(0040,0275) is no sequence of items"),
    "a sequence without an end": (sequence(item(INNER + ITEM_END, OPEN), OPEN), "is no sequence of items"),
    "sequences without an end": (nested(5000), "sequences in each other more than 32 deep"),
    "more than a slice": (element((0x28, 0x8), "IS", "999999"), "bytes of pixels, and 48 are there"),
}


@pytest.mark.parametrize("name", DAMAGED_ELEMENTS)
def test_elements_that_claim_more_than_there_is(tmp_path: Path, name: str) -> None:
    extra, sentence = DAMAGED_ELEMENTS[name]
    slice_with(tmp_path / "a.dcm", extra)
    assert sentence in refusal(tmp_path)


def test_compressed_pixels_are_no_larger_than_a_slice(tmp_path: Path) -> None:
    scan = place(tmp_path, "dicom, RLE")
    assert read_image(scan).GetSize() == (12, 10, 4)
    side = int((LARGEST_SLICE_BYTES // 2) ** 0.5) + 1
    for tag in (0x10, 0x11):
        path = scan / "001.dcm"
        head, mark, rest = path.read_bytes().partition(struct.pack("<HH2sH", 0x28, tag, b"US", 2))
        path.write_bytes(head + mark + struct.pack("<H", side) + rest[2:])
    assert f"it claims {side} x {side} pixels of 16 bits, which is no slice" in refusal(scan)


@pytest.mark.parametrize("name", SEEDS)
def test_read_geometry_refuses_what_read_image_refuses(tmp_path: Path, name: str) -> None:
    scan = place(tmp_path, name)
    for file in [scan] if scan.is_file() else scan.iterdir():
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError):
        read_geometry(scan)
    refusal(scan)


NAMES = ["a\nb", "a\rb", "\x1b[31mred", "a\u2028b", "a b  c"]


@pytest.mark.parametrize("name", NAMES)
def test_names_with_line_breaks_stay_on_one_line(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a refusal, nor a warning, nor a line of the progress is two, or ends a terminal's colours."""
    for folder in ("damaged", "warned"):
        (tmp_path / folder).mkdir()
    (tmp_path / "damaged" / f"{name}.mha").write_bytes(b"nothing")
    scan = place(tmp_path / "warned", "mha")
    lines = [line for line in scan.read_bytes().split(b"\n") if not line.startswith(b"TransformMatrix")]
    scan.rename(scan.with_name(f"{name}.mha")).write_bytes(b"\n".join(lines))
    environment = job(tmp_path)
    assert entry({**environment, "DECATHLON_INPUT": str(tmp_path / "damaged")}) == 1
    refused = capsys.readouterr().err
    (outcome,) = json.loads((tmp_path / "output" / "results.json").read_text())
    assert len(outcome["error_messages"]) == 1
    (tmp_path / "output" / "results.json").unlink()
    assert entry({**environment, "DECATHLON_INPUT": str(tmp_path / "warned")}) == 0
    warned = capsys.readouterr().err
    shown = printable(name)
    assert [line for line in refused.splitlines() if shown in line][-1].startswith("algorithm: ")
    assert [line for line in warned.splitlines() if f"{shown}.mha does not say how it is oriented" in line]
    assert all(one.isprintable() or one == "\n" for one in refused + warned)


def job(root: Path) -> dict[str, str]:
    """Return a job on a folder of scans."""
    bundle = write_random_bundle(root / "bundle")
    return {
        "DECATHLON_INPUT": str(root),
        "DECATHLON_OUTPUT": str(root / "output"),
        "DECATHLON_MODEL": str(bundle),
    }


def linked_scan(name: str, elsewhere: Path, inside: Path) -> tuple[str, str]:
    """Put a scan into the input whose voxels come by a link from elsewhere; return the names of both."""
    scan = place(elsewhere, "mha" if name == "whole" else name)
    content = scan.read_bytes()
    if name == "whole":
        (inside / scan.name).symlink_to(scan)
        return scan.name, scan.name
    voxels = elsewhere / "scan.raw"
    if name == "mha":
        head, _, body = content.partition(b"ElementDataFile = LOCAL\n")
        content = head + b"ElementDataFile = scan.raw\n"
    elif name == "nrrd":
        head, _, body = content.partition(b"\n\n")
        content = head + b"\ndata file: scan.raw\n\n"
    if name in ("mha", "nrrd"):
        voxels.write_bytes(body)
    (inside / scan.name).write_bytes(content)
    (inside / voxels.name).symlink_to(voxels)
    return scan.name, voxels.name


@pytest.mark.parametrize("name", ["whole", "mha", "mhd", "nrrd", "nhdr"])
def test_a_link_out_of_the_input_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("elsewhere", "input"):
        (tmp_path / folder).mkdir()
    scan, linked = linked_scan(name, tmp_path / "elsewhere", tmp_path / "input")
    sitk.WriteImage(scan_image(), str(tmp_path / "input" / "sound.mha"))
    assert entry({**job(tmp_path), "DECATHLON_INPUT": str(tmp_path / "input")}) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{linked} is a link to {tmp_path / 'elsewhere'}" in said
    assert "which lies outside the input folder" in said
    assert (tmp_path / "output" / "images" / "sound.mha").is_file()
    assert not (tmp_path / "output" / "images" / scan).exists()


def test_a_link_within_the_input_is_followed(tmp_path: Path) -> None:
    (tmp_path / "input" / ".store").mkdir(parents=True)
    scan = place(tmp_path / "input" / ".store", "mha")
    (tmp_path / "input" / "a.mha").symlink_to(scan)
    assert entry({**job(tmp_path), "DECATHLON_INPUT": str(tmp_path / "input")}) == 0


def archive(path: Path, bundle: Path, change: Callable[[tarfile.TarInfo], bytes | None]) -> Path:
    """Write a tarball of a bundle whose model.safetensors is changed."""
    with tarfile.open(path, "w:gz") as packed:
        packed.add(bundle / "model.json", "model.json")
        member = tarfile.TarInfo("model.safetensors")
        content = change(member)
        packed.addfile(member, None if content is None else io.BytesIO(content))
    return path


def as_link(member: tarfile.TarInfo) -> None:
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"


def as_hard_link(member: tarfile.TarInfo) -> None:
    member.type, member.linkname = tarfile.LNKTYPE, "nothing"


def as_device(member: tarfile.TarInfo) -> None:
    member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 1, 5


@pytest.mark.parametrize("change", [as_link, as_hard_link, as_device])
def test_links_and_devices_in_tarballs_are_refused(
    tmp_path: Path, change: Callable[[tarfile.TarInfo], None]
) -> None:
    path = archive(tmp_path / "model.tar.gz", write_random_bundle(tmp_path / "bundle"), change)
    with pytest.raises(
        InputError, match="must be a regular file in its tarball, but is a link, a folder or a"
    ):
        read_bundle(path)


def test_weights_are_no_larger_than_the_network(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(8 << 20)

    def too_large(member: tarfile.TarInfo) -> bytes:
        member.size = len(noise)
        return noise

    bundle = write_random_bundle(tmp_path / "bundle")
    path = archive(tmp_path / "model.tar.gz", bundle, too_large)
    with pytest.raises(
        InputError, match=r"has 8388608 bytes, more than the [0-9]+ that such a bundle may hold"
    ):
        read_bundle(path)
    (bundle / "model.safetensors").write_bytes(noise)
    with pytest.raises(InputError, match=r"more than the [0-9]+ that such a bundle may hold"):
        read_bundle(bundle)


@pytest.mark.parametrize("content", [b"\x80\x04.", b"\x80\x02}q.", b"PK\x03\x04" + bytes(60)])
def test_a_pickle_under_another_name_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    bundle = write_random_bundle(tmp_path / "bundle")
    (bundle / "model.safetensors").write_bytes(content)
    with pytest.raises(
        InputError, match=r"model\.safetensors is a pickle under another name, which can run code"
    ):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("depth", 10**9),
        ("depth", 10**400),
        ("depth", -1),
        ("base_filters", 10**9),
        ("base_filters", 10**30),
        ("base_filters", 1.5),
        ("base_filters", "__import__('os')"),
        ("num_classes", 10**9),
        ("in_channels", 10**15),
        ("dropout", float("nan")),
        ("activation", "relu6"),
        ("__class__", "x"),
    ],
)
def test_networks_that_nobody_can_build_are_refused(tmp_path: Path, key: str, value: object) -> None:
    bundle = write_random_bundle(tmp_path / "bundle")
    document = json.loads((bundle / "model.json").read_text())
    document["network"][key] = value
    (bundle / "model.json").write_text(json.dumps(document))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        read_bundle(bundle)
    assert str(caught.value).startswith(str(bundle))
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < SPARE_BYTES >> 10


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' * 50_000, b"9" * 5000, b"\xff\xfe", b"NaN"])
def test_json_that_nobody_can_parse_is_refused(tmp_path: Path, content: bytes) -> None:
    bundle = write_random_bundle(tmp_path / "bundle")
    (bundle / "model.json").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.json"):
        read_bundle(bundle)


def test_a_signalling_nan_is_no_warning(tmp_path: Path) -> None:
    """pytest turns a warning into an error."""
    scan = place(tmp_path, "nii, float32")
    content = bytearray(scan.read_bytes())
    content[352:356] = struct.pack("<I", 0x7F800001)
    scan.write_bytes(content)
    voxels = sitk.GetArrayFromImage(read_image(scan))
    assert np.isnan(voxels.reshape(-1)[0])


def test_a_stream_that_never_ends_is_not_followed(tmp_path: Path) -> None:
    """A gzip of many small members, each of which is sound, unpacks to no more than twice what is wanted."""
    scan = place(tmp_path, "nii.gz")
    with scan.open("ab") as file:
        member = gzip.compress(bytes(1 << 20), 9)
        for _ in range(200):
            file.write(member)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_image(scan)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_slice_that_is_compressed_as_a_file_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, np.zeros((3, 4, 6), np.uint16))
    path = next(tmp_path.glob("*.dcm"))
    path.write_bytes(zlib.compress(path.read_bytes()))
    assert "is not a readable DICOM image" in refusal(tmp_path)


def test_reading_leaves_no_handle_open(tmp_path: Path) -> None:
    for name in SEEDS:
        (tmp_path / name).mkdir()
        scan = place(tmp_path / name, name)
        for file in [scan] if scan.is_file() else scan.iterdir():
            file.write_bytes(file.read_bytes()[:200])
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 # of this process
    for name in SEEDS:
        refusal(tmp_path / name / make_seed(name).scan)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def sparse(path: Path, bundle: Path, change: Callable[[tarfile.TarFile], None]) -> Path:
    """Write a tarball of a bundle behind members that `change` adds."""
    with tarfile.open(path, "w:gz") as packed:
        change(packed)
        for name in ("model.json", "model.safetensors"):
            packed.add(bundle / name, name)
    return path


class Zeros(io.RawIOBase):
    """So many zeros, without memory for them."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(self.left, len(buffer))
        buffer[:count] = bytes(count)
        self.left -= count
        return count


def large_member(kind: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(packed: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("pad")
        member.type, member.size = kind, 200 << 20
        packed.addfile(member, io.BufferedReader(Zeros(member.size)))

    return add


def many_members(packed: tarfile.TarFile) -> None:
    for number in range(5000):
        packed.addfile(tarfile.TarInfo(f"{number}"))


BOMBS = {
    "a large member": large_member(tarfile.REGTYPE),
    "a large extended header": large_member(tarfile.XHDTYPE),
    "a long name": large_member(tarfile.GNUTYPE_LONGNAME),
    "many members": many_members,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_tarball_is_no_bomb(tmp_path: Path, name: str) -> None:
    path = sparse(tmp_path / "model.tar.gz", write_random_bundle(tmp_path / "bundle"), BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = "unpacks to far more than weights are compressed to|holds more than 1000 files"
    with pytest.raises(InputError, match=sentence):
        read_bundle(path)
    assert [error.severity for error in check_bundle(path)] == ["error"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < SPARE_BYTES >> 10


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_sound_tarballs_are_read(tmp_path: Path, compression: str) -> None:
    bundle = write_random_bundle(tmp_path / "bundle")
    with tarfile.open(tmp_path / "model.tar", f"w:{compression}") as packed:
        packed.add(bundle, "bundle")
    assert read_bundle(tmp_path / "model.tar").description == read_bundle(bundle).description


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b]0;mine\x07", "x" * 101])
def test_labels_that_no_terminal_should_be_sent_are_refused(tmp_path: Path, name: str) -> None:
    bundle = write_random_bundle(tmp_path / "bundle")
    document = json.loads((bundle / "model.json").read_text())
    document["labels"][1] = name
    (bundle / "model.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="'labels' must be"):
        read_bundle(bundle)


def test_the_largest_grid_that_is_a_patient() -> None:
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    check_sides("it", Geometry((400, 1000, 1000), (5.0, 0.7, 0.7), (0.0, 0.0, 0.0), direction))
    with pytest.raises(InputError, match=r"more than 2 cubic metres, which is no patient"):
        check_sides("it", Geometry((60, 60, 60), (25.0, 25.0, 25.0), (0.0, 0.0, 0.0), direction))


def test_a_scan_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, series = place(tmp_path, "nii"), tmp_path / "series"
    write_series(series, np.zeros((3, 4, 6), np.uint16))
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    (tmp_path / "cgroup" / "memory.max").write_text("max")
    assert read_image(scan).GetSize() == (12, 10, 4)
    (tmp_path / "cgroup" / "memory.max").write_text("5000")
    (tmp_path / "cgroup" / "memory.stat").write_text("anon 4900\nfile 700\n")
    assert memory.free_bytes() == 100
    for path in (scan, series):
        assert "GiB of memory while it is read, and 0.0 GiB are free" in refusal(path)
    assert read_geometry(scan).shape_zyx == (4, 10, 12)  # its voxels are not read


ACCEPTED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("mha", field("ElementType", "MET_SHORT\nImageComments = " + "x" * 6000)),
    ("mha", field("ElementType", "MET_SHORT\nanything = 1\nanything = 2")),
    ("mha", field("ElementType", "MET_SHORT\n")),
    ("mha", field("NDims", "03")),
    ("mha", field("ElementType", "MET_SHORT\r")),
    ("nrrd", field("encoding", "raw\ncontent: " + "x" * 2000, ": ")),
    ("nrrd", field("encoding", "raw\nkey:=a\x0bb\x1cc", ": ")),
    ("nrrd", field("encoding", "raw\n# " + "x" * 3000, ": ")),
    ("nrrd", field("encoding", "raw\nmeasurement frame: (1,0,0) (0,1,0) (0,0,1)", ": ")),
    ("nhdr", field("data file", "scan.raw\nbyte skip: -1", ": ")),
    ("nhdr", field("data file", "./scan.raw", ": ")),
    ("nrrd", field("encoding", 'raw\nspaceunits: "mm" "mm" "mm"', ": ")),
    ("mha", field("ElementType", "MET_SHORT\nOrigin = -120 80 -40")),
    ("mha", field("ElementType", "MET_SHORT\nElementToIntensityFunctionSlope = 1\nDistanceUnits = mm")),
    ("mhd", field("ElementType", "MET_SHORT\nHeaderSize = -1")),
    ("mhd", field("ElementDataFile", "./scan.raw")),
]


@pytest.mark.parametrize(("name", "change"), ACCEPTED)
def test_unusual_headers_that_are_sound_are_read(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    scan = place(tmp_path, name)
    expected = sitk.GetArrayFromImage(read_image(scan))
    scan.write_bytes(change(scan.read_bytes()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan)), expected)


def test_bytes_before_the_voxels_of_an_nrrd_are_skipped(tmp_path: Path) -> None:
    scan = place(tmp_path, "nhdr")
    expected = sitk.GetArrayFromImage(read_image(scan))
    (tmp_path / "scan.raw").write_bytes(b"before!" + (tmp_path / "scan.raw").read_bytes())
    scan.write_bytes(field("data file", "scan.raw\nbyte skip: 7", ": ")(scan.read_bytes()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan)), expected)
    scan.write_bytes(scan.read_bytes().replace(b"skip: 7", b"skip: 8"))
    assert "is cut off" in refusal(scan)


def compressed(folder: Path, compressor: str, shape: tuple[int, int] = (64, 64)) -> Path:
    """Write a series of three slices as GDCM compresses them."""
    noise = np.random.default_rng(0).integers(0, 4000, (3, *shape))
    write_series(folder / "plain", noise.astype(np.uint16))
    (folder / "packed").mkdir()
    for path in sorted((folder / "plain").iterdir()):
        compress(path, folder / "packed" / path.name, compressor)
    return folder / "packed"


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_compressed_slices_are_walked_over(tmp_path: Path, compressor: str) -> None:
    for path in compressed(tmp_path, compressor).iterdir():
        assert check_elements(path).size_xy == (64, 64)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((60_000, 60_000), "its compressed pixels are 60000 x 60000 of 1, and it claims 64 x 64 of 1"),
        ((64, 65), "its compressed pixels are 64 x 65 of 1, and it claims 64 x 64 of 1"),
        ((32, 32), "its compressed pixels are 32 x 32 of 1, and it claims 64 x 64 of 1"),
    ],
)
def test_a_stream_of_another_size_is_refused(tmp_path: Path, size: tuple[int, int], sentence: str) -> None:
    path = next(compressed(tmp_path, "JPEG").iterdir())
    content = path.read_bytes()
    at = content.index(b"\xff\xc3") + 5  # SOF3: length, precision, then height and width
    path.write_bytes(content[:at] + struct.pack(">2H", *size[::-1]) + content[at + 4 :])
    with pytest.raises(InputError) as caught:
        check_elements(path)
    assert sentence in str(caught.value)


def test_a_stream_without_an_end_is_refused(tmp_path: Path) -> None:
    path = next(compressed(tmp_path, "JPEG").iterdir())
    content = path.read_bytes()
    at = content.rindex(b"\xff\xd9")
    path.write_bytes(content[: at - 40] + bytes(42) + content[at + 2 :])
    with pytest.raises(InputError, match="its compressed pixels are cut off"):
        check_elements(path)


@pytest.mark.parametrize(
    "head", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\2" * 40, b"\xff\x4f\xff\x51", b"RIFF"]
)
def test_a_stream_that_is_none_has_no_size(head: bytes) -> None:
    assert stream_of(head) is None


def test_a_series_that_claims_more_than_is_compressed_is_refused(tmp_path: Path) -> None:
    scan = place(tmp_path, "dicom, RLE")
    for path in scan.iterdir():
        content = path.read_bytes()
        for tag in (0x10, 0x11):
            head, mark, rest = content.partition(struct.pack("<HH2sH", 0x28, tag, b"US", 2))
            content = head + mark + struct.pack("<H", 5000) + rest[2:]
        path.write_bytes(content)
    assert "MiB of pixels in files of 3 KiB, which no scan is compressed to" in refusal(scan)


def test_fragments_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_elements, "MOST_ELEMENTS", 1000)
    path = place(tmp_path, "dicom, RLE") / "001.dcm"
    check_elements(path)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    path.write_bytes(
        path.read_bytes().removesuffix(end) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1000 + end
    )
    with pytest.raises(InputError, match="has more than 1000 elements"):
        check_elements(path)


SIZES = b"".join(element((0x28, at), "US", 512) for at in (0x10, 0x11, 0x100))


def test_the_size_of_an_icon_is_not_that_of_the_slice(tmp_path: Path) -> None:
    path = slice_with(tmp_path / "a.dcm", sequence(item(SIZES)), before=(0x10, 0x10))
    assert check_elements(path).size_xy == (6, 4)


def test_implicit_elements_under_an_explicit_name_are_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 6), np.uint16))
    implicit = "1.2.840.10008.1.2"
    body = b"".join(
        struct.pack("<HHI", *tag, len(value)) + value
        for tag, value in (
            ((0x28, 0x10), struct.pack("<H", 4)),
            ((0x28, 0x11), struct.pack("<H", 6)),
            ((0x28, 0x100), struct.pack("<H", 16)),
            ((0x7FE0, 0x10), bytes(48)),
        )
    )
    start = path.read_bytes()[: path.read_bytes().index(struct.pack("<HH", 8, 0x16))]
    path.write_bytes(start + body)
    assert check_elements(path).size_xy == (6, 4)
    syntax = element((2, 0x10), "UI", "1.2.840.10008.1.2.1")
    path.write_bytes(start.replace(syntax, element((2, 0x10), "UI", implicit)) + body)
    assert check_elements(path).size_xy == (6, 4)
    # GDCM took 773 MiB for a slice of 958 bytes that was called JPEG-LS.
    path.write_bytes(start.replace(syntax, element((2, 0x10), "UI", "1.2.840.10008.1.2.4.80")) + body)
    with pytest.raises(
        InputError, match="says that its pixels are compressed, but its elements are implicit"
    ):
        check_elements(path)


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG 2000", "RLE"])
def test_plain_pixels_that_are_called_compressed_are_refused(tmp_path: Path, name: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 6), np.uint16))
    syntax = {"JPEG-LS": "4.80", "JPEG 2000": "4.90", "RLE": "5"}[name]
    plain, named = (element((2, 0x10), "UI", f"1.2.840.10008.1.2.{one}") for one in ("1", syntax))
    assert path.read_bytes().count(plain) == 1
    path.write_bytes(path.read_bytes().replace(plain, named))
    with pytest.raises(InputError, match="says that its pixels are compressed, but they are not"):
        check_elements(path)


def test_a_superfluous_end_of_a_sequence_and_a_last_newline_are_no_damage(tmp_path: Path) -> None:
    path = slice_with(tmp_path / "a.dcm", sequence(item(INNER) + SEQUENCE_END))
    path.write_bytes(path.read_bytes() + b"\n")
    check_elements(path)


def test_a_capture_in_colours_of_half_the_resolution_is_left_aside(tmp_path: Path) -> None:
    write_series(tmp_path, np.zeros((3, 4, 6), np.uint16))
    capture = write_dicom(
        tmp_path / "capture.dcm", np.zeros((4, 6, 3), np.uint8), position=None, samples=3, series="2"
    )
    content = capture.read_bytes()
    head, tag, pixels = content.partition(struct.pack("<HH", 0x7FE0, 0x10))
    half = pixels[:4] + struct.pack("<I", 48) + pixels[8 : 8 + 48]
    capture.write_bytes(head.replace(b"RGB ", b"YBR_FULL_422"[:4]) + tag + half)
    assert check_elements(capture).size_xy == (6, 4)
    assert read_image(tmp_path).GetSize() == (6, 4, 3)


@pytest.mark.parametrize("name", ["mhd", "nhdr"])
def test_voxels_beside_a_header_may_have_a_name_in_utf8(tmp_path: Path, name: str) -> None:
    scan = place(tmp_path, name)
    expected = sitk.GetArrayFromImage(read_image(scan))
    (tmp_path / "scan.raw").rename(tmp_path / "José.raw")
    scan.write_bytes(scan.read_bytes().replace(b"scan.raw", "José.raw".encode()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan)), expected)


def test_bytes_before_the_voxels_of_a_metaimage_are_skipped(tmp_path: Path) -> None:
    scan = place(tmp_path, "mhd")
    expected = sitk.GetArrayFromImage(read_image(scan))
    (tmp_path / "scan.raw").write_bytes(b"before!" + (tmp_path / "scan.raw").read_bytes())
    assert "has 7 bytes more than its header claims" in refusal(scan)
    scan.write_bytes(field("ElementType", "MET_SHORT\nHeaderSize = 7")(scan.read_bytes()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(scan)), expected)


def test_a_grid_that_itk_reads_otherwise_is_refused(tmp_path: Path) -> None:
    scan = place(tmp_path, "mha")
    header = metaimage.check_header(scan)
    grid = read_geometry(scan)
    metaimage.check_grid(scan, header, grid)
    moved = dataclasses.replace(grid, origin_xyz_mm=(0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="has a header that is read in two ways: origin"):
        metaimage.check_grid(scan, header, moved)


NO_HU = {
    "inverted": (b"MONOCHROME2 ", b"MONOCHROME1 ", "its PhotometricInterpretation is MONOCHROME1"),
    "no slope": (
        element((0x28, 0x1053), "DS", (1.0,)),
        element((0x28, 0x1053), "DS", (0.0,)),
        "its RescaleSlope is 0",
    ),
    "a table": (
        element((0x28, 0x1053), "DS", (1.0,)),
        struct.pack("<HH2sHI", 0x28, 0x3000, b"SQ", 0, 0),
        "a table (ModalityLUTSequence) turns its pixels into HU",
    ),
    "another highest bit": (
        element((0x28, 0x102), "US", 15),
        element((0x28, 0x102), "US", 3),
        "16 bits stored of 16 allocated, the highest of them 3",
    ),
}


@pytest.mark.parametrize("name", NO_HU)
def test_slices_that_itk_would_not_give_in_hu_are_refused(tmp_path: Path, name: str) -> None:
    before, after, sentence = NO_HU[name]
    write_series(tmp_path, np.zeros((3, 4, 6), np.uint16))
    for path in tmp_path.iterdir():
        assert before in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(before, after))
    assert sentence in refusal(tmp_path)


def test_the_size_of_a_slice_counts_wherever_it_stands(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((4, 6), np.uint16))
    rows = element((0x28, 0x10), "US", 4)
    content = path.read_bytes().replace(rows, b"")
    path.write_bytes(content + rows)
    assert check_elements(path).size_xy == (6, 4)
    path.write_bytes(content + element((0x28, 0x10), "US", 400))
    with pytest.raises(InputError, match="claims 4800 bytes of pixels, and 48 are there"):
        check_elements(path)


@pytest.mark.parametrize(
    ("at", "form", "value", "sentence"),
    [
        (40, ">H", 1500, "are 64 x 64 of 1500, and it claims 64 x 64 of 1"),
        (24, ">2I", 1, "are in 4096 tiles"),
    ],
)
def test_a_stream_of_many_parts_is_refused(
    tmp_path: Path, at: int, form: str, value: int, sentence: str
) -> None:
    path = next(compressed(tmp_path, "JPEG2000").iterdir())
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\x4f\xff\x51")
    struct.pack_into(form, content, start + at, *[value] * (2 if "2" in form else 1))
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        check_elements(path)
