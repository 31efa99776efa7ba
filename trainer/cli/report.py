"""Make one HTML page of a training and its scores. It opens without a network and holds the scans that it shows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from algorithm.errors import InputError
from trainer.report import CASES, write_report

EXAMPLE = "decathlon report RUN SCORES --out report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("training", type=Path, metavar="RUN", help="the folder of `decathlon train`")
    parser.add_argument("scores", type=Path, metavar="SCORES", help="the folder of `decathlon evaluate`")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the page, such as report.html"
    )
    parser.add_argument(
        "--cases",
        type=int,
        default=CASES,
        metavar="N",
        help=f"scans in the viewer, the worst ones and the best (default: {CASES}, about 3 MB each; 0: none)",
    )
    parser.add_argument(
        "--channel",
        type=int,
        default=0,
        metavar="N",
        help="which channel of images of several, as MR tasks have, is shown (default: 0, the first)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the page."""
    if args.cases < 0:
        raise InputError(f"--cases must be at least 0, got {args.cases}")
    if args.channel < 0:
        raise InputError(f"--channel must be at least 0, got {args.channel}")
    write_report(args.training, args.scores, args.out, cases=args.cases, channel=args.channel)
    sys.stdout.write(f"{args.out}\n")
