"""Kills verbs at random moments, lets the same command go on, and compares what they leave with an undisturbed run.

`python -m tests.kills` (`make kills`) prints the table of docs/RELIABILITY.md. Every process, also a search's workers,
is forked from this one, in which PyTorch is imported already, so that kills strike the work and not the import.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib.backends.backend_agg  # noqa: F401 # imported once, as all that follows
import numpy as np
import torch
import torch._dynamo  # which optimisers import
import torch.utils.tensorboard

import trainer.cli.evaluate
import trainer.cli.predict
import trainer.cli.prepare
import trainer.cli.search
import trainer.cli.submission
import trainer.cli.train
import trainer.prepare
import trainer.search.search
import trainer.search.worker
import trainer.train
import trainer.watch
from tests.bundles import write_random_bundle
from tests.decathlon import write
from tests.trainer.conftest import LABELS, small_case
from tests.trainer.runs import arguments as train_arguments
from tests.trainer.searching import write_space
from trainer.cli import main as decathlon
from trainer.search.slot import Slot

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


def jobs(root: Path) -> dict[str, Job]:
    """Make what the verbs work on in `root`; return the verbs' jobs."""
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

    if run(prepare(work), root / "log") != 0:
        raise RuntimeError((root / "log").read_text())
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


def begin(arguments: list[str], log: Path) -> int:
    """Start a verb in a process group of its own; return its process."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(written, 1)
    os.dup2(written, 2)
    status = 1
    try:
        trainer.prepare.SHARD_BYTES = 8 * 3 * 16 * 16 * 32  # several shards
        Slot._start = lambda self: Worker(self.log)  # type: ignore[assignment, return-value, method-assign]
        status = decathlon(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


class Worker:
    """A search's worker as `subprocess.Popen` has it, but forked: what it runs is `trainer.search.worker` all the same.

    Its session is its own, and a kill of the search's group leaves it to notice by itself that the search is gone.
    """

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        to_read, to_write = os.pipe()
        answers, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(to_read, 0)
            os.dup2(answer, 1)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            for pipe in (to_read, to_write, answers, answer):
                os.close(pipe)
            try:
                trainer.search.worker.main()
            finally:
                os._exit(1)
        os.close(to_read)
        os.close(answer)
        self.stdin, self.stdout = os.fdopen(to_write, "w"), os.fdopen(answers)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def end(process: int, seconds: float) -> int | None:
    """Return the exit status of a process; None where it was killed, with its group, after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return None if status == -signal.SIGKILL else status


def run(arguments: list[str], log: Path) -> int | None:
    """Run a verb to its end."""
    return end(begin(arguments, log), 600)


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


@dataclass
class Result:
    """What came of a verb."""

    kills: int
    rounds: int
    runs: int
    different: list[str]
    seconds: float


def kill(name: str, job: Job, root: Path, *, kills: int, seed: int) -> Result:
    """Kill a verb in `kills` rounds, up to `job.most` times each, and compare what it leaves at last."""
    chance = random.Random(f"{seed} {name}")
    took, references = [], []
    for number in range(2):
        out, log = root / f"{name}_{number}", root / f"{name}_{number}.log"
        out.mkdir()
        began = time.monotonic()
        status = run(job.arguments(out), log)
        took.append(time.monotonic() - began)
        if status != 0:
            raise RuntimeError(f"{name} ended with {status}: {log.read_text()}")
        references.append(contents(out, job))
    if wrong := differences(*references):
        raise RuntimeError(f"two undisturbed runs of {name} differ in {wrong}")
    result = Result(0, 0, 0, [], statistics.median(took))
    while result.rounds < kills:
        out, log = root / f"{name}_killed", root / f"{name}_killed.log"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        struck = 0
        for _ in range(chance.randint(1, job.most)):
            result.runs += 1
            status = end(begin(job.arguments(out), log), chance.uniform(0, result.seconds))
            if status is not None:
                if status != 0:
                    result.different.append(f"{name} ended with {status}: {log.read_text()}")
                break
            struck += 1
        if struck == 0:
            continue  # it was done before its moment: another one
        result.kills += struck
        result.rounds += 1
        result.runs += 1
        status = run(job.arguments(out), log)
        if status != 0:
            result.different.append(f"{name} ended with {status}: {log.read_text()}")
        elif wrong := differences(references[0], contents(out, job)):
            result.different.append(f"round {result.rounds}: {', '.join(wrong)}")
    shutil.rmtree(out, ignore_errors=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verbs", nargs="*", help="which (default: all)")
    parser.add_argument(
        "--kills", type=int, default=50, help="rounds a verb, each with one kill at least (50)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(f"seed {args.seed}, PyTorch {torch.__version__}\n\n")
    sys.stdout.write("| verb | rounds | kills | runs | differences | undisturbed, s | not compared |\n")
    sys.stdout.write("|---|---:|---:|---:|---:|---:|---|\n")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        todo = jobs(root)
        for name in args.verbs or todo:
            result = kill(name, todo[name], root, kills=args.kills, seed=args.seed)
            sys.stdout.write(
                f"| `{name}` | {result.rounds} | {result.kills} | {result.runs} | {len(result.different)} "
                f"| {result.seconds:.1f} | {todo[name].why} |\n"
            )
            sys.stdout.flush()
            for difference in result.different:
                failed = True
                sys.stderr.write(f"{name}: {difference}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
