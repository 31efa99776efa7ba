"""Turn a Decathlon data set into two patch files, WORK/train.h5 and WORK/val.h5.

Every case is brought to one orientation and spacing, clipped to a window in HU (CT) or brought to z-scores (MR),
and kept in WORK/volumes; patches are then drawn from the cases on either side of the split. A run that was killed
continues with the same command; other settings rebuild what they change.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from algorithm.errors import InputError
from algorithm.intensities import NORMALISATIONS, STORED_RANGE
from algorithm.network import DEPTH, unmet_by
from trainer.adapt import is_ct
from trainer.dataset import Dataset
from trainer.patchfile import PatchMeta
from trainer.prepare import prepare
from trainer.presets import PreparePreset, preset_names, read_preset
from trainer.split import first_share, fold, read_split

EXAMPLE = "decathlon prepare DATA/Task07_Pancreas --out WORK --preset paper"

HELP = {
    "dataset": "folder of one task, with dataset.json in it",
    "--out": "folder for volumes and patch files (Task07 by the paper's settings: up to 32 GB)",
    "--preset": f"{', '.join(preset_names())}, or a .toml file; default: paper, since it was published",
    "--split": (
        'JSON {"training": [names], "validation": [names], "unused": [names]}; default: the first 210 of '
        "281 cases of dataset.json train, as in the paper, and the same share of any other number"
    ),
    "--fold": (
        "0 to 4: hold out this fold of nnU-Net's five-fold cross-validation, whose published scores then compare case "
        "by case; in place of --split"
    ),
    "--overfit": (
        "let training and validation share cases (without --split: all of them), to check the path on very "
        "few cases; default: refused, since such scores say nothing about accuracy"
    ),
    "--spacing-zyx-mm": "of the grid; default: the preset's (paper: 2.5 0.8 0.8, near the mean of the scans)",
    "--window-hu": "clip outside it; default: the preset's (paper: -100 200, from fat to just below bone)",
    "--normalisation": (
        "window: HU, as CT has; zscore: each channel of each scan to mean 0 and deviation 1, as MR needs; "
        "zscore_foreground: likewise, of what is not constant background; default: the preset's (paper: window; "
        "any: by the names of the channels in dataset.json)"
    ),
    "--patch-shape-zyx": "voxels; default: the preset's (paper: 64 128 128, two of which fit its GPU)",
    "--train-patches": "default: the preset's (paper: 8000, about 38 from each of 210 cases)",
    "--val-patches": "default: the preset's (paper: 2000, about 28 from each of 71 cases)",
    "--quota": (
        "least share of patches that hold a label, by value or name, such as 1=0.3; may be repeated; changes "
        "or adds to the preset's, and 0 drops; default: the preset's (paper: 1=0.3, since with more the "
        "patches would be unlike the scans to be segmented); * parts a share among all labels not named"
    ),
    "--seed": "the only source of chance; default: the preset's (0)",
    "--threads": "default: one for each core; the result does not depend on it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; those left out come from the preset."""

    def add(name: str, **options: Any) -> None:
        parser.add_argument(name, help=HELP[name], **options)

    add("dataset", type=Path, metavar="DATASET")
    add("--out", type=Path, required=True, metavar="WORK")
    add("--preset", default="paper", metavar="NAME")
    add("--split", type=Path, metavar="FILE")
    add("--fold", type=int, metavar="N")
    add("--overfit", action="store_true")
    add("--spacing-zyx-mm", type=float, nargs=3, metavar=("Z", "Y", "X"))
    add("--window-hu", type=int, nargs=2, metavar=("LOW", "HIGH"))
    add("--normalisation", choices=NORMALISATIONS)
    add("--patch-shape-zyx", type=int, nargs=3, metavar=("Z", "Y", "X"))
    add("--train-patches", type=int, metavar="N")
    add("--val-patches", type=int, metavar="N")
    add("--quota", action="append", default=[], metavar="LABEL=SHARE")
    add("--seed", type=int, metavar="N")
    add("--threads", type=int, metavar="N")


def run(args: argparse.Namespace) -> None:
    """Prepare, and say on stdout what came out."""
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be at least 1, got {args.threads}")
    whole = read_preset(args.preset)
    preset, depth = whole.prepare, whole.train.get("depth", DEPTH)
    dataset = Dataset.read(args.dataset)
    names = [case.name for case in dataset.training]
    if args.fold is not None and args.split is not None:
        raise InputError("--fold and --split both say which cases are held out: give one of them")
    if args.fold is not None:
        split = fold(names, args.fold, overfit=args.overfit)
    elif args.split is not None:
        split = read_split(args.split, names, overfit=args.overfit)
    else:
        split = first_share(names, overfit=args.overfit)
    settings = _changed(preset, args, dataset.labels)
    asked_for = args.normalisation or "normalisation" in settings.from_data_set
    if settings.normalisation == "window" and not asked_for and not is_ct(dataset.channels):
        raise InputError(
            f"the channels of {args.dataset} are {', '.join(dataset.channels)} and no CT, so a window in HU does "
            "not suit them: give --preset any, or --normalisation zscore"
        )
    if required := unmet_by(settings.patch_shape_zyx, depth if isinstance(depth, int) else DEPTH):
        raise InputError(f"the network needs patches with {required}, got {settings.patch_shape_zyx}")
    training, validation = prepare(dataset, args.out, settings, split, threads=args.threads)
    for meta in (training, validation):
        sys.stdout.write(_summary(meta) + "\n")
    sys.stdout.write(_intensities(training) + "\n")


def _changed(preset: PreparePreset, args: argparse.Namespace, labels: tuple[str, ...]) -> PreparePreset:
    """Return the preset with what the command line changes."""
    given: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in dataclasses.fields(PreparePreset)
        if (value := getattr(args, field.name, None)) is not None
    }
    if given.get("normalisation", "window") != "window":
        given.setdefault("window_hu", STORED_RANGE)
    elif "window_hu" in given and "normalisation" in preset.from_data_set:
        given["normalisation"] = "window"
    given["from_data_set"] = preset.from_data_set - given.keys()
    quotas = {_label_value(label, labels): share for label, share in preset.quotas.items()}
    for text in args.quota:
        label, equals, share = text.rpartition("=")
        try:
            quotas[_label_value(label, labels)] = float(share)
        except ValueError:
            label = ""
        if not (label and equals):
            raise InputError(f"--quota must be LABEL=SHARE, such as 1=0.3, got {text}")
    return dataclasses.replace(preset, **given, quotas=quotas)


def _label_value(label: str, labels: tuple[str, ...]) -> str:
    """Return the value of a label name as text, so that a quota by name replaces one by value."""
    return str(labels.index(label)) if label in labels else label


def _intensities(meta: PatchMeta) -> str:
    if meta.normalisation != "window":
        return f"each channel of each scan: mean 0, standard deviation 1 ({meta.normalisation})"
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (meta.mean, meta.std))
    return f"training patches: mean {mean} HU, standard deviation {std} HU"


def _summary(meta: PatchMeta) -> str:
    tallies = zip(meta.quota_labels, meta.quota_shares, meta.quota_natural, meta.quota_held, strict=True)
    held = "".join(
        f", {count} hold {meta.labels[label]} (quota {share:g}, {natural} by chance)"
        for label, share, natural, count in tallies
    )
    return f"{meta.role}: {meta.patches} patches from {len(meta.cases)} cases{held}"
