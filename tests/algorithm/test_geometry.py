"""Grids, orientations: properties over every storage order, literal fixtures, SimpleITK as the oracle."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algorithm.geometry import Geometry, Orientation, canonical_orientation, difference, numbers, same_grid

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ALL_ORIENTATIONS = [
    Orientation(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
SIGNED_PERMUTATIONS = [
    np.eye(3)[:, list(axes)] * signs
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]

sizes = st.tuples(*[st.integers(1, 5)] * 3)
spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)
origins = st.tuples(*[st.floats(-500.0, 500.0)] * 3)


@st.composite
def rotations(draw: st.DrawFn, largest_rad: float = math.pi) -> NDArray[np.float64]:
    """Draw a rotation by Rodrigues' formula."""
    axis = np.array(draw(st.tuples(*[st.floats(-1.0, 1.0)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)))
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = draw(st.floats(-largest_rad, largest_rad))
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross


@st.composite
def geometries(draw: st.DrawFn, largest_rad: float = math.pi) -> Geometry:
    matrix = draw(rotations(largest_rad)) @ draw(st.sampled_from(SIGNED_PERMUTATIONS))
    return Geometry(draw(sizes), draw(spacings), draw(origins), tuple(matrix.ravel().tolist()))


def grid(
    shape: tuple[int, int, int] = (3, 4, 5),
    spacing: tuple[float, float, float] = (5.0, 0.8, 0.7),
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    direction: tuple[float, ...] = IDENTITY,
) -> Geometry:
    return Geometry(shape, spacing, origin, direction)


def image_of(geometry: Geometry, volume: NDArray[np.int16] | None = None) -> sitk.Image:
    image = sitk.GetImageFromArray(np.zeros(geometry.shape_zyx, np.int16) if volume is None else volume)
    image.SetSpacing(geometry.spacing_zyx_mm[::-1])
    image.SetOrigin(geometry.origin_xyz_mm)
    image.SetDirection(geometry.direction)
    return image


def numbered(shape: tuple[int, ...]) -> NDArray[np.int16]:
    return np.arange(math.prod(shape), dtype=np.int16).reshape(shape)


def test_axis_order_of_a_literal_grid() -> None:
    # RAS as Task07 is stored: x runs to the right, y to the front.
    geometry = grid(direction=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    assert geometry.point_mm((2, 1, 3)) == pytest.approx((-10 - 3 * 0.7, 20 - 1 * 0.8, 30 + 2 * 5.0))
    assert geometry.voxel_ml == pytest.approx(5.0 * 0.8 * 0.7 / 1000)


@given(geometry=geometries(), index=st.tuples(*[st.floats(-3.0, 9.0)] * 3))
def test_points_agree_with_simpleitk_and_go_back(
    geometry: Geometry, index: tuple[float, float, float]
) -> None:
    image = image_of(geometry)
    assert Geometry.of(image) == geometry
    point = geometry.point_mm(index)
    assert point == pytest.approx(image.TransformContinuousIndexToPhysicalPoint(index[::-1]), abs=1e-9)
    assert geometry.index_zyx(point) == pytest.approx(index, abs=1e-9)


def test_set_on_gives_an_image_the_grid() -> None:
    geometry = grid(direction=(0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    image = sitk.Image(5, 4, 3, sitk.sitkUInt8)
    geometry.set_on(image)
    assert Geometry.of(image) == geometry
    with pytest.raises(ValueError, match=re.escape("image size must be (5, 4, 3) (x, y, z), got (4, 4, 3)")):
        geometry.set_on(sitk.Image(4, 4, 3, sitk.sitkUInt8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3, 0, 5)}, r"size must be three numbers >= 1, got \(3, 0, 5\)"),
        ({"spacing": (5.0, 0.0, 0.7)}, r"spacing must be finite and > 0, got \(5, 0, 0.7\) mm"),
        ({"spacing": (5.0, -0.8, 0.7)}, "spacing must be finite and > 0"),
        ({"spacing": (math.nan, 0.8, 0.7)}, "spacing must be finite and > 0, got .nan"),
        ({"spacing": (math.inf, 0.8, 0.7)}, "spacing must be finite and > 0, got .inf"),
        ({"origin": (0.0, math.nan, 0.0)}, "origin must be finite"),
        ({"direction": (1.0, 0.0, 0.0)}, "direction must be nine finite numbers"),
        ({"direction": (math.nan, *IDENTITY[1:])}, "direction must be nine finite numbers"),
        (
            {"direction": (1.0, 0.0, 0.0, 0.0, 0.96, 0.0, 0.0, 0.28, 1.0)},
            "axes must be perpendicular unit vectors",
        ),
        ({"direction": (2.0, *IDENTITY[1:])}, "axes must be perpendicular unit vectors"),
        ({"direction": (0.0,) * 9}, "axes must be perpendicular unit vectors"),
    ],
)
def test_values_that_are_no_grid_are_refused(change: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(**change)  # type: ignore[arg-type]


def test_rounded_and_left_handed_directions_are_grids() -> None:
    grid(direction=(1.0, 0.0, 0.0, 0.0, 0.9588, -0.2840, 0.0, 0.2840, 0.9588))  # four printed digits
    assert np.linalg.det(grid(direction=(-1.0, *IDENTITY[1:])).matrix) == -1.0


def test_same_grid_says_what_differs() -> None:
    a = grid()
    assert same_grid(a, grid()) is None
    assert same_grid(a, grid(shape=(3, 4, 6))) == "size (3, 4, 5) against (3, 4, 6) voxels (z, y, x)"
    assert (
        same_grid(a, grid(spacing=(2.5, 0.8, 0.7)))
        == "spacing (5, 0.8, 0.7) against (2.5, 0.8, 0.7) mm (z, y, x)"
    )
    assert (
        same_grid(a, grid(origin=(-10.0, 20.0, 31.0)))
        == "origin (-10, 20, 30) against (-10, 20, 31) mm (x, y, z)"
    )
    flipped = (-1.0, *IDENTITY[1:])
    assert same_grid(a, grid(direction=flipped)) == (
        "direction (1, 0, 0, 0, 1, 0, 0, 0, 1) against (-1, 0, 0, 0, 1, 0, 0, 0, 1)"
    )


def test_a_difference_below_six_digits_is_still_shown() -> None:
    clause = difference(
        grid(), grid(origin=(-10.0000001, 20.0, 30.0)), origin_mm=1e-9, spacing_relative=0, direction=0
    )
    assert clause == "origin (-10, 20, 30) against (-10.0000001, 20, 30) mm (x, y, z)"


@given(geometry=geometries())
def test_rounding_to_float32_keeps_the_grid_and_a_tenth_of_a_voxel_does_not(geometry: Geometry) -> None:
    def single(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(np.array(values, np.float32).astype(np.float64).tolist())

    rounded = Geometry(
        geometry.shape_zyx,
        single(geometry.spacing_zyx_mm),  # type: ignore[arg-type]
        single(geometry.origin_xyz_mm),  # type: ignore[arg-type]
        single(geometry.direction),
    )
    assert same_grid(geometry, rounded) is None
    x, y, z = geometry.origin_xyz_mm
    moved = Geometry(
        geometry.shape_zyx,
        geometry.spacing_zyx_mm,
        (x + 0.1 * min(geometry.spacing_zyx_mm), y, z),
        geometry.direction,
    )
    assert "origin" in (same_grid(geometry, moved) or "")


def test_numbers_have_no_negative_zero() -> None:
    assert numbers((-0.0, 0.1, 1234.5678)) == "(0, 0.1, 1234.57)"
    assert (
        "direction (1, 0, 0, 0, 1"
        in grid(direction=(1.0, -0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)).describe()
    )


def test_resampled_of_a_literal_grid() -> None:
    new = grid(shape=(2, 4, 4), spacing=(5.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)).resampled((4, 4, 2))
    assert new.shape_zyx == (4, 4, 2)
    assert new.spacing_zyx_mm == (2.5, 1.0, 2.0)
    assert new.origin_xyz_mm == (0.5, 0.0, -1.25)


@given(geometry=geometries(), shape=sizes)
def test_resampling_keeps_the_edges_of_the_field_of_view(
    geometry: Geometry, shape: tuple[int, int, int]
) -> None:
    new = geometry.resampled(shape)
    for corner in itertools.product((0, 1), repeat=3):
        old_index = [c * n - 0.5 for c, n in zip(corner, geometry.shape_zyx, strict=True)]
        new_index = [c * n - 0.5 for c, n in zip(corner, shape, strict=True)]
        assert new.point_mm(new_index) == pytest.approx(geometry.point_mm(old_index), abs=1e-9)
    assert new.direction == geometry.direction
    assert new.resampled(geometry.shape_zyx).origin_xyz_mm == pytest.approx(geometry.origin_xyz_mm, abs=1e-9)


@given(geometry=geometries(), shape=sizes, index=st.tuples(*[st.floats(-0.5, 4.5)] * 3))
def test_a_landmark_follows_the_edge_aligned_coordinate(
    geometry: Geometry, shape: tuple[int, int, int], index: tuple[float, float, float]
) -> None:
    pairs = zip(index, geometry.shape_zyx, shape, strict=True)
    moved = [(i + 0.5) * n_new / n_old - 0.5 for i, n_old, n_new in pairs]
    assert geometry.resampled(shape).point_mm(moved) == pytest.approx(geometry.point_mm(index), abs=1e-9)


def test_resampling_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be three numbers >= 1"):
        grid().resampled((3, 0, 5))


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS)
@pytest.mark.parametrize("lead", [(), (2,)])
def test_from_canonical_undoes_to_canonical(orientation: Orientation, lead: tuple[int, ...]) -> None:
    volume = numbered((*lead, 2, 3, 4))
    canonical = orientation.to_canonical(volume)
    assert canonical.flags.c_contiguous
    assert canonical.shape[len(lead) :] == tuple((2, 3, 4)[axis] for axis in orientation.axes_zyx)
    back = orientation.from_canonical(canonical)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, volume)


def test_to_canonical_of_a_literal_volume() -> None:
    volume = np.array([[[0, 1, 2], [3, 4, 5]]], dtype=np.int16)  # 1 x 2 x 3
    turned = Orientation((0, 2, 1), (False, True, False)).to_canonical(volume)
    assert turned.tolist() == [[[2, 5], [1, 4], [0, 3]]]


def test_an_orientation_that_is_no_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match="need a permutation"):
        Orientation((0, 1, 1), (False, False, False))


