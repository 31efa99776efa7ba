"""Scans that were made to do harm: refused in one sentence, before anything is reserved or read elsewhere."""

from __future__ import annotations

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

from algorithm.bundle import read_bundle
from algorithm.dicom_elements import LARGEST_SLICE_BYTES, check_elements
from algorithm.entry import main as entry
from algorithm.errors import InputError
from algorithm.images import read_geometry, read_image
from tests.bundles import write_random_bundle
from tests.dicoms import element, write_dicom, write_series
from tests.fuzz.seeds import SEEDS, make_seed

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


def field(name: str, value: str, separator: str = " = ") -> Callable[[bytes], bytes]:
    """Return what sets a field of a text header."""

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name}{separator}".encode()))
        lines[at] = f"{name}{separator}{value}".encode()
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
HEADERS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("mha", field("DimSize", MILLION), "GiB, and the limit is 8 GiB"),
    ("mha", field("DimSize", "9" * 5000 + " 10 4"), "has a damaged header: DimSize is too long"),
    ("mha", field("DimSize", "12 10 -4"), "has a damaged header: NDims = 3, DimSize = 12 10 -4"),
    ("mha", field("ElementSpacing", "1 nan 1"), "has a damaged header: ElementSpacing = 1 nan 1"),
    ("mha", field("ElementSpacing", "1 -1 1"), "spacing must be finite and > 0"),
    ("mha", field("ElementSpacing", "0 1 1"), "spacing must be finite and > 0"),
    ("mha", field("TransformMatrix", "1 0 0 1 0 0 0 0 1"), "axes must be perpendicular unit vectors"),
    ("mha", field("TransformMatrix", "0 0 0 0 0 0 0 0 0"), "has no usable grid"),
    (
        "mha",
        field("ElementDataFile", "/etc/passwd"),
        "keeps its voxels outside its own folder ('/etc/passwd')",
    ),
    ("mha", field("ElementDataFile", "../../etc/passwd"), "keeps its voxels outside its own folder"),
    ("mha", field("ElementDataFile", "a\0b"), "no file can be called"),
    ("mha", field("ElementDataFile", "x" * 1000), "no file can be called"),
    ("mha", field("ElementType", "MET_OTHER" * 200), "has a damaged header: ElementType = MET_OTHER"),
    ("mha, compressed", field("CompressedDataSize", "1" + "0" * 1000), "CompressedDataSize = 1000"),
    (
        "mha, compressed",
        field("CompressedDataSize", "10" * 8),
        "is cut off: its header claims 1010101010101010",
    ),
    ("mhd", field("ElementDataFile", "/dev/zero"), "keeps its voxels outside its own folder"),
    ("nrrd", field("sizes", MILLION, ": "), "GiB, and the limit is 8 GiB"),
    ("nrrd", field("sizes", "9" * 400 + " 10 4", ": "), "has a damaged header: dimension: 3, sizes: 9999"),
    ("nrrd", field("dimension", "9" * 5000, ": "), "is no field, too long, or there twice"),
    ("nrrd", field("encoding", "raw\nencoding: gzip", ": "), "is no field, too long, or there twice"),
    ("nrrd", field("endian", "little\nsquare: 4", ": "), "is no field, too long, or there twice"),
    ("nrrd", field("space directions", "(nan,0,0) (0,1,0) (0,0,1)", ": "), "has a damaged header: space"),
    ("nrrd", field("space directions", "(0,0,0) (0,1,0) (0,0,1)", ": "), "has no usable grid"),
    (
        "nrrd",
        field("encoding", "ascii", ": "),
        "must keep its voxels raw or in gzip, but its encoding is ascii",
    ),
    ("nrrd", field("encoding", "raw\nbyte skip: -1", ": "), "but has byte skip: -1; write it anew"),
    ("nhdr", field("data file", "/etc/passwd", ": "), "keeps its voxels outside its own folder"),
    ("nii", nifti(40, "4h", 3, 32767, 32767, 32767), "GiB, and the limit is 8 GiB"),
    ("nii", nifti(76, "4f", 1, 0, 1, 1), "has no usable spacing"),
    ("nii", nifti(76, "4f", 1, 1, -1, 1), "has no usable spacing"),
    ("nii", nifti(76, "4f", 1, 1, 1, float("nan")), "has no usable spacing"),
    ("nii", nifti(108, "f", 1e9), "has a damaged header: its voxels begin at byte 1000000000"),
    ("nii", nifti(280, "12f", *[0.0] * 12), "states two spacings"),
    ("nii.gz", nifti(40, "4h", 3, 2000, 1024, 1024), "is cut off: its header claims"),
    ("mha", field("ElementSpacing", "800 900 2000"), "more than 8 cubic metres, which is no patient"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), HEADERS)
def test_hostile_headers_are_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], sentence: str
) -> None:
    scan = place(tmp_path, name)
    scan.write_bytes(change(scan.read_bytes()))
    said = refusal(scan)
    assert sentence in said
    assert said.startswith(str(scan))
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
        from algorithm.errors import InputError
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
    (tmp_path / f"{name}.mha").write_bytes(b"nothing")
    environment = job(tmp_path)
    assert entry(environment) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("algorithm: ")
    assert "is not a MetaImage" in said[-1]
    assert "\x1b" not in said[-1]
    (outcome,) = json.loads((tmp_path / "output" / "results.json").read_text())
    assert len(outcome["error_messages"]) == 1


def job(root: Path) -> dict[str, str]:
    """Return a job on a folder of scans."""
    bundle = write_random_bundle(root / "bundle")
    return {
        "DECATHLON_INPUT": str(root),
        "DECATHLON_OUTPUT": str(root / "output"),
        "DECATHLON_MODEL": str(bundle),
    }


@pytest.mark.parametrize("name", ["mha", "mhd"])
def test_a_scan_that_is_a_link_out_of_the_input_is_refused(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "input").mkdir()
    scan = place(tmp_path / "elsewhere", name)
    linked = scan if name == "mha" else scan.with_suffix(".raw")
    (tmp_path / "input" / linked.name).symlink_to(linked)
    if name == "mhd":
        (tmp_path / "input" / scan.name).write_bytes(scan.read_bytes())
    sound = sitk.ReadImage(str(scan))
    sitk.WriteImage(sound, str(tmp_path / "input" / "sound.mha"))
    assert entry({**job(tmp_path), "DECATHLON_INPUT": str(tmp_path / "input")}) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{linked.name} is a link to {linked}, which lies outside the input folder" in said
    assert (tmp_path / "output" / "images" / "sound.mha").is_file()
    assert not (tmp_path / "output" / "images" / scan.name).exists()


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
    def too_large(member: tarfile.TarInfo) -> bytes:
        member.size = 64 << 20
        return bytes(member.size)

    bundle = write_random_bundle(tmp_path / "bundle")
    path = archive(tmp_path / "model.tar.gz", bundle, too_large)
    with pytest.raises(
        InputError, match=r"has 67108864 bytes, more than the [0-9]+ that such a bundle may hold"
    ):
        read_bundle(path)
    (bundle / "model.safetensors").write_bytes(bytes(64 << 20))
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
