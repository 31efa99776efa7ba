"""The output folder of the container's own entry passes; what is said of damaged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.entry import main as run_job
from algorithm.errors import InputError
from tests.bundles import write_random_bundle
from trainer.cli import main
from trainer.doctor.finding import Finding
from trainer.doctor.output import check

SLUG = "pancreas-tumour-segmentation"
RESULT = f"images/{SLUG}/0d4e.mha"
VALUES = [0, 1, 2]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a job that the container's entry did: input, output."""
    folder = tmp_path_factory.mktemp("job")
    scan = sitk.GetImageFromArray(np.random.default_rng(0).integers(-200, 300, (6, 20, 24)).astype(np.int16))
    scan.SetSpacing((0.9, 0.8, 4.0))
    scan.SetOrigin((-10.5, 3.25, 70.0))
    (folder / "input" / "images" / "venous-ct").mkdir(parents=True)
    sitk.WriteImage(scan, folder / "input" / "images" / "venous-ct" / "0d4e.mha", useCompression=True)
    environment = {"DECATHLON_INPUT": str(folder / "input"), "DECATHLON_OUTPUT": str(folder / "output")}
    assert run_job(environment | {"DECATHLON_MODEL": str(write_random_bundle(folder / "model"))}) == 0
    return folder


@pytest.fixture
def output(job: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(job / "output", tmp_path / "output"))


def sentences(findings: list[Finding], severity: str = "error") -> list[str]:
    return [finding.sentence for finding in findings if finding.severity == severity]


def test_the_output_of_the_entry_is_fine(job: Path) -> None:
    (finding,) = check(job / "output", job / "input", values=VALUES)
    assert finding.severity == "note"
    assert "24x20x6 voxels (x, y, z), values 0, 1, 2" in finding.sentence


def rewritten(output: Path, change: Callable[[sitk.Image], sitk.Image], name: str = RESULT) -> None:
    image = change(sitk.ReadImage(str(output / RESULT)))
    (output / RESULT).unlink()
    sitk.WriteImage(image, str(output / name), useCompression=True)


def moved(image: sitk.Image) -> sitk.Image:
    image.SetOrigin((0.0, 0.0, 0.0))
    return image


def results(output: Path, **changes: Any) -> None:
    document = json.loads((output / "results.json").read_text())
    document[0].update(changes)
    (output / "results.json").write_text(json.dumps(document))


