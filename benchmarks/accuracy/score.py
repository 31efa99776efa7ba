"""One scorer for all systems on the frozen phantoms: python -m benchmarks.accuracy.score ROOT --budget cpu.

Label maps are scored by `trainer.evaluate` on the scans' own grids: Dice, missed tumours, false positives, by quartile
of Task07's tumour volumes. Maps of the tumour's probability give free response: tumours missed at the same number of
false positives a scan. Differences are paired, with 95 % bootstrap intervals over cases. Validation cases are scored;
`--final` scores the test cases, whose labels are made for that. Writes benchmarks/accuracy/BUDGET-SUBSET.json and its
part of docs/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np

from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.probabilities import map_path
from benchmarks.accuracy.calibration import Calibration
from benchmarks.accuracy.froc import POINTS, SPECK_ML, TARGETS, Curve, Response, difference, respond
from benchmarks.accuracy.frozen import FrozenSet, Places, Subset, labels_of_tests
from benchmarks.accuracy.run import (
    ABLATION,
    OURS,
    PEERS,
    PREDICTIONS,
    RECORD,
    REFERENCE,
    Equal,
    settings_of,
)
from benchmarks.accuracy.task import LABELS, LESION, Budget, name_of
from benchmarks.accuracy.variants import BASE, SEEDS, VARIANTS
from benchmarks.page import FOLDER, write_part
from trainer.evaluate import Pair, evaluate, pair_cases, with_probabilities
from trainer.intervals import Paired, holm, interval_of_mean
from trainer.phantom.statistics import PROBABILITIES, TUMOUR_ML
from trainer.processes import in_processes

RESULTS = FOLDER.parent / "docs" / "RESULTS.md"
QUARTILES_ML = (SPECK_ML, *(TUMOUR_ML[PROBABILITIES.index(share)] for share in (0.25, 0.5, 0.75)), math.inf)
# What the claim is of, chosen on validation before test cases were looked at: one system a column, beside both peers,
# in Dice of either label; and fewer misses at one number of false positives a scan.
CLAIMED: Mapping[str, Mapping[Equal, str]] = {
    "cpu": {"steps": "best-large-batch", "time": "best"},
    "gpu": {"steps": "best", "time": "best"},
}
CLAIMED_PEERS = ("nnunet", "monai")
CLAIMED_TARGET = 0.25
PAPERS_LOSSES = ("paper-topk", "paper")  # the paper's own comparison
MISSED_DICE = 0.1  # of a tumour that counts as missed, as in the published per-case scores
TUMOUR = LABELS[LESION]
ORGAN = LABELS[1]


@dataclass(frozen=True)
class Case:
    """What one system made of one case.

    Attributes:
        dice: of each label but background, None where neither side has it.
        volumes_ml, found: of each piece of tumour of the reference, by the label map.
        false_positives: tumours of the label map that are none.
        response: of the map of the tumour's probability.

    """

    dice: Mapping[str, float | None]
    volumes_ml: tuple[float, ...]
    found: tuple[bool, ...]
    false_positives: int
    response: Response

    @property
    def tumours(self) -> list[tuple[float, bool]]:
        """Volume in ml of each tumour that counts as one, and whether the label map has it."""
        pairs = zip(self.volumes_ml, self.found, strict=True)
        return [(ml, found) for ml, found in pairs if ml > SPECK_ML]

    def to_json(self) -> dict[str, Any]:
        return {
            "dice": dict(self.dice),
            "tumours_ml": list(self.volumes_ml),
            "found": list(self.found),
            "false_positives": self.false_positives,
            # One word a tumour, and one number an operating point: what `froc` draws curves from.
            "found_at": ["".join("01"[one] for one in tumour) for tumour in self.response.found.T.tolist()],
            "false_positives_at": " ".join(map(str, self.response.false_positives.tolist())),
        }

    @classmethod
    def from_json(cls, name: str, told: Mapping[str, Any]) -> Case:
        volumes = tuple(told["tumours_ml"])
        found = np.array([[one == "1" for one in word] for word in told["found_at"]], bool)
        response = Response(
            name,
            volumes,
            found.reshape(len(volumes), POINTS).T,
            np.array(told["false_positives_at"].split(), np.int64),
        )
        return cls(told["dice"], volumes, tuple(told["found"]), told["false_positives"], response)


@dataclass(frozen=True)
class Scored:
    """One system in one column.

    Attributes:
        system, equal: which.
        record: what the run says of itself.
        cases: by name.
        calibration: of the maps of the tumour's probability; None in what was kept before it was looked at.

    """

    system: str
    equal: Equal
    record: Mapping[str, Any]
    cases: Mapping[str, Case]
    calibration: Calibration | None = None

    @property
    def title(self) -> str:
        return f"{self.system}, equal {self.equal}"

    @property
    def machine(self) -> str:
        return str(self.record.get("machine", ""))

    @property
    def responses(self) -> list[Response]:
        return [case.response for case in self.cases.values()]

    def dice(self, label: str) -> dict[str, float | None]:
        return {name: case.dice[label] for name, case in self.cases.items()}

    def mean_dice(self, label: str) -> tuple[float, list[float] | None]:
        """Return the mean over the cases that have the label, and its 95 % interval."""
        there = [value for value in self.dice(label).values() if value is not None]
        return float(np.mean(there)), interval_of_mean(there)

    def lesions(self) -> tuple[int, int, float]:
        """Return tumours, those not found in the label maps, and false positives a scan."""
        found = [one for case in self.cases.values() for _, one in case.tumours]
        false_positives = sum(case.false_positives for case in self.cases.values())
        return len(found), found.count(False), false_positives / len(self.cases)

    def missed_by_quartile(self) -> list[tuple[int, int]]:
        """Return tumours and misses in the label maps, by quartile of volume."""
        pairs = [pair for case in self.cases.values() for pair in case.tumours]
        return [
            (len(inside), inside.count(False))
            for low, high in pairwise(QUARTILES_ML)
            for inside in [[found for ml, found in pairs if low < ml <= high]]
        ]

    def specks(self) -> tuple[int, int]:
        """Return the pieces of reference tumours that are too small to count, and how many nothing ever finds."""
        never = [
            not found and not self.cases[name].response.found[:, place].any()
            for name, case in self.cases.items()
            for place, (ml, found) in enumerate(zip(case.volumes_ml, case.found, strict=True))
            if ml <= SPECK_ML
        ]
        return len(never), sum(never)

    def missed_at(self, target: float) -> int:
        return int(Curve.of(self.responses).missed_at(target)[0])

    def to_json(self) -> dict[str, Any]:
        """Return all that tables are made of; `from_json` reads the record and the cases back."""
        lesions, missed, false_positives = self.lesions()
        return {
            "system": self.system,
            "equal": self.equal,
            "record": dict(self.record),
            "dice": {label: self.mean_dice(label) for label in (ORGAN, TUMOUR)},
            "tumours": lesions,
            "missed": missed,
            "specks": self.specks(),
            "false_positives_per_scan": false_positives,
            "low_dice": sum((one or 0.0) < MISSED_DICE for one in self.dice(TUMOUR).values()),
            "missed_by_quartile": self.missed_by_quartile(),
            "missed_at": {str(target): self.missed_at(target) for target in TARGETS},
            "calibration": self.calibration
            and {"error": self.calibration.error, **self.calibration.to_json()},
            "cases": {name: case.to_json() for name, case in self.cases.items()},
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Scored:
        cases = {name: Case.from_json(name, case) for name, case in told["cases"].items()}
        kept = told.get("calibration")
        calibration = Calibration.from_json(kept) if kept else None
        return cls(told["system"], told["equal"], told["record"], cases, calibration)


def read_scored(
    folder: Path, equal: Equal, system: str, budget: Budget, reference: Path, subset: Subset, out: Path
) -> Scored | None:
    """Score one run; None where it has no predictions of the subset yet, or is not of today's settings."""
    record_file = folder / RECORD
    if not record_file.is_file() or subset not in (record := json.loads(record_file.read_text())):
        return None
    if not is_todays(record, system, budget):
        sys.stderr.write(f"{folder} is of other settings of {system}, and is left out: move it away\n")
        return None
    pairs = with_probabilities(pair_cases(reference, folder / PREDICTIONS / subset), LABELS)
    scores = evaluate(pairs, out / equal / system, labels=LABELS)
    answers = list(in_processes(respond_to, pairs, len(os.sched_getaffinity(0))))
    responses = {one.case: one for one, _ in answers}
    dice = {label: scores.values(label, "dice") for label in (ORGAN, TUMOUR)}
    cases = {}
    for case in scores.cases:
        lesions = case.lesions[TUMOUR]
        cases[case.case] = Case(
            {label: dice[label][case.case] for label in dice},
            lesions.reference_ml,
            lesions.found,
            len(lesions.false_positive_ml),
            responses[case.case],
        )
    return Scored(system, equal, record, cases, Calibration.total(its for _, its in answers))


