"""The phantom's parts against closed forms and independent oracles."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from trainer.phantom import statistics
from trainer.phantom.acquisition import Acquisition, NoiseFilter, label, over_slice
from trainer.phantom.canvas import Canvas, Organ
from trainer.phantom.dataset import case_numbers
from trainer.phantom.draws import generator, spread
from trainer.phantom.fields import LatticeField, noise_lattice
from trainer.phantom.grid import Body, ScanGrid
from trainer.phantom.labelled import tissue_of
from trainer.phantom.shapes import FAR_MM, Ellipsoid, Tube, Union
from trainer.phantom.statistics import draw_facts
from trainer.phantom.tissue import Solid, draw_palette

GRID = ScanGrid((20, 40, 44), (3.0, 2.0, 2.0), (-30.0, -40.0, -44.0))


class Still(Body):
    """A body that lies straight, without warp."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        object.__setattr__(self.pose, "rotation", np.eye(3))
        object.__setattr__(self.pose, "scale", 1.0)
        self.warps = [np.zeros_like(self.coarse) for _ in range(3)]


def test_generators_depend_on_seed_case_and_purpose_only() -> None:
    draws = {
        float(generator(seed, case, purpose).random())
        for seed in (0, 1)
        for case in (0, 1)
        for purpose in ("liver", "spleen")
    }
    assert len(draws) == 8
    assert generator(3, 5, "liver").random() == generator(3, 5, "liver").random()


def test_spread_fills_every_tenth_of_each_axis_evenly() -> None:
    points = np.array([spread(7, case, 6) for case in range(100)])
    for axis in range(6):
        counts = np.histogram(points[:, axis], np.linspace(0, 1, 11))[0]
        assert counts.min() >= 8
        assert counts.max() <= 12


@pytest.mark.parametrize("seed", [0, 11])
def test_drawn_facts_have_the_quantiles_of_the_tables(seed: int) -> None:
    facts = [draw_facts(seed, case) for case in range(400)]
    for drawn, table in (
        ([f.pancreas_ml for f in facts], statistics.PANCREAS_ML),
        ([f.tumour_ml for f in facts], statistics.TUMOUR_ML),
        ([f.spacing_zyx_mm[2] for f in facts], statistics.SPACING_X_MM),
    ):
        expected = np.interp((0.1, 0.25, 0.5, 0.75, 0.9), statistics.PROBABILITIES, table)
        np.testing.assert_allclose(np.quantile(drawn, (0.1, 0.25, 0.5, 0.75, 0.9)), expected, rtol=0.05)
    thickness = np.array([f.spacing_zyx_mm[0] for f in facts])
    assert np.mean(thickness == 2.5) == pytest.approx(218 / 281, abs=0.01)
    assert np.mean(thickness == 5.0) == pytest.approx(43 / 281, abs=0.01)
    assert np.mean([f.tumour_place < 0.3 for f in facts]) == pytest.approx(0.65, abs=0.01)
    slices = [f.slices for f in facts if f.spacing_zyx_mm[0] == 2.5]
    assert np.median(slices) == pytest.approx(93, abs=2)


def test_tables_are_those_of_the_real_cases(real_data: Path) -> None:
    with (real_data / "task07_cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = {
        key: np.array([float(row[key]) for row in rows])
        for key in rows[0]
        if key.endswith(("ml", "mm", "_z"))
    }
    inner = slice(0, -1)
    for name, table in (
        ("pancreas_ml", statistics.PANCREAS_ML),
        ("tumour_ml", statistics.TUMOUR_ML),
        ("spacing_x_mm", statistics.SPACING_X_MM),
    ):
        real = np.quantile(column[name], statistics.PROBABILITIES)
        np.testing.assert_allclose(np.array(table)[inner], real[inner], rtol=0.01)
    assert statistics.TUMOUR_ML[-1] == pytest.approx(np.quantile(column["tumour_ml"], 0.99), rel=0.01)
    for spacing, count in statistics.SPACING_Z_COUNTS:
        assert np.isclose(column["spacing_z_mm"], spacing, atol=1e-3).sum() == count
    for spacing, table in ((2.5, statistics.SLICES_AT_2_5_MM), (5.0, statistics.SLICES_AT_5_MM)):
        real = np.quantile(
            column["shape_z"][column["spacing_z_mm"] == spacing], statistics.SLICE_PROBABILITIES
        )
        np.testing.assert_allclose(table, real, atol=0.1)


