"""Settings that come from the data set: its headers, its voxels, the names of its channels and labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.network import unmet_by
from trainer.adapt import adapted, fitting_patch, is_ct
from trainer.cli import main
from trainer.dataset import Dataset
from trainer.prepare import resolve_quotas
from trainer.presets import PreparePreset, read_preset

ANY = read_preset("any").prepare


def task(folder: Path, shapes_xyz: list[tuple[int, int, int]], modality: str, low: int = 0) -> Dataset:
    """Write cases of 1 x 1 x 2 mm, stored with z first, whose middle third is labelled."""
    training = []
    for number, shape in enumerate(shapes_xyz):
        z, y, x = np.indices(shape[::-1])
        values = np.rint(1000 * x / shape[0] + 7 * (y % 5) + z).astype(np.int16) + low
        labels = ((x > shape[0] / 3) & (x < 2 * shape[0] / 3)).astype(np.uint8)
        paths = [folder / part / f"a_{number}.nii.gz" for part in ("imagesTr", "labelsTr")]
        for array, path in zip((values, labels), paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(sitk.DICOMOrient(image, "SAR"), path)
        training.append({"image": f"imagesTr/a_{number}.nii.gz", "label": f"labelsTr/a_{number}.nii.gz"})
    document = {"name": "A", "modality": {"0": modality}, "labels": {"0": "background", "1": "thing"}}
    (folder / "dataset.json").write_text(json.dumps({**document, "training": training, "test": []}))
    return Dataset.read(folder)


def test_an_mr_task_gets_its_median_grid_a_fitting_patch_and_z_scores(tmp_path: Path) -> None:
    dataset = task(tmp_path, [(40, 50, 20), (44, 52, 22), (31, 60, 18)], "MRI")
    found = adapted(ANY, dataset, dataset.training, threads=2)
    assert found.spacing_zyx_mm == (2.0, 1.0, 1.0)
    assert found.patch_shape_zyx == (32, 64, 48)
    assert (found.normalisation, found.window_hu) == ("zscore", (-10000, 10000))
    assert not found.from_data_set


def test_a_ct_task_gets_the_window_of_what_is_labelled(tmp_path: Path) -> None:
    dataset = task(tmp_path, [(60, 40, 20)], "CT", low=-400)
    found = adapted(ANY, dataset, dataset.training, threads=1)
    image = sitk.GetArrayFromImage(sitk.ReadImage(dataset.training[0].image))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(dataset.training[0].label))
    low, high = np.percentile(image[labels > 0], (0.5, 99.5), method="inverted_cdf")
    assert found.normalisation == "window"
    assert found.window_hu == (low, high)


def test_what_a_preset_states_stays(tmp_path: Path) -> None:
    dataset = task(tmp_path, [(60, 40, 20)], "CT")
    paper = read_preset("paper").prepare
    assert adapted(paper, dataset, dataset.training, threads=1) is paper


@pytest.mark.parametrize(
    ("shape", "spacing", "voxels", "expected"),
    [
        ((35, 51, 35), (1, 1, 1), 2**20, (48, 64, 48)),
        ((10, 12, 9), (1, 1, 1), 2**20, (16, 16, 32)),
        ((155, 240, 240), (1, 1, 1), 2**20, (96, 96, 112)),
        ((20, 320, 320), (3.6, 0.6, 0.6), 2**20, (32, 176, 176)),
        ((1000, 512, 512), (1, 0.8, 0.8), 2**20, (80, 112, 112)),
        ((1000, 512, 512), (1, 0.8, 0.8), 16 * 16 * 32, (16, 16, 32)),
    ],
)
def test_a_patch_fits_scan_and_budget(
    shape: tuple[int, int, int], spacing: tuple[float, ...], voxels: int, expected: tuple[int, int, int]
) -> None:
    found = fitting_patch(shape, spacing, voxels)
    assert unmet_by(found) is None
    assert np.prod(found) <= voxels
    assert found == expected


@pytest.mark.parametrize(
    ("names", "answer"), [(("CT",), True), (("ct venous",), True), (("CT", "PET"), False), (("MRI",), False)]
)
def test_ct_is_told_by_its_name(names: tuple[str, ...], answer: bool) -> None:
    assert is_ct(names) is answer


def test_a_star_parts_its_share_among_labels_that_are_not_named() -> None:
    labels = ("background", "edema", "core", "rim")
    assert resolve_quotas({"*": 0.6}, labels) == pytest.approx({1: 0.2, 2: 0.2, 3: 0.2})
    assert resolve_quotas({"*": 0.6, "2": 0.5, "edema": 0.0}, labels) == pytest.approx({2: 0.5, 3: 0.2})


def test_a_window_in_hu_is_refused_for_mr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Task04_Hippocampus"
    task(folder, [(40, 50, 20)] * 2, "MRI")
    assert main(["prepare", str(folder), "--out", str(tmp_path / "work")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "are MRI and no CT, so a window in HU does not suit them: give --preset any, or" in said
    assert not (tmp_path / "work").exists()


def test_a_window_and_z_scores_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"window_hu is for normalisation window, but it is zscore"):
        PreparePreset((1, 1, 1), (-100, 200), (16, 16, 32), 1, 1, {}, normalisation="zscore")
    file = tmp_path / "mr.toml"
    text = "[prepare]\nspacing_zyx_mm=[1,1,1]\npatch_shape_zyx=[16,16,32]\ntrain_patches=2\nval_patches=2\nquotas={}\n"
    file.write_text(text + 'normalisation="zscore"\n')
    assert read_preset(str(file)).prepare.window_hu == (-10000, 10000)
    file.write_text(text + 'normalisation="z"\n')
    with pytest.raises(InputError, match=r"normalisation must be one of window, zscore, zscore_foreground"):
        read_preset(str(file))
