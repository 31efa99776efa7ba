"""Phantoms of MR tasks, and each through every command, from dataset.json alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from trainer.cli import main
from trainer.dataset import Dataset
from trainer.patches import PatchFile
from trainer.phantom import Settings
from trainer.phantom.dataset import make_files

BRAIN, HIPPOCAMPUS = "Task01_BrainTumour", "Task04_Hippocampus"


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(seed=3, size="small", kind="brain")
    folder, _ = make_files(tmp_path_factory.mktemp("b"), settings=settings, training=5, test=2, workers=1)
    return folder


@pytest.fixture(scope="module")
def hippocampus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(seed=3, size="small", kind="hippocampus")
    folder, _ = make_files(tmp_path_factory.mktemp("h"), settings=settings, training=16, test=2, workers=1)
    return folder


def arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return image (c, z, y, x) and labels of a case."""
    image = sitk.GetArrayFromImage(sitk.ReadImage(path))
    labels = sitk.ReadImage(str(path).replace("images", "labels"))
    assert labels.GetPixelID() == sitk.sitkUInt8
    return image if image.ndim == 4 else image[np.newaxis], sitk.GetArrayFromImage(labels)


def test_a_brain_is_as_task01_has_it(brain: Path) -> None:
    dataset = Dataset.read(brain, require=("training", "test"))
    assert (brain.name, dataset.name) == (BRAIN, "BRATS")
    assert dataset.channels == ("FLAIR", "T1w", "t1gd", "T2w")
    assert dataset.labels == ("background", "edema", "non-enhancing tumor", "enhancing tumour")
    assert json.loads((brain / "dataset.json").read_text())["tensorImageSize"] == "4D"
    scales = []
    for case in dataset.training:
        image, labels = arrays(case.image)
        assert (image.dtype, image.shape) == (np.int16, (4, *labels.shape))
        outside = (image == 0).all(axis=0)
        assert 0.5 < outside.mean() < 0.8
        assert not labels[outside].any()
        assert (image[:, ~outside] > 0).all()  # a stripped skull leaves zeros, and nothing else does
        flair, _, enhanced, _ = (channel.astype(float) for channel in image)
        white = np.median(flair[~outside])
        assert np.median(flair[labels == 1]) > 1.2 * white
        if (labels == 3).any():
            assert np.median(enhanced[labels == 3]) > 1.2 * np.median(enhanced[~outside])
        scales.append([np.median(channel[~outside]) for channel in image])
    assert (np.max(scales, axis=0) / np.min(scales, axis=0)).max() > 2  # MR has no unit


def test_a_hippocampus_is_as_task04_has_it(hippocampus: Path) -> None:
    dataset = Dataset.read(hippocampus, require=("training", "test"))
    assert (hippocampus.name, dataset.channels) == (HIPPOCAMPUS, ("MRI",))
    assert dataset.labels == ("background", "Anterior", "Posterior")
    shapes, brightness = set(), []
    for case in dataset.training:
        image, labels = arrays(case.image)
        assert image.dtype == np.float32
        shapes.add(labels.shape)
        brightness.append(float(np.median(image)))
        assert 0.5 < (labels == 1).sum() / 1000 < 4
        assert 0.4 < (labels == 2).sum() / 1000 < 3.5
        front, back = (np.argwhere(labels == value)[:, 1].mean() for value in (1, 2))
        assert front > back  # stored with y to the front
    assert len(shapes) > 8
    assert max(brightness) / min(brightness) > 30