def test_case_numbers_interleave_and_never_change_sides() -> None:
    assert case_numbers(4, 2) == ([1, 2, 4, 5], [3, 6])
    more_train, more_test = case_numbers(9, 5)
    assert more_train[:4] == [1, 2, 4, 5]
    assert more_test[:2] == [3, 6]
    assert not set(more_train) & set(more_test)


def test_lattice_field_reads_as_a_periodic_cubic_spline() -> None:
    lattice = noise_lattice(np.random.default_rng(1), [(0.8, 2.0)])
    y, x, z = np.linspace(-130, 90, 23), np.linspace(-60, 200, 31), np.linspace(-41, 37, 9)
    field = LatticeField(lattice, 5.0, y, x)
    read = np.concatenate([field.read(z[:4]), field.read(z[4:])])
    where = np.stack(np.meshgrid(z / 5, y / 5, x / 5, indexing="ij"))
    oracle = ndimage.map_coordinates(lattice, where, order=3, prefilter=False, mode="grid-wrap")
    np.testing.assert_allclose(read, oracle, atol=2e-5)


def test_lattice_has_the_asked_deviation_where_it_is_read() -> None:
    lattice = noise_lattice(np.random.default_rng(2), [(1.5, 3.0), (0.7, 4.0)])
    at = np.arange(0, 64, 0.5) * 2.0
    read = LatticeField(lattice, 2.0, at, at).read(at[:40])
    assert read.std() == pytest.approx(5.0, rel=0.08)


def test_sphere_and_tube_distances_are_exact() -> None:
    points = Still().reader(GRID).read(GRID.axis_mm(0))
    z, y, x = np.meshgrid(*[GRID.axis_mm(axis) for axis in range(3)], indexing="ij")
    np.testing.assert_allclose(points.x, x, atol=1e-3)
    ball = Ellipsoid.at((4.0, -3.0, 2.0), (15.0, 15.0, 15.0), (30.0, 20.0, 10.0)).distance(points)
    expected = np.sqrt((x - 4) ** 2 + (y + 3) ** 2 + (z - 2) ** 2) - 15
    np.testing.assert_allclose(ball, np.minimum(expected, FAR_MM), atol=1e-3)
    tube = Tube(np.array([[-20.0, 0.0, 0.0], [20.0, 0.0, 0.0]]), np.array([6.0, 10.0]), margin_mm=4.0)
    t = np.clip((x + 20) / 40, 0, 1)
    expected = np.sqrt((x + 20 - 40 * t) ** 2 + y**2 + z**2) - (6 + 4 * t)
    near = expected < 3.0
    np.testing.assert_allclose(tube.distance(points)[near], expected[near], atol=2e-3)


def test_ellipsoid_distance_vanishes_on_its_surface_only() -> None:
    body = Still()
    shape = Ellipsoid.at((0.0, 0.0, 0.0), (24.0, 12.0, 8.0), (0.0, 0.0, 90.0))
    points = body.reader(GRID).read(GRID.axis_mm(0))
    inside = (points.x / 12) ** 2 + (points.y / 24) ** 2 + (points.z / 8) ** 2 < 1
    np.testing.assert_array_equal(shape.distance(points) < 0, inside)


