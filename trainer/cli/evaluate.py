"""Score predicted label maps against reference label maps.

Writes OUT/scores.json, OUT/scores.csv, OUT/confusion.png and, where the images are at hand, OUT/overlay.png;
with --against also OUT/comparison.json. `decathlon report` makes one page of it.
Every finished case is kept in OUT/cases: the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from algorithm.errors import InputError
from algorithm.lock import alone_in, remove_leftovers
from trainer.cli import label_names
from trainer.compare import compare, read_other
from trainer.dataset import FILE_NAME, read_channel_names, read_label_names
from trainer.evaluate import NSD_TOLERANCE_MM, evaluate, pair_cases, with_probabilities
from trainer.figures import display_window, save_confusion, save_overlay_grid
from trainer.overlay import choose_rows, shown_as
from trainer.sources import write_sources

EXAMPLE = "decathlon evaluate --reference DATA/Task07_Pancreas/labelsTr --prediction PRED --out SCORES"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--reference", type=Path, required=True, metavar="LABELS", help="a folder of label maps, or one file"
    )
    parser.add_argument(
        "--prediction", type=Path, required=True, metavar="PRED", help="the same cases as predicted"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="SCORES", help="the folder to write to")
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="the data set whose dataset.json names the labels (default: the folder above LABELS)",
    )
    names.add_argument(
        "--labels", metavar="NAMES", help="label names by value instead, such as background,pancreas,cancer"
    )
    parser.add_argument(
        "--nsd-tolerance-mm",
        type=float,
        default=NSD_TOLERANCE_MM,
        metavar="MM",
        help="tolerance of the surface Dice (default: 5, the leaderboard's for Task07)",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="score only the cases that have a prediction"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="the scans, for OUT/overlay.png (default: imagesTr beside labelsTr, imagesTs beside labelsTs)",
    )
    parser.add_argument(
        "--overlay-cases",
        type=int,
        default=4,
        metavar="N",
        help="cases in the overlay, from best to worst (default: 4, which fills a page; 0: none)",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="compare case by case with another scores.json or its folder, or with published cross-validated scores: "
        "nnunet-task07 (ResEnc L), nnunet-task07-conv, nnunet-task07-resenc-m",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="cases at once (default: one a core)")


def run(args: argparse.Namespace) -> None:
    """Score, write, and print the summary."""
    if not 0 < args.nsd_tolerance_mm < math.inf:
        raise InputError(f"--nsd-tolerance-mm must be above 0, got {args.nsd_tolerance_mm:g}")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be at least 1, got {args.threads}")
    if args.overlay_cases < 0:
        raise InputError(f"--overlay-cases must be at least 0, got {args.overlay_cases}")
    pairs = pair_cases(args.reference, args.prediction, allow_missing=args.allow_missing)
    labels = _labels(args)
    pairs = with_probabilities(pairs, labels)
    other = None
    if args.against is not None:
        other = read_other(args.against, labels, nsd_tolerance_mm=args.nsd_tolerance_mm)
    with alone_in(args.out, "decathlon evaluate"):
        remove_leftovers(args.out, args.out / "cases")
        scores = evaluate(
            pairs, args.out, labels=labels, nsd_tolerance_mm=args.nsd_tolerance_mm, threads=args.threads
        )
        comparison = None if other is None else compare(scores, other)
        scores.write_csv(args.out / "scores.csv")
        save_confusion(args.out / "confusion.png", scores.confusion, labels=labels)
        folder, images = _dataset_folder(args), _images(args)
        channels = ("CT",) if folder is None else read_channel_names(folder)
        rows = choose_rows(pairs, scores, images, most=args.overlay_cases, channels=channels)
        if rows:
            window = display_window(shown_as(channels))
            save_overlay_grid(args.out / "overlay.png", rows, labels=labels, window_hu=window)
        write_sources(args.out, pairs, images)
        if comparison is not None:
            comparison.write_json(args.out / "comparison.json")
        else:
            # one of an earlier run would not belong to these scores
            (args.out / "comparison.json").unlink(missing_ok=True)
        scores.write_json(args.out / "scores.json")
    sys.stdout.write(scores.table())
    if comparison is not None:
        sys.stdout.write(f"\n{comparison.table()}")


def _labels(args: argparse.Namespace) -> tuple[str, ...]:
    if args.labels is not None:
        return label_names(args.labels)
    folder = _dataset_folder(args)
    if folder is None:
        raise InputError(
            f"the labels have no names, since {_beside(args)} holds no {FILE_NAME}: pass --dataset FOLDER, "
            "or --labels background,…"
        )
    return read_label_names(folder)


def _beside(args: argparse.Namespace) -> Path:
    """Return the folder above LABELS, where a data set has its description."""
    beside: Path = args.reference.resolve().parent
    return beside.parent if args.reference.is_file() and not (beside / FILE_NAME).is_file() else beside


def _dataset_folder(args: argparse.Namespace) -> Path | None:
    """Return the data set of the reference, None where nothing says which it is."""
    if args.dataset is not None:
        return Path(args.dataset)
    beside = _beside(args)
    return beside if (beside / FILE_NAME).is_file() else None


def _images(args: argparse.Namespace) -> Path | None:
    if args.images is not None:
        return Path(args.images)
    folder: Path = args.reference.resolve()
    if folder.is_file():
        folder = folder.parent
    images = folder.with_name(folder.name.replace("labels", "images", 1))
    return images if folder.name.startswith("labels") and images.is_dir() else None
