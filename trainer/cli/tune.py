"""Choose postprocessing and the temperature of probabilities on validation cases; write a bundle that has them.

The validation cases of WORK are segmented once; what makes their mean Dice largest is taken if it gains enough. The
bundle itself stays as it is. Give --mirror where predict will be given it. Several bundles, each with the WORK that it
was trained on, are tuned together, as the members of an ensemble must be: TUNED/0, TUNED/1 and so on get one choice.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from algorithm.errors import InputError
from trainer.cli import add_mirror, mirrored

if TYPE_CHECKING:
    from trainer.tune import Calls

EXAMPLE = "decathlon tune RUN/bundle --work WORK --out RUN/tuned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "bundles", type=Path, nargs="+", metavar="BUNDLE", help="what decathlon train wrote in RUN/bundle"
    )
    parser.add_argument(
        "--work",
        type=Path,
        nargs="+",
        required=True,
        help="the folder that decathlon prepare wrote; of several bundles that of each, in the same order",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="TUNED", help="the bundle to write, or a folder of several"
    )
    parser.add_argument(
        "--most-false-positives",
        type=float,
        metavar="N",
        help="misses first: miss the fewest lesions at N or fewer false ones a scan, instead of the largest Dice",
    )
    add_mirror(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the first GPU, else the CPU)")


def run(args: argparse.Namespace) -> None:
    """Run the verb."""
    from algorithm.bundle import FILES, read_bundle, write_bundle
    from algorithm.files import check_replaceable, replacing
    from algorithm.postprocessing import Postprocessing
    from algorithm.segmenter import Segmenter
    from trainer.train import choose_device
    from trainer.tune import Fold, tune

    if len(args.bundles) != len(args.work):
        raise InputError(
            f"--work must name a folder for each bundle, in the same order, got {len(args.work)} for "
            f"{len(args.bundles)}"
        )
    out = args.out.resolve()
    if any(out == path.resolve() or out in path.resolve().parents for path in args.bundles):
        raise InputError(
            f"--out must be another folder than the bundle itself or one around it, got {args.out}"
        )
    several = len(args.bundles) > 1
    members = [str(number) for number in range(len(args.bundles))]
    check_replaceable(args.out, members if several else FILES)
    for member in members if several else ():
        check_replaceable(args.out / member, FILES)
    bundles = [read_bundle(path) for path in args.bundles]
    device, mirror_zyx = choose_device(args.device), mirrored(args.mirror)
    tuned = tune(
        [Fold(bundle, work) for bundle, work in zip(bundles, args.work, strict=True)],
        lambda bundle: Segmenter(bundle, device=device, mirror_zyx=mirror_zyx),
        most_false_positives=args.most_false_positives,
    )
    if several:
        with replacing(args.out) as temporary:
            temporary.mkdir()
            for member, bundle in zip(members, bundles, strict=True):
                write_bundle(temporary / member, tuned.apply(bundle))
    else:
        write_bundle(args.out, tuned.apply(bundles[0]))
    labels = bundles[0].description.labels[1:]
    for name, before, after in zip(labels, tuned.dice_before, tuned.dice, strict=True):
        sys.stdout.write(f"mean Dice of {name} over {tuned.cases} cases: {before:.4f} -> {after:.4f}\n")
    if tuned.calls is not None and tuned.calls_before is not None:
        sys.stdout.write(f"lesions: {_said(tuned.calls_before)} -> {_said(tuned.calls)}\n")
    nothing, chosen = vars(Postprocessing()), vars(tuned.postprocessing)
    settings = (f"{name} {value}" for name, value in chosen.items() if value != nothing[name])
    said = ", ".join(settings) or "none, as it gains too little"
    sys.stdout.write(f"postprocessing: {said}\n")
    sys.stdout.write(
        f"temperature {tuned.temperature:g}: cross entropy of a voxel {tuned.loss_before:.5f} -> {tuned.loss:.5f}\n"
    )


def _said(calls: Calls) -> str:
    return (
        f"{calls.missed} of {calls.lesions} missed at {calls.false_positives_per_scan:.2f} false ones a scan"
    )
