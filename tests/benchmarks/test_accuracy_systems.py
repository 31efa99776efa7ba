"""What the systems of the accuracy benchmark make of a budget; their trainings run in its smoke run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from algorithm.errors import InputError
from algorithm.geometry import Geometry
from algorithm.images import read_image, read_labels, write_labels
from algorithm.probabilities import map_path
from benchmarks.accuracy.dynunet import Batches, DynUNet, levels, make_loss, measure, mirrored
from benchmarks.accuracy.nnunet_system import NNUNet
from benchmarks.accuracy.ours import Preset, assignments
from benchmarks.accuracy.run import Run, main
from benchmarks.accuracy.task import LABELS, Budget, Task, keep_prediction, missing
from trainer.dataset import Case
from trainer.settings import read_assignments

GRID = Geometry((3, 4, 5), (2.5, 1.0, 0.75), (10.0, -20.0, 30.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


@pytest.mark.parametrize(
    ("shape", "spacing", "strides"),
    [
        ((64, 64, 32), (2.0, 2.0, 2.5), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 1]]),
        # The slices stay apart until the plane is as coarse as they are.
        ((64, 64, 16), (0.8, 0.8, 5.0), [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]),
    ],
)
def test_an_axis_is_halved_while_it_is_fine_and_long(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], strides: list[list[int]]
) -> None:
    kernels, found = levels(shape, spacing)
    assert found == strides
    assert len(kernels) == len(strides)
    assert (np.prod(found, axis=0) * 4 <= shape).all()


def test_the_first_kernels_are_flat_where_slices_are_thick() -> None:
    assert levels((64, 64, 16), (0.8, 0.8, 5.0))[0][:2] == [[3, 3, 1], [3, 3, 1]]


def test_the_loss_of_monai_is_a_sum_over_scales() -> None:
    pytest.importorskip("monai")
    labels = torch.zeros(2, 1, 4, 4, 4)
    labels[0, :, 1:3], labels[1, :, 2:, 1] = 1, 2
    logits = torch.randn(2, 3, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def one(scale: torch.Tensor) -> float:
        shares = scale.softmax(dim=1)
        there = torch.nn.functional.one_hot(labels[:, 0].long(), 3).movedim(-1, 1).float()
        axes = (2, 3, 4)
        dice = (2 * (shares * there).sum(axes) + 1e-5) / ((shares + there).sum(axes) + 1e-5)
        cross_entropy = torch.nn.functional.cross_entropy(scale, labels[:, 0].long())
        return float((1 - dice).mean() + cross_entropy)  # Dice of each patch and label, background among them

    expected = sum(0.5**number * one(logits[:, number]) for number in range(3))
    assert float(make_loss()(logits, labels)) == pytest.approx(expected, rel=1e-5)


TUMOUR = (slice(4, 8), slice(12, 22), slice(8, 20))  # nearer one corner than any other


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Two scans of noise on a turned grid, with a bright tumour in a pancreas."""
    grid = Geometry((14, 40, 44), (3.0, 2.0, 2.0), (10.0, -20.0, 30.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    made = []
    for number in range(2):
        scan = np.random.default_rng(number).normal(0, 20, grid.shape_zyx).astype(np.int16)
        labels = np.zeros(grid.shape_zyx, np.uint8)
        labels[3:9, 10:30, 6:34] = 1
        labels[TUMOUR] = 2
        scan[TUMOUR] += 400
        case = Case(
            f"pancreas_{number:03d}",
            *(tmp_path / kind / f"pancreas_{number:03d}.nii.gz" for kind in ("images", "labels")),
        )
        write_labels(case.label, labels, grid)
        image = sitk.GetImageFromArray(scan)
        grid.set_on(image)
        case.image.parent.mkdir(exist_ok=True)
        sitk.WriteImage(image, case.image)
        made.append(case)
    return made


def test_monai_s_batches_are_the_same_by_any_number_of_threads_and_after_a_restart(
    cases: list[Case], tmp_path: Path
) -> None:
    pytest.importorskip("monai")
    budget = Budget.read("smoke")
    intensities = measure(cases, tmp_path / "intensities.json")
    one, three = (Batches(cases, budget, intensities, seed=4, workers=workers) for workers in (1, 3))
    first = list(one.between(0, 6))
    assert not torch.equal(first[0][0], first[1][0])
    for drawn in (list(three.between(0, 6)), [*one.between(0, 2), *three.between(2, 6)]):
        for (images, labels), (again, labels_again) in zip(first, drawn, strict=True):
            torch.testing.assert_close(images, again, rtol=0, atol=0)
            torch.testing.assert_close(labels, labels_again, rtol=0, atol=0)


def test_what_monai_s_network_says_comes_back_to_the_scan_s_own_grid(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("monai")

    class Bright(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tumour = 20 * (
                image - 1
            )  # of the foreground's deviations, of which the tumour lies two above its mean
            return torch.cat([torch.zeros_like(image), torch.full_like(image, -50), tumour], dim=1)

    monkeypatch.setattr("benchmarks.accuracy.dynunet.make_network", lambda _: Bright())
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    torch.save({"network": {}}, work / "checkpoint.pt")
    measure(cases, work / "intensities.json")
    budget = replace(
        Budget.read("smoke"), spacing_zyx_mm=(3.0, 2.0, 2.0)
    )  # as the scans, so all of it comes back
    task = Task(tmp_path, tmp_path, work, budget, 1, "cpu")
    DynUNet().predict(task, cases[0].image.parent, out)
    for case in cases:
        wanted, grid = read_labels(case.label)
        found, its_grid = read_labels(out / case.image.name)
        assert its_grid == grid
        np.testing.assert_array_equal(found == 2, wanted == 2)


def test_mirrored_views_come_back_as_they_went() -> None:
    seen = []

    def segment(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return torch.cat([image, 2 * image, torch.zeros_like(image)], dim=1)

    image = torch.randn(1, 1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored(segment, image), segment(image).softmax(dim=1))
    assert len({tuple(one.flatten().tolist()) for one in seen}) == 8


def test_peers_of_other_settings_are_others() -> None:
    budget = Budget.read("cpu")
    for system in (NNUNet(), DynUNet()):
        assert system.digest(budget, 2000) == system.digest(budget, 2000) != system.digest(budget, 1000)
        assert system.digest(budget, 2000) != system.digest(Budget.read("gpu"), 2000)
    assert NNUNet().digest(budget, 2000) != NNUNet("another", "planner").digest(budget, 2000)


def test_settings_survive_the_command_line() -> None:
    settings = {"epochs": 1, "ema": None, "compile": True, "class_weights": [1, 10], "loss": "dice_ce"}
    nested = {**settings, "augment": {"noise_share": 0.5}}
    assert read_assignments(assignments(nested)) == nested


def test_a_prediction_is_kept_whole_on_the_scan_s_grid(tmp_path: Path) -> None:
    image = tmp_path / "images" / "pancreas_001.nii.gz"
    write_labels(image, np.zeros(GRID.shape_zyx, np.uint8), GRID)
    out = tmp_path / "out"
    assert missing(image.parent, out) == [image]
    maps = np.zeros((3, *GRID.shape_zyx), np.float32)
    maps[0], maps[2, 1, 2, 3], maps[1, 2, 3, 4] = 0.4, 0.6, 0.41
    keep_prediction(image, out, maps)
    assert missing(image.parent, out) == []
    labels, grid = read_labels(out / image.name)
    assert grid == GRID
    assert np.argwhere(labels == 2).tolist() == [[1, 2, 3]]
    assert np.argwhere(labels == 1).tolist() == [[2, 3, 4]]
    lesion = read_image(map_path(out / image.name, LABELS[2]))
    assert lesion.GetPixel(3, 2, 1) == pytest.approx(0.6)
    assert lesion.GetPixel(0, 0, 0) == 0.0
    map_path(out / image.name, LABELS[2]).unlink()
    assert missing(image.parent, out) == [image]


def test_a_budget_has_the_settings_that_it_must_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text(
        "spacing_zyx_mm = [5.0, 2.0, 2.0]\npatch_shape_zyx = [16, 32, 32]\nbatch_size = 2\nsteps = 4\n"
        "epoch_steps = 2\nnnunet_memory_gb = 0.1\nprepared_patches = 4\nval_patches = 2\n"
    )
    monkeypatch.setattr("benchmarks.accuracy.task.BUDGETS", tmp_path)
    assert Preset("paper").shape(Budget.read("own")) == [16, 32, 32]
    (tmp_path / "bad.toml").write_text(
        (tmp_path / "own.toml").read_text().replace("steps = 4", "stepz = 4", 1)
    )
    with pytest.raises(InputError, match="has the unknown settings stepz: drop them"):
        Budget.read("bad")
    (tmp_path / "less.toml").write_text((tmp_path / "own.toml").read_text().replace("steps = 4\n", "", 1))
    with pytest.raises(InputError, match="lacks the settings steps: add them"):
        Budget.read("less")


def test_a_phase_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    from benchmarks.accuracy.run import spawn

    run = Run(tmp_path, "cpu", "steps", "nnunet", "cpu")
    run.note(train={"steps": 2000, "seconds": 1.0})
    spawn(run, "train")  # would start a process of hours
    assert json.loads((run.folder / "record.json").read_text()) == {"train": {"steps": 2000, "seconds": 1.0}}


def test_an_unknown_budget_ends_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "root"), "--budget", "none", "--systems", "paper"]) == 1
    assert (
        capsys.readouterr().err == "accuracy: a budget must be one of ablation, cpu, gpu, smoke, got none\n"
    )
    assert main([str(tmp_path / "root"), "--systems", "paper", "nnunt"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("accuracy: a system must be one of nnunet, nnunet-resenc, monai, best-large-batch")
    assert said.endswith("or a preset's .toml file, got nnunt\n")
    assert not (tmp_path / "root").exists()  # said before phantoms are made
