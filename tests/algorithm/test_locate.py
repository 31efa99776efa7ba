from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithm.bundle import Bundle
from algorithm.geometry import Geometry
from algorithm.locate import CoarseToFine
from algorithm.segmenter import Segmenter
from tests.bundles import Threshold, coarse_to_fine_bundle, random_bundle

SHAPE, SPACING = (40, 100, 120), (5.0, 2.0, 2.0)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TURNED = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def coarse_labels(*boxes: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
    labels = np.zeros((20, 50, 60), np.uint8)  # voxels of 10 x 4 x 4 mm
    for box in boxes:
        labels[box] = 1
    return labels


def test_the_box_is_what_was_found_and_a_margin() -> None:
    found = coarse_labels((slice(4, 8), slice(10, 20), slice(30, 40)))
    box = CoarseToFine(margin_mm=20.0).region(found, SHAPE, SPACING, (10.0, 10.0, 10.0))
    assert box == (slice(4, 20), slice(10, 50), slice(50, 90))


def test_the_box_ends_with_the_scan_and_holds_a_patch() -> None:
    found = coarse_labels((slice(0, 4), slice(22, 28), slice(54, 60)))
    box = CoarseToFine(margin_mm=8.0).region(found, SHAPE, SPACING, (1000.0, 80.0, 10.0))
    assert box == (slice(0, 40), slice(30, 70), slice(104, 120))


def test_a_patch_at_the_border_is_moved_inwards() -> None:
    found = coarse_labels((slice(0, 4), slice(22, 28), slice(0, 6)))
    box = CoarseToFine(margin_mm=8.0).region(found, SHAPE, SPACING, (100.0, 80.0, 120.0))
    assert box == (slice(0, 20), slice(30, 70), slice(0, 60))
    found = coarse_labels((slice(16, 20), slice(22, 28), slice(54, 60)))
    box = CoarseToFine(margin_mm=8.0).region(found, SHAPE, SPACING, (100.0, 80.0, 120.0))
    assert box == (slice(20, 40), slice(30, 70), slice(60, 120))


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ((), "it labelled nothing"),
        (((slice(4, 5), slice(10, 11), slice(30, 32)),), r"has 0\.3 ml, less than 5"),
        (
            ((slice(2, 6), slice(5, 12), slice(5, 12)), (slice(12, 16), slice(30, 36), slice(40, 46))),
            "two pieces of like size",
        ),
    ],
)
def test_an_unsure_pass_says_why(boxes: tuple[tuple[slice, slice, slice], ...], reason: str) -> None:
    answer = CoarseToFine().region(coarse_labels(*boxes), SHAPE, SPACING, (10.0, 10.0, 10.0))
    assert isinstance(answer, str)
    assert re.search(reason, answer)


def threshold_segmenter(bundle: Bundle) -> Segmenter:
    segmenter = Segmenter(bundle, device=torch.device("cpu"))
    segmenter.members[0].network = Threshold()  # type: ignore[assignment]
    if segmenter.coarse is not None:
        segmenter.coarse.members[0].network = Threshold()  # type: ignore[assignment]
    return segmenter


def organ(shape_zyx: tuple[int, int, int], scale: float = 1.0) -> NDArray[np.int16]:
    z, y, x = np.indices(shape_zyx)
    far = ((z - 20) * 2.5) ** 2 + ((y - 60) * 1.0) ** 2 + ((x - 40) * 1.0) ** 2
    return np.where(far < (15 * scale) ** 2, 300, np.where(far < (25 * scale) ** 2, 100, -80)).astype(
        np.int16
    )


NORMALISED = {"window_hu": (-200.0, 600.0), "mean": (0.0,), "std": (300.0,)}


@pytest.mark.parametrize("direction", [IDENTITY, TURNED])
def test_the_box_gets_the_labels_that_the_whole_scan_gets(
    direction: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    volume = organ((50, 130, 110))
    geometry = Geometry(volume.shape, (2.0, 2.0, 2.0), (3.0, -20.0, 40.0), direction)
    same_grid = {**NORMALISED, "spacing_zyx_mm": (2.0, 2.0, 2.0)}
    coarse = random_bundle(**NORMALISED, spacing_zyx_mm=(5.0, 4.0, 4.0))
    whole = threshold_segmenter(random_bundle(**same_grid)).labels(volume, geometry)
    with caplog.at_level(logging.INFO):
        found = threshold_segmenter(
            random_bundle(coarse, coarse_to_fine=CoarseToFine(margin_mm=6.0), **same_grid)
        ).labels(volume, geometry)
    assert "the coarse pass chose" in caplog.text
    np.testing.assert_array_equal(found, whole)
    assert set(np.unique(found)) == {0, 1, 2}


def test_an_unsure_pass_means_the_whole_scan(caplog: pytest.LogCaptureFixture) -> None:
    volume = organ((50, 130, 110), scale=0.2)
    geometry = Geometry(volume.shape, (2.5, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    same_grid = {**NORMALISED, "spacing_zyx_mm": (2.5, 1.0, 1.0)}
    coarse = random_bundle(**NORMALISED, spacing_zyx_mm=(5.0, 4.0, 4.0))
    with caplog.at_level(logging.INFO):
        found = threshold_segmenter(
            random_bundle(coarse, coarse_to_fine=CoarseToFine(margin_mm=6.0), **same_grid)
        ).labels(volume, geometry)
    assert "the coarse pass is unsure (" in caplog.text
    assert "so the whole scan is segmented" in caplog.text
    np.testing.assert_array_equal(
        found, threshold_segmenter(random_bundle(**same_grid)).labels(volume, geometry)
    )
    assert found.any()


def test_a_bundle_has_both_a_coarse_pass_and_its_settings() -> None:
    bundle = coarse_to_fine_bundle()
    with pytest.raises(ValueError, match="both a coarse pass and settings for it, or none"):
        Bundle(bundle.network, bundle.description)
    with pytest.raises(ValueError, match="or none"):
        random_bundle(bundle.coarse)
