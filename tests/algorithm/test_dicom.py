"""DICOM folders: real series against their NIfTI, and written slices for what scanners and exports do."""

from __future__ import annotations

import logging
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.dicom import read_series, series_geometry
from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation, same_grid
from algorithm.images import hounsfield, read_geometry, read_image
from tests.dicoms import SECONDARY_CAPTURE, STRUCTURED_REPORT, write_dicom, write_series

OBLIQUE = (math.cos(0.3), math.sin(0.3), 0.0, -math.sin(0.3), math.cos(0.3), 0.0)


@pytest.fixture
def volume() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4096, (6, 5, 7), dtype=np.uint16)


def unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
    return folder


def refusal(folder: Path) -> str:
    """Return the one sentence with which a folder is refused, the same with and without its pixels."""
    with pytest.raises(InputError) as caught:
        read_image(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


def test_real_series_equals_its_nifti(real_data: Path, tmp_path: Path) -> None:
    folder = unpack(real_data / "abdomen_crlm_1004" / "dicom.zip", tmp_path)
    nifti, dicom = read_image(real_data / "abdomen_crlm_1004" / "ct.nii.gz"), read_image(folder)
    assert same_grid(Geometry.of(nifti), Geometry.of(dicom)) is None
    assert Geometry.of(dicom).spacing_zyx_mm == (5.0, 0.796875, 0.796875)
    np.testing.assert_array_equal(hounsfield(dicom), hounsfield(nifti))


def test_real_series_meets_its_label_in_canonical_order(real_data: Path, tmp_path: Path) -> None:
    folder = unpack(real_data / "totalsegmentator_example" / "dicom.zip", tmp_path)
    image = read_image(folder)
    label = sitk.ReadImage(str(real_data / "totalsegmentator_example" / "dicom_organs117_auto.nii.gz"))
    stated, labelled = Geometry.of(image), Geometry.of(label)
    assert "direction" in (same_grid(stated, labelled) or "")
    ways = canonical_orientation(stated), canonical_orientation(labelled)
    assert same_grid(ways[0].canonical(stated), ways[1].canonical(labelled)) is None
    hu = ways[0].to_canonical(hounsfield(image))
    labels = ways[1].to_canonical(sitk.GetArrayFromImage(label))
    assert (
        hu[labels > 0].mean() > hu[labels == 0].mean() + 300
    )  # organs lie on tissue, the rest is mostly air


def test_real_tilted_gantry_is_refused(real_data: Path, tmp_path: Path) -> None:
    folder = unpack(real_data / "tilted_gantry" / "dicom_12_slices.zip", tmp_path)
    assert refusal(folder) == (
        f"{folder} holds a sheared scan: its slices are shifted against each other by 16.5°, as a tilted "
        "gantry makes them, and form no regular grid; resample it first with a converter that corrects the "
        "tilt, such as dcm2niix"
    )


@pytest.mark.parametrize(
    "orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), OBLIQUE]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_each_pixel_lies_where_its_slice_says(
    tmp_path: Path, volume: NDArray[np.uint16], orientation: tuple[float, ...], sign: float
) -> None:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = 3.0 * sign * np.cross(row, column)
    write_series(tmp_path, volume, step=step.tolist(), orientation=orientation, spacing_yx=(0.7, 0.9))
    image = read_series(tmp_path)
    geometry = Geometry.of(image)
    assert series_geometry(tmp_path) == geometry == read_geometry(tmp_path)
    hu = hounsfield(image)
    for z, y, x in ((0, 0, 0), (2, 3, 5), (5, 4, 6)):
        point = np.array((-10.0, 20.0, 30.0)) + z * step + y * 0.7 * column + x * 0.9 * row
        index = np.rint(geometry.index_zyx(point.tolist())).astype(int)
        assert geometry.point_mm(index.tolist()) == pytest.approx(point, abs=1e-6)
        assert hu[tuple(index)] == int(volume[z, y, x]) - 1024
    assert np.linalg.det(geometry.matrix) == pytest.approx(1.0)


def test_nested_folders_and_junk_are_no_hindrance(
    tmp_path: Path, volume: NDArray[np.uint16], caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path / "study" / "series", volume)
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "._000.dcm").write_bytes(b"macOS")
    (tmp_path / "empty").touch()
    write_dicom(tmp_path / "report.dcm", None, storage=STRUCTURED_REPORT, series="9")
    write_dicom(
        tmp_path / "dose.dcm",
        volume[0],
        storage=SECONDARY_CAPTURE,
        series="99",
        position=None,
        orientation=None,
    )
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(hounsfield(read_series(tmp_path)), volume.astype(np.int16) - 1024)
    assert f"{tmp_path}: left aside 1 images without a position" in caplog.text