@pytest.mark.parametrize("matrix", SIGNED_PERMUTATIONS)
def test_every_axis_aligned_direction_becomes_the_identity(matrix: NDArray[np.float64]) -> None:
    geometry = grid(direction=tuple(matrix.ravel().tolist()))
    orientation = canonical_orientation(geometry)
    assert orientation.canonical(geometry).direction == IDENTITY


@pytest.mark.parametrize("code", ["RAS", "LAS", "RAI", "PIR", "ASL", "SRP", "LPI"])
def test_canonical_volume_is_the_one_of_simpleitk(code: str) -> None:
    lps = image_of(grid(), numbered((3, 4, 5)))
    stored = sitk.DICOMOrient(lps, code)
    geometry = Geometry.of(stored)
    orientation = canonical_orientation(geometry)
    expected = sitk.DICOMOrient(stored, "LPS")
    np.testing.assert_array_equal(
        orientation.to_canonical(sitk.GetArrayFromImage(stored)), sitk.GetArrayFromImage(expected)
    )
    assert same_grid(orientation.canonical(geometry), Geometry.of(expected)) is None


@given(geometry=geometries())
def test_canonicalisation_leaves_every_voxel_in_its_place(geometry: Geometry) -> None:
    orientation = canonical_orientation(geometry)
    canonical = orientation.canonical(geometry)
    points = np.array([geometry.point_mm(index) for index in np.ndindex(*geometry.shape_zyx)])
    stored = points.reshape(*geometry.shape_zyx, 3)
    for axis in range(3):
        moved = orientation.to_canonical(np.ascontiguousarray(stored[..., axis]))
        for index in np.ndindex(*canonical.shape_zyx):
            assert moved[index] == pytest.approx(canonical.point_mm(index)[axis], abs=1e-8)