def respond_to(pair: Pair) -> tuple[Response, Calibration]:
    """Return what a case's map of the tumour's probability answers, and what it is worth."""
    probability = map_path(pair.prediction, TUMOUR)
    return (
        respond(pair.case, pair.reference, probability, LESION),
        Calibration.read(pair.reference, probability, LESION),
    )


def is_todays(record: Mapping[str, Any], system: str, budget: Budget) -> bool:
    """Return whether a record is of what the system is now, and not of what once had its name."""
    if budget.name == ABLATION and system not in VARIANTS:
        return False
    try:
        settings = settings_of(system, budget, record.get("steps_for_time") or budget.steps)
    except InputError:  # a preset that there is no more
        return False
    return record.get("settings") == settings


def read_kept(kept: Path, budget: Budget, digest: str, subset: Subset) -> list[Scored]:
    """Return the scores of earlier runs of the same budget and the same cases, and say which are of others."""
    if not kept.is_file():
        return []
    scored = []
    for told in json.loads(kept.read_text())["systems"]:
        record = told["record"]
        alike = record.get("shared") == budget.shared and (record.get("set") or {}).get(subset) == digest
        if not alike:
            sys.stderr.write(
                f"{kept}: {told['system']} is of another budget or other cases, and is left out\n"
            )
        elif not is_todays(record, told["system"], budget):
            sys.stderr.write(f"{kept}: {told['system']} is of other settings, and is left out\n")
        else:
            scored.append(Scored.from_json(told))
    return scored


