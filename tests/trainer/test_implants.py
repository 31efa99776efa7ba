"""Lesions that are cut out of training cases and put into the organ of patches."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithm.errors import InputError
from tests.trainer.runs import arguments, weights
from trainer.augment import Augmenter, AugmentSettings
from trainer.cli import main
from trainer.implants import Lesion, cut_out, implant
from trainer.parts import make_augmenter
from trainer.patches import PatchFile
from trainer.settings import TrainSettings

CPU = torch.device("cpu")
SHAPE = (16, 20, 24)
MIDDLE = (6 * 14 * 18 + 7 * 18 + 9.5) / (12 * 14 * 18)  # of the organ's voxels in order: that at (8, 10, 12)


def case() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return fat at -90 with an organ at 80 and two lesions in it, at 30 and at 150, and their labels."""
    image, label = np.full((1, *SHAPE), -90, np.int16), np.zeros(SHAPE, np.uint8)
    label[3:13, 4:16, 4:20] = 1
    label[5:8, 6:10, 6:11] = label[9:11, 11:14, 14:18] = 2
    image[0][label == 1] = 80
    image[0, 5:8, 6:10, 6:11], image[0, 9:11, 11:14, 14:18] = 30, 150
    return image, label


def lesions() -> tuple[Lesion, ...]:
    return cut_out([case()], [100.0], SHAPE, CPU)


