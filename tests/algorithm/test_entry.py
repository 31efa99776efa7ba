from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from algorithm import entry
from algorithm.bundle import write_bundle
from algorithm.entry import main
from algorithm.geometry import Geometry, same_grid
from algorithm.images import read_image, read_labels
from algorithm.metaimage import check_header
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle
from trainer.doctor.output import check as check_output

SLUG = "pancreas-tumour-segmentation"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the roots of a job: an empty input folder, an output folder, a model."""
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    model = write_random_bundle(tmp_path / "model")
    return {
        "DECATHLON_INPUT": str(tmp_path / "input"),
        "DECATHLON_OUTPUT": str(tmp_path / "output"),
        "DECATHLON_MODEL": str(model),
    }


def write_scan(path: Path, seed: int = 0, shape_zyx: tuple[int, int, int] = (6, 20, 24)) -> sitk.Image:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(
        np.random.default_rng(seed).integers(-200, 300, shape_zyx).astype(np.int16)
    )
    image.SetSpacing((0.9, 0.8, 4.0))
    image.SetOrigin((-10.5, 3.25, 70.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, path, useCompression=True)
    return image


def results(environment: dict[str, str]) -> list[dict[str, list[object]]]:
    parsed: list[dict[str, list[object]]] = json.loads(
        (Path(environment["DECATHLON_OUTPUT"]) / "results.json").read_text()
    )
    return parsed


def files(environment: dict[str, str]) -> list[str]:
    root = Path(environment["DECATHLON_OUTPUT"])
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_old_layout(environment: dict[str, str]) -> None:
    root = Path(environment["DECATHLON_INPUT"])
    scans = {name: write_scan(root / name, seed) for seed, name in enumerate(("a.mha", "b.mha"))}
    (root / "notes.txt").write_text("not an image")
    (root / "._a.mha").write_text("a macOS shadow")
    assert main(environment) == 0
    assert files(environment) == ["images/a.mha", "images/b.mha", "results.json"]
    for name, scan in scans.items():
        path = Path(environment["DECATHLON_OUTPUT"]) / "images" / name
        labels, geometry = read_labels(path)
        assert same_grid(Geometry.of(scan), geometry) is None
        assert read_image(path).GetPixelID() == sitk.sitkUInt8
        expected = sitk.GetArrayFromImage(Segmenter(random_bundle()).segment(scan))
        np.testing.assert_array_equal(labels, expected)
    assert [case["outputs"][0] for case in results(environment)] == [
        {"type": "metaio_image", "filename": "a.mha"},
        {"type": "metaio_image", "filename": "b.mha"},
    ]


@pytest.mark.parametrize("slug", [SLUG, "my-slug"])
@pytest.mark.parametrize("name", [None, "output.mha"])
def test_sockets(environment: dict[str, str], slug: str, name: str | None) -> None:
    if slug != SLUG:
        environment["DECATHLON_OUTPUT_SLUG"] = slug
    if name is not None:
        environment["DECATHLON_OUTPUT_NAME"] = name
    write_scan(Path(environment["DECATHLON_INPUT"]) / "images" / "venous-ct" / "0d4e.mha")
    assert main(environment) == 0
    assert files(environment) == [f"images/{slug}/{name or '0d4e.mha'}", "results.json"]
    (case,) = results(environment)
    assert case["inputs"] == [{"type": "metaio_image", "filename": "0d4e.mha"}]
    assert case["outputs"] == [{"type": "metaio_image", "filename": name or "0d4e.mha"}]


def test_what_leaves_a_socket_is_an_mha(environment: dict[str, str]) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "images" / "ct" / "a.nii.gz")
    assert main(environment) == 0
    assert files(environment) == [f"images/{SLUG}/a.mha", "results.json"]


def write_inputs(root: Path, key: str, **paths: str) -> None:
    """Write inputs.json as the platform does: slugs with relative paths, and a value that is no image."""
    sockets = [{"slug": slug.replace("_", "-"), "relative_path": path} for slug, path in paths.items()]
    sockets.append({"slug": "age", "relative_path": "age.json"})
    (root / "inputs.json").write_text(json.dumps([{key: socket, "value": None} for socket in sockets]))
    (root / "age.json").write_text("61")


@pytest.mark.parametrize("key", ["interface", "socket"])
def test_inputs_json_says_which_folder_belongs_to_a_slug(environment: dict[str, str], key: str) -> None:
    root = Path(environment["DECATHLON_INPUT"])
    for folder, name in (("venous-ct", "v.mha"), ("arterial-ct", "a.mha"), ("other", "o.mha")):
        write_scan(root / "images" / folder / name)
    write_inputs(root, key, ct_of_the_pancreas="images/venous-ct", early="images/arterial-ct/", wild="../x")
    assert main(environment) == 1
    assert "3 input sockets (ct-of-the-pancreas, early, other)" in str(
        results(environment)[0]["error_messages"]
    )
    for slug, name in (("ct-of-the-pancreas", "v.mha"), ("early", "a.mha"), ("other", "o.mha")):
        output = Path(environment["DECATHLON_OUTPUT"]) / slug
        assert main(environment | {"DECATHLON_INPUT_SLUG": slug, "DECATHLON_OUTPUT": str(output)}) == 0
        assert (output / "images" / SLUG / name).is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DECATHLON_INPUT_SLUG": "mr"}, "no input socket is called mr (DECATHLON_INPUT_SLUG)"),
        ({"DECATHLON_OUTPUT_NAME": "../a.mha"}, "must be a file name that ends in .mha, got '../a.mha'"),
        ({"DECATHLON_OUTPUT_NAME": ".mha"}, "must be a file name that ends in .mha, got '.mha'"),
        ({"DECATHLON_OUTPUT_SLUG": "../../evil"}, "must be the slug of the output socket"),
        ({"DECATHLON_OUTPUT_SLUG": ""}, "such as pancreas-tumour-segmentation, got ''"),
        ({"DECATHLON_OUTPUT_NAME": "a.nii.gz"}, "must be a file name that ends in .mha, got 'a.nii.gz'"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(
    environment: dict[str, str], settings: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "images" / "ct" / "a.mha")
    assert main(environment | settings) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert files(environment) == ["results.json"]


def test_one_name_for_many_scans_is_refused(environment: dict[str, str]) -> None:
    for name in ("a.mha", "b.mha"):
        write_scan(Path(environment["DECATHLON_INPUT"]) / name)
    assert main(environment | {"DECATHLON_OUTPUT_NAME": "output.mha"}) == 1
    assert "names one label map, but" in str(results(environment)[0]["error_messages"])


@pytest.mark.parametrize("stale", ["b.mha", "b.tif"])
@pytest.mark.parametrize("layout", ["images/ct/a.mha", "a.mha"])
def test_an_output_folder_never_ends_with_the_images_of_two_jobs(
    environment: dict[str, str], layout: str, stale: str
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / layout)
    folder = Path("images", SLUG) if layout.startswith("images") else Path("images")
    there = Path(environment["DECATHLON_OUTPUT"]) / folder / stale
    there.parent.mkdir(parents=True)
    there.touch()
    assert main(environment) == 1
    message = f"already holds {stale}, which is of no scan of this job; empty the output folder"
    assert message in str(results(environment)[0]["error_messages"])
    assert files(environment) == [f"{folder}/{stale}", "results.json"]


def test_an_earlier_result_does_not_pass_for_that_of_a_scan_that_failed(environment: dict[str, str]) -> None:
    scan = Path(environment["DECATHLON_INPUT"]) / "a.mha"
    write_scan(scan)
    assert main(environment) == 0
    assert files(environment) == ["images/a.mha", "results.json"]
    scan.write_bytes(scan.read_bytes()[:-100])
    assert main(environment) == 1
    assert files(environment) == ["results.json"]


@pytest.mark.parametrize("linked", ["images", "images/ct"])
def test_the_folder_of_a_socket_may_be_a_link(
    environment: dict[str, str], tmp_path: Path, linked: str
) -> None:
    write_scan(tmp_path / "elsewhere" / "ct" / "a.mha")
    link = Path(environment["DECATHLON_INPUT"]) / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere" / Path(linked).relative_to("images"))
    assert main(environment) == 0
    assert files(environment) == [f"images/{SLUG}/a.mha", "results.json"]
    assert len(results(environment)) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("folder", [".", "images", "images/ct"])
def test_a_folder_that_may_not_be_read_is_named(
    environment: dict[str, str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "images" / "ct" / "a.mha")
    closed = Path(environment["DECATHLON_INPUT"]) / folder
    closed.chmod(0)
    try:
        assert main(environment) == 1
    finally:
        closed.chmod(0o755)
    assert capsys.readouterr().err.splitlines() == [f"algorithm: {closed}: permission denied"]


def test_a_folder_that_the_system_does_not_read_is_named(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for whoever tests as root."""
    write_scan(Path(environment["DECATHLON_INPUT"]) / "images" / "ct" / "a.mha")
    closed = Path(environment["DECATHLON_INPUT"]) / "images"
    honest = Path.iterdir

    def refuse(self: Path) -> Any:
        if self == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return honest(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(environment) == 1
    message = f"{closed}: permission denied"
    assert capsys.readouterr().err.splitlines() == [f"algorithm: {message}"]
    assert results(environment)[0]["error_messages"] == [message]


def test_a_gpu_build_without_a_gpu_says_so(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    assert main(environment) == 0
    assert "no GPU is found, though this build of PyTorch is made for CUDA 13.0" in capsys.readouterr().err


def test_results_are_compressed_uint8(environment: dict[str, str]) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    assert main(environment) == 0
    header = check_header(Path(environment["DECATHLON_OUTPUT"]) / "images" / "a.mha").fields
    assert (header["ElementType"], header["CompressedData"], header["NDims"]) == ("MET_UCHAR", "True", "3")


@pytest.mark.parametrize("depth", [1, 2, 300])
def test_thin_and_deep_scans(environment: dict[str, str], depth: int) -> None:
    scan = write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha", shape_zyx=(depth, 20, 24))
    assert main(environment) == 0
    labels, geometry = read_labels(Path(environment["DECATHLON_OUTPUT"]) / "images" / "a.mha")
    assert same_grid(Geometry.of(scan), geometry) is None
    assert labels.shape == (depth, 20, 24)


def test_a_scan_without_a_pancreas_gives_an_empty_label_map(environment: dict[str, str]) -> None:
    bundle = random_bundle()
    with torch.no_grad():
        for parameter in bundle.network.parameters():
            parameter.zero_()  # all classes are as likely, and the first is the background
    write_bundle(Path(environment["DECATHLON_MODEL"]), bundle)
    scan = write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    assert main(environment) == 0
    labels, geometry = read_labels(Path(environment["DECATHLON_OUTPUT"]) / "images" / "a.mha")
    assert same_grid(Geometry.of(scan), geometry) is None
    assert not labels.any()
    assert results(environment)[0]["error_messages"] == []


def test_scans_are_read_one_by_one(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.mha", "b.mha", "c.mha"):
        write_scan(Path(environment["DECATHLON_INPUT"]) / name)
    events: list[str] = []
    read, segment = entry.ScanLoader.load_image, Segmenter.labels

    def noted_read(self: entry.ScanLoader, path: Path) -> sitk.Image:
        events.append(f"read {path.name}")
        return read(self, path)

    def noted_segment(self: Segmenter, *rest: Any) -> NDArray[np.uint8]:
        events.append("segment")
        return segment(self, *rest)

    monkeypatch.setattr(entry.ScanLoader, "load_image", noted_read)
    monkeypatch.setattr(Segmenter, "labels", noted_segment)
    assert main(environment) == 0
    assert events == ["read a.mha", "segment", "read b.mha", "segment", "read c.mha", "segment"]


def test_the_input_folder_may_be_a_link(environment: dict[str, str], tmp_path: Path) -> None:
    write_scan(tmp_path / "elsewhere" / "a.mha")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert main({**environment, "DECATHLON_INPUT": str(tmp_path / "link")}) == 0
    assert files(environment) == ["images/a.mha", "results.json"]


def test_one_damaged_scan_is_reported_and_the_others_are_done(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(environment["DECATHLON_INPUT"])
    write_scan(root / "b.mha")
    (root / "a.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n")
    assert main(environment) == 1
    assert files(environment) == ["images/b.mha", "results.json"]
    first, second = results(environment)
    assert first["outputs"] == []
    assert first["inputs"] == [{"type": "metaio_image", "filename": "a.mha"}]
    assert "a.mha" in str(first["error_messages"][0])
    assert second["error_messages"] == []
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("algorithm: ")
    assert "a.mha" in last_line


def test_a_scan_that_is_a_link_to_nowhere_is_not_passed_over(environment: dict[str, str]) -> None:
    root = Path(environment["DECATHLON_INPUT"])
    write_scan(root / "b.mha")
    (root / "a.mha").symlink_to(root / "gone.mha")
    os.mkfifo(root / "c.mha")
    assert main(environment) == 1
    assert files(environment) == ["images/b.mha", "results.json"]
    link, sound, pipe = results(environment)
    assert "gone.mha, which is not there" in str(link["error_messages"][0])
    assert sound["error_messages"] == []
    assert "must be an image file" in str(pipe["error_messages"][0])


def test_a_suffix_in_capitals_is_written_in_small_letters(environment: dict[str, str]) -> None:
    root = Path(environment["DECATHLON_INPUT"])
    write_scan(root / "a.mha")
    (root / "a.mha").rename(root / "A.MHA")
    assert main(environment) == 0
    assert files(environment) == ["images/A.mha", "results.json"]
    assert [
        finding for finding in check_output(root.parent / "output", root) if finding.severity == "error"
    ] == []


def test_results_of_an_earlier_job_do_not_survive_a_kill(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(environment["DECATHLON_OUTPUT"]) / "results.json").write_text("[]")

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "find_job", killed)
    with pytest.raises(KeyboardInterrupt):
        main(environment)
    assert files(environment) == []


def test_one_line_says_how_long_each_stage_took(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    assert main(environment) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if " voxels on " in line]
    assert re.search(r"pancreas [\d.]+ ml, cancer [\d.]+ ml; 2880 voxels on ", line)
    for stage in ("read", "prepare", "network", "stitch", "export", "write"):
        assert f"{stage} 0." in line


def test_an_unexpected_failure_of_one_scan_is_recorded(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")

    def fail(*_: object) -> None:
        raise ArithmeticError("no number for\nthis scan")

    monkeypatch.setattr(Segmenter, "labels", fail)
    assert main(environment) == 1
    assert "unexpected ArithmeticError: no number for this scan" in str(
        results(environment)[0]["error_messages"]
    )
    assert "unexpected ArithmeticError: no number for this scan" in capsys.readouterr().err.splitlines()[-1]


def test_a_result_on_another_grid_is_never_published(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    honest = entry.label_image

    def shifted(labels: NDArray[np.uint8], geometry: Geometry) -> sitk.Image:
        image = honest(labels, geometry)
        image.SetOrigin((0.0, 0.0, 0.0))
        return image

    monkeypatch.setattr(entry, "label_image", shifted)
    assert main(environment) == 1
    assert files(environment) == ["results.json"]
    assert "as made does not lie on its scan's grid: origin" in str(results(environment)[0]["error_messages"])


def shifted_when_written(image: sitk.Image) -> sitk.Image:
    image.SetOrigin((0.0, 0.0, 0.0))
    return image


def emptied_when_written(image: sitk.Image) -> sitk.Image:
    return image * 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shifted_when_written, "as written does not lie on its scan's grid: origin"),
        (emptied_when_written, "was written with other labels than were found"),
    ],
)
def test_a_result_that_is_written_wrongly_is_never_published(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[sitk.Image], sitk.Image],
    message: str,
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    honest = sitk.WriteImage
    monkeypatch.setattr(sitk, "WriteImage", lambda image, *rest: honest(change(image), *rest))
    assert main(environment) == 1
    assert files(environment) == ["results.json"]
    assert message in str(results(environment)[0]["error_messages"])


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda _: None, "no image"),
        (lambda root: root.rmdir(), "does not exist"),
        (
            lambda root: [write_scan(root / "images" / slug / "x.mha") for slug in ("ct", "mr")],
            "images lie in 2 input sockets (ct, mr), and one label map goes out",
        ),
        (lambda root: [write_scan(root / name) for name in ("a.mha", "a.nrrd")], "two images of one case"),
        (lambda root: (root / "images" / "ct").mkdir(parents=True), "no image"),
        (
            lambda root: ((root / "images/ct").mkdir(parents=True), (root / "images/ct/a.tif").touch()),
            "a.tif is a TIFF, which does not say where its voxels are",
        ),
        (lambda root: (root / "inputs.json").write_text("[{"), "inputs.json is not valid JSON"),
        (
            lambda root: [write_scan(root / "images/ct" / name) for name in ("a.mha", "b.mha")],
            "must hold one image",
        ),
        (
            lambda root: [write_scan(root / name) for name in ("a.mha", "images/ct/b.mha")],
            "one of the two layouts",
        ),
        (
            lambda root: [write_scan(root / name) for name in ("a.mha", "more/a.mha")],
            "more (a.mha, …); put all of them into one folder",
        ),
    ],
)
def test_jobs_that_cannot_be_done_say_why(
    environment: dict[str, str], prepare: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(Path(environment["DECATHLON_INPUT"]))  # type: ignore[operator]
    assert main(environment) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert message in str(results(environment)[0]["error_messages"])
    assert files(environment) == ["results.json"]


def test_an_absent_or_broken_model_is_a_loud_failure(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    assert main({**environment, "DECATHLON_MODEL": str(tmp_path / "nothing")}) == 1
    assert "no model is in" in capsys.readouterr().err.splitlines()[-1]
    (Path(environment["DECATHLON_MODEL"]) / "model.safetensors").write_bytes(b"")
    assert main(environment) == 1
    assert "not a valid safetensors file" in capsys.readouterr().err.splitlines()[-1]
    assert files(environment) == ["results.json"]


def test_the_module_runs_as_a_command(environment: dict[str, str], real_data: Path) -> None:
    scan = read_image(real_data / "abdomen_crlm_1004" / "tiny_ct.nii.gz")
    sitk.WriteImage(scan, Path(environment["DECATHLON_INPUT"]) / "tiny.mha")
    done = subprocess.run(
        [sys.executable, "-m", "algorithm"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    labels, geometry = read_labels(Path(environment["DECATHLON_OUTPUT"]) / "images" / "tiny.mha")
    assert same_grid(Geometry.of(scan), geometry) is None
    np.testing.assert_array_equal(labels, sitk.GetArrayFromImage(Segmenter(random_bundle()).segment(scan)))


def test_an_output_folder_that_cannot_be_written_is_said(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    (tmp_path / "file").write_text("in the way")
    assert main({**environment, "DECATHLON_OUTPUT": str(tmp_path / "file")}) == 1
    assert "file" in capsys.readouterr().err.splitlines()[-1]


def test_logging_is_left_as_it_was(environment: dict[str, str]) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    assert main(environment) == 1
    assert (root.level, list(root.handlers)) == before


def test_what_a_killed_job_left_half_written_is_not_published(environment: dict[str, str]) -> None:
    partial = Path(environment["DECATHLON_OUTPUT"]) / "images" / ".partial"
    partial.mkdir(parents=True)
    (partial / "x.mha").write_bytes(b"")
    write_scan(Path(environment["DECATHLON_INPUT"]) / "a.mha")
    assert main(environment) == 0
    assert files(environment) == ["images/a.mha", "results.json"]


def test_what_a_failed_case_left_half_written_is_not_published(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mha", "b.mha"):
        write_scan(Path(environment["DECATHLON_INPUT"]) / name)
    partial = Path(environment["DECATHLON_OUTPUT"]) / "images" / ".partial"
    labels, seen = Segmenter.labels, []

    def fail_on_the_first(self: Segmenter, volume: NDArray[np.int16], *rest: Any) -> NDArray[np.uint8]:
        seen.append(volume)
        if len(seen) == 1:
            partial.mkdir(parents=True)
            (partial / "a.mha").write_bytes(b"")
            raise RuntimeError("the first scan fails")
        return labels(self, volume, *rest)

    monkeypatch.setattr(Segmenter, "labels", fail_on_the_first)
    assert main(environment) == 1
    assert files(environment) == ["images/b.mha", "results.json"]
