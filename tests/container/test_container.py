"""The image that is uploaded, built from the Dockerfile and run under the platform's restrictions."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from algorithm.bundle import FILES, read_bundle, write_bundle
from algorithm.geometry import Geometry
from algorithm.shipped import PHANTOM
from tests.bundles import coarse_to_fine_bundle, write_random_bundle
from tests.container.base_image import base_of
from tests.container.conftest import readable
from tests.container.engine import REPOSITORY, Engine, Finished, timed
from tests.container.hostile import HOSTILE, UNREADABLE
from tests.container.jobs import InImage, Job, OnHost, Runner, voxels
from trainer.cli import main as decathlon
from trainer.doctor.bundle import check as check_bundle
from trainer.doctor.output import check as examine

pytestmark = [pytest.mark.container, pytest.mark.timeout(2000)]

NewJob = Callable[..., Job]
Note = Callable[[str], None]
SCANS = ("abdomen_crlm_1004/tiny_ct.nii.gz", "totalsegmentator_example/ct_small.nii.gz")
WHOLE_CT = "abdomen_crlm_1004/ct.nii.gz"
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


def assert_same_as_predict(job: Job, scan: Path, bundle: Path, folder: Path) -> None:
    """Compare the one label map of a job with what `decathlon predict` makes of the same file."""
    assert decathlon(["predict", str(scan), "--model", str(bundle), "--out", str(folder)]) == 0
    (predicted,) = folder.rglob("*.mha")
    (found, image), (expected, other) = voxels(job.results()[0]), voxels(predicted)
    assert found.dtype == expected.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert Geometry.of(image) == Geometry.of(other)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a synthetic scan."""
    folder = tmp_path_factory.mktemp("phantom")
    assert (
        decathlon(["phantom", str(folder), "--cases", "1", "--test", "1", "--size", "small", "--seed", "0"])
        == 0
    )
    (scan,) = (folder / "Task07_Pancreas" / "imagesTs").iterdir()
    return scan


@pytest.mark.parametrize(("scan", "name"), [*zip(SCANS, LAYOUTS, strict=True)], ids=["plain", "socket"])
def test_voxels_are_those_of_a_run_outside(
    scan: str, name: str, runner: Runner, bundle: Path, real_data: Path, new_job: NewJob, tmp_path: Path
) -> None:
    image = sitk.ReadImage(str(real_data / scan))
    job, reference = new_job(bundle), new_job(bundle)
    for each in (job, reference):
        each.add(image, name)
    finished_well(OnHost().run(reference))
    finished_well(runner.run(job))
    assert_same_label_maps(job, reference, image)
    assert_same_as_predict(job, job.input / name, bundle, tmp_path / "predicted")


@pytest.mark.parametrize("scan", [WHOLE_CT, "phantom"])
def test_voxels_of_whole_scans_are_those_of_the_command(
    scan: str,
    runner: Runner,
    real_data: Path,
    request: pytest.FixtureRequest,
    new_job: NewJob,
    note: Note,
    tmp_path: Path,
) -> None:
    # Voxels as large as those of a coarse pass keep the network, which other tests are for, to a few seconds.
    model = readable(write_random_bundle(tmp_path / "model", spacing_zyx_mm=(10.0, 4.0, 4.0)))
    source = request.getfixturevalue("phantom") if scan == "phantom" else real_data / scan
    image = sitk.ReadImage(str(source))
    job = new_job(model)
    job.add(image, LAYOUTS[1])
    done = finished_well(runner.run(job))
    assert_same_as_predict(job, job.input / LAYOUTS[1], model, tmp_path / "predicted")
    assert np.unique(voxels(job.results()[0])[0]).size > 1, "a constant label map compares nothing"
    findings = examine(job.output, job.input, values=[0, 1, 2])
    assert [finding for finding in findings if finding.severity != "note"] == []
    peak = f", peak {done.peak_mib:.0f} MiB" if done.peak_mib else ""
    note(f"{source.name} {'x'.join(map(str, image.GetSize()))} in {done.seconds:.1f} s{peak}")


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


def test_each_hostile_scan_is_refused_and_the_sound_one_beside_them_is_segmented(
    runner: Runner, bundle: Path, new_job: NewJob, real_data: Path, tmp_path: Path, note: Note
) -> None:
    job, reference = new_job(bundle), new_job(bundle)
    sound = sitk.ReadImage(str(real_data / SCANS[0]))
    for each in (job, reference):
        each.add(sound, "sound.mha")
    sitk.WriteImage(sound[20:44, 20:40, :6], str(tmp_path / "small.mha"), useCompression=True)
    small = (tmp_path / "small.mha").read_bytes()
    # root may read everything, and without an image root is who runs the job
    files = (*HOSTILE, UNREADABLE) if isinstance(runner, InImage) or os.geteuid() else HOSTILE
    for number, hostile in enumerate(files):
        hostile.make(job.input / f"{number:02}.mha", small)
    finished_well(OnHost().run(reference))
    done = runner.run(job)
    assert done.status == 1
    assert "Traceback" not in done.stderr
    cases = {
        case["inputs"][0]["filename"]: case for case in json.loads((job.output / "results.json").read_text())
    }
    assert len(cases) == 1 + len(files)
    for number, hostile in enumerate(files):
        case = cases[f"{number:02}.mha"]
        (message,) = case["error_messages"]
        assert hostile.sentence in message, hostile.what
        assert f"{number:02}.mha" in message
        assert case["outputs"] == []
        note(f"refused: {hostile.what}: {message}")
    assert done.last_line == f"algorithm: {message}"
    assert job.files() == ["images/sound.mha", "results.json"]
    (found, image), (expected, other) = voxels(job.results()[0]), voxels(reference.results()[0])
    np.testing.assert_array_equal(found, expected)
    assert Geometry.of(image) == Geometry.of(other)


