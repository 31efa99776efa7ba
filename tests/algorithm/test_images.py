"""Image files: every format there and back, every damage in one sentence."""

from __future__ import annotations

import gzip
import math
import re
import resource
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm import images, itk
from algorithm.errors import InputError
from algorithm.geometry import Geometry, same_grid
from algorithm.images import (
    case_name,
    hounsfield,
    label_image,
    list_images,
    read_geometry,
    read_hounsfield,
    read_image,
    read_labels,
    write_labels,
)

SUFFIXES = [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd"]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
COS, SIN = math.cos(0.2), math.sin(0.2)
DIRECTIONS = {
    "LPS": IDENTITY,
    "RAS": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
    "left-handed": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "permuted": (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "oblique": (1.0, 0.0, 0.0, 0.0, COS, -SIN, 0.0, SIN, COS),
    "oblique left-handed": (-COS, SIN, 0.0, SIN, COS, 0.0, 0.0, 0.0, 1.0),
}
GRID = Geometry((4, 5, 6), (5.0, 0.75, 0.5), (-10.5, 20.25, 30.0), IDENTITY)


def scan(shape: tuple[int, ...] = (4, 5, 6)) -> NDArray[np.int16]:
    return np.random.default_rng(1).integers(-1000, 1000, shape, dtype=np.int16)


def write(path: Path, array: NDArray[np.generic], geometry: Geometry = GRID, compress: bool = True) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing_zyx_mm[::-1])
    image.SetOrigin(geometry.origin_xyz_mm)
    image.SetDirection(geometry.direction)
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


def refusal(path: Path) -> str:
    """Return the one sentence with which an image is refused."""
    with pytest.raises(InputError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path.parent))
    assert not re.search(r"0x[0-9a-f]{6}|itk::|\.cxx|sitk", message)
    return message


