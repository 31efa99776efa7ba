"""The image that is uploaded, built from the Dockerfile and run under the platform's restrictions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.geometry import Geometry
from tests.container.engine import REPOSITORY, Engine, Finished, timed
from tests.container.jobs import InImage, Job, OnHost, Runner, voxels

pytestmark = [pytest.mark.container, pytest.mark.timeout(2000)]

NewJob = Callable[..., Job]
Note = Callable[[str], None]
SCANS = ("abdomen_crlm_1004/tiny_ct.nii.gz", "totalsegmentator_example/ct_small.nii.gz")
LAYOUTS = (
    "8ab1f9c2-7a50-4a3c-9a0e-d3f2a7c1b5e4.mha",
    "images/venous-ct/8ab1f9c2-7a50-4a3c-9a0e-d3f2a7c1b5e4.mha",
)


def finished_well(done: Finished) -> Finished:
    assert done.status == 0, f"exit status {done.status}; stderr:\n{done.stderr}"
    return done


def assert_same_label_maps(job: Job, reference: Job, scan: sitk.Image) -> None:
    assert job.files() == reference.files()
    assert len(job.results()) == 1
    (found, image), (expected, other) = voxels(job.results()[0]), voxels(reference.results()[0])
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {0, 1, 2}
    assert np.unique(expected).size > 1, "a constant label map compares nothing"
    np.testing.assert_array_equal(found, expected)
    assert Geometry.of(image) == Geometry.of(other)
    # The scan is read back from an .mha, which keeps every digit that it is given.
    assert (image.GetSize(), image.GetSpacing()) == (scan.GetSize(), scan.GetSpacing())
    np.testing.assert_allclose(image.GetOrigin(), scan.GetOrigin(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(image.GetDirection(), scan.GetDirection(), rtol=0, atol=1e-12)
    documents = [json.loads((each.output / "results.json").read_text()) for each in (job, reference)]
    assert without_folders(documents[0]) == without_folders(documents[1])
    assert documents[0][0]["error_messages"] == []


def without_folders(document: object) -> object:
    """The same document with paths cut down to file names: the folders are another's in a container."""
    if isinstance(document, dict):
        return {key: without_folders(value) for key, value in document.items()}
    if isinstance(document, list):
        return [without_folders(value) for value in document]
    return document.rpartition("/")[2] if isinstance(document, str) else document


@pytest.mark.parametrize(("scan", "name"), [*zip(SCANS, LAYOUTS, strict=True)], ids=["plain", "socket"])
def test_voxels_are_those_of_a_run_outside(
    scan: str, name: str, runner: Runner, bundle: Path, real_data: Path, new_job: NewJob, note: Note
) -> None:
    image = sitk.ReadImage(str(real_data / scan))
    job, reference = new_job(bundle), new_job(bundle)
    for each in (job, reference):
        each.add(image, name)
    finished_well(OnHost().run(reference))
    done = finished_well(runner.run(job))
    assert_same_label_maps(job, reference, image)
    peak = f", peak {done.peak_mib:.0f} MiB" if done.peak_mib else ""
    note(f"{Path(scan).name} {'x'.join(map(str, image.GetSize()))} in {done.seconds:.1f} s{peak}")


def test_weights_inside_the_image_give_the_same_voxels(
    engine: Engine | None, bundled_image: str, bundle: Path, real_data: Path, new_job: NewJob
) -> None:
    assert engine is not None
    image = sitk.ReadImage(str(real_data / SCANS[0]))
    job, reference = new_job(), new_job(bundle)
    for each in (job, reference):
        each.add(image, LAYOUTS[0])
    finished_well(OnHost().run(reference))
    finished_well(InImage(engine, bundled_image).run(job))
    assert_same_label_maps(job, reference, image)


def test_script_for_users_gives_the_same_voxels(
    engine: Engine | None, image: str, bundle: Path, real_data: Path, new_job: NewJob
) -> None:
    assert engine is not None
    scan = sitk.ReadImage(str(real_data / SCANS[1]))
    job, reference = new_job(), new_job(bundle)
    for each in (job, reference):
        each.add(scan, LAYOUTS[0])
    finished_well(OnHost().run(reference))
    script = [str(REPOSITORY / "tools" / "test-run.sh"), str(job.input), str(job.output), str(bundle)]
    finished_well(timed(script, environment=os.environ | {"ENGINE": engine.name, "IMAGE": image}))
    assert_same_label_maps(job, reference, scan)