def test_a_scan_beyond_the_memory_of_the_job_is_refused_and_the_next_is_segmented(
    engine: Engine | None, runner: Runner, bundle: Path, new_job: NewJob, real_data: Path
) -> None:
    if engine is None:
        pytest.skip("without an engine nothing limits the memory")
    job = new_job(bundle)
    job.add(sitk.ReadImage(str(real_data / SCANS[0])), "sound.mha")
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 1024 1024 1500\nElementSpacing = 0.4 0.4 0.8\nOffset = 0 0 0\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    large = job.input / "large.mha"
    large.write_text(header)
    os.truncate(large, len(header) + 2 * 1024 * 1024 * 1500)  # zeros that take no place on the disk
    done = runner.run(job)
    assert done.status == 1
    assert "large.mha takes 5.9 GiB of memory while it is read, and " in done.last_line
    assert "GiB are free" in done.last_line
    assert job.files() == ["images/sound.mha", "results.json"]


def test_corrupt_scan_fails_the_job(runner: Runner, bundle: Path, new_job: NewJob) -> None:
    job = new_job(bundle)
    (job.input / LAYOUTS[0]).write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 64 64 64\nElementType = MET_SHORT\n"
    )
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


def test_a_first_try_needs_no_weights_and_says_that_it_is_one(
    runner: Runner, new_job: NewJob, phantom: Path
) -> None:
    job = new_job(shipped=PHANTOM)
    job.add(sitk.ReadImage(str(phantom)), LAYOUTS[0])
    done = finished_well(runner.run(job))
    notice = read_bundle(PHANTOM).description.notice
    assert notice in done.stderr
    (result,) = json.loads((job.output / "results.json").read_text())
    assert result["notices"] == [notice]
    assert (voxels(job.results()[0])[0] == 1).any(), "no pancreas in a phantom"


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


INSTALLED = """
import importlib.metadata, json, subprocess
lines = subprocess.run(["dpkg-query", "--show"], check=True, capture_output=True, text=True).stdout.splitlines()
debian = dict(line.split("\\t") for line in lines)
python = {found.name: found.version for found in importlib.metadata.distributions()}
print(json.dumps({"deb": {name.split(":")[0]: debian[name] for name in debian}, "pypi": python}))
"""


