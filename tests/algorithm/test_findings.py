from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from algorithm.findings import Peaks, count_labels
from algorithm.geometry import Geometry
from algorithm.postprocessing import Postprocessing
from algorithm.segmenter import Segmenter
from tests.bundles import Threshold, random_bundle

GRID = {"spacing_zyx_mm": (2.0, 1.0, 1.0), "window_hu": (0.0, 1000.0), "mean": (0.0,), "std": (1000.0,)}
TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_peaks_are_found_across_slabs() -> None:
    maps = np.random.default_rng(0).random((3, 9, 5, 7)).astype(np.float32)
    peaks = Peaks(3)
    for planes in np.split(maps, (2, 3, 7), axis=1):
        peaks.add(planes)
    for value, one in enumerate(maps):
        assert peaks.highest[value] == one.max()
        assert tuple(peaks.index_zyx[value]) == np.unravel_index(one.argmax(), one.shape)


def test_labels_are_counted() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    np.testing.assert_array_equal(count_labels(labels, 4), [(labels == value).sum() for value in range(4)])


class Doubtful(Threshold):
    """Gives a voxel of 400 HU a probability of class 2 that is not the largest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of (n, 1, z, y, x)."""
        cancer = torch.where(x > 0.35, torch.log(torch.tensor(0.7)), torch.tensor(-20.0))
        return torch.cat((0.2 - 100 * x, torch.zeros_like(x), cancer), dim=1)


def segment(hu_at_the_spot: int, caplog: pytest.LogCaptureFixture) -> tuple[Geometry, list[str]]:
    segmenter = Segmenter(random_bundle(**GRID), device=torch.device("cpu"))
    segmenter.members[0].network = Doubtful()  # type: ignore[assignment]
    volume = np.zeros((20, 40, 50), np.int16)
    volume[8:12, 10:30, 10:30] = 300 if hu_at_the_spot else 0
    volume[9, 20, 25] = hu_at_the_spot
    geometry = Geometry(volume.shape, (2.0, 1.0, 1.0), (5.0, -7.0, 100.0), TURNED)
    with caplog.at_level(logging.INFO):
        segmenter.labels(volume, geometry)
    return geometry, [record.message for record in caplog.records if "is labelled" in record.message]


def test_a_tumour_that_was_nearly_labelled_is_pointed_at(caplog: pytest.LogCaptureFixture) -> None:
    geometry, said = segment(400, caplog)
    x, y, z = geometry.point_mm((9, 20, 25))
    assert said == [
        (
            "no cancer is labelled, but one may have been missed: its probability reaches 0.41 "
            f"at ({x:.1f}, {y:.1f}, {z:.1f}) mm (x, y, z in LPS)"
        )
    ]


def test_an_unlikely_tumour_is_only_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    _, said = segment(300, caplog)
    assert said == ["no cancer is labelled: its probability is 0.00 at most"]


def test_a_scan_without_the_organ_is_worth_a_look(caplog: pytest.LogCaptureFixture) -> None:
    segmenter = Segmenter(random_bundle(**GRID), device=torch.device("cpu"))
    segmenter.members[0].network = Threshold()  # type: ignore[assignment]
    geometry = Geometry((4, 20, 20), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), TURNED)
    with caplog.at_level(logging.INFO):
        segmenter.labels(np.zeros((4, 20, 20), np.int16), geometry)
    assert (
        "no pancreas is labelled: its probability is 0.00 at most; check that the scan shows it"
        in caplog.text
    )


def test_the_peak_is_said_at_the_temperature_of_the_maps() -> None:
    maps = np.array([0.5, 0.1, 0.4], np.float32).reshape(3, 1, 1, 1)
    peaks = Peaks(3, temperature=2.0)
    peaks.add(maps)
    roots = np.sqrt([0.5, 0.1, 0.4])
    assert peaks.probability(2) == pytest.approx(roots[2] / roots.sum())
    assert Peaks(3).probability(1) == pytest.approx(1 / 3)


def test_what_postprocessing_took_away_is_said(caplog: pytest.LogCaptureFixture) -> None:
    settings = Postprocessing(smallest_lesion_ml=100.0)
    segmenter = Segmenter(random_bundle(**GRID, postprocessing=settings), device=torch.device("cpu"))
    segmenter.members[0].network = Threshold()  # type: ignore[assignment]
    volume = np.zeros((20, 40, 50), np.int16)
    volume[8:12, 10:30, 10:30] = 300
    volume[9, 15:25, 15:25] = 900
    geometry = Geometry(volume.shape, (2.0, 1.0, 1.0), (5.0, -7.0, 100.0), TURNED)
    with caplog.at_level(logging.INFO):
        segmenter.labels(volume, geometry)
    assert "postprocessing removed all cancer, 0.2 ml of it: look at the scan" in caplog.text
    assert "is labelled" not in caplog.text