def assert_refused(done: Finished, job: Job, message: str) -> None:
    assert done.status == 1
    assert job.results() == []
    assert "Traceback" not in done.stderr
    assert message in done.last_line


def test_corrupt_scan_is_refused(runner: Runner, bundle: Path, new_job: NewJob) -> None:
    job = new_job(bundle)
    (job.input / LAYOUTS[0]).write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 64 64 64\nElementType = MET_SHORT\n"
    )
    assert_refused(runner.run(job), job, LAYOUTS[0])


def test_truncated_scan_is_refused(runner: Runner, bundle: Path, new_job: NewJob, real_data: Path) -> None:
    job = new_job(bundle)
    job.add(sitk.ReadImage(str(real_data / SCANS[0])), LAYOUTS[0])
    whole = (job.input / LAYOUTS[0]).read_bytes()
    (job.input / LAYOUTS[0]).write_bytes(whole[: len(whole) // 2])
    assert_refused(runner.run(job), job, LAYOUTS[0])


def test_no_scan_is_refused(runner: Runner, bundle: Path, new_job: NewJob) -> None:
    job = new_job(bundle)
    assert_refused(runner.run(job), job, "no image")


def test_two_scans_in_one_socket_are_refused(
    runner: Runner, bundle: Path, new_job: NewJob, real_data: Path
) -> None:
    job = new_job(bundle)
    image = sitk.ReadImage(str(real_data / SCANS[0]))
    for name in ("first", "second"):
        job.add(image, f"images/ct/{name}.mha")
    assert_refused(runner.run(job), job, "must hold one image")


def test_no_weights_are_refused(runner: Runner, new_job: NewJob, real_data: Path) -> None:
    job = new_job()
    job.add(sitk.ReadImage(str(real_data / SCANS[0])), LAYOUTS[0])
    assert_refused(runner.run(job), job, "no model")


def test_image_is_what_the_platform_takes(engine: Engine | None, image: str) -> None:
    assert engine is not None
    found = engine.inspect(image)
    config = found["Config"]
    assert isinstance(config, dict)
    assert (found["Os"], found["Architecture"]) == ("linux", "amd64")
    assert config["Entrypoint"] == ["python", "-m", "algorithm"]
    assert not config.get("Cmd")
    assert config["User"] not in ("", "0", "root")
    assert "PYTHONUNBUFFERED=1" in config["Env"]


def test_image_holds_the_hospital_rooms_only(engine: Engine | None, image: str) -> None:
    assert engine is not None
    code = (
        "import importlib.metadata as m, importlib.util as u, json, pathlib;"
        "import algorithm, torch, voxelcore;"
        "rooms = {p.name: sorted(f.suffix for f in p.rglob('*') if f.is_file()) for p in"
        " (pathlib.Path(algorithm.__file__).parent, pathlib.Path(voxelcore.__file__).parent)};"
        "print(json.dumps({'rooms': rooms, 'torch': torch.__version__,"
        " 'distributions': sorted(d.name.lower() for d in m.distributions()),"
        " 'missing': [n for n in ('trainer', 'h5py', 'hyperopt', 'matplotlib', 'openvino_telemetry', 'pip', 'pytest')"
        " if u.find_spec(n) is None]}))"
    )
    done = finished_well(engine.run(image, {}, user="4321:4321", command=("python", "-c", code)))
    found = json.loads(done.stdout)
    assert found["missing"] == [
        "trainer",
        "h5py",
        "hyperopt",
        "matplotlib",
        "openvino_telemetry",
        "pip",
        "pytest",
    ]
    assert found["torch"].endswith("+cpu")
    needed = {"decathlon-unet", "evalutils", "openvino", "simpleitk", "torch", "safetensors", "tqdm"}
    assert needed <= set(found["distributions"])
    assert not {".cpp", ".hpp", ".a", ".h"} & {suffix for room in found["rooms"].values() for suffix in room}
    assert found["rooms"]["voxelcore"].count(".so") == 1


def test_restrictions_hold(engine: Engine | None, image: str) -> None:
    assert engine is not None
    code = "open('/opt/algorithm/left-behind', 'w')"
    done = engine.run(image, {}, user="0:0", command=("python", "-c", code))
    assert "Read-only file system" in done.last_line
    done = engine.run(image, {}, user="4321:4321", command=("python", "-c", "b'x' * (5 << 30)"))
    assert done.status == 137, "5 GiB were given to a job of 4"
