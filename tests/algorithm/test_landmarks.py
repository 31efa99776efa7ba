"""Balls at known places of a patient: however the scan is stored, inference labels each one where it was put."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from algorithm.bundle import Bundle, Stitching
from algorithm.errors import InputError
from algorithm.geometry import Geometry, same_grid
from algorithm.network import UNet3D
from algorithm.predict import predict
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle
from tests.dicoms import write_series

GAS, TISSUE, BONE = 0, 1, 2
HU = (-1000.0, 0.0, 1000.0)  # of gas, tissue and bone
UNSIGNED = (0.0, 50.0, 100.0)  # likewise, for pixel types that hold no more
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
MIDDLE_MM = (12.5, -140.3, 871.6)
# How far a middle may lie from its place, in voxels of the scan: so little that half a voxel too many shows, and half a
# voxel where slices or axes are shifted by up to that and taken as regular.
NEAR, HALF = 0.25, 0.5

SIGNED_PERMUTATIONS = [
    np.eye(3)[:, list(axes)] * signs
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def axis_code(matrix: NDArray[np.float64]) -> str:
    name: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(matrix.ravel().tolist())
    return name


@dataclass(frozen=True)
class Ball:
    """Gas or bone around a point (x, y, z) in LPS mm, half as bright at its radius as in its middle."""

    at_mm: tuple[float, float, float]
    label: int
    radius_mm: float = 6.0


BALLS = (
    Ball((-4.5, -152.3, 877.6), BONE),
    Ball((33.5, -120.3, 890.6), BONE),  # near a corner
    Ball((21.5, -160.3, 857.6), BONE),
    Ball((6.5, -122.3, 851.6), GAS),
    Ball((34.5, -148.3, 879.6), GAS),
)
DEEP = (
    Ball((8.5, -142.3, 581.6), BONE),
    Ball((15.5, -139.3, 600.6), GAS),
    Ball((10.5, -137.3, 904.6), BONE),
    Ball((14.5, -138.3, 1163.6), GAS),
)


class Threshold(UNet3D):
    """Tells gas, tissue and bone by the brightness of each voxel alone."""

    def __init__(self) -> None:
        super().__init__(in_channels=1, num_classes=3, base_filters=1, dropout=0.0, depth=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * torch.cat((-x - 0.5, torch.zeros_like(x), x - 0.5), dim=1)


def exact_bundle(hu: tuple[float, float, float] = HU, **changes: Any) -> Bundle:
    values = {"spacing_zyx_mm": (3.0, 2.0, 2.0), "window_hu": (hu[0], hu[2])}
    values.update(mean=(hu[1],), std=(hu[2] - hu[1],), **changes)
    return Bundle(Threshold().eval(), random_bundle(**values).description)


def grid(
    shape_zyx: Sequence[int] = (24, 58, 72),
    spacing_zyx_mm: Sequence[float] = (3.0, 1.25, 1.0),
    direction: Sequence[float] = IDENTITY,
    middle_mm: Sequence[float] = MIDDLE_MM,
) -> sitk.Image:
    """Return an empty image whose field of view, about 72 mm wide, has its middle there."""
    image = sitk.Image([int(size) for size in shape_zyx[::-1]], sitk.sitkFloat64)
    image.SetSpacing(spacing_zyx_mm[::-1])
    image.SetDirection(direction)
    half = image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])
    image.SetOrigin(np.subtract(middle_mm, half).tolist())
    return image


def points_mm(image: sitk.Image) -> NDArray[np.float64]:
    """Return where ITK sees each voxel: (z, y, x, 3), the last axis x, y, z in mm."""
    source = sitk.PhysicalPointSource(
        sitk.sitkVectorFloat64, image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    points: NDArray[np.float64] = sitk.GetArrayFromImage(source)
    return points


def distance_mm(points: NDArray[np.float64], ball: Ball) -> NDArray[np.float64]:
    return np.sqrt(sum((points[..., axis] - ball.at_mm[axis]) ** 2 for axis in range(3)))


def painted(
    points: NDArray[np.float64], balls: Sequence[Ball] = BALLS, hu: tuple[float, float, float] = HU
) -> NDArray[np.float64]:
    """Return what a scanner would see at these points of a patient of tissue with balls in it."""
    values = np.full(points.shape[:-1], hu[TISSUE])
    for ball in balls:
        part = np.clip(1.5 - distance_mm(points, ball) / ball.radius_mm, 0.0, 1.0)
        values += (hu[ball.label] - hu[TISSUE]) * part
    return values


def scan(
    empty: sitk.Image,
    balls: Sequence[Ball] = BALLS,
    hu: tuple[float, float, float] = HU,
    dtype: type[np.number[Any]] = np.int16,
) -> sitk.Image:
    return with_voxels(empty, painted(points_mm(empty), balls, hu).round().astype(dtype))


def with_voxels(image: sitk.Image, voxels: NDArray[Any]) -> sitk.Image:
    filled = sitk.GetImageFromArray(voxels)
    filled.CopyInformation(image)
    return filled


def assert_labelled_in_place(labels: sitk.Image, balls: Sequence[Ball] = BALLS, within: float = NEAR) -> None:
    """Nothing but the balls is labelled, and each has its middle where it was put, on the grid of the labels."""
    points, found = points_mm(labels), sitk.GetArrayViewFromImage(labels)
    expected = np.full(found.shape, TISSUE)
    border = np.zeros(found.shape, bool)
    for ball in balls:
        distance = distance_mm(points, ball)
        expected[distance < ball.radius_mm] = ball.label
        border |= np.abs(distance - ball.radius_mm) < ball.radius_mm / 2
    np.testing.assert_array_equal(found[~border], expected[~border])
    middles = [(label, middle) for label in (GAS, BONE) for middle in middles_mm(labels, label)]
    assert len(middles) == len(balls)
    for ball in balls:
        put = labels.TransformPhysicalPointToContinuousIndex(ball.at_mm)
        off = [
            np.abs(np.subtract(labels.TransformPhysicalPointToContinuousIndex(middle), put)).max()
            for label, middle in middles
            if label == ball.label
        ]
        assert min(off) < within, ball


def middles_mm(labels: sitk.Image, label: int) -> list[tuple[float, ...]]:
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(sitk.ConnectedComponent(labels == label))
    return [shapes.GetCentroid(component) for component in shapes.GetLabels()]


def assert_on_the_grid_of(image: sitk.Image, labels: sitk.Image) -> None:
    assert labels.GetPixelID() == sitk.sitkUInt8
    assert Geometry.of(labels) == Geometry.of(image)


def segment_and_check(
    image: sitk.Image, balls: Sequence[Ball] = BALLS, segmenter: Segmenter | None = None
) -> None:
    labels = (segmenter or Segmenter(exact_bundle())).segment(image)
    assert_on_the_grid_of(image, labels)
    assert_labelled_in_place(labels, balls)


def rotation(x_deg: float, y_deg: float, z_deg: float) -> NDArray[np.float64]:
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*(math.radians(angle) for angle in (x_deg, y_deg, z_deg)))
    return np.array(turn.GetMatrix()).reshape(3, 3)


def grown(factor: float) -> tuple[Ball, ...]:
    """Return the balls of a larger patient with the same middle."""
    middle = np.array(MIDDLE_MM)
    balls = []
    for ball in BALLS:
        x, y, z = (middle + factor * (ball.at_mm - middle)).tolist()
        balls.append(Ball((x, y, z), ball.label, factor * ball.radius_mm))
    return tuple(balls)


# --- in memory


@pytest.mark.parametrize("matrix", SIGNED_PERMUTATIONS, ids=axis_code)
def test_each_of_48_storage_orders(matrix: NDArray[np.float64]) -> None:
    segment_and_check(scan(grid(direction=matrix.ravel().tolist())))


OBLIQUE = [(10, 0, 0), (0, -12, 0), (0, 0, 17), (5, -8, 11), (-30, 20, 25), (44.9, 0, 0), (0, 45, 0)]
ORDERS = [SIGNED_PERMUTATIONS[i] for i in (0, 1, 13, 22, 34, 47)]


@pytest.mark.parametrize("angles_deg", OBLIQUE)
@pytest.mark.parametrize("order", ORDERS, ids=axis_code)
def test_oblique_axes_in_any_order(angles_deg: tuple[float, ...], order: NDArray[np.float64]) -> None:
    direction = (rotation(*angles_deg) @ order).ravel().tolist()
    segment_and_check(scan(grid((28, 68, 84), direction=direction)))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("spacing_mm", [0.5, 0.7, 1.9, 5.0, 10.0])
def test_one_spacing_unlike_the_others(axis: int, spacing_mm: float) -> None:
    factor = max(1.0, spacing_mm / 3)  # a ball is two voxels in radius at least
    spacing_zyx_mm = [1.2 * factor] * 3
    spacing_zyx_mm[axis] = spacing_mm
    shape_zyx = [round(72 * factor / spacing) for spacing in spacing_zyx_mm]
    segment_and_check(scan(grid(shape_zyx, spacing_zyx_mm), grown(factor)), grown(factor))


@pytest.mark.parametrize("axis", range(3))
def test_one_slice(axis: int) -> None:
    shape_zyx, spacing_zyx_mm = [64, 60, 70], [1.2, 1.1, 1.0]
    shape_zyx[axis], spacing_zyx_mm[axis] = 1, 5.0
    balls = []
    for ball in BALLS[:4]:
        x, y, z = (MIDDLE_MM[i] if i == 2 - axis else at for i, at in enumerate(ball.at_mm))
        balls.append(replace(ball, at_mm=(x, y, z)))
    segment_and_check(scan(grid(shape_zyx, spacing_zyx_mm), balls), balls)


@pytest.mark.parametrize("upright", [1.0, -1.0])
def test_751_slices(upright: float) -> None:
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, upright)
    segment_and_check(scan(grid((751, 26, 30), (0.8, 1.3, 1.1), direction), DEEP), DEEP)


@pytest.mark.parametrize(("size", "pixel_mm"), [(256, 1.4), (1024, 0.35)])
def test_wide_slices(size: int, pixel_mm: float) -> None:
    x, y, z = MIDDLE_MM
    balls = (
        Ball((x - 166, y - 160, z), BONE),
        Ball((x + 158, y - 30, z + 2), BONE),
        Ball((x + 20, y + 166, z - 2), GAS),
    )
    segment_and_check(scan(grid((5, size, size), (4.0, pixel_mm, pixel_mm)), balls), balls)


def test_an_origin_far_away() -> None:
    away = np.array((-4031.7, 3120.25, 9876.5))
    balls = [replace(ball, at_mm=tuple((ball.at_mm + away).tolist())) for ball in BALLS]
    segment_and_check(scan(grid(middle_mm=(MIDDLE_MM + away).tolist()), balls), balls)


def test_a_spacing_of_many_digits() -> None:
    spacing_zyx_mm = (2.999999761581421, 1.2539063692092896, 0.9765620231628418)
    segment_and_check(scan(grid(spacing_zyx_mm=spacing_zyx_mm)))


def test_padding_of_minus_3024_around_the_scan() -> None:
    empty = grid((24, 66, 82))
    x, y, _ = np.moveaxis(points_mm(empty) - MIDDLE_MM, -1, 0)
    radius_mm = np.hypot(x, y)
    voxels = sitk.GetArrayFromImage(scan(empty))
    voxels[radius_mm > 38] = -3024
    labels = Segmenter(exact_bundle()).segment(with_voxels(empty, voxels))
    found = sitk.GetArrayFromImage(labels)
    assert (found[radius_mm > 40] == GAS).all()
    found[radius_mm > 36] = TISSUE
    assert_labelled_in_place(with_voxels(labels, found))


@pytest.mark.parametrize("blend", ["centre", "gaussian"])
@pytest.mark.parametrize("overlap_zyx", [(0, 0, 0), (4, 8, 8), (8, 16, 16)])
@pytest.mark.parametrize("mirror_zyx", [(False, False, False), (True, True, True)])
def test_every_way_through_the_window(
    blend: Any, overlap_zyx: tuple[int, int, int], mirror_zyx: tuple[bool, bool, bool]
) -> None:
    bundle = exact_bundle(stitching=Stitching(blend, overlap_zyx))
    direction = (rotation(5, -8, 11) @ SIGNED_PERMUTATIONS[13]).ravel().tolist()
    segmenter = Segmenter([bundle, bundle], mirror_zyx=mirror_zyx, patches_at_once=3)
    segment_and_check(scan(grid((28, 68, 84), direction=direction)), segmenter=segmenter)


# --- through files

Predict = Callable[..., list[sitk.Image]]


@pytest.fixture
def through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Return `predict` with the exact network in place of the one that a bundle's weights would give."""

    def run(source: Path, hu: tuple[float, float, float] = HU) -> list[sitk.Image]:
        monkeypatch.setattr("algorithm.predict.read_bundles", lambda _: [exact_bundle(hu)])
        return [sitk.ReadImage(path) for path in predict(source, tmp_path / "model", tmp_path / "labels")]

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    return tmp_path / "scans"


