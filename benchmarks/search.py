"""Trials per hour of a search beside the same trials trained one by one by hand, and whether their scores agree.

    python -m benchmarks.search WORK --space SPACE.toml --trials 6

By hand: one `decathlon train` a trial, with the trial's settings. Both use one thread, in turn, on one machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scans import make_work
from trainer.search.objective import foreground_dice
from trainer.search.plan import Plan
from trainer.search.search import open_search

SMOKE = """
epochs = 1
train_patches = 2
val_patches = 1
[settings]
base_filters = 2
[space]
dropout = ["uniform", 0.2, 0.6]
"""
COMMAND = [sys.executable, "-c", "import sys; from trainer.cli import main; sys.exit(main())"]


def timed(*arguments: str) -> tuple[float, float]:
    """Run the command; return the seconds it took, and those of processor time with all that it started."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*COMMAND, *arguments], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, processor


def by_hand(work: Path, run: Path, settings: dict[str, object]) -> tuple[float, float]:
    assignments = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    fixed = ("--preset", "paper", "--device", "cpu", "--threads", "1")
    return timed("train", str(work), *fixed, "--out", str(run), "--set", *assignments)


def best_score(run: Path, labels: list[str]) -> float:
    with (run / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return max(foreground_dice(row, labels) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, nargs="?", help="folder that 'decathlon prepare' made")
    parser.add_argument("--space", help="a .toml file")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument(
        "--smoke", action="store_true", help="one trial of an epoch on small patches of a phantom"
    )
    args = parser.parse_args()
    if not args.smoke and (args.work is None or args.space is None):
        parser.error("WORK and --space are required, or --smoke")
    with tempfile.TemporaryDirectory() as folder:
        search = Path(folder) / "search"
        if args.smoke:
            args.work, args.trials = make_work(Path(folder), small=True), 1
            args.space = str(Path(folder) / "space.toml")
            Path(args.space).write_text(SMOKE)
        options = ("--evaluations", str(args.trials), "--confirm", "0", "--device", "cpu", "--threads", "1")
        whole = timed("search", str(args.work), "--space", args.space, "--out", str(search), *options)
        with open_search(search) as store:
            trials, about = store.trials(), store.about
        plan = Plan.from_dict(about["plan"])
        hand = (0.0, 0.0)
        for trial in trials:
            run = Path(folder) / "by_hand" / trial.folder
            seconds, processor = by_hand(
                args.work, run, plan.trial_settings(trial.parameters, trial.seed).as_dict()
            )
            hand = (hand[0] + seconds, hand[1] + processor)
            score = best_score(run, about["labels"])
            assert score == trial.objective, f"trial {trial.number}: {trial.objective}, by hand {score}"
    for name, (seconds, processor) in (("search", whole), ("by hand", hand)):
        rate = 3600 * args.trials / seconds
        spent = f"{args.trials} trials in {seconds:.0f} s, {processor:.0f} s of processor time"
        sys.stdout.write(f"{name}: {spent}, {rate:.0f} an hour\n")
    shares = [f"{ours / theirs:.0%}" for ours, theirs in zip(hand, whole, strict=True)]
    sys.stdout.write(
        f"trials per hour of the search, by hand 100 %: {shares[0]}; by processor time {shares[1]}\n"
    )


if __name__ == "__main__":
    main()
