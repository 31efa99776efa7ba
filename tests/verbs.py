"""The smallest work for each verb that writes files, and what may differ in two runs of it."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.bundles import write_random_bundle
from tests.decathlon import write
from tests.trainer.conftest import LABELS, small_case
from tests.trainer.runs import arguments as train_arguments
from tests.trainer.searching import write_space
from trainer.cli import main

SHAPE = (20, 40, 44)
# What a clock says: columns of metrics.csv and trials.csv, of the store of a search, and fields of checkpoints.
TIMES = {"seconds", "waited_share", "voxels_per_s", "began", "ended", "starts", "spent_s", "waited_s"}
Contents = Mapping[str, object]


@dataclass(frozen=True)
class Job:
    """A verb's command line for an output folder, and what is not compared of its files.

    Attributes:
        arguments: of `decathlon`, for an output folder.
        excluded: pattern of the files that are never alike, by their path in the folder.
        why: the reason, for the table.
        most: kills of one round.

    """

    arguments: Callable[[Path], list[str]]
    excluded: str = r"(?!)"
    why: str = "nothing"
    most: int = 3


def jobs(root: Path, run: Callable[[list[str]], int | None] = main) -> dict[str, Job]:
    """Make what the verbs work on in `root`, by `run` of the command line; return the verbs' jobs."""
    task = _task(root / "data" / "Task07_Pancreas")
    preset = root / "tiny.toml"
    preset.write_text(
        "[prepare]\nspacing_zyx_mm = [2.5, 0.8, 0.8]\nwindow_hu = [-100, 200]\npatch_shape_zyx = [16, 16, 32]\n"
        'train_patches = 24\nval_patches = 4\nquotas = { "2" = 1.0 }\nseed = 0\n\n[train]\n'
    )
    bundle = write_random_bundle(
        root / "bundle", patch_shape_zyx=(16, 16, 16), spacing_zyx_mm=(2.5, 1.6, 1.6)
    )
    predictions = _predictions(root / "predictions")
    space = write_space(root, evaluations=2, random_first=1, epochs=2)

    def prepare(out: Path) -> list[str]:
        return ["prepare", str(task), "--preset", str(preset), "--threads", "1", "--out", str(out)]

    work = root / "work"

    def train(out: Path) -> list[str]:
        settings = {"epochs": 2, "epoch_patches": 8, "val_patches": 2, "ema": 0.9}
        every_step = {"checkpoint_minutes": 1e-9}
        return [*train_arguments(work, out, **settings, **every_step), "--threads", "1"]

    def search(out: Path) -> list[str]:
        options = ["--device", "cpu", "--threads", "1", "--confirm", "0"]
        return ["search", str(work), "--space", str(space), "--out", str(out), *options]

    def predict(out: Path) -> list[str]:
        options = ["--device", "cpu", "--probabilities", "--engine", "torch"]
        return ["predict", str(task / "imagesTs"), "--model", str(bundle), "--out", str(out), *options]

    def evaluate(out: Path) -> list[str]:
        sides = ["--reference", str(task / "labelsTr"), "--prediction", str(predictions / "training")]
        return ["evaluate", *sides, "--threads", "1", "--out", str(out)]

    def submission(out: Path) -> list[str]:
        sides = [str(predictions / "test"), "--dataset", str(task)]
        return ["submission", *sides, "--threads", "1", "--out", str(out / "submission.zip")]

    if run(prepare(work)) != 0:
        raise RuntimeError("the patches could not be prepared")
    logs = r"(trials/.*/)?(tensorboard/.*|log\.txt)|workers/.*"
    return {
        "prepare": Job(prepare),
        "train": Job(train, logs, "TensorBoard's events, times in checkpoints and metrics.csv", most=1),
        "search": Job(
            search, logs, "logs and TensorBoard's events, times in the store and its report", most=1
        ),
        "predict": Job(predict),
        "evaluate": Job(evaluate),
        "submission": Job(submission),
    }


def _task(task: Path) -> Path:
    """Write a data set of four training and four test cases, with the labels of the latter."""
    names = [f"pancreas_{number:03d}.nii.gz" for number in range(8)]
    for number, name in enumerate(names):
        image, labels = small_case(SHAPE, number)
        part = "Tr" if number < 4 else "Ts"
        write(task / f"images{part}" / name, image)
        write(task / f"labels{part}" / name, labels)
    document = {
        "name": "Pancreas",
        "modality": {"0": "CT"},
        "labels": {str(value): label for value, label in enumerate(LABELS)},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:4]],
        "test": [f"./imagesTs/{name}" for name in names[4:]],
    }
    (task / "dataset.json").write_text(json.dumps(document))
    return task


def _predictions(folder: Path) -> Path:
    """Write label maps that are a little wrong; those of test cases have to be converted for a submission."""
    for number in range(8):
        labels = np.roll(small_case(SHAPE, number)[1], 1, axis=2)
        case = f"pancreas_{number:03d}"
        if number < 4:
            write(folder / "training" / f"{case}.nii.gz", labels)
        else:
            write(folder / "test" / f"{case}.nrrd", labels.astype(np.int16))
    return folder


def contents(folder: Path, job: Job) -> Contents:
    """Return all files of a folder by path, as what is compared of them: bytes, unless they hold times."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name == ".lock" or re.fullmatch(job.excluded, name):
            continue
        found[name] = _without_times(path)
    return found


def _without_times(path: Path) -> object:
    if path.suffix == ".pt":
        return _plain(torch.load(path, weights_only=True))
    if path.name == "model.json":
        return _plain(json.loads(path.read_text()))
    if path.name in ("metrics.csv", "trials.csv"):
        rows = csv.DictReader(io.StringIO(path.read_text()))
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    if path.suffix == ".sqlite":
        return _stored(path)
    if path.name == "report.html":
        return True  # it is there; its pictures and tables are those of the store, with times
    return path.read_bytes()


def _plain(value: object) -> object:
    """Return nested containers with tensors as bytes and without times, to compare."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return repr(value)  # NaN is like NaN


def _stored(path: Path) -> object:
    """Return the trials of a search, without when and how often they began."""
    with sqlite3.connect(path) as database:
        database.row_factory = sqlite3.Row
        trials = [dict(row) for row in database.execute("SELECT * FROM trials ORDER BY number")]
        curve = database.execute("SELECT * FROM curve ORDER BY trial, epoch")
        scores = [(trial, epoch, json.loads(scores)) for trial, epoch, scores in curve]
        about = [tuple(row) for row in database.execute("SELECT * FROM about ORDER BY name")]
    return _plain([trials, scores, about])


def differences(expected: Contents, found: Contents) -> list[str]:
    """Return the paths that only one side has, or that are not alike."""
    return sorted(
        name
        for name in expected.keys() | found.keys()
        if name not in expected or name not in found or expected[name] != found[name]
    )
