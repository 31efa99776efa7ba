from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import voxelcore
from algorithm.geometry import Geometry
from algorithm.probabilities import ProbabilityExporter
from algorithm.segmenter import Segmenter
from tests.bundles import coarse_to_fine_bundle, random_bundle

CPU = torch.device("cpu")
LEFT_HANDED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
STEP = 1 / 255


def class_maps(shape_zyx: tuple[int, int, int]) -> NDArray[np.float32]:
    logits = np.random.default_rng(0).normal(0, 2, (3, *shape_zyx))
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=0)).astype(np.float32)


def export(
    maps: NDArray[np.float32], out_shape: tuple[int, int, int], cuts: tuple[int, ...], **options: Any
) -> Any:
    out = np.full((3, *out_shape), 77, np.uint8)
    exporter = ProbabilityExporter(maps.shape[1:], out, **options)
    for planes in np.split(maps, cuts, axis=1):
        exporter.add(planes)
    return out


@pytest.mark.parametrize("out_shape", [(7, 9, 11), (20, 12, 9), (3, 5, 5), (1, 9, 11)])
@pytest.mark.parametrize("cuts", [(), (1,), (2, 3, 6)])
def test_maps_are_resampled_class_maps(out_shape: tuple[int, int, int], cuts: tuple[int, ...]) -> None:
    maps = class_maps((7, 9, 11))
    p = np.stack([voxelcore.resample_linear(one, out_shape) for one in maps])
    found = export(maps, out_shape, cuts) / 255
    np.testing.assert_allclose(found[:2], p[1:], atol=0.51 * STEP)
    np.testing.assert_allclose(found[2], -(p * np.log(p)).sum(axis=0) / np.log(3), atol=0.52 * STEP)


def test_temperature_flattens_and_keeps_the_order() -> None:
    maps = class_maps((4, 9, 11))
    power = maps.astype(np.float64) ** (1 / 2.5)
    found = export(maps, (4, 9, 11), (), temperature=2.5) / 255
    np.testing.assert_allclose(found[:2], (power / power.sum(axis=0))[1:], atol=0.52 * STEP)


def test_a_certain_voxel_has_no_uncertainty_and_an_undecided_one_all() -> None:
    maps = np.zeros((3, 1, 1, 2), np.float32)
    maps[2, 0, 0, 0] = 1
    maps[:, 0, 0, 1] = 1 / 3
    np.testing.assert_array_equal(export(maps, (1, 1, 2), ()).reshape(3, 2), [[0, 85], [255, 85], [0, 255]])


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1, 0, 0, 0, 1), LEFT_HANDED])
def test_maps_lie_on_the_grid_of_the_scan_as_labels_do(direction: tuple[float, ...]) -> None:
    volume = np.random.default_rng(0).normal(30, 80, (20, 40, 36)).astype(np.int16)
    geometry = Geometry(volume.shape, (2.5, 0.9, 0.8), (0.0, 0.0, 0.0), direction)
    segmenter = Segmenter(random_bundle(), device=CPU)
    maps = np.empty((3, *volume.shape), np.uint8)
    labels = segmenter.labels(volume, geometry, probabilities=maps)
    np.testing.assert_array_equal(labels, segmenter.labels(volume, geometry))
    p = np.stack((255.0 - maps[0] - maps[1], maps[0], maps[1]))
    chosen = np.take_along_axis(p, labels[np.newaxis].astype(np.int64), axis=0)[0]
    assert (chosen >= p.max(axis=0) - 1.5).all()  # rounding to 255ths may make two equal
    assert np.unique(labels).size == 3


def test_outside_the_box_of_a_coarse_pass_nothing_is_probable() -> None:
    volume = np.full((20, 60, 60), -1000, np.int16)
    geometry = Geometry(volume.shape, (5.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    segmenter = Segmenter(coarse_to_fine_bundle(), device=CPU)
    box = (slice(2, 18), slice(5, 37), slice(8, 40))
    segmenter._box = lambda *_: box  # type: ignore[method-assign]
    maps = np.full((3, *volume.shape), 9, np.uint8)
    segmenter.labels(volume, geometry, probabilities=maps)
    inside = np.zeros(volume.shape, bool)
    inside[box] = True
    assert (maps[:, ~inside] == 0).all()
    assert maps[:, inside].max() > 0


def test_an_array_that_does_not_fit_is_refused() -> None:
    volume = np.zeros((4, 20, 20), np.int16)
    geometry = Geometry(volume.shape, (5.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    segmenter = Segmenter(random_bundle(), device=CPU)
    for wrong in (np.empty((2, 4, 20, 20), np.uint8), np.empty((3, 4, 20, 20), np.float32)):
        with pytest.raises(ValueError, match=r"must be uint8 \(3, 4, 20, 20\) \(K, z, y, x\), got"):
            segmenter.labels(volume, geometry, probabilities=wrong)  # type: ignore[arg-type]
