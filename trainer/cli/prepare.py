"""Turn a Decathlon data set into two patch files, OUT/train.h5 and OUT/val.h5.

Every case is brought to one orientation and spacing, clipped, and kept in OUT/volumes; patches are then drawn from
the cases on either side of the split. A run that was killed continues with the same command, and a run with other
settings rebuilds what they change.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from algorithm.errors import InputError
from trainer.dataset import Dataset
from trainer.patchfile import PatchMeta
from trainer.prepare import prepare
from trainer.presets import PreparePreset, preset_names, read_preset
from trainer.split import Split, first_share, read_split

EXAMPLE = "decathlon prepare DATA/Task07_Pancreas --out WORK --preset paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; those left out come from the preset."""
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="folder of one task, with dataset.json in it")
    add("--out", type=Path, required=True, metavar="WORK", help="folder for volumes and patch files")
    add(
        "--preset",
        default="paper",
        metavar="NAME",
        help=f"{', '.join(preset_names())}, or a .toml file; default: paper, the settings that were published",
    )
    add(
        "--split",
        type=Path,
        metavar="FILE",
        help='JSON {"training": [case names], "validation": [case names], "unused": [case names]}; default: the '
        "first 210 of 281 cases of dataset.json train, as in the paper, and the same share of any other number",
    )
    add(
        "--overfit",
        action="store_true",
        help="let training and validation share cases (without --split: all of them), to check the path on very few "
        "cases; default: refused, since such scores say nothing about accuracy",
    )
    add(
        "--spacing-zyx-mm",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="grid spacing; default: the preset's (paper: 2.5 0.8 0.8, close to the mean of the scans)",
    )
    add(
        "--window-hu",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values outside are clipped; default: the preset's (paper: -100 200, from fat to just below bone)",
    )
    add(
        "--patch-shape-zyx",
        type=int,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="voxels of a patch; default: the preset's (paper: 64 128 128, the most that memory allowed at batch 2)",
    )
    add(
        "--train-patches",
        type=int,
        metavar="N",
        help="default: the preset's (paper: 8000, about 38 from each of 210 cases)",
    )
    add(
        "--val-patches",
        type=int,
        metavar="N",
        help="default: the preset's (paper: 2000, a quarter of the training patches)",
    )
    add(
        "--quota",
        action="append",
        metavar="LABEL=SHARE",
        help="least share of patches that hold a label, by value or name, such as 1=0.3; may be repeated; adds to "
        "the preset's or changes it, and share 0 drops it; default: the preset's (paper: 1=0.3; more would make the "
        "patches unlike the scans that are to be segmented)",
    )
    add("--seed", type=int, metavar="N", help="the only source of chance; default: the preset's (0)")
    add("--threads", type=int, metavar="N", help="default: every core; the result does not depend on it")


def run(args: argparse.Namespace) -> None:
    """Prepare, and say on stdout what came out."""
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be at least 1, got {args.threads}")
    preset = _settings(read_preset(args.preset).prepare, args)
    dataset = Dataset.read(args.dataset)
    split = _split([case.name for case in dataset.training], args)
    training, validation = prepare(dataset, args.out, preset, split, threads=args.threads)
    for meta in (training, validation):
        sys.stdout.write(_summary(meta) + "\n")
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (training.mean, training.std))
    sys.stdout.write(f"training patches: mean {mean} HU, standard deviation {std} HU\n")


def _settings(preset: PreparePreset, args: argparse.Namespace) -> PreparePreset:
    given: dict[str, Any] = {}
    for field in dataclasses.fields(PreparePreset):
        value = getattr(args, field.name, None)
        if value is not None:
            given[field.name] = tuple(value) if isinstance(value, list) else value
    quotas = dict(preset.quotas)
    for text in args.quota or ():
        label, equals, share = text.rpartition("=")
        try:
            quotas[label] = float(share)
        except ValueError:
            equals = ""
        if not equals or not label:
            raise InputError(f"--quota must be LABEL=SHARE, such as 1=0.3, got {text}")
    return dataclasses.replace(preset, **given, quotas=quotas)


def _split(names: list[str], args: argparse.Namespace) -> Split:
    if args.split is not None:
        return read_split(args.split, names, overfit=args.overfit)
    return first_share(names, overfit=args.overfit)


def _summary(meta: PatchMeta) -> str:
    tallies = zip(meta.quota_labels, meta.quota_shares, meta.quota_natural, meta.quota_held, strict=True)
    held = "".join(
        f", {count} hold {meta.labels[label]} (quota {share:g}, {natural} by chance)"
        for label, share, natural, count in tallies
    )
    return f"{meta.role}: {meta.patches} patches from {len(meta.cases)} cases{held}"
