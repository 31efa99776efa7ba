"""A WORK folder of phantoms for what trains on patches: python -m benchmarks.loaders and benchmarks.training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LABEL_SHARES = (0.0, 1 / 3, 1 / 3)  # of patches that are to hold pancreas, and tumour; the rest anywhere


def make_work(folder: Path, *, small: bool, patches: int = 96) -> Path:
    """Return FOLDER/work, made by `decathlon phantom` and `decathlon prepare` unless it is there.

    Eight scans of full size and `patches` of the paper's patches, or four small ones with 16 small patches.
    """
    data, work = folder / "data", folder / "work"
    cases = ["--cases", "4", "--size", "small"] if small else ["--cases", "8"]
    counts = ["--train-patches", "16" if small else str(patches), "--val-patches", "2"]
    patch = ["--patch-shape-zyx", "16", "32", "32"] if small else []
    _decathlon("phantom", str(data), *cases, "--test", "0")
    _decathlon(
        "prepare",
        str(data / "Task07_Pancreas"),
        "--preset",
        "paper",
        "--out",
        str(work),
        *counts,
        *patch,
        *(f"--quota={label}={share:.3f}" for label, share in enumerate(LABEL_SHARES) if share),
    )
    return work


def _decathlon(*words: str) -> None:
    start = "import sys; from trainer.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", start, *words], check=True)