FILES = ("a.nii.gz", "b.nii", "c.mha", "d.mhd", "e.nrrd")
FILE_DIRECTIONS = {
    "LPS": np.eye(3),
    "RAS": np.diag((-1.0, -1.0, 1.0)),
    "left-handed": np.diag((1.0, 1.0, -1.0)),
    "permuted": SIGNED_PERMUTATIONS[24],
    "permuted, left-handed": SIGNED_PERMUTATIONS[13],
    "oblique": rotation(5, -8, 11),
    "oblique, permuted, left-handed": rotation(5, -8, 11) @ SIGNED_PERMUTATIONS[22],
    "oblique, printed with four digits": rotation(5, -8, 11).round(4),
}


@pytest.mark.parametrize("name", FILE_DIRECTIONS)
def test_each_format_in_any_direction(name: str, folder: Path, through_files: Predict) -> None:
    image = scan(grid((28, 68, 84), direction=FILE_DIRECTIONS[name].ravel().tolist()))
    for file in FILES:
        sitk.WriteImage(image, folder / file)
    results = through_files(folder)
    assert len(results) == len(FILES)
    for labels in results:
        assert same_grid(Geometry.of(labels), Geometry.of(image)) is None
        assert_labelled_in_place(labels)
    assert_on_the_grid_of(image, results[2])  # MetaImage writes every digit
    assert_on_the_grid_of(image, results[3])


