from __future__ import annotations

import logging
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.bundle import read_bundles
from algorithm.errors import InputError
from algorithm.geometry import Geometry, same_grid
from algorithm.images import read_image, read_labels
from algorithm.predict import predict
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_random_bundle(tmp_path / "model")


def write_scan(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    values = np.random.default_rng(seed).integers(-200, 300, (5, 16, 20)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.75, 0.75, 5.0))
    sitk.WriteImage(image, path)
    return path


def test_only_the_cases_asked_for_are_segmented(model: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("a.nii.gz", "b.mha", "c.nrrd")):
        write_scan(tmp_path / "scans" / name, number)
    results = predict(tmp_path / "scans", model, tmp_path / "out", cases=("c", "a"))
    assert [path.name for path in results] == ["a.nii.gz", "c.nrrd"]
    with pytest.raises(InputError, match="must hold the scan d and 1 more, but does not"):
        predict(tmp_path / "scans", model, tmp_path / "out", cases=("a", "d", "e"))


def test_results_keep_name_format_and_grid_of_their_scans(model: Path, tmp_path: Path) -> None:
    scans = [
        write_scan(tmp_path / "scans" / name, i) for i, name in enumerate(("a.nii.gz", "b.mha", "c.nrrd"))
    ]
    results = predict(tmp_path / "scans", model, tmp_path / "out")
    assert [path.name for path in results] == ["a.nii.gz", "b.mha", "c.nrrd"]
    for scan, result in zip(scans, results, strict=True):
        labels, geometry = read_labels(result)
        assert same_grid(Geometry.of(read_image(scan)), geometry) is None
        expected = Segmenter(random_bundle()).segment(read_image(scan))
        np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(expected))


def test_the_same_command_does_only_what_is_missing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, name in enumerate(("a.mha", "b.mha")):
        write_scan(tmp_path / "scans" / name, i)
    done: list[tuple[int, ...]] = []
    labels = Segmenter.labels

    def noted(self: Segmenter, volume: np.ndarray, *rest: object, **options: object) -> np.ndarray:
        done.append(volume.shape)
        return labels(self, volume, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Segmenter, "labels", noted)
    out = tmp_path / "out"
    predict(tmp_path / "scans", model, out)
    assert len(done) == 2
    predict(tmp_path / "scans", model, out)
    assert len(done) == 2
    (out / "a.mha").unlink()
    write_scan(tmp_path / "scans" / "b.mha", 9)
    predict(tmp_path / "scans", model, out)
    assert len(done) == 4
    write_random_bundle(model, window_hu=(0.0, 100.0))
    predict(tmp_path / "scans", model, out)
    assert len(done) == 6