def find_scored(
    root: Path, budget: str, frozen: FrozenSet, reference: Path, subset: Subset, kept: Path
) -> list[Scored]:
    """Score every run of a budget, peers first; runs that are in the file `kept` and no longer in `root` stay.

    In an ablation those of another machine stay as well: what another rounding changes is what chance changes.
    """
    told = Budget.read(budget)
    earlier = read_kept(kept, told, frozen.subset_digest(subset), subset)

    def key(one: Scored) -> tuple[str, ...]:
        return (one.equal, one.system, *((one.machine,) if budget == ABLATION else ()))

    found = {key(one): one for one in earlier}
    for equal in get_args(Equal):
        for folder in (root / "runs" / budget / equal).glob("*"):
            scored = read_scored(
                folder, equal, folder.name, told, reference, subset, root / "scores" / budget / subset
            )
            if scored is not None:
                found[key(scored)] = scored
    if not found:
        raise InputError(
            f"{root / 'runs' / budget} holds no predictions of {subset} cases: benchmarks.accuracy.run makes them"
        )
    first = list(VARIANTS) if budget == ABLATION else [*PEERS, "paper", "paper-topk", "best", *OURS]
    return sorted(
        found.values(),
        key=lambda one: (get_args(Equal).index(one.equal), in_order(first, one.system), one.machine),
    )


def in_order(first: Sequence[str], name: str) -> tuple[int, str]:
    """Return what sorts names as in a list, and those that it lacks by the alphabet after them."""
    return (first.index(name) if name in first else len(first), name)


def beside(ours: Scored, theirs: Sequence[Scored], budget: str) -> dict[str, Any]:
    """Return ours - theirs: Dice of both labels, and tumours missed at each number of false positives a scan.

    Of several runs of theirs, the mean counts, case by case.
    """
    claimed = claims(budget).get(ours.equal) == ours.system and all(
        its.system in CLAIMED_PEERS and opposed(ours, its) for its in theirs
    )
    told: dict[str, Any] = {
        "ours": ours.title,
        "theirs": list(dict.fromkeys(its.title for its in theirs)),
        "trainings": len(theirs),
        "machine": ours.machine,
        "claimed": claimed,
    }
    for label in (ORGAN, TUMOUR):
        mine, others = ours.dice(label), [its.dice(label) for its in theirs]
        there = [case for case in mine if all(dice[case] is not None for dice in (mine, *others))]
        paired = Paired.of([mine[case] - float(np.mean([its[case] for its in others])) for case in there])
        told[label] = {"mean": paired.mean, "interval": paired.interval, "p": paired.p}
    mine_curve, curves = Curve.of(ours.responses), [Curve.of(its.responses) for its in theirs]
    told["missed_at"] = {
        str(target): dict(zip(("mean", "interval"), difference(mine_curve, curves, target), strict=True))
        for target in TARGETS
    }
    return told


