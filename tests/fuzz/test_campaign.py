"""The fuzzer itself: it passes what is sound, finds what is planted, and survives what ends a worker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.errors import BytesLengthException

from algorithm.errors import InputError
from algorithm.segmenter import Segmenter
from tests.fuzz import __main__ as command
from tests.fuzz import campaign, targets
from tests.fuzz.campaign import Share, run, shares
from tests.fuzz.engines import ENGINES, Run, by_hypothesis, draw
from tests.fuzz.seeds import SEEDS, make_seed
from tests.fuzz.stated import stated_voxels
from tests.fuzz.targets import Targets, Verdict

FAR = time.time() + 1e6
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[str], dict[str, Verdict]]:
    """Return a function that gives the sound scan of a format to all targets."""
    ready = Targets(tmp_path)

    def judge(name: str) -> dict[str, Verdict]:
        seed = make_seed(name)
        return {verdict.target: verdict for verdict in ready.judge(seed, seed.files).verdicts}

    return judge


def test_the_command_knows_every_format_and_engine() -> None:
    assert tuple(SEEDS) == command.FORMATS
    assert tuple(ENGINES) == command.ENGINES


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_sound_scans_pass_every_target(name: str, judge: Callable[[str], dict[str, Verdict]]) -> None:
    verdicts = judge(name)
    assert [verdict.wrong for verdict in verdicts.values()] == [""] * len(verdicts)
    assert {verdict.accepted for verdict in verdicts.values()} == {name != "mha, bomb"}
    assert list(verdicts) == (
        ["segment", "predict"] if name.startswith("dicom") else ["segment", "container", "prepare", "doctor"]
    )


def test_a_slice_that_pydicom_cannot_read_is_not_compared(tmp_path: Path) -> None:
    """GDCM takes the word of an element it knows for what it is; pydicom does what the file says and gives up."""
    seed = make_seed("dicom")
    for name, content in seed.files.items():
        (tmp_path / name).write_bytes(content.replace(b"\x02\0\x10\0UI", b"\x02\0\x10\0FD"))
    with pytest.raises(BytesLengthException):
        _ = pydicom.dcmread(tmp_path / min(seed.files)).file_meta.TransferSyntaxUID
    assert stated_voxels(tmp_path) is None


def crash(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("planted")


def memory(*_: Any, **__: Any) -> Any:
    raise MemoryError


def shifted(labels: Callable[..., Any]) -> Callable[..., Any]:
    def segment(*arguments: Any) -> sitk.Image:
        image = labels(*arguments)
        image.SetOrigin([value + 0.5 for value in image.GetOrigin()])
        return image

    return segment


def test_an_unforeseen_exception_is_found(
    judge: Callable[[str], dict[str, Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "labels", crash)
    verdicts = judge("mha")
    assert verdicts["segment"].wrong == "ZeroDivisionError: planted"
    assert "not foreseen" in verdicts["container"].wrong or "Traceback" in verdicts["container"].wrong
    assert not verdicts["prepare"].wrong


def test_memory_that_runs_out_is_found(
    judge: Callable[[str], dict[str, Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "labels", memory)
    assert "not foreseen" in judge("mha")["container"].wrong


def test_labels_on_another_grid_are_found(
    judge: Callable[[str], dict[str, Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "segment", shifted(Segmenter.segment))
    assert "labels on another grid: origin" in judge("mha")["segment"].wrong


def test_too_much_memory_is_found(
    judge: Callable[[str], dict[str, Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "read_image", hoarding)
    assert re.fullmatch(r"took (59|60)\d MiB", judge("mha")["segment"].wrong)


def hoarding(scan: Path) -> sitk.Image:
    np.ones(600 << 20, np.uint8).sum()
    raise InputError(f"{scan} is refused")


def test_too_much_time_is_found(
    judge: Callable[[str], dict[str, Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "SECONDS", 1e-6)
    assert {verdict.wrong for verdict in judge("mha").values()} == {"took 0 s"}, judge("mha")


@pytest.mark.parametrize("said", ["", "one\ntwo", "x: unexpected KeyError: 7", "x: memory ran out; …"])
def test_refusals_that_are_none_are_found(said: str) -> None:
    with pytest.raises(AssertionError):
        targets._one_sentence(said, Path("x"))


def test_a_refusal_names_the_scan() -> None:
    targets._one_sentence("scan.mha is empty", Path("scan.mha"))
    with pytest.raises(AssertionError, match="does not name the scan"):
        targets._one_sentence("it is empty", Path("scan.mha"))


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_scans_are_hostile_differ_and_depend_on_the_seed_alone(name: str) -> None:
    seed = make_seed(name)
    assert make_seed(name) == seed
    scans = draw(seed, 60, 1)
    different = {tuple(sorted(files.items())) for files in scans if files != seed.files}
    assert len(different) > 20
    assert draw(seed, 60, 1) == scans
    assert draw(seed, 60, 2) != scans


def test_work_is_parted_evenly() -> None:
    work = shares(command.FORMATS, command.ENGINES[:2], 20_000, 0)
    counts = [share.count for share in work]
    assert sum(counts) == 20_000
    assert max(counts) - min(counts) == 1
    assert len({share.random_seed for share in work}) == len(work)
    assert len(shares(command.FORMATS, command.ENGINES[:2], 3, 0)) == 3


def test_a_run_counts_keeps_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segmenter, "labels", crash)
    seed = make_seed("mha")
    at_work = Run(seed, tmp_path / "worker", tmp_path / "findings", 5, FAR)
    files = {"scan.mha": seed.files["scan.mha"].replace(b"Offset = -120", b"Offset = -121")}
    at_work.take(seed.files)  # it is not hostile
    at_work.take(files)
    at_work.take(files)
    assert at_work.tally.scans == 1
    by_hypothesis(at_work, 0)
    kept = campaign.Tally.read(tmp_path / "worker" / campaign.TALLY)
    assert kept == at_work.tally
    assert kept.scans == 5
    assert kept.findings
    first = tmp_path / "findings" / kept.findings[0]
    assert (first / "scan.mha").read_bytes() == files["scan.mha"]
    assert "ZeroDivisionError: planted" in first.with_name(f"{first.name}.txt").read_text()
    assert at_work.ended
    assert Run(seed, tmp_path / "other", tmp_path / "findings", 5, 0.0).ended


CRASHING = """
import os, sys, time
from pathlib import Path
from tests.fuzz.tally import TALLY, TARGETS, Tally
form, engine, count, seed, folder, findings, until = sys.argv[1:]
case = Path(folder) / TARGETS / "case"
case.mkdir(parents=True)
(case / "scan.mha").write_bytes(b"the one")
if int(seed) >= 1000:
    Tally(scans=int(count)).write(Path(folder) / TALLY)
    sys.exit()
