from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from trainer import metrics
from trainer.metrics import Overlap, confusion_matrix, paper_dice
from trainer.surface import bounding_box, normalised_surface_dice, surface_scores

# a hand-drawn slice: 1 pancreas, 2 cancer
REFERENCE = np.array(
    [
        [0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 2, 2, 0],
        [0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)
PREDICTION = np.array(
    [
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 2, 2],
        [0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)
# counted by eye: 12 of 14 background voxels kept, one called pancreas, one called cancer; and so on
CONFUSION = np.array([[12, 1, 1], [1, 3, 0], [0, 1, 1]])


def test_confusion_of_a_drawing_that_was_counted_by_eye() -> None:
    counted = confusion_matrix(REFERENCE, PREDICTION, 3)
    assert counted.dtype == np.int64
    np.testing.assert_array_equal(counted, CONFUSION)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 20), st.integers(0, 300), st.integers(0, 2**32 - 1), st.sampled_from(["u1", "i2", "i8"])
)
def test_confusion_agrees_with_a_plain_count(classes: int, voxels: int, seed: int, dtype: str) -> None:
    reference, prediction = np.random.default_rng(seed).integers(0, classes, (2, voxels)).astype(dtype)
    pairs = Counter(zip(reference.tolist(), prediction.tolist(), strict=True))
    expected = [[pairs[row, column] for column in range(classes)] for row in range(classes)]
    assert confusion_matrix(reference, prediction, classes).tolist() == expected


def test_confusion_takes_strided_arrays_larger_than_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "VOXELS_AT_ONCE", 7)
    reference, prediction = np.random.default_rng(5).integers(0, 3, (2, 9, 10, 11)).astype(np.uint8)
    flipped = confusion_matrix(reference[::2, ::-1].T, prediction[::2, ::-1].T, 3)
    expected = [
        [int(((reference[::2] == row) & (prediction[::2] == column)).sum()) for column in range(3)]
        for row in range(3)
    ]
    assert flipped.tolist() == expected


def test_matrices_of_parts_add_up_to_the_whole() -> None:
    total = np.zeros((3, 3), dtype=np.int64)
    for row in range(REFERENCE.shape[0]):
        assert confusion_matrix(REFERENCE[row], PREDICTION[row], 3, out=total) is total
    np.testing.assert_array_equal(total, CONFUSION)


def test_confusion_counts_past_32_bits() -> None:
    total = np.array([[2**40, 0], [0, 0]])
    confusion_matrix(np.zeros(3, np.uint8), np.zeros(3, np.uint8), 2, out=total)
    assert total[0, 0] == 2**40 + 3


