"""Check the predictions of the test cases and zip them for the Decathlon's leaderboard.

Every test case of dataset.json must be there and no other, on the grid of its image and with its labels only.
What is wrong is listed in full, and then nothing is written.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from algorithm.errors import InputError
from trainer.submission import SubmissionError, task_name, write_submission

EXAMPLE = "decathlon submission PRED --dataset DATA/Task07_Pancreas --out submission.zip"

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "predictions", type=Path, metavar="PRED", help="a folder with a label map for every test case"
    )
    parser.add_argument(
        "--dataset", type=Path, required=True, metavar="FOLDER", help="the task folder with its test images"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ZIP", help="the file to write")
    parser.add_argument("--threads", type=int, metavar="N", help="cases at once (default: one a core)")


def run(args: argparse.Namespace) -> None:
    """Check, write, and say what the leaderboard wants besides."""
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be at least 1, got {args.threads}")
    try:
        entries = write_submission(args.predictions, args.dataset, args.out, threads=args.threads)
    except SubmissionError as error:
        sys.stdout.write("".join(f"{problem}\n" for problem in error.problems))
        raise
    empty = [entry.case for entry in entries if entry.empty]
    if empty:
        log.warning("background only in %d cases: %s", len(empty), ", ".join(empty))
    log.warning(
        "the leaderboard is believed to want the folders of all ten tasks in one zip; its importer strips a "
        "single common parent folder, so a zip of %s alone loses that folder's name",
        task_name(args.dataset),
    )
    size = args.out.stat().st_size / 1e6
    sys.stdout.write(f"{args.out}: {len(entries)} cases of {task_name(args.dataset)}, {size:.1f} MB\n")