def test_slices_without_preamble_are_read(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    for file in write_series(tmp_path, volume, preamble=False):
        file.rename(file.with_suffix(""))
    assert read_series(tmp_path).GetSize() == (7, 5, 6)


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    plane = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int16)
    write_dicom(tmp_path / "a.dcm", plane, position=(0, 0, 0), slope=1.0, intercept=-1024.0)
    write_dicom(tmp_path / "b.dcm", plane, position=(0, 0, 2), slope=0.5, intercept=10.0)
    write_dicom(tmp_path / "c.dcm", plane, position=(0, 0, 4), slope=200.0, intercept=-3.0)
    image = read_series(tmp_path)
    expected = [plane - 1024.0, plane * 0.5 + 10.0, plane * 200.0 - 3.0]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)


def test_without_rescale_values_are_as_stored_with_a_warning(
    tmp_path: Path, volume: NDArray[np.uint16], caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path, volume, slope=None, intercept=None)
    np.testing.assert_array_equal(hounsfield(read_series(tmp_path)), volume)
    assert "its values are not in HU (rescale intercept lost?)" in caplog.text


@pytest.mark.parametrize("angle_deg", [1.0, -8.0, 16.5, 30.0])
def test_sheared_slices_are_refused_with_their_angle(
    tmp_path: Path, volume: NDArray[np.uint16], angle_deg: float
) -> None:
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    tall = np.repeat(volume, 8, axis=0)
    write_series(tmp_path, tall, orientation=(1.0, 0.0, 0.0, 0.0, cos, -sin))
    message = refusal(tmp_path)
    assert f"shifted against each other by {abs(angle_deg):.1f}°" in message
    assert "dcm2niix" in message


def test_a_shift_under_half_a_pixel_is_no_shear(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    write_series(tmp_path, volume, step=(0.0, 0.09, 2.5))  # 0.45 pixels over the scan
    assert read_series(tmp_path).GetSpacing()[2] == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [({"thickness": 3.0}, 3.0), ({"thickness": 3.0, "between": 1.5}, 1.5), ({"between": 2.0}, 2.0)],
)
def test_one_slice_is_as_thick_as_it_says(
    tmp_path: Path,
    volume: NDArray[np.uint16],
    caplog: pytest.LogCaptureFixture,
    tags: dict[str, float],
    expected: float,
) -> None:
    write_series(tmp_path, volume[:1], **tags)
    image = read_series(tmp_path)
    assert image.GetSize()[2] == 1
    assert image.GetSpacing()[2] == expected
    assert image.GetOrigin() == (-10.0, 20.0, 30.0)
    assert "holds one slice only" in caplog.text


@pytest.mark.parametrize("tags", [{}, {"thickness": 0.0}])
def test_one_slice_of_unknown_thickness_is_refused(
    tmp_path: Path, volume: NDArray[np.uint16], tags: dict[str, float]
) -> None:
    write_series(tmp_path, volume[:1], **tags)
    assert "that states neither SpacingBetweenSlices nor SliceThickness" in refusal(tmp_path)