@given(geometry=geometries())
def test_canonical_axes_are_the_nearest_of_all_48(geometry: Geometry) -> None:
    chosen = np.trace(canonical_orientation(geometry).canonical(geometry).matrix)
    best = max(np.trace(geometry.matrix @ permutation) for permutation in SIGNED_PERMUTATIONS)
    assert chosen == pytest.approx(best, abs=2e-4)


@settings(max_examples=40)
@given(geometry=geometries(), data=st.data())
def test_one_scan_in_any_storage_order_has_one_canonical_volume(
    geometry: Geometry, data: st.DataObject
) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, geometry.shape_zyx, dtype=np.int16)
    stored = data.draw(st.sampled_from(ALL_ORIENTATIONS))
    other = stored.canonical(geometry)  # any of the 48 reorderings, not the canonical one
    first, second = canonical_orientation(geometry), canonical_orientation(other)
    np.testing.assert_array_equal(
        second.to_canonical(stored.to_canonical(volume)), first.to_canonical(volume)
    )
    assert same_grid(second.canonical(other), first.canonical(geometry)) is None


@pytest.mark.parametrize("angle_deg", [45.0, 135.0, -45.0])
@pytest.mark.parametrize("around", [0, 1, 2])
def test_at_a_tie_storage_order_and_rounding_do_not_choose(angle_deg: float, around: int) -> None:
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    matrix = np.roll(np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]), around, (0, 1))
    geometry = grid(direction=tuple(matrix.ravel().tolist()))
    chosen = canonical_orientation(geometry).canonical(geometry)
    for stored in ALL_ORIENTATIONS:
        other = stored.canonical(geometry)
        rounded = tuple(np.array(other.direction, np.float32).astype(np.float64).tolist())
        other = Geometry(other.shape_zyx, other.spacing_zyx_mm, other.origin_xyz_mm, rounded)
        assert same_grid(canonical_orientation(other).canonical(other), chosen) is None


def test_small_rotations_keep_the_stored_order() -> None:
    cos, sin = math.cos(math.radians(16.5)), math.sin(math.radians(16.5))
    tilted = grid(direction=(1.0, 0.0, 0.0, 0.0, cos, -sin, 0.0, sin, cos))
    assert canonical_orientation(tilted) == Orientation((0, 1, 2), (False, False, False))
    assert canonical_orientation(tilted).canonical(tilted) == tilted
