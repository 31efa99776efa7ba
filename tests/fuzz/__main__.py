"""`python -m tests.fuzz` (`make fuzz`): hostile scans through all that reads scans, and a table of the outcomes."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from tests.fuzz.campaign import run, shares
from tests.fuzz.tally import Tally

FORMATS = (
    "mha",
    "mha, compressed",
    "mha, float64",
    "mha, bomb",
    "mhd",
    "mhd, compressed",
    "nii",
    "nii, float32",
    "nii.gz",
    "nrrd",
    "nrrd, compressed",
    "nhdr",
    "dicom",
    "dicom, implicit",
    "dicom, RLE",
    "dicom, JPEG",
    "dicom, JPEG2000",
)
ENGINES = ("hypothesis", "atheris", "both")


def main() -> int:
    """Run a campaign; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=20_000, help="in all; default: 20000")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after so many; default: never"
    )
    parser.add_argument("--seed", type=int, default=0, help="another makes other scans; default: 0")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once; default: 2")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES[:2])
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="default: build/fuzz")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    began, total = time.time(), Tally()
    until = began + min(args.seconds, 1e9)
    work = shares(args.formats, args.engines, args.scans, args.seed)
    sys.stdout.write(
        "| format | engine | different scans | with a result | refused everywhere | findings "
        "| slowest, s | memory, MiB |\n"
        "|---|---|---:|---:|---:|---:|---:|---:|\n"
    )
    for share, tally in run(work, args.out.absolute(), jobs=args.jobs, until=until):
        total.join(tally)
        sys.stdout.write(_row(share.format, share.engine, tally))
        sys.stdout.flush()
    sys.stdout.write(_row("all", "", total))
    sys.stdout.write(f"\n{time.time() - began:.0f} s\n")
    shutil.rmtree(args.out / "workers", ignore_errors=True)
    for name in total.findings:
        said = (args.out / "findings" / f"{name}.txt").read_text().strip().splitlines()
        sys.stderr.write(f"fuzz: {args.out / 'findings' / name}: {'; '.join(said)}\n")
    return 1 if total.findings else 0


def _row(form: str, engine: str, tally: Tally) -> str:
    refused, memory = tally.scans - tally.accepted, tally.most_bytes >> 20
    cells = (form, engine, tally.scans, tally.accepted, refused, len(tally.findings))
    return f"| {' | '.join(map(str, cells))} | {tally.slowest_s:.2f} | {memory} |\n"


if __name__ == "__main__":
    sys.exit(main())