def test_one_slice_beside_the_others_is_refused(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    write_series(tmp_path, volume)
    write_dicom(tmp_path / "003.dcm", volume[3], position=(-10.0, 50.0, 37.5))
    assert "003.dcm lies 30.0 mm beside 006.dcm" in refusal(tmp_path)


def test_a_tilt_that_the_positions_deny_is_a_warning(
    tmp_path: Path, volume: NDArray[np.uint16], caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path, volume, tilt=-12.5)
    read_series(tmp_path)
    assert "GantryDetectorTilt is -12.5°, but the slices lie straight above each other" in caplog.text


@pytest.mark.parametrize("missing", [1, 3, 4])
def test_a_missing_slice_is_refused_and_named(
    tmp_path: Path, volume: NDArray[np.uint16], missing: int
) -> None:
    files = write_series(tmp_path, volume)
    files[missing].unlink()
    message = refusal(tmp_path)
    assert (
        f"{files[missing - 1].name} and {files[missing + 1].name} are 5 mm apart where 2.5 mm is usual"
        in message
    )


def test_uneven_spacing_is_refused(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    for z, plane in enumerate(volume):
        write_dicom(tmp_path / f"{z}.dcm", plane, position=(0.0, 0.0, 2.5 * z + (1.0 if z > 3 else 0.0)))
    assert "3.dcm and 4.dcm are 3.5 mm apart where 2.5 mm is usual" in refusal(tmp_path)


def test_positions_rounded_to_a_tenth_are_even(tmp_path: Path) -> None:
    volume = np.zeros((30, 2, 2), np.uint16)
    for z, plane in enumerate(volume):
        write_dicom(tmp_path / f"{z}.dcm", plane, position=(0.0, 0.0, round(0.625 * z, 1)))
    assert read_series(tmp_path).GetSpacing()[2] == pytest.approx(0.625, abs=0.002)


def test_a_doubled_position_is_refused(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    write_series(tmp_path / "a", volume)
    write_series(tmp_path / "b", volume)
    message = refusal(tmp_path)
    assert "holds 6 slices at a position that another has, a/006.dcm and b/006.dcm first" in message


def test_two_series_are_listed(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    write_series(tmp_path / "a", volume, series="3", description="Portal venous")
    write_series(tmp_path / "b", volume[:4], series="4")
    assert refusal(tmp_path) == (
        f"{tmp_path} holds 2 DICOM series and must hold one (number 3 Portal venous: 6 slices, first "
        "a/001.dcm; number 4: 4 slices, first b/001.dcm); put the one to segment in a folder of its own"
    )


def test_slices_of_other_kinds_are_refused(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    for name, plane, tags, clause in (
        ("size", volume[0][:, :4], {}, "differ in size (4, 5) against (7, 5) pixels (x, y)"),
        (
            "turned",
            volume[0],
            {"orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
            "orientation (1, 0, 0, 0, 0, -1)",
        ),
        ("spacing", volume[0], {"spacing_yx": (1.0, 1.5)}, "pixel spacing (1, 1.5) against (1, 1) mm (y, x)"),
    ):
        folder = tmp_path / name
        write_series(folder, volume)
        write_dicom(folder / "x.dcm", plane, position=(-10.0, 20.0, 45.0), **tags)
        message = refusal(folder)
        assert "x.dcm and 001.dcm differ in" in message
        assert clause in message


@pytest.mark.parametrize(
    ("tags", "clause"),
    [
        ({"position": None}, "does not state its ImagePositionPatient"),
        ({"orientation": None}, "does not state its ImageOrientationPatient"),
        ({"spacing_yx": None}, "does not state its PixelSpacing"),
        ({"position": (0.0, 1.0)}, "has a damaged ImagePositionPatient: '0\\\\1' instead of 3 numbers"),
        ({"spacing_yx": (math.nan, 1.0)}, "has a damaged PixelSpacing"),
        ({"slope": math.nan}, "has a damaged RescaleSlope: 'nan' instead of 1 numbers"),
        ({"frames": 2}, "is a multi-frame DICOM object (2 frames)"),
        ({"samples": 3}, "must have one number per pixel, but is a colour image"),
    ],
)
def test_a_slice_that_cannot_be_placed_is_refused(
    tmp_path: Path, volume: NDArray[np.uint16], tags: dict[str, object], clause: str
) -> None:
    write_series(tmp_path, volume)
    pixels: NDArray[np.generic] = volume[0]
    if "frames" in tags:
        pixels = volume[:2]
    elif "samples" in tags:
        pixels = np.zeros((5, 7, 3), np.uint8)
    write_dicom(tmp_path / "x.dcm", pixels, **{"position": (-10.0, 20.0, 45.0), **tags})  # type: ignore[arg-type]
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'x.dcm'} ")
    assert clause in message


@pytest.mark.parametrize(
    "orientation",
    [
        (1.0, 0.0, 0.0, 0.1, 1.0, 0.0),
        (2.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        (0.0,) * 6,
    ],
)
def test_axes_that_are_not_perpendicular_units_are_refused(
    tmp_path: Path, volume: NDArray[np.uint16], orientation: tuple[float, ...]
) -> None:
    write_series(tmp_path, volume, orientation=orientation)
    assert "ImageOrientationPatient must be two perpendicular unit vectors, got (" in refusal(tmp_path)


@pytest.mark.parametrize("digits", [3, 4, 5])
def test_axes_printed_with_few_digits_are_taken_as_perpendicular_units(
    tmp_path: Path, volume: NDArray[np.uint16], digits: int
) -> None:
    write_series(tmp_path, volume, orientation=np.round(OBLIQUE, digits).tolist())
    geometry = Geometry.of(read_series(tmp_path))
    assert geometry.skew < 1e-12
    assert geometry.spacing_zyx_mm == pytest.approx((2.5, 1.0, 1.0), rel=1e-12)
    np.testing.assert_allclose(geometry.direction[:2], (math.cos(0.3), -math.sin(0.3)), atol=10.0**-digits)


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (-1.0, 1.0)])
def test_pixel_spacing_must_be_positive(
    tmp_path: Path, volume: NDArray[np.uint16], spacing: tuple[float, float]
) -> None:
    write_series(tmp_path, volume, spacing_yx=spacing)
    assert f"PixelSpacing must be > 0, got ({spacing[0]:g}, 1) mm in " in refusal(tmp_path)


@pytest.mark.parametrize(
    ("keep", "why"),
    [
        (0, ""),
        (100, ": it ends amid an element"),
        (140, ": (0002,0000) claims 4 bytes, more than are left"),
        (400, ": (0020,000d) claims 24 bytes, more than are left"),
        (-20, ": (7fe0,0010) claims 70 bytes, more than are left"),
    ],
)
def test_a_cut_off_slice_is_named(tmp_path: Path, volume: NDArray[np.uint16], keep: int, why: str) -> None:
    write_series(tmp_path, volume)
    broken = tmp_path / "001.dcm"
    broken.write_bytes(broken.read_bytes()[:keep])
    assert refusal(tmp_path) == (
        f"{broken} is not a readable DICOM image (empty, truncated or damaged{why}); "
        "restore it, or remove it if it is no slice of the scan"
    )


def test_folders_without_a_volume_are_refused(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    message = refusal(tmp_path)
    assert message.endswith(
        "holds no image; it must hold one DICOM series (or name an image file: .nii.gz, .mha, .nrrd)"
    )
    write_dicom(tmp_path / "capture.dcm", volume[0], position=None, orientation=None)
    assert "holds 1 DICOM images, but none states its position" in refusal(tmp_path)
    write_series(tmp_path, volume[:1])
    (tmp_path / "capture.dcm").unlink()
    assert "holds one DICOM slice, 001.dcm, that states neither" in refusal(tmp_path)


def test_a_single_dicom_file_points_to_its_folder(tmp_path: Path, volume: NDArray[np.uint16]) -> None:
    file = write_dicom(tmp_path / "slice.dcm", volume[0])
    with pytest.raises(InputError, match=re.escape(f"{file} is one DICOM file; give the folder that holds")):
        read_image(file)
