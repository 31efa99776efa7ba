from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from trainer.augment import (
    Augmenter,
    AugmentSettings,
    Draws,
    Stream,
    blurred,
    coarsened,
    contrasted,
    gamma_corrected,
    rotation_xyz,
)

SPACING = (2.5, 0.8, 0.8)
EVERYTHING = AugmentSettings(
    mirror_zyx=(0.5, 0.5, 0.5),
    rotate_share=1.0,
    scale_share=1.0,
    elastic_share=1.0,
    noise_share=1.0,
    blur_share=1.0,
    brightness_share=1.0,
    contrast_share=1.0,
    gamma_share=1.0,
    low_resolution_share=1.0,
)


def batch(count: int = 4, shape: tuple[int, int, int] = (12, 20, 24)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.normal(size=(count, 2, *shape)), (0, 0, 1, 2, 2)).astype(np.float32)
    labels = (images[:, 0] > 0.05).astype(np.uint8) + (images[:, 0] > 0.2)
    return torch.from_numpy(images), torch.from_numpy(labels)


def augmented(settings: AugmentSettings, indices: Any = range(4), epoch: int = 0, **options: Any) -> Any:
    images, labels = batch(**options)
    return Augmenter(settings, SPACING, seed=3)(
        images[: len(indices)], labels[: len(indices)], np.array(indices, np.int64), epoch=epoch
    )


def test_without_settings_nothing_happens() -> None:
    images, labels = batch()
    same = Augmenter(AugmentSettings(), SPACING, seed=0)(images, labels, np.arange(4), epoch=0)
    assert same[0] is images
    assert same[1] is labels


def test_the_batch_that_is_given_is_left_as_it_is() -> None:
    images, labels = batch()
    before = images.clone(), labels.clone()
    changed = Augmenter(EVERYTHING, SPACING, seed=0)(images, labels, np.arange(4), epoch=0)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert changed[0].shape == images.shape
    assert changed[1].dtype == labels.dtype
    assert not torch.equal(changed[0], images)
    assert set(changed[1].unique().tolist()) <= {0, 1, 2}


def test_what_happens_to_a_patch_follows_from_seed_epoch_and_index() -> None:
    images, labels = batch()
    augmenter = Augmenter(EVERYTHING, SPACING, seed=3)
    together = augmenter(images, labels, np.array([5, 2, 9, 7]), epoch=4)
    for place, index in enumerate([5, 2, 9, 7]):
        one = slice(place, place + 1)
        alone = augmenter(images[one], labels[one], np.array([index]), epoch=4)
        torch.testing.assert_close(alone[0][0], together[0][place], rtol=0, atol=1e-6)
        assert torch.equal(alone[1][0], together[1][place])
    for other in (
        augmenter(images, labels, np.array([5, 2, 9, 7]), epoch=5),
        augmenter(images, labels, np.array([6, 3, 10, 8]), epoch=4),
        Augmenter(EVERYTHING, SPACING, seed=4)(images, labels, np.array([5, 2, 9, 7]), epoch=4),
    ):
        assert not torch.allclose(other[0][0], together[0][0])


def test_the_global_random_state_is_untouched() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    augmented(EVERYTHING)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirroring_turns_image_and_label_together(axis: int) -> None:
    images, labels = batch()
    share = tuple(float(number == axis) for number in range(3))
    changed = augmented(AugmentSettings(mirror_zyx=share))
    assert torch.equal(changed[0], images.flip(2 + axis))
    assert torch.equal(changed[1], labels.flip(1 + axis))


def test_shares_are_kept() -> None:
    draws = Draws(0, 0, np.arange(4000))
    assert draws.chosen(Stream.NOISE, 0.2).mean() == pytest.approx(0.2, abs=0.02)
    factors = draws.log_uniform(Stream.FACTOR, (0.5, 2.0))
    assert 0.5 <= factors.min() < 0.51
    assert 1.98 < factors.max() < 2.0
    assert np.median(factors) == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(draws(Stream.NOISE), draws(Stream.NOISE_STD))[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"rotate_share": 1.0},
        {"scale_share": 1.0},
        {"rotate_share": 1.0, "scale_share": 1.0, "elastic_share": 1.0},
    ],
)
def test_labels_move_with_the_image(change: dict[str, Any]) -> None:
    """A label that is the image cut at a value is still so, but for voxels at the cut."""
    images = torch.zeros(4, 1, 32, 64, 64)
    z, y, x = np.indices((32, 64, 64))
    blob = 1 - ((z - 14) * 2.5 / 18) ** 2 - ((y - 36) * 0.8 / 14) ** 2 - ((x - 28) * 0.8 / 10) ** 2
    images += torch.from_numpy(blob.astype(np.float32))
    labels = (images[:, 0] > 0).to(torch.uint8)
    moved = Augmenter(AugmentSettings(**change), SPACING, seed=1)(images, labels, np.arange(4), epoch=0)
    recut = moved[0][:, 0] > 0
    for image_cut, label in zip(recut, moved[1] > 0, strict=True):
        overlap = 2 * (image_cut & label).sum() / (image_cut.sum() + label.sum())
        assert float(overlap) > 0.96
    assert float((moved[1][0] != labels[0]).float().mean()) > 0.01


