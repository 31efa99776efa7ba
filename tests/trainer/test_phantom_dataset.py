"""`decathlon phantom` as a whole: bytes, layout, geometry, resumption, realism."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.errors import InputError
from trainer.cli import main
from trainer.phantom import Settings, make_dataset
from trainer.phantom.case import make_volume
from trainer.phantom.dataset import Measured, summary
from trainer.phantom.labelled import make_labelled_volume, read_label_map
from trainer.phantom.statistics import draw_facts

SETTINGS = Settings(seed=5, size="small")


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*.*") if path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Measured]]:
    return make_dataset(tmp_path_factory.mktemp("one"), settings=SETTINGS, training=2, test=1, workers=1)


def test_two_workers_write_the_same_bytes_as_one(made: tuple[Path, list[Measured]], tmp_path: Path) -> None:
    folder, _ = make_dataset(tmp_path, settings=SETTINGS, training=2, test=1, workers=2)
    assert contents(folder) == contents(made[0])


def test_layout_and_description_are_those_of_task07(made: tuple[Path, list[Measured]]) -> None:
    folder, _ = made
    assert set(contents(folder)) == {
        "dataset.json", "phantom.json", "imagesTs/pancreas_003.nii.gz", "labelsTs/pancreas_003.nii.gz",
        "imagesTr/pancreas_001.nii.gz", "imagesTr/pancreas_002.nii.gz",
        "labelsTr/pancreas_001.nii.gz", "labelsTr/pancreas_002.nii.gz",
    }  # fmt: skip
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert "labelsTs" in described.pop("description")
    assert described == {
        "name": "Pancreas",
        "reference": "decathlon-unet",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "numTraining": 2,
        "numTest": 1,
        "training": [
            {"image": "./imagesTr/pancreas_001.nii.gz", "label": "./labelsTr/pancreas_001.nii.gz"},
            {"image": "./imagesTr/pancreas_002.nii.gz", "label": "./labelsTr/pancreas_002.nii.gz"},
        ],
        "test": ["./imagesTs/pancreas_003.nii.gz"],
    }


def test_files_are_stored_as_task07_stores_them(made: tuple[Path, list[Measured]]) -> None:
    folder, measured = made
    for number, case in zip((1, 2), measured, strict=False):
        image = sitk.ReadImage(folder / "imagesTr" / f"{case.name}.nii.gz")
        labels = sitk.ReadImage(folder / "labelsTr" / f"{case.name}.nii.gz")
        assert image.GetPixelID() == sitk.sitkInt16
        assert labels.GetPixelID() == sitk.sitkUInt8
        assert image.GetDirection() == (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)  # RAS
        assert image.IsSameImageGeometryAs(labels)
        np.testing.assert_allclose(image.GetSpacing()[::-1], draw_facts(5, number).spacing_zyx_mm, rtol=1e-6)
        assert np.unique(sitk.GetArrayViewFromImage(labels)).tolist() == [0, 1, 2]


def test_the_patient_lies_on_the_back_with_the_spine_behind_the_gland(
    made: tuple[Path, list[Measured]],
) -> None:
    folder, measured = made
    for case in measured[:2]:
        image = sitk.DICOMOrient(sitk.ReadImage(folder / "imagesTr" / f"{case.name}.nii.gz"), "LPS")
        labels = sitk.DICOMOrient(sitk.ReadImage(folder / "labelsTr" / f"{case.name}.nii.gz"), "LPS")
        hu = sitk.GetArrayFromImage(image)
        _, y, x = np.argwhere(sitk.GetArrayFromImage(labels) > 0).mean(0)
        bone = np.argwhere(hu > 250)
        bone = bone[np.abs(bone[:, 2] - x) < 40]
        assert np.median(bone[:, 1]) > y
        left, right = hu[:, :, -30:], hu[:, :, :30]
        assert np.mean((right > 70) & (right < 150)) > np.mean((left > 70) & (left < 150))  # the liver


def test_an_interrupted_run_makes_what_is_missing_and_keeps_the_rest(
    made: tuple[Path, list[Measured]],
) -> None:
    folder, _ = made
    before = contents(folder)
    kept = folder / "imagesTr" / "pancreas_001.nii.gz"
    stamp = kept.stat().st_mtime_ns
    (folder / "labelsTr" / "pancreas_002.nii.gz").unlink()
    (folder / "dataset.json").unlink()
    make_dataset(folder.parent, settings=SETTINGS, training=2, test=1, workers=1)
    assert contents(folder) == before
    assert kept.stat().st_mtime_ns == stamp


def test_a_folder_made_with_other_settings_is_refused(made: tuple[Path, list[Measured]]) -> None:
    folder, _ = made
    with pytest.raises(
        InputError, match=r"holds a phantom made with seed 5 and cannot be continued with seed 6"
    ):
        make_dataset(folder.parent, settings=Settings(seed=6, size="small"), training=2, test=1)


def test_a_folder_of_real_data_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "Task07_Pancreas" / "dataset.json"
    precious.parent.mkdir()
    precious.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="is not a phantom"):
        make_dataset(tmp_path, settings=SETTINGS, training=1, test=0)
    assert precious.read_text(encoding="utf-8") == "{}"


def test_volumes_are_those_that_were_drawn_and_the_gland_is_in_view(
    made: tuple[Path, list[Measured]],
) -> None:
    for number, case in zip((1, 2, 3), made[1], strict=True):
        facts = draw_facts(5, number)
        assert 0.8 * facts.pancreas_ml < case.pancreas_ml < 1.1 * facts.pancreas_ml
        assert case.tumour_ml == pytest.approx(facts.tumour_ml, rel=0.25)


def test_the_summary_holds_a_row_a_quantity(made: tuple[Path, list[Measured]]) -> None:
    lines = summary(made[1]).splitlines()
    assert len(lines) == 14
    median = float(np.median([case.tumour_ml for case in made[1]]))
    row = next(line for line in lines if line.startswith("tumour, ml"))
    assert float(row[24:].split()[2]) == pytest.approx(median, rel=0.01)


def test_a_volume_is_repeatable_and_unlike_its_neighbour() -> None:
    state = np.random.get_state()[1].tolist()  # noqa: NPY002  the global state must stay as it is
    first, again, neighbour = (make_volume(0, number, "small") for number in (3, 3, 4))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.image.shape != neighbour.image.shape or (first.image != neighbour.image).mean() > 0.5


def test_no_threshold_finds_the_gland() -> None:
    volume = make_volume(0, 3, "small")
    assert volume.image.min() in (-3024, -1024)
    assert volume.image.max() <= 3071
    for value, ceiling in ((1, 0.3), (2, 0.15)):
        mask = volume.labels == value
        edges = np.arange(-60, 220, 4)
        inside = np.concatenate([[0], np.histogram(volume.image[mask], edges)[0].cumsum()])
        everything = np.concatenate([[0], np.histogram(volume.image, edges)[0].cumsum()])
        taken = everything[None, :] - everything[:, None]
        dice = 2 * (inside[None, :] - inside[:, None]) / (taken + mask.sum()).clip(1)
        assert 0 < np.triu(dice, 1).max() < ceiling


@pytest.fixture
def label_map(tmp_path: Path) -> Path:
    """A body of five ellipsoids at 3 mm, turned by 5 degrees about z and stored as RAS."""
    z, y, x = np.meshgrid(*[np.arange(n) * 3.0 for n in (90, 70, 100)], indexing="ij")
    labels = np.zeros(z.shape, np.uint8)
    for value, centre, radii in (
        (1, (130, 100, 210), (90, 60, 60)), (2, (130, 130, 150), (140, 20, 20)), (3, (140, 95, 120), (25, 18, 60)),
        (4, (130, 105, 170), (130, 9, 9)), (5, (180, 100, 60), (60, 40, 30)),
    ):  # fmt: skip
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii, strict=True))
        labels[inside < 1] = value
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((3.0, 3.0, 3.0))
    image.SetOrigin((80.0, 120.0, -300.0))
    cosine, sine = np.cos(np.deg2rad(5.0)), np.sin(np.deg2rad(5.0))
    image.SetDirection((-cosine, sine, 0.0, -sine, -cosine, 0.0, 0.0, 0.0, 1.0))
    path = tmp_path / "body.nii.gz"
    sitk.WriteImage(image, path)
    names = {"1": "liver", "2": {"name": "vertebrae_L1"}, "3": "pancreas", "4": "aorta", "5": "spleen"}
    path.with_name("body.json").write_text(json.dumps(names), encoding="utf-8")
    return path


def test_a_label_map_keeps_its_place_and_gets_a_tumour(label_map: Path, tmp_path: Path) -> None:
    settings = Settings(seed=1, size="small", anatomy=label_map)
    folder, measured = make_dataset(tmp_path / "data", settings=settings, training=1, test=0, workers=1)
    image = sitk.ReadImage(folder / "imagesTr" / "pancreas_001.nii.gz")
    source = sitk.ReadImage(label_map)
    np.testing.assert_allclose(image.GetDirection(), source.GetDirection(), atol=1e-6)
    made_labels = sitk.ReadImage(folder / "labelsTr" / "pancreas_001.nii.gz")
    there = sitk.GetArrayFromImage(
        sitk.Resample(source, made_labels, sitk.Transform(), sitk.sitkNearestNeighbor)
    )
    here = sitk.GetArrayFromImage(made_labels)
    both = 2 * np.sum((here > 0) & (there == 3)) / (np.sum(here > 0) + np.sum(there == 3))
    assert both > 0.6  # the pose and the smooth warp of the case move it by a few millimetres
    hu = sitk.GetArrayFromImage(image)
    assert np.median(hu[there == 2]) > 150
    assert 70 < np.median(hu[there == 1]) < 140
    truth_ml = float((sitk.GetArrayFromImage(source) == 3).sum() * 0.027)
    assert 0.7 * truth_ml < measured[0].pancreas_ml + measured[0].tumour_ml < 1.35 * truth_ml
    assert measured[0].tumour_ml == pytest.approx(min(draw_facts(1, 1).tumour_ml, 0.4 * truth_ml), rel=0.35)


def test_unusable_label_maps_are_refused_in_a_sentence(label_map: Path, tmp_path: Path) -> None:
    names = label_map.with_name("body.json")
    names.write_text('{"1": "liver"}', encoding="utf-8")
    read_label_map.cache_clear()
    with pytest.raises(InputError, match=r"must be a 3-D label map with a label named pancreas"):
        make_labelled_volume(0, 1, "small", label_map)
    names.write_text("[1]", encoding="utf-8")
    with pytest.raises(InputError, match=r"must be an object from label value to name"):
        make_labelled_volume(0, 1, "small", label_map)
    names.unlink()
    with pytest.raises(InputError, match=r"needs the names of the labels in .*body\.json"):
        make_labelled_volume(0, 1, "small", label_map)
    with pytest.raises(InputError, match=r"there is no label map at .*nothing\.nii\.gz"):
        make_dataset(tmp_path, settings=Settings(0, "small", tmp_path / "nothing.nii.gz"), training=1, test=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cases", "0"], "--cases must be at least 1, got 0."),
        (["--test", "-1"], "--test must be at least 0, got -1."),
        (["--seed", "-2"], "--seed must be at least 0, got -2."),
        (["--workers", "0"], "--workers must be at least 1, got 0."),
    ],
)
def test_wrong_numbers_end_in_one_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["phantom", str(tmp_path), *words]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"decathlon phantom: {message}"
    assert not any(tmp_path.iterdir())
