"""Which components of a label map are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from algorithm.bundle import read_bundle
from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.postprocessing import Postprocessing
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle

GRID = Geometry((20, 40, 40), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def pancreas() -> np.ndarray:
    """Return an organ of 6x10x10 voxels (3 ml) with a lesion of 0.24 ml in it and one of 0.04 ml at its edge."""
    labels = np.zeros(GRID.shape_zyx, np.uint8)
    labels[5:11, 10:20, 10:20] = 1
    labels[6:9, 12:16, 12:16] = 2
    labels[8:10, 20:22, 12:14] = 2
    return labels


def test_nothing_is_done_by_default() -> None:
    labels = pancreas()
    labels[18, 38, 38] = 2
    before = labels.copy()
    assert not Postprocessing()
    Postprocessing()(labels, GRID)
    np.testing.assert_array_equal(labels, before)


def test_of_organ_and_lesion_together_the_largest_component_stays() -> None:
    labels = pancreas()
    expected = labels.copy()
    labels[15:18, 30:34, 30:34] = 1
    labels[0, 0, 0] = 2
    Postprocessing(largest_component=True)(labels, GRID)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(("gap", "stays"), [(1, True), (2, False), (3, False)])
def test_a_lesion_far_from_the_organ_goes_by_millimetres_and_not_by_voxels(gap: int, stays: bool) -> None:
    labels = pancreas()
    first = 11 + gap - 1  # planes are 5 mm apart: the nearest voxel lies `gap` planes beyond the organ's last
    labels[first : first + 2, 12:14, 12:14] = 2
    Postprocessing(lesion_within_mm=6.0)(labels, GRID)
    assert bool((labels[first : first + 2] == 2).any()) == stays
    assert np.count_nonzero(labels[:11] == 2) == np.count_nonzero(pancreas() == 2)


def test_without_an_organ_no_lesion_is_lost() -> None:
    labels = np.zeros(GRID.shape_zyx, np.uint8)
    labels[3:5, 3:5, 3:5] = 2
    before = labels.copy()
    Postprocessing(lesion_within_mm=1.0)(labels, GRID)
    np.testing.assert_array_equal(labels, before)


def test_a_small_lesion_becomes_what_is_around_it() -> None:
    labels = pancreas()
    labels[17, 30:32, 30:32] = 2  # 0.02 ml, alone
    Postprocessing(smallest_lesion_ml=0.1)(labels, GRID)
    expected = pancreas()
    expected[8:10, 20:22, 12:14] = 1  # it touches the organ
    np.testing.assert_array_equal(labels, expected)


def test_an_empty_map_stays_empty() -> None:
    labels = np.zeros(GRID.shape_zyx, np.uint8)
    Postprocessing(largest_component=True, lesion_within_mm=1.0, smallest_lesion_ml=1.0)(labels, GRID)
    assert not labels.any()


def test_a_bundle_carries_its_postprocessing_to_the_scan(tmp_path: Path) -> None:
    settings = Postprocessing(largest_component=True, lesion_within_mm=20.0, smallest_lesion_ml=0.5)
    folder = write_random_bundle(tmp_path / "bundle", postprocessing=settings)
    bundle = read_bundle(folder)
    assert bundle.description.postprocessing == settings
    volume = np.random.default_rng(0).integers(-200, 300, GRID.shape_zyx).astype(np.int16)
    expected = Segmenter(random_bundle()).labels(volume, GRID)
    settings(expected, GRID)
    np.testing.assert_array_equal(Segmenter(bundle).labels(volume, GRID), expected)


def test_a_heavier_lesion_wins_where_it_was_close() -> None:
    maps = np.array([[0.1, 0.5, 0.2], [0.6, 0.3, 0.2], [0.3, 0.2, 0.6]], np.float32)
    labels = {
        weight: Postprocessing(lesion_weight=weight).weigh(maps).argmax(axis=0) for weight in (1, 3, 0.1)
    }
    assert {weight: found.tolist() for weight, found in labels.items()} == {
        1: [1, 0, 2],
        3: [2, 2, 2],
        0.1: [1, 0, 0],
    }
    assert Postprocessing().weigh(maps) is maps
    two = maps[:2]
    assert Postprocessing(lesion_weight=3.0).weigh(two) is two
    assert not Postprocessing(lesion_weight=3.0)


def test_a_bundle_carries_the_weight_of_its_lesions_to_the_scan() -> None:
    volume = np.random.default_rng(0).integers(-200, 300, GRID.shape_zyx).astype(np.int16)
    counts = []
    for weight in (0.5, 1.0, 2.0):
        segmenter = Segmenter(random_bundle(postprocessing=Postprocessing(lesion_weight=weight)))
        maps = np.empty((3, *GRID.shape_zyx), np.uint8)
        labels = segmenter.labels(volume, GRID, probabilities=maps)
        counts.append(int((labels == 2).sum()))
        if weight == 1.0:
            shares = maps.copy()
    assert counts[0] < counts[1] < counts[2]
    np.testing.assert_array_equal(maps, shares)  # probabilities are the network's own


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lesion_weight": 0}, "'postprocessing.lesion_weight' must be from 0.001 to 1000, got 0"),
        (
            {"largest": True},
            "'postprocessing' has 'largest', but this release knows largest_component, lesion_within",
        ),
        ({"largest_component": 1}, "'postprocessing.largest_component' is 1, which is no value for it"),
        (
            {"lesion_within_mm": -1},
            "'postprocessing.lesion_within_mm' must be from 0 to 1000 mm or null, got -1",
        ),
        (
            {"smallest_lesion_ml": None},
            "'postprocessing.smallest_lesion_ml' is null, which is no value for it",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = write_random_bundle(tmp_path / "bundle")
    file = folder / "model.json"
    content = json.loads(file.read_text())
    content["postprocessing"] = values
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_bundle(folder)
