"""Make a synthetic data set in Decathlon layout: DATA/Task07_Pancreas, Task01_BrainTumour or Task04_Hippocampus.

The pancreas is abdominal CT, whose volumes, spacings and slice counts follow the quantiles of the real Task07; the
brain has four MR channels, the hippocampus is a small box of MR. The labels of the test cases are kept beside them, in
labelsTs. The same seed gives the same bytes; the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from algorithm.errors import InputError
from trainer.phantom.dataset import Kind, Settings, label_summary, make_dataset, make_files, summary
from trainer.phantom.difficulty import NAMES

EXAMPLE = "decathlon phantom data --cases 24 --seed 0 --size small"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder that will hold the task")
    parser.add_argument("--kind", choices=get_args(Kind), default="pancreas", help="what is shown (pancreas)")
    parser.add_argument("--cases", type=int, default=24, help="training cases (24: enough for 18 + 6)")
    parser.add_argument("--test", type=int, default=None, help="test cases (a third of --cases)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (0)")
    parser.add_argument(
        "--size",
        choices=("full", "small"),
        default="full",
        help="full: 512 x 512 pixels as in Task07; small: about 200 x 165 x 120 mm around the pancreas, "
        "otherwise the same, for work on a CPU; of the brain voxels of 2 mm; a hippocampus is always small (full)",
    )
    parser.add_argument(
        "--anatomy",
        type=Path,
        default=None,
        metavar="LABELS",
        help="paint this label map of a real body, its names in a JSON beside it, instead of a synthetic one",
    )
    parser.add_argument(
        "--difficulty",
        choices=NAMES,
        default="plain",
        help="hard: faint, cystic and bright tumours, spots that only look like one, and outlines as unsure as a "
        "reader's, for benchmarks of accuracy (plain)",
    )
    parser.add_argument("--workers", type=int, default=None, help="processes (one a CPU core)")


def run(args: argparse.Namespace) -> None:
    """Make the data set and print its statistics."""
    test = args.cases // 3 if args.test is None else args.test
    for name, value, least in (("--cases", args.cases, 1), ("--test", test, 0), ("--seed", args.seed, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}.")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers must be at least 1, got {args.workers}.")
    if args.anatomy is not None and args.kind != "pancreas":
        raise InputError(
            f"--anatomy paints a body on CT, and has no --kind {args.kind}: leave one of them out."
        )
    if args.difficulty != "plain" and (args.anatomy is not None or args.kind != "pancreas"):
        raise InputError(
            f"--difficulty {args.difficulty} is of the synthetic pancreas: leave out --anatomy and --kind."
        )
    settings = Settings(
        seed=args.seed, size=args.size, anatomy=args.anatomy, kind=args.kind, difficulty=args.difficulty
    )
    if args.kind != "pancreas":
        folder, labels = make_files(
            args.data, settings=settings, training=args.cases, test=test, workers=args.workers
        )
        sys.stdout.write(f"{label_summary(labels, args.kind)}\n")
        sys.stdout.write(f"{folder}: {args.cases} training and {test} test cases\n")
        return
    folder, measured = make_dataset(
        args.data, settings=settings, training=args.cases, test=test, workers=args.workers
    )
    sys.stdout.write(f"{summary(measured)}\n{folder}: {args.cases} training and {test} test cases\n")