def test_a_damaged_scan_is_named_and_the_others_are_done(model: Path, tmp_path: Path) -> None:
    write_scan(tmp_path / "scans" / "b.mha")
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1 of 2 scans failed, the first: .*a\.nii\.gz"):
        predict(tmp_path / "scans", model, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["b.mha"]


def test_a_missing_source_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        predict(tmp_path / "nowhere", model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_dicom_slices_is_one_scan(model: Path, tmp_path: Path, real_data: Path) -> None:
    slices = tmp_path / "case_7"
    with zipfile.ZipFile(real_data / "totalsegmentator_example" / "dicom.zip") as archive:
        archive.extractall(slices)
    (result,) = predict(slices, model, tmp_path / "out")
    assert result.name == "case_7.nii.gz"
    labels, geometry = read_labels(result)
    assert same_grid(Geometry.of(read_image(slices)), geometry) is None
    assert set(np.unique(labels)) <= {0, 1, 2}


def test_a_sheared_series_is_refused(model: Path, tmp_path: Path, real_data: Path) -> None:
    slices = tmp_path / "tilted"
    with zipfile.ZipFile(real_data / "tilted_gantry" / "dicom_12_slices.zip") as archive:
        archive.extractall(slices)
    with pytest.raises(InputError, match=r"16\.5"):
        predict(slices, model, tmp_path / "out")
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_a_scan_is_never_overwritten_by_its_result(model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scans" / "a.mha")
    before = scan.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    for source, out in ((scan, scan.parent), (scan.parent, scan.parent), (scan, tmp_path / "link")):
        with pytest.raises(InputError, match="would overwrite the scan itself; choose another --out"):
            predict(source, model, out)
    assert scan.read_bytes() == before
    assert [path.name for path in scan.parent.iterdir()] == ["a.mha"]


def test_a_name_that_is_not_utf_8_fails_alone(model: Path, tmp_path: Path) -> None:
    write_scan(tmp_path / "scans" / "b.mha")
    write_scan(tmp_path / "scans" / "a.mha").rename(tmp_path / "scans" / os.fsdecode(b"caf\xe9.mha"))
    with pytest.raises(
        InputError, match=r"1 of 2 scans failed, the first: .*must have a name in UTF-8"
    ) as failed:
        predict(tmp_path / "scans", model, tmp_path / "out")
    assert str(failed.value).encode().count(b"caf") == 1
    assert (tmp_path / "out" / "b.mha").is_file()


def test_an_ensemble_and_mirrored_views_are_other_models(model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.mha")
    other = write_random_bundle(tmp_path / "models" / "one", mean=(10.0,))
    write_random_bundle(tmp_path / "models" / "two", mean=(20.0,))
    out = tmp_path / "out"
    record = out / ".predictions.json"
    seen: list[str] = []
    ways: list[tuple[Path | list[Path], dict[str, tuple[bool, bool, bool]]]] = [
        (model, {}),
        ([model, other], {}),
        (tmp_path / "models", {}),
        (model, {"mirror_zyx": (False, False, True)}),
    ]
    for models, options in ways:
        (result,) = predict(scan, models, out, **options)
        bundles = read_bundles([models] if isinstance(models, Path) else models)
        expected = Segmenter(bundles, **options).segment(read_image(scan))
        np.testing.assert_array_equal(read_labels(result)[0], sitk.GetArrayFromImage(expected))
        seen.append(record.read_text())
    assert len(set(seen)) == len(ways)
    (tmp_path / "models" / ".tmp-left").mkdir()
    (tmp_path / "models" / ".tmp-left" / "model.json").write_text("{}")
    assert len(read_bundles([tmp_path / "models"])) == 2
    (tmp_path / "models" / "metrics.csv").touch()
    with pytest.raises(InputError, match=r"holds metrics.csv beside one, two; give .*one$"):
        read_bundles([tmp_path / "models"])


def test_probability_maps_lie_beside_the_labels(model: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    images = [read_image(write_scan(scans / name, i)) for i, name in enumerate(("a.nii.gz", "b.mha"))]
    predict(scans, model, out)
    assert sorted(path.name for path in out.glob("[!.]*")) == ["a.nii.gz", "b.mha"]
    predict(scans, model, out, probabilities=True)
    names = ("pancreas", "cancer", "uncertainty")
    expected_files = {
        f"{case}_{name}{suffix}" for case, suffix in (("a", ".nii.gz"), ("b", ".mha")) for name in names
    }
    assert {path.name for path in (out / "probabilities").iterdir()} == expected_files
    for image, case, suffix in zip(images, ("a", "b"), (".nii.gz", ".mha"), strict=True):
        maps = np.empty((3, *image.GetSize()[::-1]), np.uint8)
        Segmenter(random_bundle()).labels(
            sitk.GetArrayFromImage(image), Geometry.of(image), probabilities=maps
        )
        for name, shares in zip(names, maps, strict=True):
            read = read_image(out / "probabilities" / f"{case}_{name}{suffix}")
            assert read.GetPixelID() == sitk.sitkFloat32
            assert same_grid(Geometry.of(image), Geometry.of(read)) is None
            np.testing.assert_allclose(sitk.GetArrayFromImage(read), shares / 255, atol=1e-6)


def test_a_map_that_is_gone_is_made_anew(model: Path, tmp_path: Path) -> None:
    scan, out = write_scan(tmp_path / "a.mha"), tmp_path / "out"
    (result,) = predict(scan, model, out, probabilities=True)
    lost = out / "probabilities" / "a_cancer.mha"
    before, made = lost.read_bytes(), result.stat().st_mtime_ns
    predict(scan, model, out, probabilities=True)
    assert result.stat().st_mtime_ns == made
    lost.unlink()
    predict(scan, model, out, probabilities=True)
    assert lost.read_bytes() == before


def test_maps_of_labels_with_one_name_do_not_share_a_file(tmp_path: Path) -> None:
    model = write_random_bundle(tmp_path / "model", labels=("background", "uncertainty", "a/b"))
    out = tmp_path / "out"
    predict(write_scan(tmp_path / "s.nii.gz"), model, out, probabilities=True)
    names = sorted(path.name for path in (out / "probabilities").iterdir())
    assert names == ["s_a_b.nii.gz", "s_uncertainty.nii.gz", "s_uncertainty_1.nii.gz"]


def test_an_unexpected_failure_of_one_scan_leaves_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for i, name in enumerate(("a.mha", "b.mha")):
        write_scan(tmp_path / "scans" / name, i)
    labels, seen = Segmenter.labels, []

    def fails_once(self: Segmenter, volume: np.ndarray, *rest: object, **options: object) -> np.ndarray:
        seen.append(volume)
        if len(seen) == 1:
            raise ArithmeticError("no number")
        return labels(self, volume, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Segmenter, "labels", fails_once)
    with pytest.raises(
        InputError, match=r"1 of 2 scans failed, the first: .*a\.mha: unexpected ArithmeticError: no number"
    ):
        predict(tmp_path / "scans", model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["b.mha"]
    assert "Traceback" in caplog.text


def test_one_line_says_what_was_found_and_how_long_it_took(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        predict(write_scan(tmp_path / "a.mha"), model, tmp_path / "out")
    (line,) = [record.getMessage() for record in caplog.records if " voxels on " in record.getMessage()]
    assert re.search(r"pancreas [\d.]+ ml, cancer [\d.]+ ml; 1600 voxels on ", line)
    for stage in ("read", "network", "export", "write"):
        assert f"{stage} 0." in line