def patched(path: Path, at: int, form: str, *values: float) -> Path:
    """Overwrite fields of a .nii header in place."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", raw, at, *values)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".nhdr", ".NII.GZ"])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_reading_gives_the_voxels_and_the_grid(tmp_path: Path, suffix: str, name: str) -> None:
    geometry = Geometry((4, 5, 6), (5.0, 0.75, 0.5), (-10.5, 20.25, 30.0), DIRECTIONS[name])
    path = write(tmp_path / f"a b{suffix.lower()}", scan(), geometry)
    oracle = Geometry.of(sitk.ReadImage(str(path)))
    path = path.rename(tmp_path / f"a b{suffix}")
    volume, read = read_hounsfield(path)
    assert same_grid(read, geometry) is None
    assert read_geometry(path) == read == oracle
    assert volume.dtype == np.int16
    assert volume.flags.c_contiguous
    np.testing.assert_array_equal(volume, scan())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_labels_come_back_on_their_grid(tmp_path: Path, suffix: str, name: str) -> None:
    geometry = Geometry((4, 5, 6), (5.0, 0.8, 0.7), (-198.2, 1234.567, -1e3 / 3), DIRECTIONS[name])
    labels = (np.arange(120).reshape(4, 5, 6) % 3).astype(np.uint8)
    path = tmp_path / "new" / f"case{suffix}"
    write_labels(path, labels, geometry)
    back, read = read_labels(path)
    np.testing.assert_array_equal(back, labels)
    assert same_grid(read, geometry) is None
    assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkUInt8
    if suffix in (".mha", ".mhd"):
        assert read == geometry
    # Written once more, what came out of a file goes in and comes out the same.
    write_labels(path, back, read)
    assert same_grid(read_geometry(path), read) is None
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        {path.name} | ({"case.zraw"} if suffix == ".mhd" else set())
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_are_written_on_axes_printed_with_four_digits(tmp_path: Path, suffix: str) -> None:
    direction = (1.0, 0.0, 0.0, 0.0, 0.9801, -0.1987, 0.0, 0.1987, 0.9801)
    geometry = Geometry((4, 5, 6), (5.0, 0.8, 0.7), (-198.2, 1234.567, -333.3), direction)
    assert geometry.skew == pytest.approx(7.77e-5, rel=1e-3)
    write_labels(tmp_path / f"a{suffix}", np.zeros((4, 5, 6), np.uint8), geometry)
    assert same_grid(read_geometry(tmp_path / f"a{suffix}"), geometry) is None


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_labels_are_compressed(tmp_path: Path, suffix: str) -> None:
    geometry = Geometry((40, 50, 60), (5.0, 0.75, 0.5), (0.0, 0.0, 0.0), IDENTITY)
    path = tmp_path / f"a{suffix}"
    write_labels(path, np.zeros(geometry.shape_zyx, np.uint8), geometry)
    assert path.stat().st_size < 2000


def test_nifti_axes_are_what_the_standard_says(tmp_path: Path) -> None:
    # The sform maps index (i, j, k) to RAS millimetres; LPS (10, 20, 30) is RAS (-10, -20, 30).
    geometry = Geometry((2, 3, 4), (5.0, 0.75, 0.5), (10.0, 20.0, 30.0), DIRECTIONS["permuted"])
    path = tmp_path / "a.nii"
    write_labels(path, np.zeros((2, 3, 4), np.uint8), geometry)
    raw = path.read_bytes()
    assert struct.unpack_from("<3h", raw, 42) == (4, 3, 2)
    sform = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)
    expected = [[0.0, 0.0, -5.0, -10.0], [-0.5, 0.0, 0.0, -20.0], [0.0, 0.75, 0.0, 30.0]]
    np.testing.assert_array_equal(sform, expected)


REAL = [
    ("abdomen_crlm_1004/ct.nii.gz", (41, 512, 512), (-3024, 1377)),
    ("abdomen_crlm_1004/tiny_ct.nii.gz", (20, 128, 208), (-1024, 1208)),
    ("totalsegmentator_example/ct.nii.gz", (112, 101, 122), (-1207, 3382)),
    ("totalsegmentator_example/ct_small.nii.gz", (30, 101, 122), (-1100, 1207)),
    ("tilted_gantry/phantom_tilt_plus16p5.mha", (58, 512, 512), (-1024, 804)),
]


@pytest.mark.parametrize(("name", "shape_zyx", "range_hu"), REAL)
def test_real_scans_are_read_as_simpleitk_reads_them(
    real_data: Path, tmp_path: Path, name: str, shape_zyx: tuple[int, int, int], range_hu: tuple[int, int]
) -> None:
    path = real_data / name
    volume, geometry = read_hounsfield(path)
    assert volume.shape == geometry.shape_zyx == shape_zyx
    assert (volume.min(), volume.max()) == range_hu
    oracle = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume, sitk.GetArrayViewFromImage(oracle))
    assert geometry == Geometry.of(oracle)
    result = tmp_path / f"result{'.mha' if name.endswith('.mha') else '.nii.gz'}"
    write_labels(result, (volume > 200).astype(np.uint8), geometry)
    assert Geometry.of(sitk.ReadImage(str(result))) == geometry


def test_real_oblique_labels_keep_their_grid(real_data: Path, tmp_path: Path) -> None:
    labels, geometry = read_labels(real_data / "anatomy_labels" / "s0327_organs117.nii.gz")
    assert geometry.shape_zyx == (429, 166, 222)
    write_labels(tmp_path / "a.mha", labels[:20], geometry_of_slab := geometry_slab(geometry, 20))
    assert read_geometry(tmp_path / "a.mha") == geometry_of_slab
    write_labels(tmp_path / "a.nii.gz", labels[:20], geometry_of_slab)
    written = read_geometry(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(written.direction, geometry_of_slab.direction, rtol=0, atol=2e-8)


def geometry_slab(geometry: Geometry, slices: int) -> Geometry:
    _, y, x = geometry.shape_zyx
    return Geometry((slices, y, x), geometry.spacing_zyx_mm, geometry.origin_xyz_mm, geometry.direction)


# --- voxel values


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        (np.int8, [-128, 0, 127], [-128, 0, 127]),
        (np.uint8, [0, 128, 255], [0, 128, 255]),
        (np.int16, [-32768, -3024, 32767], [-32768, -3024, 32767]),
        (np.uint16, [0, 1024, 65535], [0, 1024, 32767]),
        (np.int32, [-(2**31), -3024, 2**31 - 1], [-32768, -3024, 32767]),
        (np.uint32, [0, 7, 2**32 - 1], [0, 7, 32767]),
        (np.int64, [-(2**63), 1, 2**63 - 1], [-32768, 1, 32767]),
        (np.uint64, [0, 1, 2**64 - 1], [0, 1, 32767]),
        (np.float32, [-0.5, 0.5, 1.5], [0, 0, 2]),
        (np.float64, [-1.5, 2.5, -2.5], [-2, 2, -2]),
        (np.float32, [-1e30, 12.49, 1e30], [-32768, 12, 32767]),
        (np.float64, [math.nan, -900.0, math.inf], [-900, -900, 32767]),
        (np.float32, [-math.inf, -1000.4, 3.0], [-1000, -1000, 3]),
    ],
)
def test_hounsfield_of_every_pixel_type(dtype: type, stored: list[float], expected: list[int]) -> None:
    volume = hounsfield(sitk.GetImageFromArray(np.array([[stored]], dtype=dtype)))
    assert volume.dtype == np.int16
    assert volume.tolist() == [[expected]]


def test_hounsfield_finds_the_darkest_of_the_whole_volume() -> None:
    array = np.zeros((3, 1, 2), np.float32)
    array[0, 0, 0], array[2, 0, 1] = math.nan, -1000.0
    assert hounsfield(sitk.GetImageFromArray(array)).ravel().tolist() == [-1000, 0, 0, 0, 0, -1000]


def test_hounsfield_leaves_the_image_alone() -> None:
    image = sitk.GetImageFromArray(scan())
    hounsfield(image)[:] = 0
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), scan())


@pytest.mark.parametrize(
    ("pixel", "size"),
    [(sitk.sitkVectorInt16, (2, 2, 2)), (sitk.sitkInt16, (2, 2)), (sitk.sitkComplexFloat32, (2, 2, 2))],
)
def test_hounsfield_of_something_else_is_the_callers_mistake(pixel: int, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="image must be 3-D with one number per voxel"):
        hounsfield(sitk.Image(size, pixel))


def test_values_that_are_not_hu_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    unscaled = sitk.GetImageFromArray(np.array([[[0, 1024, 2000]]], np.uint16))
    assert hounsfield(unscaled).tolist() == [[[0, 1024, 2000]]]
    assert "no voxel is below 0 and the brightest is 2000" in caplog.text
    caplog.clear()
    hounsfield(sitk.GetImageFromArray(np.array([[[-0.3, 0.1, 0.7]]], np.float32)))
    assert "they are not in HU (normalised?)" in caplog.text
    caplog.clear()
    hounsfield(sitk.GetImageFromArray(np.array([[[-1000, 0, 2000]]], np.int16)))
    hounsfield(sitk.GetImageFromArray(np.array([[[-1000.5, 0.5, 2000]]], np.float32)))
    assert caplog.text == ""


def test_the_nifti_rescale_is_applied(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.nii", scan()), 112, "2f", 2.0, -24.0)
    np.testing.assert_array_equal(read_hounsfield(path)[0], scan() * 2 - 24)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int64, np.uint8])
def test_labels_of_any_pixel_type(tmp_path: Path, dtype: type) -> None:
    stored = np.array([[[0, 1, 2, 200 if dtype == np.uint8 else 117]]], dtype)
    labels, _ = read_labels(
        write(tmp_path / "a.nii.gz", stored, Geometry((1, 1, 4), (1, 1, 1), (0, 0, 0), IDENTITY))
    )
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, stored)


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [(np.int16, -1, "-1"), (np.int16, 256, "256"), (np.float32, 0.5, "0.5"), (np.float32, math.nan, "nan")],
)
def test_label_values_that_are_none_are_named(tmp_path: Path, dtype: type, value: float, shown: str) -> None:
    stored = np.zeros((4, 5, 6), dtype)
    stored[1, 2, 3] = value
    path = write(tmp_path / "a.nii.gz", stored)
    expected = (
        f"{path} must hold whole label values from 0 to 255, but has {shown} at voxel (1, 2, 3) (z, y, x)"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        read_labels(path)


# --- writing


def test_only_labels_that_fit_their_grid_are_written(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=re.escape("labels must be uint8 (4, 5, 6) (z, y, x), got int16 (4, 5, 6)")
    ):
        write_labels(tmp_path / "a.mha", np.zeros((4, 5, 6), np.int16), GRID)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape("got uint8 (6, 5, 4)")):
        label_image(np.zeros((6, 5, 4), np.uint8), GRID)
    with pytest.raises(InputError, match=re.escape("must end in one of .nii.gz, .nii, .mha, .mhd, .nrrd")):
        write_labels(tmp_path / "a.png", np.zeros((4, 5, 6), np.uint8), GRID)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_header_that_says_another_grid_is_our_fault_and_removed(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    write_labels(path, np.zeros((4, 5, 6), np.uint8), GRID)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def write_wrong(image: sitk.Image, name: str, **options: bool) -> None:
        image.SetOrigin((0.0, 0.0, 0.0))
        sitk.WriteImage(image, name, **options)

    monkeypatch.setattr(
        images, "sitk", type("Sitk", (), {**vars(sitk), "WriteImage": staticmethod(write_wrong)})
    )
    with pytest.raises(RuntimeError, match=r"was written with another grid: origin"):
        write_labels(path, np.ones((4, 5, 6), np.uint8), GRID)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".mhd"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry((40, 50, 60), (5.0, 0.75, 0.5), (0.0, 0.0, 0.0), IDENTITY)
    labels = rng.integers(0, 256, geometry.shape_zyx, dtype=np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, before[1])
    )  # Python ignores SIGXFSZ: writes fail instead
    try:
        with pytest.raises((InputError, RuntimeError), match=r"cannot be written|was not written whole"):
            write_labels(tmp_path / f"a{suffix}", labels, geometry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.mha"
    with pytest.raises(InputError, match=re.escape(f"{path} cannot be written: ")):
        write_labels(path, np.zeros((4, 5, 6), np.uint8), GRID)


# --- names


def test_case_names() -> None:
    assert case_name(Path("x/pancreas_001.nii.gz")) == "pancreas_001"
    assert case_name(Path("a.b.mha")) == "a.b"
    assert case_name(Path("CASE.NII.GZ")) == "CASE"
    assert case_name(Path("series")) == "series"


def test_list_images_takes_images_in_order(tmp_path: Path) -> None:
    for name in ("b.mha", "a.nii.gz", "._a.nii.gz", ".tmp-1-a.nii.gz", "notes.txt", "c.raw", "d.mhd"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mha").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.nii.gz", "b.mha", "d.mhd"]


def test_list_images_refuses_two_files_of_one_case(tmp_path: Path) -> None:
    (tmp_path / "a.mha").touch()
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(InputError, match=r"holds a\.mha and a\.nii\.gz, two images of one case; keep one"):
        list_images(tmp_path)


def test_list_images_wants_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mha").touch()
    with pytest.raises(InputError, match="must be a folder of images, but it is a file"):
        list_images(tmp_path / "a.mha")
    with pytest.raises(InputError, match="must be a folder of images, but it does not exist"):
        list_images(tmp_path / "b")


# --- damage


def test_paths_that_are_no_image(tmp_path: Path) -> None:
    text = tmp_path / "scan.txt"
    text.write_text("hello")
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "bare").write_text("x")
    (tmp_path / "folder").mkdir()
    known = ".nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr"
    assert refusal(text) == f"{text} must end in one of {known}, or be a folder of DICOM slices"
    assert refusal(tmp_path / "bare").endswith(
        f"bare must end in one of {known}, or be a folder of DICOM slices"
    )
    assert refusal(tmp_path / "empty.nii.gz").endswith("empty.nii.gz is empty; copy or download it again")
    assert refusal(tmp_path / "no.mha").endswith(
        "does not exist; give an image file or a folder of DICOM slices"
    )
    assert "holds no image" in refusal(tmp_path / "folder")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize(
    "content", [b"hello\n" * 200, b"\0" * 2000, b"\x1f\x8b\x08\0" + b"x" * 500, b"NRRD0004\n", b"A = 1"]
)
def test_content_of_another_kind(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    kinds = "against its name|is not a|is not an|states no spacing|has damaged compressed data"
    assert re.search(rf"a{re.escape(suffix)} .*?({kinds})", refusal(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95, -1])
def test_a_cut_off_file_is_never_read(tmp_path: Path, suffix: str, compress: bool, keep: float) -> None:
    path = write(
        tmp_path / f"a{suffix}",
        scan((20, 30, 40)),
        Geometry((20, 30, 40), (1, 1, 1), (0, 0, 0), IDENTITY),
        compress,
    )
    data = next((p for p in tmp_path.iterdir() if p.suffix in (".raw", ".zraw")), path)
    raw = data.read_bytes()
    data.write_bytes(raw[: keep if keep == -1 else int(len(raw) * keep)])
    assert re.search("cut off|damaged|cannot be read", refusal(path))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("where", [0.4, 0.7, 0.99])
def test_a_flipped_bit_in_compressed_data_is_never_read(tmp_path: Path, suffix: str, where: float) -> None:
    path = write(
        tmp_path / f"a{suffix}", scan((20, 30, 40)), Geometry((20, 30, 40), (1, 1, 1), (0, 0, 0), IDENTITY)
    )
    data = next((p for p in tmp_path.iterdir() if p.suffix == ".zraw"), path)
    raw = bytearray(data.read_bytes())
    raw[int(len(raw) * where)] ^= 0x10
    data.write_bytes(raw)
    assert refusal(path) == f"{data} has damaged compressed data; copy or download it again"


def test_a_wrong_checksum_is_never_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", scan())
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)
    assert refusal(path) == f"{path} has damaged compressed data; copy or download it again"


def test_bytes_after_the_voxels_are_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", scan())
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(
        gzip.compress(path.read_bytes()[:400])
        + gzip.compress(path.read_bytes()[400:] + b"\0" * 100)
        + b"junk"
    )
    np.testing.assert_array_equal(read_hounsfield(packed)[0], scan())


def test_the_file_beside_is_not_read_in_its_place(tmp_path: Path) -> None:
    write(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16))
    path = write(tmp_path / "a.nii.gz", scan())
    np.testing.assert_array_equal(read_hounsfield(path)[0], scan())
    labels = (scan() > 0).astype(np.uint8)
    write_labels(path, labels, GRID)
    np.testing.assert_array_equal(read_labels(path)[0], labels)
    assert not read_hounsfield(tmp_path / "a.nii")[0].any()


def test_compression_against_the_name(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.nii", scan())
    shutil.copy(plain, tmp_path / "b.nii.gz")
    assert "is not compressed with gzip, against its name; rename it to .nii" in refusal(
        tmp_path / "b.nii.gz"
    )
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain.read_bytes()))
    assert "is compressed with gzip, against its name; rename it to .nii.gz" in refusal(tmp_path / "c.nii")


NIFTI_DAMAGE: list[tuple[int, str, tuple[float, ...], str]] = [
    (88, "f", (0.0,), "has no usable spacing: it must be > 0 and is (0.5, 0.75, 0) mm (x, y, z)"),
    (80, "f", (-0.5,), "has no usable spacing: it must be > 0 and is (-0.5, 0.75, 5) mm (x, y, z)"),
    (84, "f", (math.nan,), "has no usable spacing: it must be > 0 and is (0.5, nan, 5) mm (x, y, z)"),
    (84, "f", (math.inf,), "has no usable spacing: it must be > 0 and is (0.5, inf, 5) mm (x, y, z)"),
    (
        88,
        "f",
        (2.5,),
        "states two spacings: (0.5, 0.75, 2.5) mm in pixdim and (0.5, 0.75, 5) mm in its sform (x, y, z)",
    ),
    (280, "4f", (0.0, 0.0, 0.0, 0.0), "states two spacings"),
    (288, "f", (1.5,), "states two spacings"),
    (292, "f", (math.nan,), "has no usable grid: origin must be finite, got (nan, 20.25, 30) mm (x, y, z)"),
    (40, "5h", (2, 6, 5, 1, 1), "must be one 3-D volume, but its size is (6, 5) (x, y, z, …)"),
    (40, "5h", (4, 6, 5, 2, 2), "must be one 3-D volume, but its size is (6, 5, 2, 2) (x, y, z, …)"),
    (40, "6h", (5, 6, 5, 2, 1, 2), "must be one 3-D volume, but its size is (6, 5, 2, 1, 2) (x, y, z, …)"),
    (42, "h", (-6,), "has a damaged header: its size is (-6, 5, 4"),
    (40, "h", (0,), "has a damaged header: its number of axes is 0"),
    (40, "h", (9,), "has a damaged header: its number of axes is 9"),
    (0, "i", (347,), "is not a NIfTI file, or its header is damaged"),
    (0, "i", (540,), "is a NIfTI-2 file, which cannot be read; convert it to NIfTI-1"),
    (
        40,
        "4h",
        (3, 32767, 32767, 32767),
        "claims 32767 x 32767 x 32767 voxels, 65530 GiB, and the limit is 8 GiB",
    ),
    (
        42,
        "h",
        (600,),
        "is cut off: its header claims 24000 bytes and 240 are there; copy or download it again",
    ),
    (108, "f", (6e7,), "is cut off: its header claims 240 bytes and 0 are there"),
    (108, "f", (1e8,), "has a damaged header: its voxels begin at byte 100000000"),
    (108, "f", (math.nan,), "has a damaged header: its voxels begin at byte nan"),
    (70, "2h", (128, 24), "must have one number per voxel, but it holds colours"),
    (70, "2h", (32, 64), "must have one number per voxel, but it holds complex numbers"),
    (70, "2h", (4, 8), "has a damaged header: voxels of type 4 cannot have 8 bits"),
    (70, "2h", (999, 16), "has a damaged header: voxels of type 999 cannot have 16 bits"),
    (123, "B", (1,), "states its grid in metres; it must be in mm (xyzt_units 2)"),
    (123, "B", (3,), "states its grid in micrometres"),
    (344, "4s", (b"ni1\0",), "must be a single-file NIfTI, but is marked 'ni1'"),  # type: ignore[list-item]
    (344, "4s", (b"\0\0\0\0",), "(Analyze and .hdr/.img pairs do not say which side is left)"),  # type: ignore[list-item]
    (280, "f", (0.5,), "states two orientations that contradict each other"),
    (256, "f", (math.nan,), "has a damaged qform or sform"),
]


@pytest.mark.parametrize(("at", "form", "values", "message"), NIFTI_DAMAGE)
def test_a_damaged_nifti_header(
    tmp_path: Path, at: int, form: str, values: tuple[float, ...], message: str
) -> None:
    path = write(tmp_path / "a.nii", scan())
    patched(path, at, form, *values)
    assert message in refusal(path)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    refusal(packed)


def test_a_sheared_nifti_is_refused(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.nii", scan()), 280, "3f", -0.5, 0.0, 1.5)
    patched(path, 280 + 40, "f", math.sqrt(25 - 1.5**2))
    assert refusal(path) == (
        f"{path} has a sheared grid: the axes of its sform are not perpendicular, as in a scan with a tilted "
        "gantry; resample it to a regular grid first"
    )


def test_a_nifti_of_one_time_point_is_a_volume(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.nii", scan()), 40, "5h", 4, 6, 5, 4, 1)
    volume, geometry = read_hounsfield(path)
    np.testing.assert_array_equal(volume, scan())
    assert geometry == GRID == read_geometry(path)


def test_a_metaimage_of_one_time_point_is_a_volume(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(scan())])
    path = tmp_path / "a.mha"
    sitk.WriteImage(image, str(path))
    assert read_image(path).GetSize() == (6, 5, 4)
    sitk.WriteImage(sitk.JoinSeries([image[..., 0]] * 2), str(path))
    assert refusal(path).endswith("must be one 3-D volume, but its size is (6, 5, 4, 2) (x, y, z, …)")


FLAT_AND_VECTOR = {
    ".mha": (
        "must be one 3-D volume, but its size is (6, 5)",
        "one number per voxel, but holds vectors of 3",
    ),
    ".nrrd": (
        "one number per voxel, but its sizes are 6 5",
        "one number per voxel, but its sizes are 3 6 5 4",
    ),
}


@pytest.mark.parametrize("suffix", FLAT_AND_VECTOR)
def test_flat_and_vector_images_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for image, message in zip(
        (sitk.Image((6, 5), sitk.sitkInt16), sitk.Image((6, 5, 4), sitk.sitkVectorInt16, 3)),
        FLAT_AND_VECTOR[suffix],
        strict=True,
    ):
        sitk.WriteImage(image, str(path))
        assert message in refusal(path)


def test_a_nifti_without_orientation_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = patched(write(tmp_path / "a.nii", scan()), 252, "2h", 0, 0)
    read_image(path)
    assert "does not say how it is oriented (no sform, no qform); left may be right" in caplog.text


def test_a_qform_that_differs_a_little_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.nii", scan())
    read_image(path)
    assert caplog.text == ""
    patched(path, 268, "f", 15.0)
    read_image(path)
    assert (
        "states two grids, and its qform is not used: origin (-10.5, 20.25, 30) against (-15, 20.25, 30)"
        in caplog.text
    )


@pytest.mark.parametrize("drop", ["sform", "qform"])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_one_form_is_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture, drop: str, name: str) -> None:
    geometry = Geometry((4, 5, 6), (5.0, 0.75, 0.5), (-10.5, 20.25, 30.0), DIRECTIONS[name])
    path = write(tmp_path / "a.nii", scan(), geometry)
    patched(path, 254 if drop == "sform" else 252, "h", 0)
    read = read_geometry(path)
    np.testing.assert_allclose(read.direction, geometry.direction, rtol=0, atol=1e-6)
    assert read.origin_xyz_mm == geometry.origin_xyz_mm
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("slope", [1.0, -2.0])
def test_voxels_that_are_not_finite_survive(tmp_path: Path, suffix: str, slope: float) -> None:
    array = scan().astype(np.float32)
    array[0, 0, 0], array[1, 2, 3], array[3, 4, 5] = math.nan, math.inf, -math.inf
    path = write(tmp_path / f"a{suffix}", array)
    if suffix == ".nii":
        patched(path, 112, "2f", slope, 0.0)
        array = array * slope
    image = read_image(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    assert Geometry.of(image) == GRID
    hu = hounsfield(image)
    assert hu[0, 0, 0] == hu[3, 4, 5] == hu.min() or slope < 0
    np.testing.assert_array_equal(read_hounsfield(path)[0], hu)


def test_a_lost_value_is_not_the_darkest(tmp_path: Path) -> None:
    array = np.full((3, 4, 5), 40.0, np.float32)  # all above the 0 that the library makes of NaN
    array[1, 2, 3] = math.nan
    assert (read_hounsfield(write(tmp_path / "a.nii.gz", array))[0] == 40).all()


def test_a_big_endian_nifti_is_read(tmp_path: Path) -> None:
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, 6, 5, 4, 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 4, 16)
    struct.pack_into(">8f", header, 76, 1, 0.5, 0.75, 5.0, 0, 0, 0, 0)
    struct.pack_into(">3f", header, 108, 352, 1, 0)
    header[123] = 2
    struct.pack_into(">2h", header, 252, 0, 1)
    struct.pack_into(">12f", header, 280, -0.5, 0, 0, 10.5, 0, -0.75, 0, -20.25, 0, 0, 5.0, 30.0)
    header[344:348] = b"n+1\0"
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(header) + scan().astype(">i2").tobytes())
    volume, geometry = read_hounsfield(path)
    np.testing.assert_array_equal(volume, scan())
    assert geometry == GRID


def meta(path: Path, change: Callable[[str], str]) -> Path:
    """Rewrite the header of a .mhd or the text before the voxels of a .mha."""
    raw = path.read_bytes()
    start = raw.index(b"\n", raw.index(b"ElementDataFile")) + 1
    path.write_bytes(change(raw[:start].decode()).encode() + raw[start:])
    return path


META_DAMAGE = [
    (r"NDims = 3", "NDims = 99", "has a damaged header: NDims = 99, DimSize = 6 5 4"),
    (r"DimSize = .*", "DimSize = 6 -5 4", "has a damaged header: NDims = 3, DimSize = 6 -5 4"),
    (r"DimSize = .*\n", "", "has a damaged header: NDims = 3, DimSize = None"),
    (r"DimSize = .*", "DimSize = 6 5 4\nDimSize = 5 6 4", "has a damaged header: DimSize stands there twice"),
    (r"MET_SHORT", "MET_FOO", "has a damaged header: ElementType = MET_FOO"),
    (r"BinaryData = True", "BinaryData = False", "keeps its voxels as text, which is not supported"),
    (r"CompressedData = .*", "CompressedData = True", "CompressedData = True, CompressedDataSize = None"),
    (r"CompressedData = .*", "CompressedDataSize = 9", "CompressedData = None, CompressedDataSize = 9"),
    (r"Offset = .*\n", "", "states no origin (Offset is missing from its header); add it"),
    (r"Offset = .*", "Offset = 1 2", "has a damaged header: Offset = 1 2"),
    (r"ElementDataFile = .*", "ElementDataFile = ", "has a damaged header: ElementDataFile is empty"),
    (
        r"ElementType",
        "ElementNumberOfChannels = 3\nElementType",
        "one number per voxel, but holds vectors of 3",
    ),
    (r"ElementSpacing = .*\n", "", "states no spacing (ElementSpacing is missing from its header); add it"),
    (
        r"ElementSpacing = .*",
        "ElementSpacing = 0.5 0 5",
        "has no usable grid: spacing must be finite and > 0",
    ),
    (
        r"ElementSpacing = .*",
        "ElementSpacing = -0.5 1 5",
        "has no usable grid: spacing must be finite and > 0",
    ),
    (
        r"ElementSpacing = .*",
        "ElementSpacing = 500 750 5000",
        "which is no patient; its spacing must be in mm",
    ),
    (
        r"ElementSpacing = .*",
        "ElementSpacing = 1e-5 1e-5 1e-5",
        "which is no patient; its spacing must be in mm",
    ),
    (
        r"TransformMatrix = .*",
        "TransformMatrix = 1 0 0 0 0.96 0 0 0.28 1",
        "axes must be perpendicular unit vectors",
    ),
    (r"Offset = .*", "Offset = nan 0 0", "has a damaged header: Offset = nan 0 0"),
    (r"Offset = .*", "Offset = 1 2 x", "has a damaged header: Offset = 1 2 x"),
    (r"DimSize = .*", "DimSize = 6 5 40", "is cut off: its header claims 2400 bytes and 240 are there"),
    (r"DimSize = .*", "DimSize = 60000 60000 60000", "claims 60000 x 60000 x 60000 voxels, 402331 GiB"),
    (
        r"ElementDataFile = .*",
        "ElementDataFile = ../a.raw",
        "keeps its voxels outside its own folder ('../a.raw')",
    ),
    (
        r"ElementDataFile = .*",
        "ElementDataFile = /etc/passwd",
        "keeps its voxels outside its own folder ('/etc/passwd')",
    ),
    (r"ElementDataFile = .*", "ElementDataFile = x.raw", "keeps its voxels in 'x.raw', which is not there"),
    (r"ElementDataFile = .*", "ElementDataFile = LIST\na.raw", "keeps its voxels in several files ('LIST')"),
    (
        r"ElementDataFile = .*",
        "ElementDataFile = a%02d.raw 1 4 1",
        "keeps its voxels in several files ('a%02d.raw 1 4 1')",
    ),
]


@pytest.mark.parametrize(("pattern", "line", "message"), META_DAMAGE)
def test_a_damaged_metaimage_header(tmp_path: Path, pattern: str, line: str, message: str) -> None:
    path = write(tmp_path / "a.mhd", scan(), compress=False)
    meta(path, lambda text: re.sub(pattern, line, text))
    assert message in refusal(path)


def test_a_metaimage_without_orientation_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = meta(write(tmp_path / "a.mha", scan()), lambda text: re.sub(r"TransformMatrix = .*\n", "", text))
    np.testing.assert_array_equal(read_hounsfield(path)[0], scan())
    assert "does not say how it is oriented (no TransformMatrix)" in caplog.text


@pytest.mark.parametrize("size", [-1, 1])
def test_a_compressed_size_that_is_wrong_is_refused(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.mha", scan())
    packed = int(re.search(rb"CompressedDataSize = (\d+)", path.read_bytes())[1])  # type: ignore[index]
    line = f"CompressedDataSize = {packed + size}"
    meta(path, lambda text: re.sub(r"CompressedDataSize = .*", line, text))
    assert f"{path} is cut off" in refusal(path)


def test_compressed_metaimage_with_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mhd", scan())
    (tmp_path / "a.zraw").write_bytes(zlib.compress(bytes(10_000_000)))
    assert f"{tmp_path / 'a.zraw'} has damaged compressed data" in refusal(path)


NRRD_DAMAGE = [
    (r"space directions: \S+", "space directions: none", "has a damaged header: space directions: none"),
    (r"space origin: .*", "space origin: (nan,0,0)", "has a damaged header: space origin: (nan,0,0)"),
    (r"sizes: .*\n", "", "has a damaged header: dimension: 3, sizes: None"),
    (r"sizes: .*", "sizes: 6 0 4", "has a damaged header: dimension: 3, sizes: 6 0 4"),
    (r"type: short", "type: foo", 'has a header that cannot be read: couldn\'t parse type "foo"'),
    (r"space directions: .*\n", "", "states no spacing ('space directions' is missing from its header)"),
    (r"space directions: .*", "space directions: (0.5,0,0) (0,0,0) (0,0,5)", ""),
    (
        r"space directions: .*",
        "space directions: (0.5,0,0) (0,0.75,0) (1,0,5)",
        "axes must be perpendicular unit vectors",
    ),
    (r"sizes: .*", "sizes: 6 5 40", "is cut off: its header claims 2400 bytes and 240 are there"),
    (r"data file: .*", "data file: ../a.raw.gz", "keeps its voxels outside its own folder"),
    (r"data file: .*", "data file: LIST\na.raw.gz", "keeps its voxels in several files"),
    (r"data file: .*", "data file: b.raw.gz", "keeps its voxels in 'b.raw.gz', which is not there"),
]


@pytest.mark.parametrize(("pattern", "line", "message"), NRRD_DAMAGE)
def test_a_damaged_nrrd_header(tmp_path: Path, pattern: str, line: str, message: str) -> None:
    path = write(tmp_path / "a.nhdr", scan())
    path.write_text(re.sub(pattern, line, path.read_text()))
    assert message in refusal(path)


@pytest.mark.parametrize(("space", "direction"), [("right-anterior-superior", "RAS"), ("RAS", "RAS")])
def test_nrrd_spaces_are_turned_to_lps(tmp_path: Path, space: str, direction: str) -> None:
    path = write(tmp_path / "a.nrrd", scan())
    raw = path.read_bytes().replace(b"space: left-posterior-superior", b"space: " + space.encode())
    path.write_bytes(raw)
    assert read_geometry(path).direction == DIRECTIONS[direction]


def test_an_nrrd_without_anatomical_space_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nrrd", scan())
    path.write_bytes(path.read_bytes().replace(b"space: left-posterior-superior", b"space dimension: 3"))
    read_image(path)
    assert "does not say how it is oriented (no anatomical space)" in caplog.text


def test_itk_keeps_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        read_image(patched(write(tmp_path / "a.nii", scan()), 344, "4s", b"\0\0\0\0"))  # type: ignore[arg-type]
    path = write(tmp_path / "b.mha", scan())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError):
        read_image(path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert sitk.ProcessObject.GetGlobalWarningDisplay()


def test_reason_is_one_useful_line() -> None:
    error = RuntimeError(
        "Exception thrown in SimpleITK ImageFileReader_Execute: /tmp/ITK/itkNiftiImageIO.cxx:2135:\n"
        "ITK ERROR: ITK only supports orthonormal direction cosines.  No orthonormal definition found!"
    )
    assert itk.reason(error).startswith("ITK only supports orthonormal direction cosines")
    assert itk.reason(
        RuntimeError("a\nITK ERROR: MetaImageIO(0x55f933853780): File cannot be read: a.mha.")
    ) == ("File cannot be read: a.mha")
    assert itk.reason(RuntimeError("")) == "no reason given"


def test_a_scan_without_a_finite_voxel_is_refused() -> None:
    for values in ([math.nan, math.nan], [-math.inf, math.nan]):
        image = sitk.GetImageFromArray(np.array(values, np.float32).reshape(1, 1, 2))
        with pytest.raises(InputError, match="no voxel of the scan is a finite number"):
            hounsfield(image)


def test_itk_reads_and_writes_one_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time have aborted a process: threads of `prepare` must take turns within ITK."""
    path = write(tmp_path / "a.nii.gz", scan())
    inside: list[None] = []
    most: list[int] = []
    for kind, name in ((sitk.ImageFileReader, "Execute"), (sitk.ImageFileReader, "ReadImageInformation")):
        original = getattr(kind, name)

        def counted(self: object, original: Any = original) -> object:
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.005)
            try:
                return original(self)
            finally:
                inside.pop()

        monkeypatch.setattr(kind, name, counted)
    with ThreadPoolExecutor(8) as pool:
        volumes = list(pool.map(lambda _: read_hounsfield(path)[0], range(16)))
    assert len(most) == 32
    assert max(most) == 1
    assert all(np.array_equal(volume, scan()) for volume in volumes)