def test_bill_of_materials_lists_what_the_image_really_has(
    engine: Engine | None, image: str, tmp_path: Path, note: Note
) -> None:
    assert engine is not None
    environment = os.environ | {"ENGINE": engine.name, "IMAGE": image, "PYTHON": sys.executable}
    script = [str(REPOSITORY / "tools" / "sbom.sh"), str(tmp_path / "sbom.json")]
    finished_well(timed(script, environment=environment))
    text = (tmp_path / "sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed: dict[str, dict[str, str]] = {"deb": {}, "pypi": {}}
    hashes = {}
    for one in json.loads(text)["components"]:
        if kind := re.match("pkg:(deb|pypi)/", one.get("purl", "")):
            listed[kind[1]][one["name"]] = one["version"]
            hashes[kind[1], one["name"]] = [each["content"] for each in one.get("hashes", ())]
    done = finished_well(engine.run(image, {}, user="4321:4321", command=("python", "-c", INSTALLED)))
    assert listed == json.loads(done.stdout)
    assert listed["pypi"].keys() >= {"decathlon-unet", "evalutils", "numpy", "openvino", "simpleitk", "torch"}
    assert listed["deb"].keys() >= {"libc6", "python3.11-minimal"}
    unhashed = {name for name in listed["pypi"] if not hashes["pypi", name]}
    assert unhashed == {"decathlon-unet"}, "a wheel was installed that no list in requirements/ has"
    (torch,) = hashes["pypi", "torch"]
    assert f"--hash=sha256:{torch}" in (REPOSITORY / "requirements" / "torch-cpu.txt").read_text()
    note(f"bill of materials: {len(listed['pypi'])} Python and {len(listed['deb'])} Debian packages")


PROBE = """
import json, os, pathlib, socket, resource
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
def cgroup(name):
    found = [p for p in (f"/sys/fs/cgroup/{name}", f"/sys/fs/cgroup/{name.split('.')[0]}/{name}") if os.path.exists(p)]
    return pathlib.Path(found[0]).read_text().strip() if found else None
def fails(action):
    try:
        action()
    except OSError as error:
        return error.strerror
shm = os.statvfs("/dev/shm")
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "capabilities": {key: int(status[key], 16) for key in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")},
    "no new privileges": int(status["NoNewPrivs"]),
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "connect": fails(lambda: socket.create_connection(("192.0.2.1", 443), 3)),
    "root": fails(lambda: open("/opt/algorithm/left-behind", "w")),
    "input": fails(lambda: open("/input/left-behind", "w")),
    "model": fails(lambda: open("/opt/ml/model/left-behind", "w")),
    "output": fails(lambda: open("/output/left-behind", "w")),
    "tmp": fails(lambda: open("/tmp/left-behind", "w")),
    "shm": shm.f_blocks * shm.f_frsize,
    "pids": cgroup("pids.max"),
    "memory": cgroup("memory.max") or cgroup("memory.limit_in_bytes"),
}))
"""


def test_every_restriction_is_in_force(
    engine: Engine | None, image: str, bundle: Path, new_job: NewJob
) -> None:
    assert engine is not None
    job = new_job(bundle)
    mounted = {job.input: "/input:ro", job.output: "/output", bundle: "/opt/ml/model:ro"}
    done = finished_well(engine.run(image, mounted, user="54321:54321", command=("python", "-c", PROBE)))
    found = json.loads(done.stdout)
    if engine.is_podman and os.geteuid() != 0:
        del found["user"]  # a user's podman maps its own id
    else:
        assert found.pop("user") == [54321, 54321]
    for name, limit in (("pids", "256"), ("memory", str(4 << 30))):
        value = found.pop(name)
        assert value in (limit, None), f"{name} are limited to {value}"
    assert found == {
        "capabilities": dict.fromkeys(("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"), 0),
        "no new privileges": 1,
        "interfaces": ["lo"],
        "connect": "Network is unreachable",
        "root": "Read-only file system",
        "input": "Read-only file system",
        "model": "Read-only file system",
        "output": None,
        "tmp": None,
        "shm": 64 << 20,
    }


def test_restrictions_hold(engine: Engine | None, image: str) -> None:
    """Even root cannot write to the image; no job gets more memory or more processes than it was promised."""
    assert engine is not None
    code = "open('/opt/algorithm/left-behind', 'w')"
    done = engine.run(image, {}, user="0:0", command=("python", "-c", code))
    assert "Read-only file system" in done.last_line
    done = engine.run(image, {}, user="4321:4321", command=("python", "-c", "b'x' * (5 << 30)"))
    assert done.status == 137, "5 GiB were given to a job of 4"
    start = "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()"
    code = f"import threading, time; [{start} for _ in range(300)]"
    done = engine.run(image, {}, user="4321:4321", command=("python", "-c", code))
    assert "can't start new thread" in done.last_line, "300 threads were given to a job of 256"


@pytest.mark.usefixtures("image")  # its build brings the small image that is saved here
def test_what_is_saved_for_upload_is_whole(engine: Engine | None, tmp_path: Path) -> None:
    """The script is run on a small image: the real one takes minutes to compress, and the script is the same."""
    assert engine is not None
    base = base_of(REPOSITORY / "Dockerfile")
    tag = "localhost/decathlon-unet-saved:test"
    subprocess.run([engine.name, "tag", base, tag], check=True)
    identity = engine.inspect(tag)["Id"]
    model = tmp_path / "model"
    write_bundle(model, coarse_to_fine_bundle())
    for file in model.iterdir():
        file.chmod(0o600)
    script = [str(REPOSITORY / "tools" / "save.sh"), str(tmp_path / "upload"), str(model)]
    finished_well(timed(script, environment=os.environ | {"ENGINE": engine.name, "IMAGE": tag}))
    assert sorted(path.name for path in (tmp_path / "upload").iterdir()) == ["image.tar.gz", "model.tar.gz"]
    subprocess.run([engine.name, "rmi", tag], check=True)
    # Unpacked here, since podman 4.3 says "invalid tar header" of any compressed archive that it unpacks itself.
    with (
        gzip.open(tmp_path / "upload" / "image.tar.gz") as packed,
        (tmp_path / "image.tar").open("wb") as whole,
    ):
        shutil.copyfileobj(packed, whole, 1 << 20)
    load = [engine.name, "load", "--input", str(tmp_path / "image.tar")]
    loaded = subprocess.run(load, check=True, capture_output=True, text=True)
    assert tag in loaded.stdout
    assert engine.inspect(tag)["Id"] == identity
    subprocess.run([engine.name, "rmi", tag], check=True)
    (finding,) = check_bundle(tmp_path / "upload" / "model.tar.gz")
    assert finding.severity == "note"
    with tarfile.open(tmp_path / "upload" / "model.tar.gz") as archive:
        assert sorted(archive.getnames()) == sorted(FILES)
        archive.extractall(tmp_path / "unpacked", filter="data")
    for name in FILES:
        assert (tmp_path / "unpacked" / name).read_bytes() == (model / name).read_bytes()
