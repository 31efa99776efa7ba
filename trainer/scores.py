"""The scores of a set of cases: the contract of scores.json, the same as CSV, and a table to print."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.files import replacing
from trainer.metrics import Counts, Overlap

CASE_KEYS = ("dice", "nsd", "precision", "sensitivity", "reference_ml", "prediction_ml")
MOST_IN_UNION = 4

Record = dict[str, float | None]


def structures(labels: Sequence[str]) -> dict[str, list[int]]:
    """Return what is scored: each foreground label, and their union such as "pancreas+cancer".

    The union answers whether the organ was found when its tumour was taken for healthy tissue. More than four
    labels, as in a map of all organs, make no structure together.
    """
    foreground = range(1, len(labels))
    scored = {labels[value]: [value] for value in foreground}
    if 2 <= len(foreground) <= MOST_IN_UNION:
        scored["+".join(labels[1:])] = list(foreground)
    return scored


@dataclass(frozen=True)
class CaseScores:
    """What one case contributes: its confusion matrix, the size of its voxels, and its record a structure."""

    case: str
    confusion: Counts
    voxel_ml: float
    records: dict[str, Record]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "case": self.case,
            "confusion": self.confusion.tolist(),
            "voxel_ml": self.voxel_ml,
            "records": self.records,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> CaseScores:
        """Undo `to_json`."""
        return cls(
            case=document["case"],
            confusion=np.array(document["confusion"], dtype=np.int64),
            voxel_ml=document["voxel_ml"],
            records=document["records"],
        )


@dataclass(frozen=True)
class Scores:
    """The scores of many cases under one set of labels."""

    labels: tuple[str, ...]
    nsd_tolerance_mm: float
    cases: list[CaseScores]

    @property
    def confusion(self) -> Counts:
        """The sum of the confusion matrices of all cases, int64 (K, K), rows = reference."""
        total = np.zeros((len(self.labels), len(self.labels)), dtype=np.int64)
        for case in self.cases:
            total += case.confusion
        return total

    def mean(self) -> dict[str, Record]:
        """Return for each structure the mean over the cases, where null does not count.

        "cases" is the number of cases whose reference has the structure: Dice and NSD average over those.
        """
        means: dict[str, Record] = {}
        for name in structures(self.labels):
            records = [case.records[name] for case in self.cases]
            means[name] = {key: _mean([record[key] for record in records]) for key in CASE_KEYS}
            means[name]["cases"] = sum(record["dice"] is not None for record in records)
        return means

    def pooled(self) -> dict[str, Record]:
        """Return for each structure the overlap of the summed confusion matrix, and the volume in all cases.

        Here the false positives of a case whose reference lacks the structure count.
        """
        confusion = self.confusion
        pools: dict[str, Record] = {}
        for name, values in structures(self.labels).items():
            overlap = Overlap.of(confusion, values)
            pools[name] = {
                "dice": overlap.dice,
                "precision": overlap.precision,
                "sensitivity": overlap.sensitivity,
                "reference_ml": math.fsum(case.records[name]["reference_ml"] or 0.0 for case in self.cases),
                "prediction_ml": math.fsum(case.records[name]["prediction_ml"] or 0.0 for case in self.cases),
            }
        return pools

    def to_json(self) -> dict[str, Any]:
        """Return the document of scores.json."""
        return {
            "mean": self.mean(),
            "pooled": self.pooled(),
            "cases": [{"case": case.case, **case.records} for case in self.cases],
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
        }

    def write_json(self, path: Path) -> None:
        """Write scores.json; a missing value is null."""
        with replacing(path) as temporary:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    def write_csv(self, path: Path) -> None:
        """Write one line a case and structure; a missing value is an empty field."""
        with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["case", "label", *CASE_KEYS])
            for case in self.cases:
                for name, record in case.records.items():
                    writer.writerow([case.case, name, *(record[key] for key in CASE_KEYS)])

    def table(self) -> str:
        """Return the summary that the command prints: a line a structure."""
        mean, pooled = self.mean(), self.pooled()
        nsd = f"NSD {self.nsd_tolerance_mm:g} mm"
        rows = [["label", "cases", "Dice", "pooled", nsd, "precision", "sensitivity", "ref. ml", "pred. ml"]]
        for name, record in mean.items():
            rows.append(
                [
                    name,
                    f"{record['cases']} of {len(self.cases)}",
                    *(_number(x, 3) for x in (record["dice"], pooled[name]["dice"], record["nsd"])),
                    *(_number(record[key], 3) for key in ("precision", "sensitivity")),
                    *(_number(record[key], 1) for key in ("reference_ml", "prediction_ml")),
                ]
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for name, *numbers in rows:
            cells = (text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))
            lines.append("  ".join([name.ljust(widths[0]), *cells]))
        return "\n".join(lines) + "\n"


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present) if present else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
