"""`decathlon prepare` as a whole: what it writes, what it keeps, and that a kill changes nothing."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk

import trainer.prepare
from algorithm.errors import InputError
from algorithm.lock import alone_in
from trainer.cli import main
from trainer.dataset import Dataset
from trainer.patches import PatchFile, PatchMeta
from trainer.prepare import prepare, resolve_quotas
from trainer.presets import PreparePreset
from trainer.split import first_share

from .conftest import MakeTask, write_nifti

PRESET = PreparePreset(
    spacing_zyx_mm=(2.5, 0.8, 0.8),
    window_hu=(-100, 200),
    patch_shape_zyx=(16, 16, 32),
    train_patches=60,
    val_patches=20,
    quotas={"1": 0.6, "cancer": 0.5},
    seed=4,
)
SHAPES = [(24, 60, 72), (11, 48, 64), (40, 64, 88), (20, 44, 60)]  # the second is thinner than a patch
PATCH_BYTES = 3 * 16 * 16 * 32


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.prepare, "SHARD_BYTES", 7 * PATCH_BYTES)


@pytest.fixture
def command_logs() -> Iterator[None]:
    """Give the root logger back its handlers, which the command replaces."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def prepared(folder: Path, work: Path, preset: PreparePreset = PRESET, threads: int = 2) -> PatchMeta:
    dataset = Dataset.read(folder)
    split = first_share([case.name for case in dataset.training])
    training, _ = prepare(dataset, work, preset, split, threads=threads)
    return training


def contents(work: Path) -> dict[str, bytes]:
    return {name: (work / name).read_bytes() for name in ("train.h5", "val.h5", "split.json")}


def test_patches_are_cut_from_the_volumes_and_padded_with_edges(make_task: MakeTask, tmp_path: Path) -> None:
    meta = prepared(make_task(SHAPES), tmp_path / "work")
    assert meta.training_cases == ("pancreas_000", "pancreas_001", "pancreas_002")
    assert meta.validation_cases == ("pancreas_003",)
    margin = 8
    seen = set()
    for name in ("train.h5", "val.h5"):
        cases = PatchFile(tmp_path / "work" / name).meta.cases
        with h5py.File(tmp_path / "work" / name) as file:
            for image, label, case, start in zip(
                *(file[key][:] for key in ("image", "label", "case", "start_zyx")), strict=True
            ):
                volume = tmp_path / "work" / "volumes" / cases[case]
                box = tuple(
                    slice(low + margin, low + margin + size)
                    for low, size in zip(start, (16, 16, 32), strict=True)
                )
                wide = np.pad(np.load(volume / "image.npy")[0], margin, mode="edge")
                np.testing.assert_array_equal(image[0], wide[box])
                np.testing.assert_array_equal(
                    label, np.pad(np.load(volume / "label.npy"), margin, mode="edge")[box]
                )
                seen.add((name, cases[case], int(start[0]) < 0))
    assert ("train.h5", "pancreas_001", True) in seen
    assert len(seen) == 4


def test_statistics_and_quotas_are_those_of_the_patches(make_task: MakeTask, tmp_path: Path) -> None:
    meta = prepared(make_task(SHAPES), tmp_path / "work")
    with h5py.File(tmp_path / "work" / "train.h5") as file:
        images, labels = file["image"][:].astype(np.float64), file["label"][:]
    assert images.min() == -100
    assert images.max() == 200
    np.testing.assert_allclose(meta.mean, [images.mean()], rtol=1e-14)
    np.testing.assert_allclose(meta.std, [images.std()], rtol=1e-13)
    assert meta.class_voxels == tuple(np.bincount(labels.ravel(), minlength=3))
    held = tuple(int(np.any(labels == value, axis=(1, 2, 3)).sum()) for value in (1, 2))
    assert meta.quota_labels == (1, 2)
    assert meta.quota_shares == (0.6, 0.5)
    assert meta.quota_held == held
    assert held[0] >= 36
    assert held[1] >= 30
    assert meta.quota_natural[1] < 30
    validation = PatchFile(tmp_path / "work" / "val.h5").meta
    assert (validation.mean, validation.std, validation.class_voxels) == (
        meta.mean,
        meta.std,
        meta.class_voxels,
    )
    assert (validation.role, validation.patches, len(PatchFile(tmp_path / "work" / "val.h5"))) == (
        "validation",
        20,
        20,
    )
    assert validation.quota_held[1] >= 10


