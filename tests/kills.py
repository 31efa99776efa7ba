"""Kills verbs at random moments, lets the same command go on, and compares what they leave with an undisturbed run.

`python -m tests.kills` (`make kills`) prints the table of docs/RELIABILITY.md. Every process, also a search's workers,
is forked from this one, in which PyTorch is imported already, so that kills strike the work and not the import.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.backends.backend_agg  # noqa: F401 # imported once, as all that follows
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
from tests.verbs import Job, contents, differences, jobs
from trainer.cli import main as decathlon
from trainer.search.slot import Slot


def begin(arguments: list[str], log: Path) -> int:
    """Start a verb in a process group of its own; return its process."""
    process = os.fork()
    os.setpgid(process, process)  # by both, since either may come first
    if process:
        return process
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
            os.closerange(3, 1 << 10)  # as exec does, the search's lock among them
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
        todo = jobs(root, lambda arguments: run(arguments, root / "log"))
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