@pytest.mark.parametrize("kind", ["brain", "hippocampus"])
def test_no_threshold_finds_a_label_of_mr(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    for case in Dataset.read(folder).training[:3]:
        image, labels = arrays(case.image)
        for value in range(1, labels.max() + 1):
            mask, best = labels == value, 0.0
            for channel in image:
                edges = np.quantile(channel[channel != 0], np.linspace(0, 1, 60))
                inside = np.concatenate([[0], np.histogram(channel[mask], edges)[0].cumsum()])
                everything = np.concatenate([[0], np.histogram(channel, edges)[0].cumsum()])
                taken = everything[None, :] - everything[:, None]
                dice = 2 * (inside[None, :] - inside[:, None]) / (taken + mask.sum()).clip(1)
                best = max(best, float(np.triu(dice, 1).max()))
            assert 0 < best < 0.85


def test_mr_phantoms_are_a_function_of_their_settings(brain: Path, tmp_path: Path) -> None:
    settings = Settings(seed=3, size="small", kind="brain")
    again, _ = make_files(tmp_path, settings=settings, training=1, test=0, workers=1)
    for part in ("imagesTr", "labelsTr"):
        name = f"{part}/BRATS_001.nii.gz"
        assert (again / name).read_bytes() == (brain / name).read_bytes()
    other, _ = make_files(
        tmp_path / "o", settings=Settings(4, "small", None, "brain"), training=1, test=0, workers=1
    )
    assert (other / name).read_bytes() != (brain / name).read_bytes()


def test_a_label_map_is_painted_on_ct_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path), "--kind", "brain", "--anatomy", "a.nii.gz"]) == 1
    assert "--anatomy paints a body on CT, and has no --kind brain" in capsys.readouterr().err


def through_everything(task: Path, root: Path, *, patches: int, settings: list[str]) -> dict[str, float]:
    """Run every command on a task; return the mean Dice of each label over test cases."""
    work, out, scores = root / "work", root / "run", root / "scores"
    small = ("--patch-shape-zyx", 32, 32, 32, "--train-patches", patches, "--val-patches", 4)
    run("prepare", task, "--preset", "any-fast", "--out", work, *small)
    one = ("--device", "cpu", "--threads", 1)  # two would wait for each other on a busy machine
    run("train", work, "--preset", "any-fast", "--out", out, *one, "--set", *settings)
    run("tune", out / "bundle", "--work", work, "--out", root / "tuned", "--device", "cpu")
    run("predict", task / "imagesTs", "--model", root / "tuned", "--out", root / "pred", "--device", "cpu")
    run("evaluate", "--reference", task / "labelsTs", "--prediction", root / "pred", "--out", scores)
    run("submission", root / "pred", "--dataset", task, "--out", root / "submission.zip")
    names = {f"{task.name}/{path.name}" for path in (task / "imagesTs").iterdir()}
    assert set(zipfile.ZipFile(root / "submission.zip").namelist()) == names
    assert (scores / "overlay.png").stat().st_size > 10_000
    run("report", out, scores, "--out", root / "report.html")
    page = (root / "report.html").read_text()
    assert page.count('class="plate"') == 2
    assert '"unit": "(image value)"' in page
    mean = json.loads((scores / "scores.json").read_text())["mean"]
    return {name: mean[name]["dice"] for name in Dataset.read(task).labels[1:]}


@pytest.mark.timeout(900)
def test_a_brain_goes_through_every_command(brain: Path, tmp_path: Path) -> None:
    dice = through_everything(
        brain, tmp_path, patches=64, settings=["epochs=2", "base_filters=4", "learning_rate=0.01"]
    )
    with PatchFile(tmp_path / "work" / "train.h5") as file:
        assert (file.meta.normalisation, file.meta.spacing_zyx_mm) == ("zscore_foreground", (2.0, 2.0, 2.0))
        assert (file.meta.mean, file.meta.std) == ((0.0,) * 4, (1000.0,) * 4)
        images, _ = file.read([0])
    assert images.shape == (1, 4, 32, 32, 32)
    # By chance, an edema of 3 % of the voxels has a Dice of at most 0.06.
    assert dice["edema"] > 0.2


@pytest.mark.timeout(900)
def test_a_hippocampus_goes_through_every_command(hippocampus: Path, tmp_path: Path) -> None:
    dice = through_everything(
        hippocampus, tmp_path, patches=80, settings=["epochs=2", "base_filters=4", "learning_rate=0.01"]
    )
    # By chance, each half of 2 to 4 % of the voxels has a Dice of at most 0.08.
    assert dice["Anterior"] > 0.3
    assert dice["Posterior"] > 0.3
