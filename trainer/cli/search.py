"""Search for settings: trials train a little, the best are confirmed with other seeds; writes SEARCH/report.html.

The first trials are random, then Hyperopt's Tree-structured Parzen Estimators choose. All that happened is in
SEARCH/search.sqlite, and the same command continues a search that was stopped at any moment.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from trainer.cli import not_negative, positive

EXAMPLE = "decathlon search WORK --space paper-wce --out SEARCH"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("work", type=Path, metavar="WORK", help="folder that 'decathlon prepare' made")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="SEARCH", help="folder for all of the search"
    )
    parser.add_argument(
        "--space",
        default="paper-wce",
        help="paper-wce or paper-topk (the two searches of section 4.4), or a .toml file (default: paper-wce)",
    )
    parser.add_argument("--preset", help="what the trials train (default: what the space says)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="change single settings of the preset for all trials, e.g. precision=auto",
    )
    parser.add_argument(
        "--evaluations",
        type=positive,
        metavar="N",
        help="configurations to try (default: the space's; paper-wce 95)",
    )
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="of a trial (default: the space's; the paper 5)"
    )
    parser.add_argument(
        "--train-patches", type=positive, metavar="N", help="of a trial (default: the space's; the paper 100)"
    )
    parser.add_argument(
        "--val-patches", type=positive, metavar="N", help="of a trial (default: the space's; the paper 30)"
    )
    parser.add_argument(
        "--early-stopping",
        choices=("yes", "no"),
        help="give up hopeless trials by successive halving, ASHA (default: the space's; the paper no)",
    )
    parser.add_argument(
        "--confirm",
        type=_pair,
        metavar="KxN",
        help="train the best K again with N other seeds; 0 for none (default: 3x3, since one seed lies)",
    )
    parser.add_argument(
        "--start-from",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="try the settings of these runs first",
    )
    parser.add_argument("--seed", type=not_negative, metavar="N", help="of what is suggested (default: 0)")
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="trials side by side (default: one a GPU, else one)"
    )
    parser.add_argument("--device", help="cpu, cuda … of all trials (default: a GPU for each, else the CPU)")
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="CPU threads of a trial (default: its share of the cores)",
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="default: local, this machine alone"
    )
    parser.add_argument("--address", help="of a Ray cluster, e.g. auto (default: a new one on this machine)")
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="train the trials that failed once more, with the same parameters and seed",
    )
    parser.add_argument("--report", action="store_true", help="only write the report of what is there")


def run(args: argparse.Namespace) -> None:
    """Run the verb."""
    from trainer.search.plan import read_plan
    from trainer.search.report import write_report
    from trainer.search.search import open_search, search
    from trainer.settings import read_assignments

    if args.report:
        with open_search(args.out) as store:
            write_report(args.out, store)
    else:
        plan = read_plan(args.space, preset=args.preset, changes=read_assignments(args.set)).with_changes(
            evaluations=args.evaluations,
            epochs=args.epochs,
            train_patches=args.train_patches,
            val_patches=args.val_patches,
            early_stopping=None if args.early_stopping is None else args.early_stopping == "yes",
            confirm=args.confirm,
            seed=args.seed,
        )
        ranked = search(
            args.work,
            args.out,
            plan,
            engine=args.engine,
            jobs=args.jobs,
            device=args.device,
            threads=args.threads,
            starts=args.start_from,
            address=args.address,
            retry_failed=args.retry_failed,
        )
        for one in ranked[:3]:
            values = " ".join(
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                for name, value in one.trial.parameters.items()
            )
            interval = "" if math.isnan(one.low) else f", 95 % interval {one.low:.3f} to {one.high:.3f}"
            others = f"; other seeds {one.mean:.3f}{interval}" if one.scores else ""
            sys.stdout.write(f"trial {one.trial.number}: {values}: {one.trial.objective:.3f}{others}\n")
    sys.stdout.write(f"{args.out / 'report.html'}\n")


def _pair(text: str) -> tuple[int, int]:
    if text == "0":
        return (0, 0)
    best, separator, seeds = text.partition("x")
    if not (separator and best.isdecimal() and seeds.isdecimal() and int(best) and int(seeds)):
        raise argparse.ArgumentTypeError(
            f"must be such as 3x3, the best three with three seeds, or 0, got {text}"
        )
    return int(best), int(seeds)
