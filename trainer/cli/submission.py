"""Check the predictions of the test cases and zip them for the Decathlon's leaderboard.

PRED is the folder of one task's label maps, or a folder of such folders called TaskNN_Name. Every test case of
each dataset.json must be there and no other, on the grid of its image and with its labels only. What is wrong is
listed in full, and then nothing is written. A killed run continues with the same command.

The leaderboard appears to want all ten tasks. With --fill-empty, each task of --dataset that has no predictions
gets label maps of nothing but background, and ZIP's manifest, written beside it, says so.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from algorithm.errors import printable
from trainer.cli import positive
from trainer.submission import SubmissionError, manifest_of, remarks, summary, write_submission

EXAMPLE = (
    "decathlon submission PRED --dataset DATA/Task07_Pancreas --out submission.zip\n"
    "  decathlon submission PRED --dataset DATA --fill-empty --out submission.zip    # all ten tasks"
)

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "predictions",
        type=Path,
        metavar="PRED",
        help="a folder with a label map for every test case, or one of folders called TaskNN_Name",
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the task folder with its test images, or the folder of several",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ZIP", help="the file to write")
    parser.add_argument(
        "--fill-empty",
        action="store_true",
        help="make empty label maps for tasks of --dataset without predictions (they score 0)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="cases at once (default: one a core)")


def run(args: argparse.Namespace) -> None:
    """Check, write, and say what the leaderboard wants besides."""
    try:
        entries = write_submission(
            args.predictions, args.dataset, args.out, fill_empty=args.fill_empty, threads=args.threads
        )
    except SubmissionError as error:
        sys.stdout.write("".join(f"{printable(str(problem))}\n" for problem in error.problems))
        raise
    for task in summary(entries):
        sys.stdout.write(f"{task.name}: {task.cases} cases{', filled empty' if task.filled else ''}\n")
    for remark in remarks(entries):
        log.warning("%s", remark)
    size = args.out.stat().st_size / 1e6
    sys.stdout.write(
        f"{args.out}: {len(entries)} cases, {size:.1f} MB; manifest in {manifest_of(args.out)}\n"
    )