@pytest.mark.parametrize(
    "dtype",
    [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64],
)
def test_every_pixel_type(dtype: type[np.number[Any]], folder: Path, through_files: Predict) -> None:
    image = scan(grid(), hu=UNSIGNED, dtype=dtype)
    for file in ("a.nii.gz", "b.mha", "c.nrrd"):
        sitk.WriteImage(image, folder / file)
    for labels in (Segmenter(exact_bundle(UNSIGNED)).segment(image), *through_files(folder, UNSIGNED)):
        assert same_grid(Geometry.of(labels), Geometry.of(image)) is None
        assert_labelled_in_place(labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_voxels_without_a_value_are_gas(
    value: float, dtype: type[np.number[Any]], folder: Path, through_files: Predict
) -> None:
    empty = grid()
    voxels = painted(points_mm(empty)).astype(dtype)
    voxels[distance_mm(points_mm(empty), BALLS[3]) < 6.0] = value
    image = with_voxels(empty, voxels)
    for file in ("a.nii.gz", "b.mha", "c.nrrd"):
        sitk.WriteImage(image, folder / file)
    for labels in (Segmenter(exact_bundle()).segment(image), *through_files(folder)):
        assert_labelled_in_place(labels)


def patched(path: Path, *fields: tuple[int, str, Sequence[float]]) -> Path:
    """Overwrite fields of a .nii: offset, format and values."""
    raw = bytearray(path.read_bytes())
    for at, form, values in fields:
        struct.pack_into(f"<{form}", raw, at, *values)
    path.write_bytes(raw)
    return path


QFORM_CODE, SFORM_CODE, QUATERNION, SFORM, SCALING = 252, 254, 256, 280, 112


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [
        (np.int16, 1.0, -1024.0),
        (np.int16, 0.5, 10.0),
        (np.int16, -2.0, 37.0),
        (np.uint16, 0.25, -1024.0),
        (np.uint8, 8.0, -1000.0),
        (np.int32, 1e-3, -24.0),
        (np.float32, 2.5, 0.5),
    ],
)
def test_a_nifti_with_a_rescale(
    dtype: type[np.number[Any]], slope: float, intercept: float, folder: Path, through_files: Predict
) -> None:
    empty = grid()
    stored = ((painted(points_mm(empty)) - intercept) / slope).round().astype(dtype)
    sitk.WriteImage(with_voxels(empty, stored), folder / "a.nii")
    patched(folder / "a.nii", (SCALING, "2f", (slope, intercept)))
    (labels,) = through_files(folder)
    assert same_grid(Geometry.of(labels), Geometry.of(empty)) is None
    assert_labelled_in_place(labels)