def opposed(ours: Scored, theirs: Scored) -> bool:
    """Return whether two runs are of columns that belong together: the reference's time is that of its equal steps."""
    return theirs.equal == ("steps" if theirs.system == REFERENCE else ours.equal)


def claims(budget: str) -> Mapping[Equal, str]:
    """Return the system of each column that something is claimed of."""
    return CLAIMED.get(budget, {})


def adjust(differences: Sequence[dict[str, Any]], budget: str) -> int:
    """Add to both labels' differences their p of so many tests (Holm); return how many are missing.

    Tests are what is claimed, or all differences of an ablation. Claims whose runs are missing count as tests with a p
    of 1, so that leaving some out makes no other look better.
    """
    ablation = budget == ABLATION
    tests = [one[label] for one in differences if ablation or one["claimed"] for label in (ORGAN, TUMOUR)]
    missing = 0 if ablation else len(claims(budget)) * len(CLAIMED_PEERS) * 2 - len(tests)
    for test, p in zip(tests, holm([test["p"] for test in tests] + [1.0] * missing), strict=False):
        test["p_of_all"] = p
    return missing


def at_points(scored: Sequence[Scored], validation: Sequence[Scored]) -> dict[str, list[tuple[int, float]]]:
    """Return misses and false positives a scan at the operating points that validation cases chose, by title.

    Runs whose validation cases were predicted with the weights of another training are left out.
    """
    chosen = {one.title: one for one in validation}
    points = {}
    for one in scored:
        its = chosen.get(one.title)
        if its is None:
            continue
        if its.record["train"] != one.record["train"]:
            sys.stderr.write(
                f"{one.title}: validation cases are of another training and choose no operating points\n"
            )
        else:
            curve = Curve.of(its.responses)
            points[one.title] = [Curve.of(one.responses).at(curve.point_at(target)) for target in TARGETS]
    return points


def machines(scored: Sequence[Scored], budget: Budget) -> str:
    """Return on what the systems were trained, with their names where that is not one machine."""
    by_machine: dict[str, list[str]] = {}
    for one in scored:
        machine = f"{one.record['machine']}, {one.record['threads']} threads"
        by_machine.setdefault(machine, []).append(shown(one.title, budget))
    if len(by_machine) == 1:
        return next(iter(by_machine))
    return "; ".join(f"{machine} ({'; '.join(names)})" for machine, names in by_machine.items())


def flattered(system: str, subset: Subset) -> bool:
    """Return whether something of a system was chosen on these very cases."""
    return subset != "test" and system in OURS and OURS[system].tuned


def bases_of(one: Scored, scored: Sequence[Scored]) -> list[list[Scored]]:
    """Return what a variant is set beside: all trainings of the base, and those whose weights it predicts with.

    The base of another seed is set beside the one of the same machine: what chance alone changes.
    """
    here = [its for its in scored if its.machine == one.machine]
    if one.system in SEEDS:
        return [[its for its in here if its.system == BASE and one.system != BASE]]
    members = [its for its in here if its.system in VARIANTS[one.system].bundles_of]
    return [[its for its in scored if its.system in SEEDS], members]


def pairs_of(
    scored: Sequence[Scored], budget: str, subset: Subset, ours: str
) -> list[tuple[Scored, list[Scored]]]:
    """Return what is set beside what: ours beside the peers, the paper's losses, a variant beside what it changes."""
    if budget == ABLATION:
        return [(one, its) for one in scored for its in bases_of(one, scored) if its]
    beside_peers = [
        (mine, [its])
        for mine in scored
        for its in scored
        if mine.system in (ours, *(name for name in OURS if not flattered(name, subset)))
        and its.system in PEERS
        and opposed(mine, its)
    ]
    losses = [
        (mine, [its])
        for mine in scored
        for its in scored
        if (mine.system, its.system) == PAPERS_LOSSES and mine.equal == its.equal
    ]
    return beside_peers + losses


