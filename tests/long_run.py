"""Many predictions in one process: memory, file handles and threads do not grow.

`python -m tests.long_run` (`make long-run`) does 500 of `algorithm.segment` and 500 of `predict` on a folder, and
prints the figures of docs/RELIABILITY.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

import algorithm
from algorithm.predict import predict
from algorithm.segmenter import Segmenter
from tests.bundles import random_bundle, write_random_bundle

SCANS = 10  # in the folder that is predicted again and again
SLOPE_KB = 8.0  # a prediction: what is lost of one scan would be 40 kB of voxels at least


@dataclass
class Grown:
    """What a process held after each prediction.

    Attributes:
        memory_kb: resident and not shared with files.
        handles: open files.
        threads: of the process.

    """

    memory_kb: list[float]
    handles: list[int]
    threads: list[int]

    def slope_kb(self, warm_up: int) -> tuple[float, float]:
        """Return the slope of memory a prediction after so many, and the standard error of it.

        The error is that of the means of ten parts, since what is freed late correlates its neighbours.
        """
        values = np.array(self.memory_kb[warm_up:])
        parts = np.array_split(values, 10)
        x = np.array([part.mean() for part in np.array_split(np.arange(len(values), dtype=float), 10)])
        y = np.array([part.mean() for part in parts])
        slope, offset = np.polyfit(x, y, 1)
        left = y - slope * x - offset
        return float(slope), float(np.sqrt(left @ left / 8 / np.sum((x - x.mean()) ** 2)))

    def faults(self, warm_up: int) -> list[str]:
        """Return a sentence for all that grew."""
        slope, error = self.slope_kb(warm_up)
        found = []
        if slope > max(SLOPE_KB, 3 * error):
            found.append(f"memory grows by {slope:.1f} +- {error:.1f} kB a prediction")
        for what, counts in (("file handles", self.handles), ("threads", self.threads)):
            if counts[-1] > counts[warm_up]:
                found.append(f"{what} grow from {counts[warm_up]} to {counts[-1]}")
        return found


def measure(predictions: int, one: Callable[[int], object]) -> Grown:
    """Call `one` so many times with its number, and note after each what the process holds."""
    grown = Grown([], [], [])
    page_kb = os.sysconf("SC_PAGE_SIZE") / 1024
    for number in range(predictions):
        one(number)
        gc.collect()
        resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
        grown.memory_kb.append((resident - shared) * page_kb)
        grown.handles.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        grown.threads.append(sum(1 for _ in Path("/proc/self/task").iterdir()))
    return grown


def in_memory(predictions: int) -> Grown:
    """Measure `algorithm.segment` of scans in memory."""
    segmenter = Segmenter(random_bundle(), device=torch.device("cpu"))
    return measure(predictions, lambda number: algorithm.segment(scan(number), segmenter))


def of_a_folder(predictions: int, root: Path) -> Grown:
    """Measure `predict` on a folder, each time from the bundle on disk and into an empty folder."""
    model, scans = write_random_bundle(root / "model"), root / "scans"
    scans.mkdir()
    for number in range(SCANS):
        sitk.WriteImage(scan(number), str(scans / f"case_{number}.nii.gz"))

    def one(_: int) -> None:
        shutil.rmtree(root / "out", ignore_errors=True)
        predict(scans, model, root / "out", device=torch.device("cpu"), engine="torch")

    return measure(predictions // SCANS, one)


def scan(seed: int) -> sitk.Image:
    """Return noise of 20 thousand voxels."""
    values = np.random.default_rng(seed).integers(-200, 300, (12, 40, 44)).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 5.0))
    return image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=500, help="of each kind (500)")
    args = parser.parse_args()
    failed = False
    sys.stdout.write(
        "| what | predictions | kB a prediction | file handles | threads |\n|---|---:|---:|---:|---:|\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        for what, a_step, run in (
            ("`algorithm.segment`", 1, lambda: in_memory(args.predictions)),
            ("`predict` on a folder", SCANS, lambda: of_a_folder(args.predictions, Path(folder))),
        ):
            grown = run()
            warm_up = len(grown.memory_kb) // 5
            slope, error = (value / a_step for value in grown.slope_kb(warm_up))
            counts = (f"{held[warm_up]} -> {held[-1]}" for held in (grown.handles, grown.threads))
            sys.stdout.write(
                f"| {what} | {len(grown.memory_kb) * a_step} | {slope:.2f} +- {error:.2f} | {' | '.join(counts)} |\n"
            )
            sys.stdout.flush()
            for fault in grown.faults(warm_up):
                failed = True
                sys.stderr.write(f"{what}: {fault}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
