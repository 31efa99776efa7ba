"""The scores of a set of cases: the contract of scores.json, the same as CSV, and a table to print."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.files import replacing
from trainer.detection import describe_detection
from trainer.intervals import interval_of_mean
from trainer.lesions import Lesions, lesion_values
from trainer.metrics import Counts, Overlap, paper_dice
from trainer.strata import SIZES, THICKNESSES, diameter_mm, grouped
from trainer.structures import structures

CASE_KEYS = (
    "dice",
    "nsd",
    "precision",
    "sensitivity",
    "reference_ml",
    "prediction_ml",
    "hd95_mm",
    "volume_error_ml",
    "absolute_volume_error_ml",
)
INTERVAL_KEYS = ("dice", "nsd", "hd95_mm", "volume_error_ml")

Record = dict[str, float | None]


@dataclass(frozen=True)
class CaseScores:
    """What one case contributes.

    Attributes:
        case: its name.
        confusion: int64 (K, K), rows = reference.
        voxel_ml: volume of a voxel.
        records: scores of each structure.
        spacing_zyx_mm: with the axis from feet to head first, however the scan is stored.
        lesions: of each label that is looked at lesion by lesion.
        peaks: the highest probability of such a label anywhere in the scan, where there are probability maps.

    """

    case: str
    confusion: Counts
    voxel_ml: float
    records: dict[str, Record]
    spacing_zyx_mm: tuple[float, float, float] | None = None
    lesions: dict[str, Lesions] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "case": self.case,
            "confusion": self.confusion.tolist(),
            "voxel_ml": self.voxel_ml,
            "records": self.records,
            **self.scan(),
        }

    def scan(self) -> dict[str, Any]:
        """Return what scores.json says of the scan under "scans"."""
        return {
            "case": self.case,
            "spacing_zyx_mm": None if self.spacing_zyx_mm is None else list(self.spacing_zyx_mm),
            "lesions": {name: lesions.to_json() for name, lesions in self.lesions.items()},
            "peak_probability": self.peaks,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> CaseScores:
        """Undo `to_json`."""
        spacing = document["spacing_zyx_mm"]
        return cls(
            case=document["case"],
            confusion=np.array(document["confusion"], dtype=np.int64),
            voxel_ml=document["voxel_ml"],
            records=document["records"],
            spacing_zyx_mm=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
            lesions={name: Lesions.from_json(one) for name, one in document["lesions"].items()},
            peaks=document["peak_probability"],
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
            means[name] = {key: _mean([record.get(key) for record in records]) for key in CASE_KEYS}
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

    def batch_averaged(self) -> dict[str, Record]:
        """Return Dice as section 4.3 of the paper averages it, each case being a batch, and what that hides.

        A class that a batch lacks scores 0 there, found or not, so that the mean falls with the number of such
        batches: "absent" counts them.
        """
        dice = paper_dice(np.stack([case.confusion for case in self.cases])).mean(axis=0)
        return {
            name: {
                "dice": float(dice[value]),
                "absent": sum(case.records[name]["dice"] is None for case in self.cases),
            }
            for value, name in enumerate(self.labels)
            if value
        }

    def intervals(self) -> dict[str, dict[str, list[float] | None]]:
        """Return the 95 % bootstrap interval of means over cases; null for fewer than three cases."""
        return {
            name: {
                key: interval_of_mean(
                    [value for value in self.values(name, key).values() if value is not None]
                )
                for key in INTERVAL_KEYS
            }
            for name in structures(self.labels)
        }

    def values(self, name: str, key: str) -> dict[str, float | None]:
        """Return one score of a structure, by case."""
        return {case.case: case.records[name].get(key) for case in self.cases}

    def sizes_mm(self) -> dict[str, float | None]:
        """Return the diameter of a ball of the lesion's volume, by case; of the last label, or None without it."""
        volumes = self.values(self.labels[-1], "reference_ml")
        return {case: diameter_mm(volume) if volume else None for case, volume in volumes.items()}

    def thicknesses_mm(self) -> dict[str, float | None]:
        """Return the distance of slices, by case."""
        return {
            case.case: None if case.spacing_zyx_mm is None else case.spacing_zyx_mm[0] for case in self.cases
        }

    def groups(self) -> dict[str, dict[str, list[str]]]:
        """Return cases by the size of their lesion and by their slice thickness."""
        groups = {"slice thickness": grouped(self.thicknesses_mm(), THICKNESSES)}
        if lesion_values(self.labels):
            groups = {f"{self.labels[-1]} size": grouped(self.sizes_mm(), SIZES), **groups}
        return groups

    def strata(self) -> dict[str, list[dict[str, Any]]]:
        """Return mean Dice and NSD within each group of cases, and how many cases are in it."""
        return {
            kind: [
                {
                    "name": stratum,
                    "cases": len(members),
                    **{
                        name: {
                            key: _mean([self.values(name, key)[case] for case in members])
                            for key in ("dice", "nsd")
                        }
                        for name in structures(self.labels)
                    },
                }
                for stratum, members in strata.items()
            ]
            for kind, strata in self.groups().items()
        }

    def lesions(self) -> dict[str, dict[str, Any]]:
        """Return how many lesions of each size there are and were found, and false positives, for each such label."""
        told: dict[str, dict[str, Any]] = {}
        for value in lesion_values(self.labels):
            name = self.labels[value]
            of_cases = [case.lesions[name] for case in self.cases if name in case.lesions]
            true = [
                (diameter_mm(ml), found)
                for one in of_cases
                for ml, found in zip(one.reference_ml, one.found, strict=True)
            ]
            false = [diameter_mm(ml) for one in of_cases for ml in one.false_positive_ml]
            sizes = []
            for stratum in SIZES:
                found = [found for size, found in true if stratum.holds(size)]
                sizes.append(
                    {
                        "name": stratum.name,
                        "lesions": len(found),
                        "found": sum(found),
                        "sensitivity": _mean([float(one) for one in found]),
                        "false_positives": sum(stratum.holds(size) for size in false),
                    }
                )
            told[name] = {
                "lesions": len(true),
                "found": sum(found for _, found in true),
                "sensitivity": _mean([float(found) for _, found in true]),
                "false_positives": len(false),
                "false_positives_per_case": len(false) / len(of_cases) if of_cases else None,
                "sizes": sizes,
            }
        return told

    def detection(self) -> dict[str, dict[str, Any]]:
        """Return the detection of each lesion label in a patient: by probability where every case has a map of it."""
        told = {}
        for value in lesion_values(self.labels):
            name = self.labels[value]
            by = "probability" if all(name in case.peaks for case in self.cases) else "prediction_ml"
            told[name] = describe_detection(
                [bool(case.records[name].get("reference_ml")) for case in self.cases],
                [bool(case.records[name].get("prediction_ml")) for case in self.cases],
                [
                    case.peaks[name]
                    if by == "probability"
                    else case.records[name].get("prediction_ml") or 0.0
                    for case in self.cases
                ],
                by=by,
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """Return the document of scores.json."""
        return {
            "mean": self.mean(),
            "pooled": self.pooled(),
            "cases": [{"case": case.case, **case.records} for case in self.cases],
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "intervals": self.intervals(),
            "batch_averaged": self.batch_averaged(),
            "strata": self.strata(),
            "lesions": self.lesions(),
            "detection": self.detection(),
            "scans": [case.scan() for case in self.cases],
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
                    writer.writerow([case.case, name, *(record.get(key) for key in CASE_KEYS)])

    def table(self) -> str:
        """Return the summary that the command prints: a line a structure."""
        mean, pooled = self.mean(), self.pooled()
        nsd = f"NSD {self.nsd_tolerance_mm:g} mm"
        rows = [
            [
                "label",
                "cases",
                "Dice",
                "pooled",
                nsd,
                "HD95 mm",
                "precision",
                "sensitivity",
                "ref. ml",
                "pred. ml",
            ]
        ]
        for name, record in mean.items():
            rows.append(
                [
                    name,
                    f"{record['cases']} of {len(self.cases)}",
                    *(_number(x, 3) for x in (record["dice"], pooled[name]["dice"], record["nsd"])),
                    _number(record["hd95_mm"], 1),
                    *(_number(record[key], 3) for key in ("precision", "sensitivity")),
                    *(_number(record[key], 1) for key in ("reference_ml", "prediction_ml")),
                ]
            )
        return f"{columns(rows)}\n{self._remarks()}"

    def _remarks(self) -> str:
        """Return what the table's numbers hide, a line each."""
        lines = []
        intervals, pooled = self.intervals(), self.pooled()
        for name, averaged in self.batch_averaged().items():
            interval = intervals[name]["dice"]
            if interval is not None:
                lines.append(
                    f"{name}: mean Dice {interval[0]:.3f} to {interval[1]:.3f} (95 % bootstrap over cases)"
                )
            if averaged["absent"]:
                lines.append(
                    f"{name}: {averaged['absent']} of {len(self.cases)} references lack it and count 0 in the paper's "
                    f"average over batches, {_number(averaged['dice'], 3)}; "
                    f"pooled Dice {_number(pooled[name]['dice'], 3)}"
                )
        for name, lesions in self.lesions().items():
            detection = self.detection()[name]
            lines.append(
                f"{name}, lesion by lesion: {lesions['found']} of {lesions['lesions']} found, "
                f"{lesions['false_positives']} false positives; by patient: "
                f"ROC AUC {_number(detection['roc_auc'], 3)}, "
                f"average precision {_number(detection['average_precision'], 3)} (ranked by {detection['score']})"
            )
        return "\n".join(lines) + "\n" if lines else ""


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *numbers in rows:
        cells = (text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present) if present else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