def table(
    scored: Sequence[Scored],
    differences: Sequence[Mapping[str, Any]],
    points: Mapping[str, Sequence[tuple[int, float]]],
    about: str,
    budget: Budget,
    subset: Subset,
) -> str:
    """Return the part of the page: systems, differences, and what operating points of validation do."""
    parts = [about, systems_table(scored, budget, subset)]
    parts += [differences_table(differences, budget)] if differences else []
    parts += [points_table(points, budget)] if points else []
    return "\n\n".join(parts)


def as_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def systems_table(scored: Sequence[Scored], budget: Budget, subset: Subset) -> str:
    """Return a row for each system."""
    quartiles = ", ".join(str(count) for count, _ in scored[0].missed_by_quartile())
    headings = [
        *("system", "equal", "steps", "patches a step", "training", "Dice pancreas", "Dice tumour"),
        f"missed of {scored[0].lesions()[0]}",
        "false positives a scan",
        f"missed by quartile of volume ({quartiles})",
        f"missed at {', '.join(f'{target:g}' for target in TARGETS)} false positives a scan",
        "calibration error",
        "memory",
    ]
    several = {one.title for one in scored if sum(one.title == its.title for its in scored) > 1}
    rows = []
    for one in scored:
        train = one.record["train"]
        _, missed, false_positives = one.lesions()
        variant = VARIANTS.get(one.system)
        name = (
            shown(one.title, budget).partition(",")[0] if variant is None else f"{one.system}: {variant.what}"
        )
        name += f" ({one.machine.partition(',')[0]})" if one.title in several else ""
        name += " (chosen on these cases, whose scores flatter)" if flattered(one.system, subset) else ""
        rows.append(
            [
                *(
                    name,
                    one.equal,
                    str(train["steps"]),
                    str(train["batch_size"]),
                    f"{minutes(train):.0f} min",
                ),
                *(
                    with_interval(one, ORGAN),
                    with_interval(one, TUMOUR),
                    str(missed),
                    f"{false_positives:.2f}",
                ),
                ", ".join(str(count) for _, count in one.missed_by_quartile()),
                ", ".join(str(one.missed_at(target)) for target in TARGETS),
                "" if one.calibration is None else f"{one.calibration.error:.3f}",
                f"{train['memory_mib'] / 1024:.1f} GiB",
            ]
        )
    return as_table(headings, rows)


def differences_table(differences: Sequence[Mapping[str, Any]], budget: Budget) -> str:
    """Return a row for each difference; what is claimed is bold."""
    rows = []
    for one in differences:
        cells = [signed(one[label]) for label in (ORGAN, TUMOUR)]
        for target in TARGETS:
            cell = signed(one["missed_at"][str(target)], digits=0)
            cells.append(f"**{cell}**" if one["claimed"] and target == CLAIMED_TARGET else cell)
        theirs = " and ".join(shown(title, budget) for title in one["theirs"])
        if one["trainings"] > 1:
            theirs = f"the mean of {one['trainings']} trainings of {theirs}"
        title = f"{shown(one['ours'], budget)}, less {theirs}"
        if budget.name == ABLATION:  # one column, and the same variant may be there from two machines
            title = f"{title.replace(', equal steps', '')} ({one['machine'].partition(',')[0]})"
        rows.append([f"**{title}**" if one["claimed"] else title, *cells])
    headings = ["difference, 95 % interval", "Dice pancreas", "Dice tumour"]
    return as_table([*headings, *(f"missed at {target:g}" for target in TARGETS)], rows)


def points_table(points: Mapping[str, Sequence[tuple[int, float]]], budget: Budget) -> str:
    """Return misses and false positives a scan at the operating points that validation chose."""
    about = "missed (false positives a scan), where validation chose the operating point for"
    targets = [f"{target:g}" for target in TARGETS]
    rows = [
        [shown(title, budget), *(f"{missed} ({calls:.2f})" for missed, calls in found)]
        for title, found in points.items()
    ]
    return as_table([about, *targets], rows)


def told_specks(scored: Sequence[Scored]) -> str:
    """Return what is left out of all counts of tumours, and what it would change; nothing where nothing is."""
    count = scored[0].specks()[0]
    if not count:
        return ""
    never = min(one.specks()[1] for one in scored)
    return (
        f" Pieces of a reference tumour up to {SPECK_ML:g} ml, {count} here, are no tumours; {never} of them no system "
        "finds at any operating point, so counted as tumours they would add as many misses to each."
    )


