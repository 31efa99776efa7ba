"""Ten tumours that a system finds and ten that it misses: python -m benchmarks.accuracy.pictures ROOT --system best.

Writes docs/accuracy-hits.png and docs/accuracy-misses.png of validation cases: image, reference and prediction in the
slice with most of the tumour, with its volume, contrast, Dice and the highest probability that the network gave it.
Where it misses fewer than ten, those that it finds worst, by Dice, are shown with them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.images import read_image, read_labels
from algorithm.probabilities import map_path
from benchmarks.accuracy.frozen import Places
from benchmarks.accuracy.run import PREDICTIONS
from benchmarks.accuracy.score import TUMOUR
from benchmarks.accuracy.task import LABELS, LESION
from benchmarks.page import FOLDER
from trainer.evaluate import Pair, pair_cases
from trainer.figures import save_overlay_grid
from trainer.lesions import match_lesions
from trainer.metrics import Overlap
from trainer.overlay import OverlayRow

MOST = 10
DOCS = FOLDER.parent / "docs"


@dataclass(frozen=True)
class Tumour:
    """The tumour of a case, and what a system made of it.

    Attributes:
        pair: its files.
        volume_ml: of the reference.
        contrast_hu: median of the tumour less that of the pancreas, whose mean the fat between its lobes pulls down.
        probability: the highest that the network gave it.
        dice: of all that is called tumour in the scan.
        found: whether the label map finds it.

    """

    pair: Pair
    volume_ml: float
    contrast_hu: float
    probability: float
    dice: float
    found: bool

    @classmethod
    def of(cls, pair: Pair, image: Path) -> Tumour | None:
        """Read the files of a case; None where it has no tumour, or several."""
        reference, grid = read_labels(pair.reference)
        tumour, called = reference == LESION, read_labels(pair.prediction)[0] == LESION
        lesions = match_lesions(tumour, called, voxel_ml=grid.voxel_ml)
        if len(lesions.reference_ml) != 1:
            return None
        overlap = Overlap(int((tumour & called).sum()), int(tumour.sum()), int(called.sum()))
        scan = sitk.GetArrayFromImage(read_image(image))
        probability = sitk.GetArrayFromImage(read_image(map_path(pair.prediction, TUMOUR)))
        return cls(
            pair,
            lesions.reference_ml[0],
            float(np.median(scan[tumour]) - np.median(scan[reference == 1])),
            float(probability[tumour].max()),
            overlap.dice or 0.0,
            lesions.found[0],
        )

    @property
    def title(self) -> str:
        return (
            f"{self.pair.case}: {self.volume_ml:.1f} ml, {self.contrast_hu:+.0f} HU against the pancreas, "
            f"probability up to {self.probability:.2f}, {f'Dice {self.dice:.2f}' if self.found else 'missed'}"
        )


def spread(tumours: Sequence[Tumour]) -> list[Tumour]:
    """Return at most ten, from the smallest to the largest."""
    ordered = sorted(tumours, key=lambda one: one.volume_ml)
    places = np.linspace(0, len(ordered) - 1, min(MOST, len(ordered))).round().astype(int)
    return [ordered[place] for place in np.unique(places)]


def draw(root: Path, run: Path, out: Path) -> list[Path]:
    """Draw both pictures of a run's validation cases; one without a tumour to show is left out."""
    places = Places(root)
    pairs = pair_cases(places.labels("validation"), run / PREDICTIONS / "validation")
    images = {path.name: path for path in places.images("validation").glob("*.nii.gz")}
    tumours = [one for pair in pairs if (one := Tumour.of(pair, images[pair.reference.name])) is not None]
    missed = [one for one in tumours if not one.found]
    hits = sorted((one for one in tumours if one.found), key=lambda one: one.dice)
    worst = min(max(0, MOST - len(missed)), len(hits) // 2)
    written = []
    for name, chosen in (("hits", spread(hits[worst:])), ("misses", [*spread(missed), *hits[:worst]])):
        if not chosen:
            (out / f"accuracy-{name}.png").unlink(missing_ok=True)
            continue
        rows = [
            OverlayRow.read(
                one.title, images[one.pair.reference.name], one.pair.reference, one.pair.prediction
            )
            for one in chosen
        ]
        save_overlay_grid(out / f"accuracy-{name}.png", rows, labels=LABELS)
        written.append(out / f"accuracy-{name}.png")
    return written


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, nargs="?", default=Path("build/accuracy"), metavar="ROOT")
    parser.add_argument("--budget", default="cpu", help="of the run (cpu)")
    parser.add_argument(
        "--equal", choices=("steps", "time"), default="steps", help="column of the run (steps)"
    )
    parser.add_argument("--system", default="best", help="of the run (best)")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for the pictures (docs)")
    args = parser.parse_args(argv)
    try:
        written = draw(args.root, args.root / "runs" / args.budget / args.equal / args.system, args.out)
    except InputError as error:
        sys.stderr.write(f"accuracy: {error}\n")
        return 1
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