@pytest.mark.parametrize("form", ["qform", "sform"])
@pytest.mark.parametrize("name", FILE_DIRECTIONS)
def test_a_nifti_with_one_form(name: str, form: str, folder: Path, through_files: Predict) -> None:
    image = scan(grid((28, 68, 84), direction=FILE_DIRECTIONS[name].ravel().tolist()))
    sitk.WriteImage(image, folder / "a.nii")
    if form == "qform":
        patched(folder / "a.nii", (SFORM_CODE, "h", [0]), (SFORM, "12f", [0.0] * 12))
    else:
        patched(folder / "a.nii", (QFORM_CODE, "h", [0]), (QUATERNION, "6f", [0.0] * 6))
    (labels,) = through_files(folder)
    assert same_grid(Geometry.of(labels), Geometry.of(image)) is None
    assert_labelled_in_place(labels)


def write_sheared(path: Path, shear: float) -> None:
    """Write a deep scan whose planes are shifted against each other along y, as only its sform says."""
    empty = grid((751, 26, 30), (0.8, 0.8, 0.8))
    points = points_mm(empty)
    points[..., 1] += shear * (points[..., 2] - points[0, 0, 0, 2])
    sitk.WriteImage(with_voxels(empty, painted(points, DEEP).astype(np.int16)), path)
    x, y, z = empty.GetOrigin()
    lean = 0.8 / math.hypot(1.0, shear)
    sform = [[-0.8, 0.0, 0.0, -x], [0.0, -0.8, -lean * shear, -y], [0.0, 0.0, lean, z]]
    patched(path, (SFORM, "12f", np.ravel(sform).tolist()))


