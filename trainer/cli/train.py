"""Train the 3D U-Net on prepared patches; writes RUN/bundle, metrics.csv, curves.png and checkpoints.

The same command continues a training that was stopped at any moment.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli import positive

EXAMPLE = "decathlon train WORK --preset paper --out RUN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("work", type=Path, metavar="WORK", help="folder that 'decathlon prepare' made")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder for everything that training makes"
    )
    parser.add_argument(
        "--preset",
        default="paper",
        help="a shipped preset or a .toml file (default: paper, sections 4.1 and 4.2)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="change single settings of the preset, e.g. epochs=30 class_weights=[1,10] augment.noise_share=0.1",
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

    preset = read_preset(args.preset)
    table = merged(preset.train, read_assignments(args.set))
    settings = TrainSettings.read(table, f"preset {args.preset}")
    train(args.work, args.out, settings, device=args.device, threads=args.threads, must_resume=args.resume)
