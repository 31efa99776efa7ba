"""Lesions one by one, against masks drawn by hand and against SciPy's labelling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from trainer.lesions import lesion_values, match_lesions
from trainer.strata import SIZES, THICKNESSES, diameter_mm, grouped

VOXEL_ML = 0.5


def mask(*boxes: tuple[tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    array = np.zeros((6, 12, 12), dtype=bool)
    for start, stop in boxes:
        array[tuple(slice(*edges) for edges in zip(start, stop, strict=True))] = True
    return array


def test_found_missed_and_false_lesions_counted_on_paper() -> None:
    # two lesions of 8 voxels; the first is half covered, the second not; 3 voxels lie where there is none
    reference = mask(((0, 0, 0), (2, 2, 2)), ((4, 8, 8), (6, 10, 10)))
    prediction = mask(((0, 0, 0), (1, 2, 2)), ((3, 0, 9), (4, 1, 12)))
    lesions = match_lesions(reference, prediction, voxel_ml=VOXEL_ML)
    assert lesions.reference_ml == (4.0, 4.0)
    assert lesions.found == (True, False)
    assert lesions.false_positive_ml == (1.5,)


@pytest.mark.parametrize(
    ("size", "found"),
    [
        # one voxel of the lesion's one is hit: an intersection over union of 1 / size
        (10, True),
        (11, False),
    ],
)
def test_a_piece_finds_a_lesion_from_a_tenth_of_their_union_on(size: int, found: bool) -> None:
    reference = mask(((0, 0, 0), (1, 1, 1)))
    prediction = mask(((0, 0, 0), (1, 1, size)))
    lesions = match_lesions(reference, prediction, voxel_ml=VOXEL_ML)
    assert lesions.found == (found,)
    # what touched but did not find is a false positive
    assert lesions.false_positive_ml == (() if found else (size * VOXEL_ML,))


def test_fragments_find_a_lesion_together() -> None:
    reference = mask(((0, 0, 0), (1, 1, 11)))
    prediction = mask(((0, 0, 0), (1, 1, 1)), ((0, 0, 10), (1, 1, 11)))
    # each alone would have 1 / 11, together they have 2 / 11
    lesions = match_lesions(reference, prediction, voxel_ml=VOXEL_ML)
    assert lesions.found == (True,)
    assert lesions.false_positive_ml == ()


def test_a_second_piece_that_barely_touches_takes_no_hit_away_and_is_false_itself() -> None:
    reference = mask(((0, 0, 0), (1, 2, 8)))
    blob = ((0, 1, 8), (6, 12, 12))  # shares a corner's voxel with the lesion below
    alone = match_lesions(reference, mask(((0, 0, 0), (1, 1, 6))), voxel_ml=VOXEL_ML)
    assert (alone.found, alone.false_positive_ml) == ((True,), ())
    prediction = mask(((0, 0, 0), (1, 1, 5)), ((0, 1, 7), (1, 2, 8)), blob)
    both = match_lesions(reference, prediction, voxel_ml=VOXEL_ML)
    assert both.found == (True,)
    assert both.false_positive_ml == (VOXEL_ML * (6 * 11 * 4 + 1),)


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    lesions = match_lesions(mask(((0, 0, 0), (1, 1, 1)), ((1, 1, 1), (2, 2, 2))), mask(), voxel_ml=VOXEL_ML)
    assert lesions.reference_ml == (1.0,)


def test_empty_masks_have_no_lesions() -> None:
    empty = match_lesions(mask(), mask(), voxel_ml=VOXEL_ML)
    assert (empty.reference_ml, empty.found, empty.false_positive_ml) == ((), (), ())
    false = match_lesions(mask(), mask(((0, 0, 0), (1, 1, 2))), voxel_ml=VOXEL_ML)
    assert (false.found, false.false_positive_ml) == ((), (1.0,))


@pytest.mark.parametrize("seed", range(20))
def test_against_a_plain_count_of_pieces_labelled_by_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = rng.random((2, 6, 12, 12)) < rng.uniform(0.005, 0.08, (2, 1, 1, 1))
    corners = np.ones((3, 3, 3))
    true, lesions = ndimage.label(reference, corners)
    called, pieces = ndimage.label(prediction, corners)
    found, inside = [], np.zeros_like(reference)
    for lesion in range(1, lesions + 1):
        here = true == lesion
        touching = set(called[here].tolist()) - {0}
        union = here | np.isin(called, list(touching))
        single = [(here & (called == piece)).sum() / (here | (called == piece)).sum() for piece in touching]
        hit = max([(here & prediction).sum() / union.sum(), *single]) >= 0.1
        found.append(bool(hit))
        inside |= here if hit else np.zeros_like(here)
    false = [
        VOXEL_ML * (called == piece).sum()
        for piece in range(1, pieces + 1)
        if (inside & (called == piece)).sum() < 0.1 * (called == piece).sum()
    ]
    ours = match_lesions(reference, prediction, voxel_ml=VOXEL_ML)
    assert sorted(ours.reference_ml) == sorted(VOXEL_ML * np.bincount(true.ravel())[1:])
    assert sum(ours.found) == sum(found)
    assert sorted(ours.false_positive_ml) == sorted(false)


def test_lesions_are_all_labels_after_the_organ_or_the_only_one() -> None:
    assert lesion_values(("background", "pancreas", "cancer")) == [2]
    assert lesion_values(("background", "tumour")) == [1]
    assert lesion_values(("background", "oedema", "core", "enhancing")) == [2, 3]
    assert lesion_values(("background", *"abcde")) == []


def test_groups_share_no_case_and_leave_none_out() -> None:
    assert diameter_mm(4 / 3 * np.pi) == pytest.approx(20.0)  # a ball of 1 cm radius
    sizes = {"a": 20.0, "b": 20.1, "c": 40.0, "d": 300.0, "none": None}
    assert grouped(sizes, SIZES) == {"up to 20 mm": ["a"], "20 to 40 mm": ["b", "c"], "over 40 mm": ["d"]}
    thick = {"a": 1.25, "b": 2.5, "c": 3.0, "d": 5.0, "rounded": 2.4999998}
    assert grouped(thick, THICKNESSES) == {
        "under 2.5 mm": ["a"],
        "2.5 to 3 mm": ["b", "c", "rounded"],
        "over 3 mm": ["d"],
    }