# ITK keeps the sform under 1e-4 and takes the axes of the qform beyond.
@pytest.mark.parametrize("shear", [1e-4, 6e-4])
def test_a_sheared_sform_under_half_a_voxel_is_no_shear(
    shear: float, folder: Path, through_files: Predict
) -> None:
    write_sheared(folder / "a.nii", shear)
    (labels,) = through_files(folder)
    assert_labelled_in_place(labels, DEEP, HALF)


@pytest.mark.parametrize("shear", [9e-4, 0.01, 0.3])
def test_a_sheared_sform_is_refused(shear: float, folder: Path, through_files: Predict) -> None:
    write_sheared(folder / "a.nii", shear)
    with pytest.raises(InputError, match="has a sheared grid: the axes of its sform are not perpendicular"):
        through_files(folder)


# --- DICOM

Vector = Sequence[float] | NDArray[np.float64]

AXIAL, CORONAL, SAGITTAL = ((1, 0, 0), (0, 1, 0)), ((1, 0, 0), (0, 0, -1)), ((0, 1, 0), (0, 0, -1))
PLANES = {"axial": AXIAL, "feet up": ((-1, 0, 0), (0, 1, 0)), "coronal": CORONAL, "sagittal": SAGITTAL}


def write_scan(
    folder: Path,
    row: Vector,
    column: Vector,
    step: Vector,
    *,
    slope: float = 1.0,
    intercept: float = -1024.0,
    dtype: type[np.number[Any]] = np.uint16,
) -> NDArray[np.float64]:
    """Write slices, `step` mm apart, in files shuffled by name; return the points (z, y, x, 3) of their pixels."""
    z, y, x = np.indices((28, 68, 84))[..., np.newaxis]
    points: NDArray[np.float64] = z * np.array(step) + 1.25 * y * np.array(column) + x * np.array(row)
    points += np.array(MIDDLE_MM) - (points[0, 0, 0] + points[-1, -1, -1]) / 2
    stored = ((painted(points) - intercept) / slope).round().astype(dtype)
    files = write_series(
        folder,
        stored,
        step=np.array(step).tolist(),
        origin=points[0, 0, 0].tolist(),
        orientation=(*row, *column),
        spacing_yx=(1.25, 1.0),
        slope=slope,
        intercept=intercept,
    )
    for file, number in zip(files, np.random.default_rng(0).permutation(len(files)), strict=True):
        file.rename(folder / f"IM{number:05d}")
    return points


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("angles_deg", [(0, 0, 0), (5, -8, 11)], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_dicom_slices_in_any_plane(
    plane: str, angles_deg: tuple[float, ...], sign: int, folder: Path, through_files: Predict
) -> None:
    row, column = np.array(PLANES[plane]) @ rotation(*angles_deg).T
    points = write_scan(folder, row, column, sign * 3.0 * np.cross(row, column))
    (labels,) = through_files(folder)
    np.testing.assert_allclose(points_mm(labels), points[::sign], rtol=0, atol=1e-3)
    assert_labelled_in_place(labels)


@pytest.mark.parametrize("digits", [3, 4, 5, 6])
def test_dicom_axes_printed_with_few_digits(digits: int, folder: Path, through_files: Predict) -> None:
    row, column, normal = rotation(5, -8, 11).T
    write_scan(folder, row.round(digits), column.round(digits), 3.0 * normal)
    (labels,) = through_files(folder)
    assert_labelled_in_place(labels)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [(np.int16, 1.0, 0.0), (np.uint16, 0.5, -1000.0), (np.int16, 2.0, 37.0), (np.uint8, 8.0, -1024.0)],
)
def test_dicom_slices_with_a_rescale(
    dtype: type[np.number[Any]], slope: float, intercept: float, folder: Path, through_files: Predict
) -> None:
    write_scan(folder, *AXIAL, (0.0, 0.0, 3.0), dtype=dtype, slope=slope, intercept=intercept)
    (labels,) = through_files(folder)
    assert_labelled_in_place(labels)


# From the first slice to the last; a pixel is 1 mm wide.
@pytest.mark.parametrize("shift_mm", [(0.45, 0.0), (-0.45, 0.0), (0.0, 0.45), (0.3, -0.3)])
def test_slices_shifted_by_less_than_half_a_pixel(
    shift_mm: tuple[float, float], folder: Path, through_files: Predict
) -> None:
    write_scan(folder, *AXIAL, (shift_mm[0] / 27, shift_mm[1] / 27, 3.0))
    (labels,) = through_files(folder)
    assert_labelled_in_place(labels, within=HALF)


@pytest.mark.parametrize("shift_mm", [(0.6, 0.0), (0.0, -3.0), (0.0, 81 * math.tan(math.radians(16.5)))])
def test_slices_shifted_further_are_refused(
    shift_mm: tuple[float, float], folder: Path, through_files: Predict
) -> None:
    write_scan(folder, *AXIAL, (shift_mm[0] / 27, shift_mm[1] / 27, 3.0))
    with pytest.raises(
        InputError, match="holds a sheared scan: its slices are shifted against each other by"
    ):
        through_files(folder)
