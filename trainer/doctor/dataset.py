"""Examine a whole Decathlon data set: every image and label is read, on all cores.

Found are files that are missing, damaged or listed twice, labels on another grid or with values without a name,
scans whose values are no HU, the same scan under two names, tiny tumours, labels in several pieces, and files that
macOS left. Notes tell shapes, spacings, the share of each class, and values in and out of the window.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.doctor.finding import Finding, Severity, error, note, warning

if TYPE_CHECKING:
    from trainer.dataset import Dataset
    from trainer.examine import Examined

log = logging.getLogger(__name__)

SUMMARY = "a data set in Decathlon layout: every image and label, and its statistics"
EXAMPLE = "decathlon doctor dataset DATA/Task07_Pancreas --out examined"
WINDOW_HU = (-100.0, 200.0)  # of the paper, section 3.2
FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
MOST_NAMED = 6
QUARTILES = (0, 25, 50, 75, 100)


@dataclass(frozen=True)
class Kind:
    """What can be wrong with a case: how bad, and a sentence about "these cases" with what to do."""

    severity: Severity
    sentence: str


KINDS = {
    "unreadable": Kind("error", "cannot be read; download or convert them again"),
    "other grid": Kind(
        "error", "have a label on another grid than their image; resample the label, or find its image"
    ),
    "label values": Kind("error", "hold label values that dataset.json does not name; name or remove them"),
    "channels": Kind(
        "error", 'have another number of channels than "modality" names; mend dataset.json or the files'
    ),
    "not finite": Kind("error", "hold NaN or infinite voxels; replace them"),
    "stored values": Kind(
        "error",
        "hold values as a CT stores them before its rescale to HU, from 0 to beyond bone, or upside down; "
        "convert them again",
    ),
    "normalised": Kind(
        "error",
        "span a range that no HU have, as after a normalisation or in eight bits; take the original scans",
    ),
    "beyond HU": Kind(
        "error",
        "hold hardly a value of fat or soft tissue (-200 to 300), or many beyond HU; see by what they were multiplied "
        "or moved",
    ),
    "organ HU": Kind(
        "error",
        "have labelled tissue whose median is no HU of soft tissue; check scale and offset of the values, "
        "and whether the label belongs to the image",
    ),
    "no air": Kind(
        "warning",
        "hold no air (about -1000), which a CT shows around the patient; check that the values are HU",
    ),
    "empty label": Kind(
        "warning", "have a label without a foreground voxel; see whether the label is theirs"
    ),
    "absent label": Kind("note", "lack one of the labels; see whether it is theirs"),
    "tiny": Kind("warning", "have a lesion of under 50 voxels, which resampling may remove; look at it"),
    "pieces": Kind("warning", "have a foreground in several pieces; look for stray voxels"),
    "several lesions": Kind("note", "have several separate lesions"),
    "at the border": Kind(
        "note", "have a label that touches the border of the scan, and may be cut off there"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subject."""
    parser.add_argument("path", type=Path, metavar="DATA", help="the folder with dataset.json")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="also write statistics.json, cases.csv, and for CT histogram.png (figure 1); each examined case is kept "
        "in FOLDER/cases, from where the same command continues after an interruption",
    )
    parser.add_argument(
        "--window-hu",
        type=float,
        nargs=2,
        default=WINDOW_HU,
        metavar=("LOW", "HIGH"),
        help="the window that values are counted in (default: -100 200, the paper's)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="cases at once (default: one a core)")


def examine(args: argparse.Namespace) -> list[Finding]:
    """Run the examination that the arguments ask for."""
    from algorithm.errors import InputError

    low, high = args.window_hu
    if not -math.inf < low < high < math.inf:
        raise InputError(f"--window-hu must be a lower and a higher finite value, got {low:g} {high:g}")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be at least 1, got {args.threads}")
    return check(args.path, out=args.out, window_hu=(low, high), threads=args.threads)


def check(
    path: Path,
    *,
    out: Path | None = None,
    window_hu: tuple[float, float] = WINDOW_HU,
    threads: int | None = None,
) -> list[Finding]:
    """Return what is wrong or odd in a data set, and its statistics as notes.

    Args:
        path: the folder with dataset.json.
        out: a folder for statistics.json, cases.csv and histogram.png, and for each examined case: the same call
            continues after an interruption, and reads again only what has changed.
        window_hu: the window that values are counted in.
        threads: cases at once, each in a process of its own; by default one a core.

    """
    import os

    from algorithm.errors import InputError
    from algorithm.images import case_name, list_images
    from algorithm.lock import alone_in, remove_leftovers
    from algorithm.progress import progress
    from trainer.dataset import Dataset
    from trainer.examine import Job, Keeping, examine_and_keep
    from trainer.processes import in_processes

    try:
        data = Dataset.read(path, require=())
    except InputError as problem:
        return [error(problem)]
    findings = _of_files(data)
    # Labels of test cases stand in no dataset.json, but whoever has them scores with them.
    folder = data.folder / "labelsTs"
    of_tests = {case_name(label): label for label in list_images(folder)} if folder.is_dir() else {}
    jobs = [
        Job(name, image, label, data.labels, data.channels, window_hu, is_training)
        for name, image, label, is_training in (
            *((case.name, case.image, case.label, True) for case in data.training),
            *((case_name(image), image, of_tests.get(case_name(image)), False) for image in data.test),
        )
        if image.is_file() and (label is None or label.is_file())
    ]
    # A training case and a test case may have one name.
    parts = {True: "training", False: "test"}
    keeping = [
        Keeping(job, None if out is None else out / "cases" / parts[job.is_training] / f"{job.case}.json")
        for job in jobs
    ]
    with nullcontext() if out is None else alone_in(out, "decathlon doctor"):
        if out is not None:
            remove_leftovers(out, *(out / "cases" / part for part in parts.values()))
        found = [(one, one.kept()) for one in keeping]
        cases = [case for _, case in found if case is not None]
        if cases:
            log.info("%d of %d cases were examined before", len(cases), len(jobs))
        left = [one for one, case in found if case is None]
        cases += progress(
            in_processes(examine_and_keep, left, threads or len(os.sched_getaffinity(0))),
            total=len(left),
            what="examine",
            unit="cases",
        )
        cases.sort(key=lambda case: (not case.is_training, case.case))
        findings += _of_cases(cases)
        findings += _twins(cases)
        statistics = describe(data, cases, window_hu)
        findings += _notes(statistics)
        if out is not None:
            _write(out, data, cases, statistics, window_hu)
    return findings


def _of_files(data: Dataset) -> list[Finding]:
    """Return what the file system and dataset.json say of each other."""
    from algorithm.images import image_suffix

    findings: list[Finding] = []
    listed = [path for case in data.training for path in (case.image, case.label)] + data.test
    missing = [path for path in listed if not path.is_file()]
    if missing:
        findings.append(
            error(
                f"{len(missing)} of {len(listed)} files that dataset.json lists are not there: "
                f"{_some([str(path.relative_to(data.folder)) for path in missing])}; download the data set again"
            )
        )
    found = [
        path
        for folder in (data.folder, *(data.folder / name for name in FOLDERS))
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_file()
    ]
    macos = sorted(path for path in found if path.name.startswith("._"))
    if macos:
        findings.append(
            warning(
                f"files whose names begin with ._ were left by macOS and are not read, {len(macos)} of them: "
                f"{_some([path.name for path in macos])}; remove them"
            )
        )
    known = {path.resolve() for path in listed}
    strangers = sorted(
        path
        for path in found
        if image_suffix(path)
        and not path.name.startswith(".")
        and path.parent != data.folder
        and path.resolve() not in known
        # labels of test cases have no place in a dataset.json
        and path.parent.name != "labelsTs"
    )
    if strangers:
        findings.append(
            warning(
                f"images that dataset.json does not list are not used, {len(strangers)} of them: "
                f"{_some([f'{path.parent.name}/{path.name}' for path in strangers])}"
            )
        )
    document = json.loads((data.folder / "dataset.json").read_text(encoding="utf-8"))
    for key, entries in (("numTraining", data.training), ("numTest", data.test)):
        if isinstance(document.get(key), int) and document[key] != len(entries):
            findings.append(
                warning(f'"{key}" in dataset.json is {document[key]}, but {len(entries)} cases are listed')
            )
    twice = sorted({case.name for case in data.training} & {_name(path) for path in data.test})
    if twice:
        findings.append(warning(f"{len(twice)} names are both training and test cases: {_some(twice)}"))
    return findings


def _name(path: Path) -> str:
    from algorithm.images import case_name

    return case_name(path)


def _of_cases(cases: Sequence[Examined]) -> list[Finding]:
    """Return one finding a kind, with the cases that it is about."""
    findings = []
    for name, kind in KINDS.items():
        having = [(case.case, detail) for case in cases for what, detail in case.problems if what == name]
        if having:
            told = [f"{case} ({detail})" if detail else case for case, detail in having]
            count = len({case for case, _ in having})
            findings.append(
                Finding(
                    kind.severity,
                    f"{count} case{'' if count == 1 else 's'}: {_some(told)}: {kind.sentence}",
                )
            )
    return findings


def _twins(cases: Sequence[Examined]) -> list[Finding]:
    by_digest: dict[str, list[str]] = {}
    for case in cases:
        if case.digest:
            by_digest.setdefault(case.digest, []).append(case.case)
    twins = [" = ".join(names) for names in by_digest.values() if len(names) > 1]
    if not twins:
        return []
    return [
        warning(
            f"the same voxels lie under several names, and may be trained on and tested with: {_some(twins)}; "
            "remove all but one"
        )
    ]


def describe(data: Dataset, cases: Sequence[Examined], window_hu: tuple[float, float]) -> dict[str, Any]:
    """Return the statistics of section 3: shapes, spacings, class percentages, values in and out of the window.

    Five numbers are the least, the quartiles and the greatest.
    """
    import numpy as np

    from trainer.examine import BINS, HU_A_BIN, LOWEST_HU, percentages

    def five(values: Sequence[float]) -> list[float]:
        return [float(value) for value in np.percentile(values, QUARTILES)] if len(values) else []

    def by_axis(values: Sequence[tuple[float, float, float]]) -> dict[str, list[float]]:
        return {axis: five([value[place] for value in values]) for place, axis in enumerate("zyx")}

    shares = percentages(cases, len(data.labels))
    orientations: dict[str, int] = {}
    for case in cases:
        if case.orientation:
            orientations[case.orientation] = orientations.get(case.orientation, 0) + 1
    statistics: dict[str, Any] = {
        "name": data.name,
        "training": sum(case.is_training for case in cases),
        "test": sum(not case.is_training for case in cases),
        "shape": by_axis([case.shape_zyx for case in cases if case.shape_zyx]),
        "spacing_mm": by_axis([case.spacing_zyx_mm for case in cases if case.spacing_zyx_mm]),
        "orientations": orientations,
        "percent": {name: five(shares[:, value].tolist()) for value, name in enumerate(data.labels)},
        "cases_with": {name: int((shares[:, value] > 0).sum()) for value, name in enumerate(data.labels)},
    }
    measured = [case for case in cases if case.histogram]
    if measured:
        histogram = np.sum([case.histogram for case in measured], axis=0)
        inside = np.sum([case.in_window for case in measured], axis=0)
        totals = histogram.sum(axis=1)
        statistics["window_hu"] = list(window_hu)
        statistics["percent_in_window"] = {
            name: float(100 * inside[value] / totals[value]) if totals[value] else None
            for value, name in enumerate(data.labels)
        }
        statistics["histogram"] = {
            "edges_hu": [LOWEST_HU + HU_A_BIN * edge for edge in range(BINS + 1)],
            "below": histogram[:, 0].tolist(),
            "counts": histogram[:, 1:-1].tolist(),
            "above": histogram[:, -1].tolist(),
        }
    return statistics


def _notes(statistics: dict[str, Any]) -> list[Finding]:
    notes = [f"{statistics['training']} training and {statistics['test']} test cases were read"]
    for key, unit in (("shape", "voxels"), ("spacing_mm", "mm")):
        if statistics[key]["z"]:
            told = "; ".join(f"{axis} {_five(values)}" for axis, values in statistics[key].items())
            name = "shape" if key == "shape" else "spacing"
            notes.append(f"{name} in {unit}, least, quartiles, greatest: {told}")
    if statistics["orientations"]:
        told = ", ".join(f"{name} in {count}" for name, count in statistics["orientations"].items())
        notes.append(f"axes as stored: {told} (the sides that x, y and z go to)")
    for name, values in statistics["percent"].items():
        if values:
            with_it = statistics["cases_with"][name]
            notes.append(f"{name}: in {with_it} labels; per cent of a case's voxels {_five(values)}")
    if "window_hu" in statistics:
        low, high = statistics["window_hu"]
        told = ", ".join(
            f"{name} {'-' if share is None else f'{share:.1f} %'}"
            for name, share in statistics["percent_in_window"].items()
        )
        notes.append(f"values within {low:g} to {high:g} HU: {told}")
    return [note(sentence) for sentence in notes]


def _five(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def _write(
    out: Path,
    data: Dataset,
    cases: Sequence[Examined],
    statistics: dict[str, Any],
    window_hu: tuple[float, float],
) -> None:
    """Write statistics.json, cases.csv and histogram.png."""
    from algorithm.files import replacing
    from trainer.figures import save_histogram

    with replacing(out / "statistics.json") as temporary:
        text = json.dumps(statistics, indent=1, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    with replacing(out / "cases.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        axes = [f"{what}_{axis}" for what in ("shape", "spacing_mm") for axis in "zyx"]
        writer.writerow(
            ["case", "part", *axes, "orientation", *(f"voxels_{name}" for name in data.labels), "problems"]
        )
        for case in cases:
            grid: list[object] = [*(case.shape_zyx or [""] * 3), *(case.spacing_zyx_mm or [""] * 3)]
            problems = "; ".join(f"{kind} ({detail})" if detail else kind for kind, detail in case.problems)
            part = "training" if case.is_training else "test"
            voxels: list[object] = [*case.voxels] or [""] * len(data.labels)
            writer.writerow([case.case, part, *grid, case.orientation, *voxels, problems])
    if "histogram" in statistics:
        save_histogram(
            out / "histogram.png",
            statistics["histogram"]["counts"],
            edges_hu=statistics["histogram"]["edges_hu"],
            labels=data.labels,
            window_hu=window_hu,
        )