def test_threads_and_place_do_not_change_a_byte(make_task: MakeTask, tmp_path: Path) -> None:
    folder = make_task(SHAPES)
    prepared(folder, tmp_path / "one", threads=1)
    moved = shutil.copytree(folder, tmp_path / "moved" / folder.name)
    prepared(moved, tmp_path / "three", threads=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        ".lock", "split.json", "train.h5", "val.h5", "volumes",
    ]  # fmt: skip


def test_seed_and_source_change_the_patches(make_task: MakeTask, tmp_path: Path) -> None:
    folder, work = make_task(SHAPES), tmp_path / "work"
    first = prepared(folder, work)
    before = contents(work)
    assert prepared(folder, work, replace(PRESET, seed=5)).dataset_hash == first.dataset_hash
    assert contents(work)["train.h5"] != before["train.h5"]
    write_nifti(folder / "imagesTr" / "pancreas_000.nii.gz", np.zeros(SHAPES[0], np.int16))
    assert prepared(folder, work).dataset_hash != first.dataset_hash


def test_what_is_there_is_kept_and_what_differs_is_said(
    make_task: MakeTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, work = make_task(SHAPES), tmp_path / "work"
    prepared(folder, work)
    before = {name: (work / name).stat().st_ino for name in ("train.h5", "val.h5")}
    with caplog.at_level(logging.INFO):
        prepared(folder, work)
    assert {name: (work / name).stat().st_ino for name in before} == before
    assert "train.h5 is kept: it holds the 60 patches asked for" in caplog.messages
    caplog.clear()
    prepared(folder, work, replace(PRESET, val_patches=10))
    assert (work / "train.h5").stat().st_ino == before["train.h5"]
    assert caplog.messages == ["val.h5 is written again: patches was 20, is 10"]
    caplog.clear()
    prepared(folder, work, replace(PRESET, val_patches=10, window_hu=(-50, 50)))
    assert caplog.messages == [
        f"{name} is written again: window_hu was (-100, 200), is (-50, 50)" for name in before
    ]
    assert np.load(work / "volumes" / "pancreas_000" / "image.npy").max() == 50
    caplog.clear()
    (work / "val.h5").write_bytes(b"")
    prepared(folder, work, replace(PRESET, val_patches=10, window_hu=(-50, 50)))
    assert "val.h5 is not a readable HDF5 file" in caplog.messages[0]


def test_a_stale_file_never_lies_beside_a_fresh_one(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, work = make_task(SHAPES), tmp_path / "work"
    prepared(folder, work)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.prepare, "merge_shards", fail)
    with pytest.raises(OSError, match="No space left"):
        prepared(folder, work, replace(PRESET, seed=9))
    assert not (work / "train.h5").exists()
    assert not (work / "val.h5").exists()


def test_a_second_run_in_the_same_folder_is_refused(make_task: MakeTask, tmp_path: Path) -> None:
    folder, work = make_task(SHAPES[:2]), tmp_path / "work"
    with (
        alone_in(work, "decathlon prepare"),
        pytest.raises(InputError, match=r"decathlon prepare \(process \d+ on .* is at work in"),
    ):
        prepared(folder, work)
    prepared(folder, work)


@pytest.mark.parametrize(
    ("quotas", "message"),
    [
        ({"3": 0.1}, r"one of the labels 1 \(pancreas\), 2 \(cancer\), got 3; drop it by --quota 3=0"),
        ({"cancr": 0.1}, r"got cancr, did you mean cancer\?"),
        ({"0": 0.1}, r"one of the labels 1 \(pancreas\)"),
        ({"background": 0.1}, r"one of the labels 1 \(pancreas\)"),
        ({"1": 0.1, "pancreas": 0.2}, r"the label 1 \(pancreas\) has two quotas"),
    ],
)
def test_quotas_for_unknown_labels_are_refused(quotas: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_quotas(quotas, ("background", "pancreas", "cancer"))


def test_quotas_by_name_and_value_and_without_share() -> None:
    quotas = {"cancer": 0.5, "1": 0.25, "7": 0.0}
    assert resolve_quotas(quotas, ("background", "pancreas", "cancer")) == {2: 0.5, 1: 0.25}


def test_images_outside_the_window_are_refused(make_task: MakeTask, tmp_path: Path) -> None:
    folder = make_task([(16, 16, 32)] * 2)
    for path in (folder / "imagesTr").iterdir():
        write_nifti(path, np.full((16, 16, 32), -1024, np.int16))
    with pytest.raises(InputError, match=r"all of one value, -100: window_hu \(-100, 200\) lies outside"):
        prepared(folder, tmp_path / "work")
    assert not (tmp_path / "work" / "train.h5").exists()


ARGUMENTS = [
    "--patch-shape-zyx", "16", "16", "32", "--train-patches", "60", "--val-patches", "20",
    "--quota", "1=0.6", "--quota", "cancer=0.5", "--seed", "4", "--threads", "2",
]  # fmt: skip


@pytest.mark.usefixtures("command_logs")
def test_the_command_does_the_same_and_sums_up(
    make_task: MakeTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_task(SHAPES)
    prepared(folder, tmp_path / "library")
    assert main(["prepare", str(folder), "--out", str(tmp_path / "command"), *ARGUMENTS]) == 0
    assert contents(tmp_path / "command") == contents(tmp_path / "library")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("training: 60 patches from 3 cases, ")
    assert "hold cancer (quota 0.5, " in lines[0]
    assert lines[1].startswith("validation: 20 patches from 1 cases, ")
    assert lines[2].startswith("training patches: mean ")


@pytest.mark.usefixtures("command_logs")
def test_one_case_on_both_sides_only_when_asked(
    make_task: MakeTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, work = make_task(SHAPES[:1]), tmp_path / "work"
    command = ["prepare", str(folder), "--out", str(work), *ARGUMENTS]
    assert main(command) == 1
    assert "pass --overfit" in capsys.readouterr().err.splitlines()[-1]
    assert not work.exists()
    assert main([*command, "--overfit"]) == 0
    assert "OVER-FIT CHECK: 1 of 1 validation cases are trained on too" in capsys.readouterr().err
    training, validation = PatchFile(work / "train.h5"), PatchFile(work / "val.h5")
    assert training.meta.overfit
    assert training.meta.training_cases == validation.meta.validation_cases == ("pancreas_000",)
    assert json.loads((work / "split.json").read_text())["validation"] == ["pancreas_000"]
    assert (training.start_zyx[:20] != validation.start_zyx).any()


@pytest.mark.usefixtures("command_logs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "papr"], "did you mean paper?"),
        (["--quota", "1"], "--quota must be LABEL=SHARE, such as 1=0.3, got 1"),
        (["--quota", "1=x"], "--quota must be LABEL=SHARE, such as 1=0.3, got 1=x"),
        (["--quota", "1=2"], "a quota must be a share from 0 to 1, got 2.0 for label 1"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--window-hu", "5", "5"], "window_hu must be LOW < HIGH"),
        (["--split", "none.json"], "the split file none.json cannot be read"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    make_task: MakeTask,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    work = tmp_path / "work"
    assert main(["prepare", str(make_task(SHAPES[:2])), "--out", str(work), *arguments]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("decathlon prepare: ")
    assert message in error[0]
    assert not work.exists()


@pytest.mark.usefixtures("command_logs")
def test_bad_data_end_in_one_sentence_and_nothing_half_written(
    make_task: MakeTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, work = make_task(SHAPES), tmp_path / "work"
    write_nifti(folder / "labelsTr" / "pancreas_002.nii.gz", np.full(SHAPES[2], 9, np.uint8))
    assert main(["prepare", str(folder), "--out", str(work), *ARGUMENTS]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "decathlon prepare: label values must be 0 to 2 as dataset.json names them, but 9 is in "
    )
    assert "pancreas_002.nii.gz" in last
    assert {path.name for path in work.iterdir()} == {".lock", "volumes"}
    assert not {path.name for path in (work / "volumes").iterdir()} & {"pancreas_002"}


# Runs the command and kills itself just before, or just after, the n-th file is renamed into its place.
KILLED = """
import os, pathlib, signal, sys
import trainer.prepare
from trainer.cli import main

trainer.prepare.SHARD_BYTES = int(sys.argv.pop(1))
when, count = sys.argv.pop(1), int(sys.argv.pop(1))

def counted(rename):
    def renaming(*places):
        global count
        count -= 1
        if count == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*places)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return renaming

os.replace = counted(os.replace)
sys.exit(main(sys.argv[1:]))
"""


def run_until(
    folder: Path, work: Path, when: str, count: int, **options: object
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(7 * PATCH_BYTES), when, str(count)]
    return subprocess.run(
        [*command, "prepare", str(folder), "--out", str(work), *ARGUMENTS],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_killed_at_every_kind_of_moment_and_continued(make_task: MakeTask, tmp_path: Path) -> None:
    folder, work = make_task(SHAPES), tmp_path / "killed"
    prepared(folder, tmp_path / "undisturbed")
    chance = random.Random(0)
    kills = 0
    # 4 volumes, the split, 9 + 3 shards and 2 files are renamed.
    while (
        run_until(folder, work, chance.choice(["before", "after"]), chance.randint(2, 4)).returncode
        == -signal.SIGKILL
    ):
        kills += 1
        assert kills < 40
        for name in ("train.h5", "val.h5"):
            assert not (work / name).exists() or PatchFile(work / name).meta.patches in (60, 20)
    assert kills >= 4
    assert contents(work) == contents(tmp_path / "undisturbed")
    assert sorted(path.name for path in work.iterdir()) == [
        ".lock",
        "split.json",
        "train.h5",
        "val.h5",
        "volumes",
    ]
    assert len(list((work / "volumes").iterdir())) == 4


def test_killed_by_the_clock_and_continued(make_task: MakeTask, tmp_path: Path) -> None:
    folder, work = make_task(SHAPES), tmp_path / "killed"
    prepared(folder, tmp_path / "undisturbed")
    command = [sys.executable, "-c", KILLED, str(PATCH_BYTES), "never", "0"]
    command += ["prepare", str(folder), "--out", str(work), *ARGUMENTS]
    chance = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0.5, 1.5))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert contents(work) == contents(tmp_path / "undisturbed")


def test_memory_is_bounded(tmp_path: Path, make_task: MakeTask) -> None:
    shape = (40, 200, 200)  # 3.2 MB of image and 1.6 MB of labels
    folder = make_task([(8, 24, 24)] * 24, suffix=".nii")
    noise = np.random.default_rng(0).integers(-100, 200, shape).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[20:24, 100:120, 100:120] = 1
    for number in range(24):
        write_nifti(folder / "imagesTr" / f"pancreas_{number:03d}.nii", noise + number)
        write_nifti(folder / "labelsTr" / f"pancreas_{number:03d}.nii", labels)
    script = """
import pathlib, re, sys
import trainer.prepare
from trainer.cli import main
import trainer.cli.prepare

trainer.prepare.SHARD_BYTES = 4 * 2**20
def peak():  # unlike ru_maxrss, not inherited from the parent
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
main(sys.argv[1:])
sys.stderr.write(str(peak() - before))
"""
    command = ["prepare", str(folder), "--out", str(tmp_path / "work"), "--patch-shape-zyx", "16", "64", "64"]
    command += ["--train-patches", "900", "--val-patches", "50", "--threads", "2"]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=True
    )
    volumes = sum(path.stat().st_size for path in (tmp_path / "work" / "volumes").rglob("*.npy"))
    patches = 950 * 3 * 16 * 64 * 64
    assert volumes > 110e6
    assert patches > 180e6
    # Two cases of 5 MB in hand, in several copies; neither all volumes nor all patches.
    assert int(done.stderr.splitlines()[-1]) * 1024 < 55e6


def test_a_real_scan_as_a_one_case_data_set(real_data: Path, tmp_path: Path) -> None:
    source, folder = real_data / "abdomen_crlm_1004", tmp_path / "Task07_Pancreas"
    description = {
        "name": "One",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": [],
    }
    for part, file in (("imagesTr", "tiny_ct.nii.gz"), ("labelsTr", "tiny_pancreas_auto.nii.gz")):
        (folder / part).mkdir(parents=True)
        (folder / part / "a.nii.gz").symlink_to(source / file)
    (folder / "dataset.json").write_text(json.dumps(description))
    preset = replace(PRESET, patch_shape_zyx=(64, 64, 64), quotas={"pancreas": 1.0})
    training, _ = prepare(Dataset.read(folder), tmp_path / "work", preset, first_share(["a"], overfit=True))
    image, labels = (sitk.ReadImage(str(folder / part / "a.nii.gz")) for part in ("imagesTr", "labelsTr"))
    volume = tmp_path / "work" / "volumes" / "a"
    millilitres = np.count_nonzero(sitk.GetArrayFromImage(labels)) * np.prod(labels.GetSpacing()) / 1000
    resampled = np.load(volume / "label.npy")
    spacing_mm = np.array(image.GetSize()[::-1]) * image.GetSpacing()[::-1] / resampled.shape
    np.testing.assert_allclose(spacing_mm, (2.5, 0.8, 0.8), rtol=0.02)
    assert np.count_nonzero(resampled) * np.prod(spacing_mm) / 1000 == pytest.approx(millilitres, rel=0.03)
    assert -100 <= training.mean[0] <= 200
    assert training.quota_held == (60,)
    starts = PatchFile(tmp_path / "work" / "train.h5").start_zyx
    assert set(starts[:, 0]) == {-((64 - resampled.shape[0]) // 2)}
