"""Dice as section 5 of the paper measured its 0.63 and 0.28: python -m benchmarks.accuracy.patches ROOT --equal time.

200 patches of the validation cases, drawn as for training, all voxels pooled; the paper's presets of a column, whose
weights ROOT must hold. Intervals are of a bootstrap over cases. Prints a row for each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from algorithm.bundle import Bundle, read_bundle
from algorithm.errors import InputError
from benchmarks.accuracy.froc import resamples
from benchmarks.accuracy.frozen import Places
from benchmarks.accuracy.ours import LAST, decathlon
from benchmarks.accuracy.run import Equal, Run
from benchmarks.accuracy.score import PAPERS_LOSSES
from benchmarks.accuracy.task import LABELS, Budget, threads
from trainer.intervals import CONFIDENCE
from trainer.metrics import confusion_matrix, paper_dice
from trainer.patches import PatchFile
from trainer.prepare import FILES
from trainer.volume_validation import normalised

PATCHES = 200
TRAINING_PATCHES = 16  # of which none is looked at: a bundle has its own mean and deviation


def main(argv: Sequence[str] | None = None) -> int:
    """Print the pooled Dice of each preset; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.patches", description=__doc__)
    parser.add_argument("root", type=Path, nargs="?", default=Path("build/accuracy"), metavar="ROOT")
    parser.add_argument("--budget", default="cpu", help="a file of benchmarks/accuracy/budgets (cpu)")
    parser.add_argument("--equal", choices=get_args(Equal), default="steps", help="column (steps)")
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=PAPERS_LOSSES[::-1],
        default=PAPERS_LOSSES[::-1],
        metavar="NAME",
        help="paper, paper-topk (both)",
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(threads())
    try:
        budget = Budget.read(args.budget)
        with PatchFile(prepared(args.root, budget) / FILES["validation"]) as file:
            for system in args.systems:
                folder = Run(args.root, args.budget, args.equal, system, "cpu").folder / "work" / "run" / LAST
                by_case = confusions(read_bundle(folder), file)
                sys.stdout.write(f"{system}, equal {args.equal}: {told(by_case)}\n")
    except InputError as error:
        sys.stderr.write(f"accuracy: {error}\n")
        return 1
    return 0


def prepared(root: Path, budget: Budget) -> Path:
    """Return a folder with the patches, drawn as the `paper` preset draws them."""
    places, out = Places(root), root / "prepared" / f"{budget.name}-{PATCHES}-patches"
    decathlon(
        *("prepare", places.data, "--split", places.split, "--preset", "paper", "--out", out),
        *("--spacing-zyx-mm", *budget.spacing_zyx_mm, "--patch-shape-zyx", *budget.patch_shape_zyx),
        *("--train-patches", TRAINING_PATCHES, "--val-patches", PATCHES, "--threads", threads()),
    )
    return out


def confusions(bundle: Bundle, file: PatchFile) -> NDArray[np.int64]:
    """Return what a network makes of all patches of a file, int64 (cases, K, K) with the reference in rows."""
    classes = len(bundle.description.labels)
    found = np.zeros((len(file.meta.validation_cases), classes, classes), np.int64)
    for number, case in enumerate(file.case):
        images, labels = file.read([number])
        with torch.inference_mode():
            logits = bundle.network(torch.from_numpy(normalised(bundle.description, images[0])[np.newaxis]))
        called = logits[0].argmax(0).to(torch.uint8).numpy()
        found[case] += confusion_matrix(labels[0], called, classes)
    return found


def told(by_case: NDArray[np.int64]) -> str:
    """Return the pooled Dice of each label but background, with an interval."""
    counts = resamples(len(by_case))
    drawn = paper_dice(np.einsum("nc,cij->nij", counts, by_case))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, (tail, 100 - tail), axis=0)
    mean = paper_dice(by_case.sum(axis=0))
    return ", ".join(
        f"{name} {mean[place]:.3f} ({low[place]:.3f} to {high[place]:.3f})"
        for place, name in enumerate(LABELS)
        if place
    )


if __name__ == "__main__":
    sys.exit(main())
