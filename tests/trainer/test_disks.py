"""Full disks, folders that may not be written to, and memory that runs out, for every verb that writes."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import algorithm.entry
import tests.kills  # noqa: F401 # imports what verbs do: a user without rights may not reach root's Python
from tests.conftest import REPOSITORY
from tests.verbs import Contents, Job, contents, jobs
from trainer.cli import main

VERBS = ("prepare", "train", "search", "predict", "evaluate", "submission", "package", "entry")
ROOM = 20 << 10  # bytes that a full disk still has, so that some files fit
ROOM_OF = {"entry": 4 << 10}
NOBODY = 65534
Run = Callable[[str, Path], int]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def todo(root: Path) -> dict[str, Job]:
    made = jobs(root)
    bundle = str(root / "bundle")
    made["package"] = Job(lambda out: ["package", bundle, "--out", str(out / "model.tar.gz")])
    return made


@pytest.fixture(scope="module")
def run(root: Path, todo: dict[str, Job]) -> Run:
    """Return a function that runs a verb, or the container's entry, on an output folder."""
    folder = root / "input"
    folder.mkdir()
    for scan in sorted((root / "data" / "Task07_Pancreas" / "imagesTs").iterdir())[:2]:
        shutil.copy(scan, folder)

    def one(verb: str, out: Path) -> int:
        if verb != "entry":
            return main(todo[verb].arguments(out))
        names = {"INPUT": folder, "OUTPUT": out, "MODEL": root / "bundle"}
        return algorithm.entry.main({f"DECATHLON_{name}": str(path) for name, path in names.items()})

    return one


def job_of(verb: str, todo: dict[str, Job]) -> Job:
    return todo.get(verb, Job(lambda _: []))


def assert_one_sentence(verb: str, said: str) -> None:
    last = said.splitlines()[-1]
    assert last.startswith("algorithm: " if verb == "entry" else f"decathlon {verb}: "), said
    assert "Traceback" not in said
    assert not re.search(r"unexpected \w+Error", said), said


@contextmanager
def full_disk(folder: Path, room: int) -> Iterator[Path]:
    """Make a folder on a disk with `room` bytes left; where nothing can be mounted, files end at 1000."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)]
    with ExitStack() as stack:
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            stack.callback(subprocess.run, ["umount", str(folder)], check=True)
        else:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, before)
            handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            stack.callback(signal.signal, signal.SIGXFSZ, handler)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        yield folder


@pytest.fixture(scope="module")
def whole(root: Path, todo: dict[str, Job], run: Run) -> Callable[[str], Contents]:
    """Return a function that says what a verb writes where there is room."""
    known: dict[str, Contents] = {}

    def of(verb: str) -> Contents:
        if verb not in known:
            out = root / f"whole_{verb}"
            out.mkdir()
            assert run(verb, out) == 0
            known[verb] = contents(out, job_of(verb, todo))
        return known[verb]

    return of


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "search"])  # tests/trainer/test_search.py
def test_a_full_disk_is_one_sentence_and_nothing_is_half_written(
    verb: str,
    root: Path,
    todo: dict[str, Job],
    run: Run,
    whole: Callable[[str], Contents],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # a training is slow, and nothing of its end fits
    expected = {"bundle/model.json": b""} if verb == "train" else whole(verb)
    with full_disk(root / f"full_{verb}", ROOM_OF.get(verb, ROOM)) as out:
        capsys.readouterr()
        assert run(verb, out) == 1
        assert_one_sentence(verb, capsys.readouterr().err)
        found = contents(out, job_of(verb, todo))
    results = {name: value for name, value in found.items() if name != "results.json"}
    for name, value in results.items():
        if "/." in f"/{name}":
            assert not re.search(r"\.(tmp|old)-", name)
        elif name in expected:  # a kept shard or an epoch's file is none of the end
            assert value == expected[name] or name in ("metrics.csv", "overlay.png", "curves.png")
    assert set(expected) - set(found), "it all fitted, which shows nothing"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights where this is root, who may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_may_not_be_written_to_is_one_sentence(
    verb: str, root: Path, todo: dict[str, Job], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / f"closed_{verb}"
    out.mkdir()
    (out / "earlier.txt").write_text("kept")
    out.chmod(0o555)
    for folder in (root, *root.parents):
        if os.geteuid() == 0 and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    try:
        with as_nobody():
            assert run(verb, out) == 1
    finally:
        out.chmod(0o755)
    said = capsys.readouterr().err
    assert_one_sentence(verb, said)
    assert "permission denied" in said.splitlines()[-1].lower()
    assert contents(out, job_of(verb, todo)) == {"earlier.txt": b"kept"}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_disk_is_one_sentence(
    verb: str, root: Path, todo: dict[str, Job], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / f"read_only_{verb}"
    out.mkdir()
    (out / "earlier.txt").write_text("kept")
    with read_only(out):
        assert run(verb, out) == 1
    said = capsys.readouterr().err
    assert_one_sentence(verb, said)
    assert "read-only file system" in said.splitlines()[-1].lower()
    assert contents(out, job_of(verb, todo)) == {"earlier.txt": b"kept"}


MEMORY = """
import os, re, resource, sys
from pathlib import Path
import algorithm.entry
import trainer.cli.evaluate, trainer.cli.predict, trainer.cli.prepare, trainer.cli.submission, trainer.cli.train
from trainer.cli import main