def test_a_turn_keeps_millimetres() -> None:
    """A ball stays a ball of the same volume although its voxels are three times as deep as wide."""
    z, y, x = np.indices((32, 64, 64))
    distance = np.sqrt(((z - 15.5) * 2.5) ** 2 + ((y - 31.5) * 0.8) ** 2 + ((x - 31.5) * 0.8) ** 2)
    images = torch.from_numpy((16 - distance).astype(np.float32))[None, None].repeat(6, 1, 1, 1, 1)
    labels = (images[:, 0] > 0).to(torch.uint8)
    settings = AugmentSettings(rotate_share=1.0, rotate_deg_zyx=(90, 90, 90))
    turned, _ = Augmenter(settings, SPACING, seed=0)(images, labels, np.arange(6), epoch=0)
    inside = distance < 20  # nothing that comes from outside the patch
    difference = (turned - images)[:, 0][:, torch.from_numpy(inside)].abs()
    assert float(difference.max()) < 1.3  # linear interpolation at the tip of the cone, voxels 2.5 mm deep
    assert float(difference.mean()) < 0.1


def test_a_rotation_turns_x_towards_y() -> None:
    quarter = rotation_xyz(np.array([np.pi / 2, 0, 0]))
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    general = rotation_xyz(np.array([0.3, -0.2, 0.7]))
    np.testing.assert_allclose(general @ general.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(general) == pytest.approx(1)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaling_enlarges_by_the_factor(factor: float) -> None:
    x = np.indices((16, 32, 32))[2]
    images = torch.from_numpy(((x - 15.5) / 16).astype(np.float32))[None, None]
    settings = AugmentSettings(scale_share=1.0, scale=(factor, factor))
    changed, _ = Augmenter(settings, SPACING, seed=0)(
        images, torch.zeros(1, 16, 32, 32, dtype=torch.uint8), np.arange(1), epoch=0
    )
    expected = np.clip((x - 15.5) / factor, -15.5, 15.5) / 16
    np.testing.assert_allclose(changed[0, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_a_blur_is_scipys(width: float) -> None:
    image = np.random.default_rng(0).normal(size=(2, 9, 20, 21)).astype(np.float32)
    radius = max(1, round(3 * width))
    expected = ndimage.gaussian_filter(image, (0, *[width] * 3), mode="nearest", radius=(0, *[radius] * 3))
    np.testing.assert_allclose(blurred(torch.from_numpy(image), width).numpy(), expected, atol=1e-5)


def test_intensities_by_hand() -> None:
    image = torch.tensor([0.0, 1.0, 2.0, 5.0]).view(1, 1, 2, 2)
    assert contrasted(image, 2.0).flatten().tolist() == [0.0, 0.0, 2.0, 5.0]  # mean 2, clamped to 0 … 5
    assert contrasted(image, 0.5).flatten().tolist() == [1.0, 1.5, 2.0, 3.5]
    squared = gamma_corrected(image, 2.0)
    np.testing.assert_allclose([squared.mean(), squared.std()], [image.mean(), image.std()], rtol=1e-6)
    assert torch.all(squared.flatten().diff() > 0)
    torch.testing.assert_close(gamma_corrected(image, 1.0), image)
    flat = torch.full((1, 2, 2, 2), 3.0)
    torch.testing.assert_close(gamma_corrected(flat, 1.4), flat)


def test_low_resolution_keeps_slow_changes_and_loses_fast_ones() -> None:
    x = torch.arange(64.0)
    slow = torch.sin(2 * np.pi * x / 32).expand(1, 8, 8, 64)
    assert float((coarsened(slow, 0.5) - slow)[..., 4:-4].abs().max()) < 0.2
    checks = (2 * (x % 2) - 1).expand(1, 8, 8, 64)
    assert float(coarsened(checks, 0.5).std()) < 0.1
    assert torch.equal(coarsened(slow, 1.0), slow)


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    images = torch.zeros(3, 1, 32, 32, 32)
    settings = AugmentSettings(noise_share=1.0, noise_std=(0.2, 0.2))
    noisy, _ = Augmenter(settings, SPACING, seed=0)(images, images[:, 0].byte(), np.arange(3), epoch=0)
    assert noisy.std((1, 2, 3, 4)).numpy() == pytest.approx([0.2] * 3, rel=0.02)
    assert float(torch.corrcoef(noisy.flatten(1))[0, 1]) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"noise_share": 1.5}, "noise_share"),
        ({"mirror_zyx": (0, 0, -1.0)}, "mirror_zyx"),
        ({"rotate_deg_zyx": (200.0, 0.0, 0.0)}, "rotate_deg_zyx"),
        ({"elastic_grid_mm": 0.0}, "elastic_grid_mm"),
        ({"scale": (2.0, 1.0)}, "scale"),
        ({"gamma": (0.0, 1.0)}, "gamma"),
        ({"low_resolution": (0.5, 1.5)}, "low_resolution"),
    ],
)
def test_settings_out_of_range_are_found(change: dict[str, Any], name: str) -> None:
    assert [fault for fault, _ in replace(AugmentSettings(), **change).faults()] == [name]
    assert AugmentSettings().faults() == EVERYTHING.faults() == []
