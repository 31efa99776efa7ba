"""Train the 3D U-Net on prepared patches; writes RUN/bundle, metrics.csv, curves.png and checkpoints.

The same command continues a training that was stopped at any moment.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from algorithm.errors import InputError
from trainer.cli import positive, positive_number

log = logging.getLogger(__name__)
EXAMPLE = "decathlon train WORK --preset paper --out RUN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("work", type=Path, metavar="WORK", help="folder that 'decathlon prepare' made")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder for everything that training makes"
    )
    parser.add_argument(
        "--preset",
        help="a shipped preset or a .toml file (default: paper, sections 4.1 and 4.2)",
    )
    parser.add_argument(
        "--from-search",
        type=Path,
        metavar="SEARCH",
        help="train the winner of a search in full: its preset, with the best configuration",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="change single settings of the preset, e.g. epochs=30 class_weights=[1,10] augment.noise_share=0.1",
    )
    parser.add_argument(
        "--minutes",
        type=positive_number,
        metavar="N",
        help="train as many epochs as take N minutes on this machine, by the pace of its first batches, in place of "
        "the preset's; what was begun keeps its number",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="BUNDLE",
        help="begin with the weights of this bundle, to fine-tune it, and not with random ones",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the first GPU, else the CPU)")
    parser.add_argument(
        "--threads", type=positive, help="CPU threads of the network (default: one for each core)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="fail where there is no earlier training to continue"
    )


def run(args: argparse.Namespace) -> None:
    """Run the verb."""
    from trainer.presets import read_preset
    from trainer.settings import TrainSettings, merged, read_assignments
    from trainer.train import train

    if args.from_search is not None:
        if args.preset is not None:
            raise InputError(
                f"--from-search trains the preset of its search, got --preset {args.preset} too; leave one out"
            )
        from trainer.search.search import winner

        plan, best = winner(args.from_search)
        log.info(
            "the winner of %s is trial %d: %s", args.from_search, best.trial.number, best.trial.parameters
        )
        source, table = f"the search {args.from_search}", plan.full_settings(best.trial.parameters)
    else:
        name = args.preset or "paper"
        source, table = f"preset {name}", read_preset(name).train
    changes = read_assignments(args.set)
    if args.minutes is not None and "epochs" in changes:
        raise InputError(
            f"--minutes {args.minutes:g} chooses the number of epochs, got --set epochs={changes['epochs']} too; leave "
            "one out"
        )
    settings = TrainSettings.read(merged(table, changes), source)
    train(
        args.work,
        args.out,
        settings,
        device=args.device,
        threads=args.threads,
        weights=args.weights,
        must_resume=args.resume,
        minutes=args.minutes,
    )
