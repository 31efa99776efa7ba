"""The plan of the patches: chances, quotas, padding, and what it does not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from algorithm.errors import InputError
from trainer.plan import Plan, Tally, plan_patches
from trainer.volumes import Volume

PATCH = (4, 8, 8)
MakeVolume = Callable[..., Volume]


@pytest.fixture
def make_volume(tmp_path: Path) -> MakeVolume:
    def make(labels: np.ndarray) -> Volume:
        folder = tmp_path / f"v{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        np.save(folder / "label.npy", labels.astype(np.uint8))
        slices = np.stack([np.sum(labels == value, axis=(1, 2)) for value in range(3)]).astype(np.int64)
        return Volume(folder.name, folder, labels.shape, "", slices)

    return make


def held(volumes: list[Volume], plan: Plan, label: int) -> int:
    """Count the patches that hold `label`, by cutting each one out."""
    count = 0
    for case, start in zip(plan.case, plan.start_zyx, strict=True):
        box = tuple(slice(max(low, 0), low + size) for low, size in zip(start, PATCH, strict=True))
        count += bool((volumes[case].label()[box] == label).any())
    return count


def plan_of(volumes: list[Volume], count: int, quotas: dict[int, float], seed: int = 0) -> Plan:
    return plan_patches(volumes, count, patch_shape_zyx=PATCH, quotas=quotas, seed=seed, role="training")


def blob(shape: tuple[int, int, int], label: int = 1, at: tuple[int, int, int] = (1, 2, 3)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    z, y, x = at
    labels[z : z + 2, y : y + 2, x : x + 2] = label
    return labels


def test_volumes_are_drawn_by_their_voxels_and_starts_uniformly(make_volume: MakeVolume) -> None:
    shapes = [(8, 16, 16), (16, 16, 16), (12, 20, 24), (4, 8, 8)]
    volumes = [make_volume(np.zeros(shape)) for shape in shapes]
    plan = plan_of(volumes, 20_000, {}, seed=3)
    drawn = np.bincount(plan.case, minlength=4)
    voxels = np.array([math.prod(shape) for shape in shapes])
    assert stats.chisquare(drawn, 20_000 * voxels / voxels.sum()).pvalue > 0.01
    for index, shape in enumerate(shapes):
        starts = plan.start_zyx[plan.case == index]
        for axis in range(3):
            free = shape[axis] - PATCH[axis] + 1
            counts = np.bincount(starts[:, axis], minlength=free)
            assert counts.size == free
            assert free == 1 or stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("count", [1, 7, 100, 333])
@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_a_quota_is_met_exactly(make_volume: MakeVolume, count: int, share: float) -> None:
    volumes = [make_volume(blob((8, 40, 40))), make_volume(np.zeros((8, 40, 40)))]
    plan = plan_of(volumes, count, {1: share})
    (tally,) = plan.tallies
    assert tally.natural < math.ceil(share * count)
    assert tally.held == held(volumes, plan, 1) == math.ceil(share * count)


def test_a_quota_that_chance_exceeds_changes_nothing(make_volume: MakeVolume) -> None:
    volumes = [make_volume(np.ones((8, 12, 12))), make_volume(np.zeros((8, 12, 12)))]
    plan, free = plan_of(volumes, 200, {1: 0.3}), plan_of(volumes, 200, {})
    np.testing.assert_array_equal(plan.case, free.case)
    np.testing.assert_array_equal(plan.start_zyx, free.start_zyx)
    (tally,) = plan.tallies
    assert tally.natural == tally.held == held(volumes, plan, 1) > 60


def test_only_the_deficit_is_drawn_anew_and_within_its_own_volume(make_volume: MakeVolume) -> None:
    volumes = [make_volume(blob((8, 40, 40))), make_volume(blob((8, 60, 40)))]
    plan, free = plan_of(volumes, 400, {1: 0.4}), plan_of(volumes, 400, {})
    moved = (plan.start_zyx != free.start_zyx).any(axis=1)
    assert moved.sum() == 160 - plan.tallies[0].natural
    np.testing.assert_array_equal(plan.case, free.case)


def test_a_volume_without_the_label_lends_its_patch_to_those_with_it(make_volume: MakeVolume) -> None:
    volumes = [
        make_volume(np.zeros((8, 40, 40))),
        make_volume(blob((8, 40, 40))),
        make_volume(blob((8, 40, 80))),
    ]
    plan = plan_of(volumes, 3000, {1: 1.0}, seed=1)
    drawn = np.bincount(plan.case, minlength=3)
    assert drawn[0] == 0
    # The two thirds of the others stay, and the quarter of the first is shared out by voxels, 1 to 2.
    assert stats.chisquare(drawn[1:], [1000, 2000]).pvalue > 0.01


def test_patches_drawn_anew_are_around_uniform_voxels(make_volume: MakeVolume) -> None:
    labels = np.zeros((4, 8, 300), np.uint8)
    labels[:, :, 20] = 1  # a sixth of the voxels in one place, the rest in two others
    labels[:, :, 100] = 1
    labels[:, :, 101:105] = 1
    volumes = [make_volume(labels)]
    plan = plan_of(volumes, 6000, {1: 1.0})
    moved = (plan.start_zyx != plan_of(volumes, 6000, {}).start_zyx).any(axis=1)
    near_first = np.sum(plan.start_zyx[moved, 2] <= 20)
    assert stats.binomtest(int(near_first), int(moved.sum()), 1 / 6).pvalue > 0.01


def test_several_quotas_are_met_together(make_volume: MakeVolume) -> None:
    both = blob((8, 40, 40), 1, (2, 20, 20))
    both[2, 22:24, 22:24] = 2
    volumes = [make_volume(both), make_volume(blob((8, 40, 40))), make_volume(np.zeros((8, 40, 40)))]
    plan = plan_of(volumes, 500, {1: 0.7, 2: 0.5})
    pancreas, cancer = plan.tallies
    assert cancer.held == held(volumes, plan, 2) >= 250  # patches around the pancreas may add to it
    assert pancreas.held == held(volumes, plan, 1) == 350
    assert plan.tallies == (Tally(1, 0.7, pancreas.natural, 350), Tally(2, 0.5, cancer.natural, cancer.held))


def test_what_cannot_be_met_is_refused(make_volume: MakeVolume) -> None:
    one, two = make_volume(blob((8, 40, 40), 1)), make_volume(blob((8, 40, 40), 2))
    with pytest.raises(InputError, match=r"label 2, but no training case holds it: .*--quota 2=0"):
        plan_of([one], 10, {2: 0.5})
    with pytest.raises(InputError, match=r"the quotas do not fit together: label 2 lacks"):
        plan_of([one, two], 100, {1: 0.7, 2: 0.7})


def test_a_share_is_not_raised_by_rounding(make_volume: MakeVolume) -> None:
    volumes = [make_volume(blob((4, 200, 200)))]
    # 0.07 * 100 is 7.000000000000001 in floating point.
    assert plan_of(volumes, 100, {1: 0.07}).tallies[0].held == 7


def test_a_thin_volume_is_padded_evenly(make_volume: MakeVolume) -> None:
    plan = plan_of([make_volume(np.ones((2, 5, 30)))], 50, {1: 1.0})
    assert set(plan.start_zyx[:, 0]) == {-1}
    assert set(plan.start_zyx[:, 1]) == {-1}
    assert plan.start_zyx[:, 2].min() >= 0
    assert plan.start_zyx[:, 2].max() <= 22


def test_the_plan_depends_on_seed_and_role_only(make_volume: MakeVolume) -> None:
    volumes = [make_volume(blob((8, 40, 40))), make_volume(blob((12, 40, 40)))]
    first, again, other = (plan_of(volumes, 300, {1: 0.5}, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.case, again.case)
    np.testing.assert_array_equal(first.start_zyx, again.start_zyx)
    assert (first.start_zyx != other.start_zyx).any()
    held_out = plan_patches(volumes, 300, patch_shape_zyx=PATCH, quotas={1: 0.5}, seed=1, role="validation")
    assert (first.start_zyx != held_out.start_zyx).any()


def test_without_quotas_a_longer_plan_begins_with_the_shorter(make_volume: MakeVolume) -> None:
    volumes = [make_volume(np.zeros((8, 40, 40))), make_volume(np.zeros((12, 40, 40)))]
    short, long = plan_of(volumes, 50, {}), plan_of(volumes, 80, {})
    np.testing.assert_array_equal(short.case, long.case[:50])
    np.testing.assert_array_equal(short.start_zyx, long.start_zyx[:50])