@pytest.mark.parametrize(
    ("reference", "prediction", "message"),
    [
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((3, 2), np.uint8),
            r"reference's shape \(2, 3\), got \(3, 2\)$",
        ),
        (np.zeros(2, np.uint8), np.array([0, 3], np.uint8), r"^prediction must lie in 0 to 2, got 0 to 3$"),
        (np.array([-1, 0], np.int16), np.zeros(2, np.uint8), r"^reference must lie in 0 to 2, got -1 to 0$"),
    ],
)
def test_confusion_refuses_what_it_cannot_count(
    reference: np.ndarray, prediction: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(reference, prediction, 3)


@pytest.mark.parametrize("out", [np.zeros((2, 2), np.int64), np.zeros((3, 3), np.int32)])
def test_confusion_refuses_another_out(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^out must be int64 of shape \(3, 3\), got "):
        confusion_matrix(REFERENCE, PREDICTION, 3, out=out)


def test_overlap_of_the_drawing() -> None:
    pancreas, cancer = Overlap.of(CONFUSION, [1]), Overlap.of(CONFUSION, [2])
    assert pancreas == Overlap(both=3, reference=4, predicted=5)
    assert pancreas.dice == pytest.approx(6 / 9)
    assert pancreas.precision == pytest.approx(3 / 5)
    assert pancreas.sensitivity == pytest.approx(3 / 4)
    assert cancer == Overlap(both=1, reference=2, predicted=2)
    assert cancer.dice == pytest.approx(0.5)
    # pancreas with its tumour as one organ: (3 + 0 + 1 + 1) of 6 in the reference and 7 predicted
    assert Overlap.of(CONFUSION, [1, 2]) == Overlap(both=5, reference=6, predicted=7)
    assert Overlap.of(CONFUSION, [1, 2]).dice == pytest.approx(10 / 13)


def test_a_missing_reference_is_missing_and_a_missed_structure_is_zero() -> None:
    absent = Overlap(both=0, reference=0, predicted=9)
    assert (absent.dice, absent.sensitivity, absent.precision) == (None, None, 0.0)
    missed = Overlap(both=0, reference=9, predicted=0)
    assert (missed.dice, missed.sensitivity, missed.precision) == (0.0, 0.0, None)
    assert Overlap(both=0, reference=0, predicted=0).dice is None


def test_false_positives_of_a_case_without_the_label_lower_the_pooled_dice() -> None:
    healthy = np.array([[80, 0, 20], [0, 0, 0], [0, 0, 0]])
    assert Overlap.of(healthy, [2]).dice is None
    assert Overlap.of(CONFUSION + healthy, [2]).dice == pytest.approx(2 * 1 / (2 + 2 + 20))


def test_the_papers_dice_of_an_absent_class_is_zero() -> None:
    perfect = np.array([[100, 0, 0], [0, 8, 0], [0, 0, 0]])
    np.testing.assert_allclose(paper_dice(perfect), [1, 1, 0])
    np.testing.assert_allclose(paper_dice(CONFUSION), [24 / 27, 6 / 9, 2 / 4])


def test_the_papers_mean_over_batches_lies_below_the_pooled_dice() -> None:
    batches = np.array([[[90, 0], [0, 10]], [[100, 0], [0, 0]], [[80, 5], [5, 10]]])
    by_batch = paper_dice(batches)
    assert by_batch.shape == (3, 2)
    np.testing.assert_allclose(by_batch[:, 1], [1, 0, 20 / 30])
    np.testing.assert_allclose(paper_dice(batches.sum(axis=0))[1], 40 / 50)


def box(start: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((14, 16, 18), dtype=bool)
    mask[tuple(slice(*edges) for edges in zip(start, stop, strict=True))] = True
    return mask


def test_surface_dice_of_equal_masks_is_one_and_of_distant_ones_zero() -> None:
    mask, far = box((2, 2, 2), (6, 6, 6)), box((9, 9, 9), (13, 13, 13))
    spacing = (2.5, 0.8, 0.8)
    assert normalised_surface_dice(mask, mask, spacing_zyx_mm=spacing, tolerance_mm=0.0) == 1.0
    assert normalised_surface_dice(mask, far, spacing_zyx_mm=spacing, tolerance_mm=1.0) == 0.0


def test_surface_dice_decides_empty_masks_by_the_leaderboards_rule() -> None:
    mask, empty = box((2, 2, 2), (6, 6, 6)), np.zeros((14, 16, 18), dtype=bool)
    spacing = (1.0, 1.0, 1.0)
    assert normalised_surface_dice(empty, mask, spacing_zyx_mm=spacing, tolerance_mm=5) is None
    assert normalised_surface_dice(empty, empty, spacing_zyx_mm=spacing, tolerance_mm=5) is None
    assert normalised_surface_dice(mask, empty, spacing_zyx_mm=spacing, tolerance_mm=5) == 0.0


@pytest.mark.parametrize(("axis", "step_mm"), [(0, 3.0), (1, 2.0), (2, 0.5)])
def test_surface_dice_takes_each_axis_in_its_own_spacing(axis: int, step_mm: float) -> None:
    mask = box((3, 3, 3), (9, 10, 11))
    moved = np.roll(mask, 1, axis=axis)
    spacing = (3.0, 2.0, 0.5)
    just = normalised_surface_dice(mask, moved, spacing_zyx_mm=spacing, tolerance_mm=step_mm)
    under = normalised_surface_dice(mask, moved, spacing_zyx_mm=spacing, tolerance_mm=step_mm - 0.01)
    assert just == 1.0
    assert under is not None
    assert under < 1.0


def test_surface_dice_of_a_thin_slab_against_areas_computed_on_paper() -> None:
    # two wide slabs on the same floor, 2 mm and 6 mm thick: the ceilings are 4 mm apart
    reference, prediction = np.zeros((2, 12, 200, 200), dtype=bool)
    reference[2:4], prediction[2:8] = True, True
    face, rim = 200.0 * 200.0, 4 * 200.0
    score = normalised_surface_dice(reference, prediction, spacing_zyx_mm=(1, 1, 1), tolerance_mm=1.0)
    # within 1 mm: both floors, the reference's rim of 2 mm and 3 mm of the prediction's
    expected = (face + 2 * rim + face + 3 * rim) / (2 * face + 2 * rim + 2 * face + 6 * rim)
    assert score == pytest.approx(expected, abs=0.01)


def test_surface_dice_agrees_with_voxel_borders_measured_by_scipy() -> None:
    # an oracle that shares no code: borders by erosion, each voxel of them counted once
    rng = np.random.default_rng(3)
    fields = ndimage.gaussian_filter(rng.standard_normal((2, 40, 48, 48)), (0, 5, 5, 5))
    fields[1] = fields[0] + 0.5 * fields[1]
    reference, prediction = fields > 0.0
    spacing, tolerance = (1.0, 1.0, 1.0), 2.0
    borders = [mask & ~ndimage.binary_erosion(mask, border_value=0) for mask in (reference, prediction)]
    distances = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    near = (distances[1][borders[0]] <= tolerance).sum() + (distances[0][borders[1]] <= tolerance).sum()
    expected = near / sum(border.sum() for border in borders)
    score = normalised_surface_dice(reference, prediction, spacing_zyx_mm=spacing, tolerance_mm=tolerance)
    assert 0.3 < expected < 0.95
    assert score == pytest.approx(expected, abs=0.03)


def test_surface_dice_does_not_see_empty_space_around_the_masks() -> None:
    small, moved = box((0, 0, 0), (5, 6, 7)), box((1, 1, 0), (7, 6, 9))
    padded = [np.pad(mask, ((9, 2), (0, 30), (4, 4))) for mask in (small, moved)]
    kwargs = {"spacing_zyx_mm": (2.0, 1.0, 1.0), "tolerance_mm": 1.0}
    assert normalised_surface_dice(small, moved, **kwargs) == normalised_surface_dice(*padded, **kwargs)


@pytest.mark.parametrize(("axis", "step_mm"), [(0, 3.0), (1, 2.0), (2, 0.5)])
def test_the_hausdorff_distance_of_a_moved_slab_is_its_move(axis: int, step_mm: float) -> None:
    # a slab that fills the other axes: all of its surface but a thin rim moves along one axis
    mask = np.zeros((40, 40, 40), dtype=bool)
    mask[tuple(slice(10, 14) if place == axis else slice(None) for place in range(3))] = True
    moved = np.roll(mask, 2, axis=axis)
    _, hd95_mm = surface_scores(mask, moved, spacing_zyx_mm=(3.0, 2.0, 0.5), tolerance_mm=5.0)
    assert hd95_mm == pytest.approx(2 * step_mm)


def test_the_hausdorff_distance_forgives_a_twentieth_of_the_surface() -> None:
    reference = np.zeros((30, 30, 60), dtype=bool)
    reference[5:25, 5:25, 5:25] = True
    stray = reference.copy()
    stray[10, 10, 50] = True  # 1 voxel, 25 mm away, beside 2,400 mm2 of surface
    assert surface_scores(reference, stray, spacing_zyx_mm=(1, 1, 1), tolerance_mm=1)[1] == 0.0
    stray[5:25, 5:25, 50:55] = True  # and then a quarter of the surface
    far = surface_scores(reference, stray, spacing_zyx_mm=(1, 1, 1), tolerance_mm=1)[1]
    # the far slab's surface lies 25 to 30 mm behind the cube's
    assert far is not None
    assert 25.0 <= far <= 30.0


def test_the_hausdorff_distance_agrees_with_voxel_borders_measured_by_scipy() -> None:
    rng = np.random.default_rng(5)
    fields = ndimage.gaussian_filter(rng.standard_normal((2, 40, 48, 48)), (0, 5, 5, 5))
    fields[1] = fields[0] + fields[1]
    reference, prediction = fields > 0.0
    spacing = (1.0, 0.8, 0.8)
    borders = [mask & ~ndimage.binary_erosion(mask, border_value=0) for mask in (reference, prediction)]
    distances = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
    expected = max(np.percentile(distances[1][borders[0]], 95), np.percentile(distances[0][borders[1]], 95))
    _, hd95_mm = surface_scores(reference, prediction, spacing_zyx_mm=spacing, tolerance_mm=5.0)
    assert expected > 4.0
    # voxels counted once each against areas: within a voxel's diagonal
    assert hd95_mm == pytest.approx(expected, abs=np.linalg.norm(spacing))


def test_no_distance_says_how_far_away_nothing_is() -> None:
    mask, empty = box((2, 2, 2), (6, 6, 6)), np.zeros((14, 16, 18), dtype=bool)
    kwargs = {"spacing_zyx_mm": (1.0, 1.0, 1.0), "tolerance_mm": 5.0}
    assert surface_scores(mask, empty, **kwargs) == (0.0, None)
    assert surface_scores(empty, mask, **kwargs) == (None, None)
    assert surface_scores(mask, mask, **kwargs) == (1.0, 0.0)


def test_bounding_box_is_tight() -> None:
    assert bounding_box(box((1, 0, 17), (3, 16, 18))) == (slice(1, 3), slice(0, 16), slice(17, 18))
    assert bounding_box(np.zeros((2, 3, 4), dtype=bool)) is None