@pytest.mark.parametrize("case", [1, 2, 3])
def test_a_patch_holds_every_voxel_of_its_shape(case: int) -> None:
    body = Body(5, case)
    points = body.reader(GRID).read(GRID.axis_mm(0))
    shape = Union((
        Tube(np.array([[-20.0, 3.0, -8.0], [5.0, 12.0, 9.0], [18.0, -14.0, 4.0]]), np.array([5.0, 7.0, 4.0])),
        Ellipsoid.at((6.0, -9.0, -5.0), (9.0, 14.0, 6.0), (20.0, 40.0, 60.0)),
    ))  # fmt: skip
    whole = np.minimum(shape.shapes[1].distance(points), FAR_MM)
    for a, b, ra, rb in zip(
        shape.shapes[0].path,
        shape.shapes[0].path[1:],
        shape.shapes[0].radii,
        shape.shapes[0].radii[1:],
        strict=False,
    ):
        p = np.stack([points.x, points.y, points.z], axis=-1).astype(np.float64) - a
        t = np.clip(p @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        whole = np.minimum(whole, np.linalg.norm(p - t[..., None] * (b - a), axis=-1) - (ra + t * (rb - ra)))
    canvas = Canvas(points, 0.01)
    canvas.paint(Organ("tube", shape, Solid(300.0, 0.0)))
    assert whole.min() < -4
    certain = np.abs(whole) > 0.02
    np.testing.assert_array_equal((canvas.hu > 0)[certain], (whole < 0)[certain])


def test_labels_are_the_larger_share_of_voxels_half_filled() -> None:
    pancreas = np.array([0.49, 0.5, 0.3, 0.2, 1.0], np.float32)
    tumour = np.array([0.0, 0.0, 0.19, 0.35, 0.0], np.float32)
    np.testing.assert_array_equal(label(pancreas, tumour), np.array([0, 1, 0, 2, 1], np.uint8))


def test_a_slice_is_the_mean_of_its_planes() -> None:
    planes = np.array([0, 2, 10, 30], np.float32).reshape(4, 1, 1)
    np.testing.assert_array_equal(over_slice(planes, 2).ravel(), [1.0, 20.0])


def test_noise_is_band_limited_and_as_strong_as_asked() -> None:
    grid = ScanGrid((1, 200, 240), (2.5, 0.7, 0.7), (0.0, -90.0, -84.0))
    scan = Acquisition(grid, 12.0, 0.5, 0.45, 400.0, -1024)
    noise = NoiseFilter(scan)
    draws = np.stack([noise.draw(generator(0, 0, f"noise {index}")) for index in range(12)])
    middle = draws[:, 70:130, 90:150]
    assert middle.std() == pytest.approx(12.0, rel=0.06)
    power = np.mean(np.abs(np.fft.fft2(draws / noise.strength)) ** 2, axis=0)
    frequency = np.hypot(np.fft.fftfreq(200, 0.7)[:, None], np.fft.fftfreq(240, 0.7)[None, :])
    bands = [power[(frequency >= low) & (frequency < low + 0.05)].mean() for low in (0.01, 0.15, 0.65)]
    assert bands[1] > 2.0 * bands[0]  # rises like a ramp
    assert bands[1] > 5.0 * bands[2]  # and ends where the kernel does


def test_palettes_keep_the_order_of_tissues() -> None:
    palettes = [draw_palette(0, case) for case in range(200)]
    late = np.mean([palette.phase == "late arterial" for palette in palettes])
    assert 0.1 < late < 0.3
    for palette in palettes:
        assert palette.fat < palette.bile < palette.muscle < palette.pancreas
        assert abs(palette.bowel_wall - palette.pancreas) <= 11.0
        assert 8.0 <= palette.tumour_drop <= 55.0


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("kidney_left", "kidney"), ("vertebrae_L3", "bone"), ("portal_vein_and_splenic_vein", "portal"),
        ("pulmonary_vein", "vein"), ("iliac_artery_left", "artery"), ("small_bowel", "bowel"), ("unheard_of", "muscle"),
    ],
)  # fmt: skip
def test_names_of_labels_become_tissues(name: str, tissue: str) -> None:
    assert tissue_of(name)[1] == tissue