def organ_patch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a patch of 0.2 with an organ at 1.0 and no lesion."""
    label = torch.zeros(SHAPE, dtype=torch.int64)
    label[2:14, 3:17, 3:21] = 1
    return torch.where(label == 1, 1.0, 0.2)[None], label


def test_lesions_are_cut_out_with_their_difference_to_the_organ() -> None:
    dark, bright = lesions()
    assert dark.mask.shape == (3, 4, 5)
    assert bright.mask.shape == (2, 3, 4)
    assert torch.allclose(dark.values, torch.tensor(-0.5))
    assert torch.allclose(bright.values, torch.tensor(0.7))
    assert 0 < float(dark.weight.min()) < float(dark.weight[1, 1:3, 2].min()) <= 1
    assert float(dark.weight.max()) == float(bright.weight.max()) == 1


def test_cases_without_an_organ_and_lesions_that_are_too_large_give_none() -> None:
    image, label = case()
    assert cut_out([(image, np.where(label == 2, label, 0).astype(np.uint8))], [1.0], SHAPE, CPU) == ()
    assert [one.mask.shape for one in cut_out([(image, label)], [1.0], (2, 20, 24), CPU)] == [(2, 3, 4)]
    single = label.copy()
    single[label == 2] = 1
    single[8, 8, 8] = 2
    assert cut_out([(image, single)], [1.0], SHAPE, CPU) == ()


def test_a_lesion_keeps_its_contrast_in_its_new_organ() -> None:
    image, label = organ_patch()
    changed, marked = implant(image, label, lesions()[0], MIDDLE) or (image, label)
    added = (marked == 2).nonzero()
    assert len(added) == 3 * 4 * 5
    centre = torch.tensor([8, 10, 12])
    assert torch.equal(added.amin(0), centre - torch.tensor([1, 2, 2]))
    inner = tuple(centre.tolist())
    assert 0.5 <= float(changed[0][inner]) < 0.55, "1.0 less 0.5, softened at the edge"
    assert torch.equal(changed[0][marked != 2], image[0][marked != 2])
    assert int((label == 2).sum()) == 0
    assert float(image.max()) == 1.0
    assert float(image[0][inner]) == 1.0, "the patch that is given is left as it is"


def test_a_lesion_that_would_lie_outside_the_organ_is_not_put_in() -> None:
    image, label = organ_patch()
    label[label == 1] = 0
    assert implant(image, label, lesions()[0], 0.5) is None
    label[8, 8, 8:10] = 1
    assert implant(image, label, lesions()[0], 0.5) is None


def test_at_the_edge_of_a_patch_a_lesion_is_cut() -> None:
    image, label = torch.ones((1, *SHAPE)), torch.ones(SHAPE, dtype=torch.int64)
    assert implant(image, label, lesions()[0], 0.0) is None, "a quarter of it would lie in the patch"
    corner = torch.ones((1, 1, *SHAPE[1:])), torch.ones((1, *SHAPE[1:]), dtype=torch.int64)
    flat = Lesion(torch.zeros(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4))
    marked = (implant(*corner, flat, 2 / (SHAPE[1] * SHAPE[2])) or corner)[1]
    assert int((marked == 2).sum()) == 8
    assert bool((marked[0, :2, :4] == 2).all())


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_mirrored_lesion_is_mirrored_in_all_its_parts(axes: tuple[int, ...]) -> None:
    values = torch.arange(24.0).view(1, 2, 3, 4)
    one = Lesion(values, values[0] > 5, values[0] / 24).mirrored(axes)
    flipped = np.flip(values[0].numpy(), axes)
    assert np.array_equal(one.values[0], flipped)
    assert np.array_equal(one.mask, flipped > 5)
    assert np.array_equal(one.weight, flipped / np.float32(24))


@pytest.mark.parametrize("factor", [1.0, 0.4, -1.0])
def test_another_contrast_keeps_texture_and_noise(factor: float) -> None:
    values = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(3)) - 0.5
    mask = values[0] < 0.5
    one = Lesion(values, mask, mask.float())
    mean = float(values[0][mask].mean())
    changed = one.with_contrast(factor)
    assert float(changed.values[0][mask].mean()) == pytest.approx(factor * mean, abs=1e-6)
    assert torch.allclose(changed.values - values, torch.tensor((factor - 1) * mean), atol=1e-6)
    assert torch.equal(one.values, values)
    assert changed.mask is mask


def test_so_many_implants_are_bright_and_the_others_within_their_bounds() -> None:
    image, label = organ_patch()
    count = 400
    images, labels = image.expand(count, *image.shape), label.expand(count, *label.shape)
    settings = AugmentSettings(implant_share=1.0, implant_contrast=(0.6, 1.2), implant_inverted_share=0.25)
    augment = Augmenter(settings, (2.5, 0.8, 0.8), seed=5, lesions=lesions()[:1])
    changed, marked = augment(images, labels, np.arange(count, dtype=np.int64), epoch=0)
    has = (marked == 2).flatten(1).any(1)
    within = labels.unsqueeze(1) == 1  # beside the organ a lesion differs from fat
    difference = torch.where(within, changed - images, 0.0).flatten(1)[has]
    largest = difference.gather(1, difference.abs().argmax(1, keepdim=True))[:, 0] / 0.5
    dark, bright = -largest[largest < 0], largest[largest > 0]
    assert 0.15 < len(bright) / len(largest) < 0.35
    for amounts in (dark, bright):
        assert 0.55 < float(amounts.min()) < 0.7
        assert 1.1 < float(amounts.max()) <= 1.2 + 1e-6


def test_implants_follow_from_seed_epoch_and_index_and_the_share_is_kept() -> None:
    image, label = organ_patch()
    count = 200
    images, labels = image.expand(count, *image.shape), label.expand(count, *label.shape)
    augment = Augmenter(AugmentSettings(implant_share=0.3), (2.5, 0.8, 0.8), seed=5, lesions=lesions())
    indices = np.arange(count, dtype=np.int64)
    changed, marked = augment(images, labels, indices, epoch=1)
    has = (marked == 2).flatten(1).any(1)
    # Of a patch whose organ is half of it, some places have no room.
    assert 0.15 < float(has.float().mean()) <= 0.36
    some = np.array([3, 77, 121])
    alone = augment(images[:3], labels[:3], some, epoch=1)
    assert torch.equal(alone[0], changed[some])
    assert torch.equal(alone[1], marked[some])
    other = augment(images, labels, indices, epoch=2)[1]
    assert not torch.equal(other, marked)
    assert int((labels == 2).sum()) == 0


def test_a_training_that_implants_is_continued_with_the_same_weights(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(run: Path, epochs: int, share: float) -> None:
        assert main([*arguments(work, run, epochs=epochs), f"augment.implant_share={share}"]) == 0

    with caplog.at_level("INFO"):
        train(tmp_path / "run", 1, 1.0)
    assert "2 lesions of 'cancer' will be put into 'pancreas'" in caplog.text
    train(tmp_path / "run", 2, 1.0)
    train(tmp_path / "straight", 2, 1.0)
    train(tmp_path / "plain", 2, 0.0)
    first, second, plain = (weights(tmp_path / name) for name in ("run", "straight", "plain"))
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert not all(torch.equal(first[name], plain[name]) for name in plain)


def test_missing_volumes_are_one_sentence(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(work / "volumes")
    assert main([*arguments(work, tmp_path / "run"), "augment.implant_share=0.5"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"augment.implant_share needs the volume {work / 'volumes'}" in said
    assert said.endswith("run decathlon prepare again, or set that to 0")


def test_without_lesions_it_is_one_sentence(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*arguments(work, tmp_path / "run"), "augment.implant_share=0.5"]
    monkeypatch.setattr("trainer.parts.cut_out", lambda *_: ())
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"no training case of {work} has one that fits into a patch; set it to 0")
    assert not (tmp_path / "run" / "bundle").exists()


def test_without_a_label_for_lesions_it_is_one_sentence(work: Path) -> None:
    file = PatchFile(work / "train.h5")
    file.meta = replace(file.meta, labels=("background", "organ"))
    settings = TrainSettings(augment=AugmentSettings(implant_share=0.5))
    with pytest.raises(InputError, match="but the patches have the labels background, organ; set it to 0"):
        make_augmenter(settings, file, CPU)