def shown(title: str, budget: Budget) -> str:
    """Return a title with the preset's own name where the budget has one for the system."""
    system = title.partition(",")[0]
    return title.replace(system, budget.presets.get(system, system), 1)


def minutes(train: Mapping[str, Any]) -> float:
    """Return what a training took without preparation: its own count, or its process's where that is more.

    Records of before restarts were added up hold the last process alone; preparation of a killed attempt counts as
    training.
    """
    process = train.get("wall_seconds", 0.0) - train.get("prepare_seconds", 0.0)
    return max(train["seconds"], process) / 60


def with_interval(scored: Scored, label: str) -> str:
    mean, interval = scored.mean_dice(label)
    return f"{mean:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")


def signed(found: Mapping[str, Any], digits: int = 3) -> str:
    text, interval = f"{found['mean']:+.{digits}f}", found["interval"]
    if interval is None:
        return text
    p = f", p {told_p(found['p'])}" if "p" in found else ""
    p += f", corrected {told_p(found['p_of_all'])}" if "p_of_all" in found else ""
    return f"{text} ({interval[0]:+.{digits}f} to {interval[1]:+.{digits}f}{p})"


def told_p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def score(
    root: Path,
    budget: str,
    frozen: FrozenSet,
    subset: Subset,
    *,
    ours: str,
    final: bool,
    out: Path | None = None,
) -> str:
    """Score all runs of a budget; return the table, and keep it with its numbers in `out`.

    Raises:
        InputError: there is nothing to score, or test cases are asked for without `final`.

    """
    if subset == "test" and not final:
        raise InputError(
            "the test cases are scored with --final alone, once everything was chosen on validation"
        )
    kept = (out or root / "scores") / f"{budget}-{subset}.json"
    with reference_of(root, frozen, subset) as reference:
        scored = find_scored(root, budget, frozen, reference, subset, kept)
    differences = [beside(*pair, budget) for pair in pairs_of(scored, budget, subset, name_of(ours))]
    points, missing = {}, 0
    if (
        subset == "test" or budget == ABLATION
    ):  # validation cases chose what is claimed, so there is no testing that
        missing = adjust(differences, budget)
    if subset == "test":
        chosen_by = read_kept(
            (out or root / "scores") / f"{budget}-validation.json",
            Budget.read(budget),
            frozen.subset_digest("validation"),
            "validation",
        )
        points = at_points(scored, chosen_by)
    record = scored[0].record
    about = (
        f"{machines(scored, Budget.read(budget))}, budget `{budget}`, {len(scored[0].cases)} {subset} "
        f"phantoms (`{frozen.subset_digest(subset)[:12]}`); "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        + "."
        + told_specks(scored)
        + (f" {missing} of the claimed differences are not there yet." if missing else "")
    )
    text = table(scored, differences, points, about, Budget.read(budget), subset)
    if out is not None:
        content = {
            "about": about,
            "systems": [one.to_json() for one in scored],
            "differences": differences,
            "at_points_of_validation": points,
        }
        out.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")
    return text


@contextmanager
def reference_of(root: Path, frozen: FrozenSet, subset: Subset) -> Iterator[Path]:
    """Give the folder of reference label maps; those of test cases are on disk only while they are used."""
    if subset != "test":
        yield Places(root).labels(subset)
        return
    with tempfile.TemporaryDirectory() as name:
        yield labels_of_tests(frozen, Path(name))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy.score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, nargs="?", default=Path("build/accuracy"), metavar="ROOT")
    parser.add_argument("--budget", default="cpu", help="whose runs are scored (cpu)")
    parser.add_argument(
        "--ours", default="best", help="the preset whose differences from the peers are told (best)"
    )
    parser.add_argument("--final", action="store_true", help="score the test cases, and not validation")
    parser.add_argument(
        "--out", type=Path, help="folder for the JSON and the table (default: here, and docs/RESULTS.md)"
    )
    args = parser.parse_args(argv)
    subset: Subset = "test" if args.final else "validation"
    try:
        out = args.out or Path(__file__).parent
        text = score(
            args.root, args.budget, FrozenSet.read(), subset, ours=args.ours, final=args.final, out=out
        )
    except InputError as error:
        sys.stderr.write(f"accuracy: {error}\n")
        return 1
    sys.stdout.write(text + "\n")
    if args.out is None:
        write_part(f"accuracy/score.py, {args.budget} {subset}", text, RESULTS)
    else:
        (args.out / f"{args.budget}-{subset}.md").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