Tally(scans=2).write(Path(folder) / TALLY)
END
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), 11)", "ended the process with SIGSEGV"),
        ("os._exit(3)", "ended the process with status 3"),
        ("time.sleep(60)", "no end after 1 s"),
    ],
)
def test_a_scan_that_ends_its_worker_is_kept_and_the_rest_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    monkeypatch.setattr(campaign, "WORKER", (sys.executable, "-c", CRASHING.replace("END", end)))
    monkeypatch.setattr(campaign, "HANG_S", 1.0)
    ((_, tally),) = run([Share("mha", "hypothesis", 10, 0)], tmp_path, jobs=1, until=FAR)
    assert tally.scans == 10
    (name,) = tally.findings
    assert (tmp_path / "findings" / name / "scan.mha").read_bytes() == b"the one"
    assert said in (tmp_path / "findings" / f"{name}.txt").read_text()


def test_a_worker_that_does_nothing_ends_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "WORKER", (sys.executable, "-c", "print('no module')"))
    with pytest.raises(RuntimeError, match="did nothing: no module"):
        list(run([Share("mha", "hypothesis", 10, 0)], tmp_path, jobs=1, until=FAR))


def test_both_engines_in_one_process(tmp_path: Path) -> None:
    ((_, tally),) = run([Share("nii", "both", 6, 0)], tmp_path, jobs=1, until=FAR)
    assert tally.scans == 6
    assert tally.findings == []


def test_a_campaign_of_both_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scans", "8", "--formats", "nii", "--out", str(tmp_path / "fuzz")]
    monkeypatch.setattr(sys, "argv", ["fuzz", *options])
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| nii | hypothesis | 4 |")
    assert lines[3].startswith("| nii | atheris | 4 |")
    assert lines[4].startswith("| all |  | 8 |")


PLANTED = """
import voxelcore._core as core

def uniform(**arguments):
    raise ZeroDivisionError("planted")

core.uniform = uniform
from tests.fuzz.kernels import fuzz
fuzz("uniform", 200)
"""


def test_a_kernel_that_answers_otherwise_is_found(tmp_path: Path) -> None:
    def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert ended("-m", "tests.fuzz.kernels", "--kernel", "uniform", "--runs", "200").returncode == 0
    planted = ended("-c", PLANTED)
    assert planted.returncode != 0
    assert "ZeroDivisionError: planted" in planted.stderr + planted.stdout
    assert list((tmp_path / "build" / "fuzz-kernels").glob("uniform-*"))
