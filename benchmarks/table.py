"""results.json into the table of docs/BENCHMARKS.md: python -m benchmarks.table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.page import write_part

RESULTS = Path(__file__).with_name("results.json")
THREADS = 2  # of the goals

Row = dict[str, Any]
Ratio = Callable[[Row, Iterable[Row]], float]


def beside(peer: str) -> Ratio:
    """Compare with the peer at the number of threads that suits it best: on a busy machine two can be slower."""

    def ratio(row: Row, rows: Iterable[Row]) -> float:
        same = [other for other in rows if (other["kernel"], other["case"]) == (row["kernel"], row["case"])]
        return float(min(other["peers"][peer] for other in same) / row["seconds"])

    return ratio


def of_memcpy(row: Row, _rows: Iterable[Row]) -> float:
    return float(row["memcpy_share"])


@dataclass(frozen=True)
class Goal:
    """A ratio to reach in every case whose whole name `case` matches, with two threads."""

    what: str
    kernel: str
    case: str
    ratio: Ratio
    least: float
    share: bool = False

    def line(self, rows: list[Row]) -> str:
        found = []
        for row in rows:
            if (row["kernel"], row["threads"]) == (self.kernel, THREADS) and re.fullmatch(
                self.case, row["case"]
            ):
                try:
                    found.append((self.ratio(row, rows), row["case"]))
                except KeyError:  # that peer was not installed
                    continue
        if not found:
            return f"| {self.what} | {self._text(self.least)} | not measured | |"
        worst, case = min(found)
        verdict = "reached" if worst >= self.least else "**missed**"
        reached = self._text(worst) + (f" ({case})" if len(found) > 1 else "")
        return f"| {self.what} | {self._text(self.least)} | {reached} | {verdict} |"

    def _text(self, value: float) -> str:
        return f"{100 * value:.0f} %" if self.share else f"{value:.3g}x"


GOALS = [
    Goal(
        "`preprocess`, linear, int16 to float32, beside SimpleITK's resample alone",
        "preprocess",
        "full, int16 to float32",
        beside("SimpleITK, resample alone"),
        20,
    ),
    Goal(
        "the same beside torch's `interpolate`",
        "preprocess",
        "full, int16 to float32",
        beside("torch, resample alone"),
        8,
    ),
    Goal(
        "`resample_cubic` beside SimpleITK's B-spline", "resample_cubic", "full, .*", beside("SimpleITK"), 40
    ),
    Goal(
        "`resample_labels`, linear, beside nnU-Net's resampling of segmentations",
        "resample_labels, linear",
        "full",
        beside("nnU-Net"),
        20,
    ),
    Goal("`clip` in place, of memcpy's rate", "clip", "full, .*", of_memcpy, 0.8, share=True),
    Goal(
        "patches beside MONAI, which looks for the foreground anew",
        "patches",
        "full, .*",
        beside("MONAI"),
        10,
    ),
    Goal("patches beside TorchIO", "patches", "full, .*", beside("TorchIO"), 20),
    Goal("patches, of memcpy's rate", "patches", "full, .*", of_memcpy, 0.6, share=True),
    Goal("centre stitching beside TorchIO crop", "stitch, centre", "full, .*", beside("TorchIO, crop"), 15),
    Goal(
        "Gaussian stitching beside TorchIO Hann", "stitch, gaussian", "full, .*", beside("TorchIO, hann"), 15
    ),
    Goal(
        "Gaussian stitching beside MONAI Gaussian",
        "stitch, gaussian",
        "full, .*",
        beside("MONAI, Gaussian"),
        3,
    ),
    Goal("export beside nnU-Net's", "export", "full, .*", beside("nnU-Net"), 50),
]


def table(rows: list[Row], machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, instruction set in use `{machine['isa']}`; {versions}.",
        "",
        "| kernel | case | threads | ms | of memcpy's rate | peers: ms (times ours) |",
        "|---|---|---|---|---|---|",
    ]
    for row in _in_order(rows):
        seconds = row["seconds"]
        peers = "; ".join(
            f"{name} {_ms(theirs)} ({theirs / seconds:.3g}x)" for name, theirs in row["peers"].items()
        )
        lines.append(
            f"| {row['kernel']} | {row['case']} | {row['threads']} | {_ms(seconds)} | "
            f"{100 * row['memcpy_share']:.0f} % | {peers} |"
        )
    lines += ["", *machine["notes"].values()]
    lines += ["", "### What each peer does differently", ""]
    for kernel, peers in machine["differences"].items():
        lines.append(f"- {kernel}")
        lines += [f"    - {name}: {difference}." for name, difference in peers.items()]
    lines += [
        "",
        "### Goals",
        "",
        f"With {THREADS} threads, the full size; of several dtypes or ways, the worst.",
        "",
        "| | goal | measured | |",
        "|---|---|---|---|",
        *(goal.line(rows) for goal in GOALS),
    ]
    return "\n".join(lines)


def _in_order(rows: list[Row]) -> list[Row]:
    """Return kernels, and the cases of each, in the order in which they were first met, the threads together."""
    kernels = [row["kernel"] for row in rows]
    cases = [(row["kernel"], row["case"]) for row in rows]

    def place(row: Row) -> tuple[int, int, int]:
        return kernels.index(row["kernel"]), cases.index((row["kernel"], row["case"])), row["threads"]

    return sorted(rows, key=place)


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def main() -> None:
    rows = json.loads(RESULTS.read_text())
    text = table(rows, json.loads(RESULTS.with_suffix(".machine.json").read_text()))
    write_part("table.py", text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