def one_more(output: Path, name: str) -> None:
    shutil.copy(output / RESULT, output / "images" / name)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (lambda output: shutil.rmtree(output / "images"), "has no folder images"),
    "empty images": (lambda output: shutil.rmtree(output / "images" / SLUG), "images holds no image"),
    "empty socket": (
        lambda output: (output / RESULT).unlink(),
        f"images/{SLUG} must hold exactly one image, as each socket folder must, but holds 0",
    ),
    "two in a socket": (lambda output: one_more(output, f"{SLUG}/b.mha"), "but holds 2 (0d4e.mha, b.mha)"),
    "both layouts": (lambda output: one_more(output, "b.mha"), "holds both b.mha and the folder"),
    "a folder too deep": (
        lambda output: (output / "images" / SLUG / "x").mkdir(),
        "x is a folder in a socket's folder",
    ),
    "NIfTI": (
        lambda output: rewritten(output, lambda image: image, f"images/{SLUG}/0d4e.nii.gz"),
        "0d4e.nii.gz cannot be imported by the platform, which takes .mha and .tif",
    ),
    "TIFF": (
        lambda output: rewritten(output, lambda image: image, f"images/{SLUG}/0d4e.tif"),
        "0d4e.tif does not keep its grid",
    ),
    "a link": (
        lambda output: (output / "images" / SLUG / "b.mha").symlink_to(output / RESULT),
        "b.mha is a link",
    ),
    "float": (
        lambda output: rewritten(output, lambda image: sitk.Cast(image, sitk.sitkFloat32)),
        "must keep its labels as uint8 or int8, but keeps them as 32-bit float",
    ),
    "int16": (
        lambda output: rewritten(output, lambda image: sitk.Cast(image, sitk.sitkInt16)),
        "must keep its labels as uint8 or int8, but keeps them as 16-bit signed integer",
    ),
    "probabilities": (
        lambda output: rewritten(output, lambda image: sitk.Cast(image, sitk.sitkFloat32) * 0.3),
        "must hold labels, but holds 3 different values",
    ),
    "no numbers": (
        lambda output: rewritten(output, lambda image: sitk.Cast(image, sitk.sitkFloat32) * float("nan")),
        "must hold labels, but holds 1 different values, such as nan",
    ),
    "infinite": (
        lambda output: rewritten(output, lambda image: sitk.Cast(image, sitk.sitkFloat32) / 0.0),
        "different values, such as inf",
    ),
    "two channels": (
        lambda output: rewritten(output, lambda image: sitk.Compose(image, image)),
        "must have one number per voxel, but holds vectors of 2",
    ),
    "an undeclared value": (
        lambda output: rewritten(output, lambda image: image * 2),
        "holds the value 4, but the socket declares 0, 1, 2 only",
    ),
    "another grid": (
        lambda output: rewritten(output, moved),
        "but has origin (0, 0, 0) against (-10.5, 3.25, 70) mm",
    ),
    "another size": (
        lambda output: rewritten(output, lambda image: image[:, :, 1:]),
        "but has size (5, 20, 24) against",
    ),
    "truncated": (
        lambda output: (output / RESULT).write_bytes((output / RESULT).read_bytes()[:-20]),
        "0d4e.mha is cut off",
    ),
    "no results.json": (lambda output: (output / "results.json").unlink(), "results.json is missing"),
    "no JSON": (lambda output: (output / "results.json").write_text("[{"), "is not valid JSON"),
    "NaN": (lambda output: (output / "results.json").write_text("[NaN]"), "NaN is no number of JSON"),
    "no list": (
        lambda output: (output / "results.json").write_text("{}"),
        "must hold a list with an object for each case",
    ),
    "no messages": (
        lambda output: results(output, error_messages=None),
        "case 0 must have the lists inputs, outputs and error_messages",
    ),
    "a failed case": (
        lambda output: results(output, error_messages=["x.mha is empty"]),
        "case 0 failed: x.mha is empty",
    ),
    "an output of no name": (
        lambda output: results(output, outputs=[{"type": "metaio_image"}]),
        "case 0 must give a type and a filename for each of its outputs",
    ),
    "an output that is not there": (
        lambda output: results(output, outputs=[{"type": "metaio_image", "filename": "b.mha"}]),
        "names the output b.mha, which is not there",
    ),
    "an output that is not named": (
        lambda output: results(output, outputs=[]),
        "does not name 0d4e.mha, which lies beside it",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_refused(damage: str, job: Path, output: Path) -> None:
    make, sentence = DAMAGES[damage]
    make(output)
    found = sentences(check(output, job / "input", values=VALUES))
    assert len([each for each in found if sentence in each]) == 1, found


def test_what_passes_and_should_be_looked_at(job: Path, output: Path) -> None:
    image = sitk.ReadImage(str(output / RESULT)) * 0 + 1
    sitk.WriteImage(image, str(output / RESULT), useCompression=False)
    (output / RESULT).chmod(0o600)
    (output / "images" / SLUG / "notes.txt").touch()
    (output / "images" / ".partial").mkdir()
    (output / "images" / SLUG / "._0d4e.mha").touch()
    (output / "model.json").touch()
    found = check(output, job / "input", values=VALUES)
    assert sentences(found) == []
    said = sentences(found, "warning")
    for part in (
        "model.json is read by nobody",
        ".partial was left by a job that was killed",
        "._0d4e.mha was left by another program",
        "notes.txt is no image",
        "holds the one value 1 everywhere",
        "is not compressed",
        "can be read by its owner only",
    ):
        assert len([each for each in said if part in each]) == 1, part
    assert len(said) == 7


def test_many_scans_of_the_old_layout(job: Path, tmp_path: Path) -> None:
    scan, result = job / "input" / "images" / "venous-ct" / "0d4e.mha", job / "output" / RESULT
    for folder, file in (("input", scan), ("output/images", result)):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("a.mha", "b.mha"):
            shutil.copy(file, tmp_path / folder / name)
    cases = [
        {"outputs": [{"type": "metaio_image", "filename": name}], "inputs": [], "error_messages": []}
        for name in ("a.mha", "b.mha")
    ]
    (tmp_path / "output" / "results.json").write_text(json.dumps(cases))
    found = check(tmp_path / "output", tmp_path / "input")
    assert sentences(found) == []
    assert "the platform runs one case a job" in sentences(found, "warning")[0]
    shutil.copy(scan, tmp_path / "input" / "c.mha")
    (tmp_path / "input" / "b.mha").unlink()
    said = sentences(check(tmp_path / "output", tmp_path / "input"))
    assert ["b.mha belongs to no scan of" in said[0], "c.mha has no label map in" in said[1]] == [True, True]


def test_a_job_with_two_sockets(job: Path, output: Path, tmp_path: Path) -> None:
    """The same file name in both, as platforms give it."""
    sockets = Path(shutil.copytree(job / "input", tmp_path / "input")) / "images"
    (sockets / "arterial-ct").mkdir()
    other = moved(sitk.ReadImage(str(sockets / "venous-ct" / "0d4e.mha")))
    sitk.WriteImage(other, str(sockets / "arterial-ct" / "0d4e.mha"))
    assert sentences(check(output, tmp_path / "input", input_slug="venous-ct")) == []
    (said,) = sentences(check(output, tmp_path / "input", input_slug="arterial-ct"))
    assert "must lie on the grid of" in said
    with pytest.raises(InputError, match="images lie in 2 input sockets"):
        check(output, tmp_path / "input")


def test_folders_that_are_none(tmp_path: Path, output: Path) -> None:
    assert sentences(check(tmp_path / "nothing"))[0].endswith("give the one that was mounted as /output")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image"):
        check(output, tmp_path / "empty")


def test_the_command(job: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", "output", str(output), "--input", str(job / "input"), "--values", "0", "1", "2"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no error, 0 warnings"
    results(output, error_messages=["x.mha is empty"])
    assert main(words[:3]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("results.json: case 0 failed: x.mha is empty")