def limited(room):
    used = int(re.search(r"VmSize:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))

root = Path(sys.argv[1])
environment = {f"DECATHLON_{name}": str(root / path) for name, path in
               {"INPUT": "large", "OUTPUT": "entry", "MODEL": "bundle"}.items()}
commands = {
    "predict": ["predict", "large", "--model", "bundle", "--out", "predict", "--device", "cpu"],
    "evaluate": ["evaluate", "--reference", "large", "--prediction", "large", "--labels", "a,b", "--out", "evaluate",
                 "--threads", "1"],
    "prepare": ["prepare", "Task07_Pancreas", "--preset", "tiny.toml", "--threads", "1", "--out", "prepare"],
    "submission": ["submission", "large", "--dataset", "Task07_Pancreas", "--threads", "1", "--out", "submission.zip"],
    "train": ["train", "work", "--preset", "paper", "--out", "train", "--device", "cpu", "--threads", "1", "--set",
              "base_filters=64", "batch_size=8"],
}
os.chdir(root)
for verb, command in commands.items():
    if verb in sys.argv[2:]:
        print(f"== {verb}", file=sys.stderr, flush=True)
        limited(48 << 20)
        status = main(command)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(f"== ended with {status}", file=sys.stderr, flush=True)
if "entry" in sys.argv[2:]:
    print("== entry", file=sys.stderr, flush=True)
    limited(48 << 20)
    status = algorithm.entry.main(environment)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(f"== ended with {status}", file=sys.stderr, flush=True)
"""


def write_large(path: Path, kind: str, size: int) -> None:
    """Write a scan of 96 million voxels of 0 whose file has holes in their place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.8 0.8 2.5\n"
        f"DimSize = 512 512 366\nElementType = {kind}\nElementDataFile = LOCAL\n"
    )
    path.write_text(header)
    os.truncate(path, len(header) + size * 512 * 512 * 366)


@pytest.mark.parametrize("verbs", [("predict", "evaluate", "prepare", "submission", "train", "entry")])
def test_no_memory_is_one_sentence(verbs: tuple[str, ...], root: Path, todo: dict[str, Job]) -> None:
    assert todo
    write_large(root / "large" / "scan.mha", "MET_SHORT", 2)
    task = root / "Task07_Pancreas"
    write_large(task / "imagesTr" / "case_0.mha", "MET_SHORT", 2)
    write_large(task / "labelsTr" / "case_0.mha", "MET_UCHAR", 1)
    write_large(task / "imagesTr" / "case_1.mha", "MET_SHORT", 2)
    write_large(task / "labelsTr" / "case_1.mha", "MET_UCHAR", 1)
    write_large(task / "imagesTs" / "scan.mha", "MET_SHORT", 2)
    (task / "dataset.json").write_text(
        '{"name": "Pancreas", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "pancreas", "2": "cancer"},'
        '"training": [{"image": "imagesTr/case_0.mha", "label": "labelsTr/case_0.mha"},'
        '{"image": "imagesTr/case_1.mha", "label": "labelsTr/case_1.mha"}], "test": ["imagesTs/scan.mha"]}'
    )
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(root), *verbs],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for verb in verbs:
        said = done.stderr.split(f"== {verb}\n")[1].split("== ended with ")
        assert said[1].startswith("1"), done.stderr
        assert_one_sentence(verb, said[0])
        assert "memory" in said[0].splitlines()[-1], said[0]
    names = {path.name for path in root.glob("predict/*")} | {
        path.name for path in root.glob("entry/images/*")
    }
    assert not [name for name in names if name.endswith(".mha")]
    assert not (root / "submission.zip").exists()
