"""Two sets of scores beside each other, case by case: what differs, and what is noise."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from algorithm.errors import InputError
from algorithm.files import replacing
from trainer.evaluate import NSD_TOLERANCE_MM
from trainer.intervals import CONFIDENCE, Paired, holm
from trainer.scores import Scores, columns
from trainer.structures import structures

log = logging.getLogger(__name__)

FILE_NAME = "scores.json"
KEYS = ("dice", "nsd")
VOLUME = "reference_ml"
# References within these are taken as the same; a volume is rounded where it was published.
SAME_VOLUME_ML, SAME_VOLUME_RELATIVE = 0.01, 0.02
SIGNIFICANT = 1 - CONFIDENCE
# No sign-flip test of fewer cases can reach 5 %: 2 / 2^5 is 6 %.
FEWEST_TO_TELL = 6
SMALLEST_SHOWN = 0.0001
TOO_FEW = "too few cases to tell"
CAVEAT = (
    "published scores are cross-validated: compare them with scores of cases that your network has not seen"
)
PUBLISHED = {
    "nnunet-task07": "resenc_l",
    "nnunet-task07-conv": "conv",
    "nnunet-task07-resenc-m": "resenc_m",
    "nnunet-task07-resenc-l": "resenc_l",
}
PUBLISHED_LABELS = ("pancreas", "tumour")  # values 1 and 2 of Task07, whose dataset.json says "cancer"
TUMOURS = {"cancer", "tumour", "tumor", "lesion"}

ByCase = Mapping[str, float | None]


@dataclass(frozen=True)
class Other:
    """What is compared with: its name, the scores of each structure by key and case, and the volumes of references."""

    name: str
    values: Mapping[str, Mapping[str, ByCase]]
    reference_ml: Mapping[str, ByCase]


def read_other(against: str, labels: Sequence[str], *, nsd_tolerance_mm: float = NSD_TOLERANCE_MM) -> Other:
    """Read what `--against` names.

    Args:
        against: a scores.json, a folder that holds one, or one of `PUBLISHED`.
        labels: of the scores that it is compared with, the background first.
        nsd_tolerance_mm: of those; NSD at another tolerance is left out, with a warning.

    Raises:
        InputError: there is no such file, it is no scores.json, or its labels are others.

    """
    path = Path(against)
    if against in PUBLISHED and not path.exists():
        return _published(against, labels)
    file = path / FILE_NAME if path.is_dir() else path
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        by_name = {
            name: {
                key: {case["case"]: _score(case[name].get(key)) for case in document["cases"]}
                for key in (*KEYS, VOLUME)
            }
            for name in structures(labels)
        }
        names = [case["case"] for case in document["cases"]]
        if len(set(names)) < len(names):
            raise ValueError("a case stands there twice")
        tolerance_mm = document.get("nsd_tolerance_mm")
    except OSError:
        raise InputError(
            f"--against must name a scores.json, a folder that holds one, or one of {', '.join(PUBLISHED)}, "
            f"got {against}"
        ) from None
    except KeyError as error:
        raise InputError(
            f"{file} has no {error} in each case, which these labels ask for: {', '.join(labels)}; "
            "compare scores of the same labels"
        ) from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{file} must be a scores.json of `decathlon evaluate`, but is not; score it anew"
        ) from None
    volumes = {name: keys.pop(VOLUME) for name, keys in by_name.items()}
    if tolerance_mm != nsd_tolerance_mm:
        log.warning(
            "%s has NSD at %s mm and not at %g: only Dice is compared", file, tolerance_mm, nsd_tolerance_mm
        )
        for keys in by_name.values():
            del keys["nsd"]
    return Other(str(against), by_name, volumes)


def _score(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("a score is a number or null")
    return float(value)


def _published(name: str, labels: Sequence[str]) -> Other:
    if len(labels) != 3 or labels[1].lower() != "pancreas" or labels[2].lower() not in TUMOURS:
        raise InputError(
            f"{name} has the labels background, pancreas and cancer of Task07, "
            f"but these scores have {', '.join(labels)}"
        )
    rows = published_cases()
    column = PUBLISHED[name]
    dice, volumes = {}, {}
    for label, theirs in zip(labels[1:], PUBLISHED_LABELS, strict=True):
        dice[label] = {"dice": {row["case"]: float(row[f"nnunet_{column}_dice_{theirs}"]) for row in rows}}
        volumes[label] = {row["case"]: float(row[f"{theirs}_ml"]) for row in rows}
    return Other(name, dice, volumes)


def published_cases() -> list[dict[str, str]]:
    """Return the rows of trainer/published/task07_nnunet.csv; its first lines say where it is from."""
    text = resources.files("trainer").joinpath("published/task07_nnunet.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@dataclass(frozen=True)
class Difference:
    """One score of one structure, in all cases or in a group of them.

    Attributes:
        label: the structure.
        key: "dice" or "nsd".
        group: what kind of group and which, such as "cancer size" and "up to 20 mm"; None for all cases.
        ours, theirs: means over the cases that both have.
        paired: the test of ours - theirs; None where they share no case.
        p: `paired.p`, adjusted for the number of tests made alongside (Holm); None where there are too few cases for
            any outcome of the test alone to reach 5 %, which is then not counted among them.
        verdict: "better", "worse", "inside the noise", or "too few cases to tell".

    """

    label: str
    key: str
    group: tuple[str, str] | None
    ours: float | None
    theirs: float | None
    paired: Paired | None
    p: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two sets of scores beside each other.

    Attributes:
        against: the other's name.
        shared: how many cases both have.
        only_ours, only_theirs: how many only one has.
        overall: over all shared cases.
        grouped: within groups of cases.

    """

    against: str
    shared: int
    only_ours: int
    only_theirs: int
    overall: list[Difference]
    grouped: list[Difference]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def write_json(self, path: Path) -> None:
        """Write comparison.json."""
        with replacing(path) as temporary:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    def caveats(self) -> list[str]:
        """Return what the verdicts cannot tell, a sentence each."""
        return caveats(
            self.against, [[(one.p, one.verdict) for one in t] for t in (self.overall, self.grouped)]
        )

    def table(self) -> str:
        """Return what the command prints."""
        counts = f"({self.only_ours} only here, {self.only_theirs} only there)"
        lines = [
            f"against {self.against}: {self.shared} shared cases {counts}",
            *self.caveats(),
        ]
        # Groups by NSD are in comparison.json and in the report.
        by_dice = [one for one in self.grouped if one.key == "dice"]
        for title, differences in (("all shared cases", self.overall), ("in groups", by_dice)):
            if differences:
                lines += ["", columns([[title, *HEADINGS], *(_cells(one) for one in differences)])]
        return "\n".join(lines) + "\n"


def caveats(against: str, tables: Sequence[Sequence[tuple[float | None, str]]]) -> list[str]:
    """Return what the verdicts of a comparison cannot tell, a sentence each.

    Args:
        against: what is compared with.
        tables: adjusted p and verdict of each row, of all shared cases and of groups.

    """
    said = [CAVEAT] if against in PUBLISHED else []
    tests = [sum(p is not None for p, _ in rows) for rows in tables]
    if sum(tests) > 1:
        said.append(
            f"{' and '.join(map(str, filter(None, tests)))} tests were made, each table adjusted for its own (Holm): "
            "of so many, some p are small by chance before that"
        )
    few = sum(verdict == TOO_FEW for rows in tables for _, verdict in rows)
    if few:
        rows = sum(map(len, tables))
        said.append(
            f"{few} of {rows} rows have too few cases to tell a difference of any size from noise, which does not "
            "say that there is none"
        )
    return said


HEADINGS = ("cases", "ours", "theirs", "difference", "verdict", "95 %", "p", "p adjusted", "Wilcoxon p")


def _cells(one: Difference) -> list[str]:
    place = "" if one.group is None else f", {one.group[0]} {one.group[1]}"
    name = f"{one.label} {'Dice' if one.key == 'dice' else 'NSD'}{place}"
    if one.paired is None:
        return [name, "0", *["-"] * 3, one.verdict, *["-"] * 4]
    interval = one.paired.interval
    return [
        name,
        str(one.paired.cases),
        f"{one.ours:.3f}",
        f"{one.theirs:.3f}",
        f"{one.paired.mean:+.3f}",
        one.verdict,
        "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
        p_text(one.paired.p),
        "-" if one.p is None else p_text(one.p),
        p_text(one.paired.p_wilcoxon),
    ]


def p_text(p: float) -> str:
    """Return a p value as tables show it: none is 0."""
    return "< 0.0001" if p < SMALLEST_SHOWN else f"{p:.4f}"


def compare(scores: Scores, other: Other) -> Comparison:
    """Test the differences of the cases that both have.

    A difference is called better or worse where the sign-flip test of its mean, adjusted for the number of scores
    that are tested alongside, stays below 5 %, and the bootstrap interval of the mean excludes 0; else it is inside
    the noise, or, where so few cases could not have given another answer, they are too few to tell.

    Raises:
        InputError: no case is shared, or the references of shared cases have other volumes: cases of other patients
            that happen to have the same names, as those of a phantom.

    """
    ours = {case.case for case in scores.cases}
    theirs = {case for keys in other.values.values() for cases in keys.values() for case in cases}
    shared = sorted(ours & theirs)
    if not shared:
        raise InputError(
            f"no case is in both: {sorted(ours)[0]} is one of these {len(ours)}, and "
            f"{sorted(theirs)[0] if theirs else 'nothing'} one of the {len(theirs)} of {other.name}"
        )
    _refuse_other_references(scores, other, shared)
    overall = _differences(scores, other, shared, None)
    grouped: list[Difference] = []
    for kind, groups in scores.groups().items():
        for name, members in groups.items():
            grouped += _differences(scores, other, [case for case in members if case in theirs], (kind, name))
    return Comparison(
        against=other.name,
        shared=len(shared),
        only_ours=len(ours - theirs),
        only_theirs=len(theirs - ours),
        overall=_judged(overall),
        grouped=[one for one in _judged(grouped) if one.paired is not None],
    )


def _refuse_other_references(scores: Scores, other: Other, shared: Sequence[str]) -> None:
    for label, theirs in other.reference_ml.items():
        ours = scores.values(label, VOLUME)
        for case in shared:
            mine, its = ours.get(case), theirs.get(case)
            if mine is None or its is None:
                continue
            if abs(mine - its) > max(SAME_VOLUME_ML, SAME_VOLUME_RELATIVE * max(mine, its)):
                raise InputError(
                    f"{case} is not the same case in both: its reference has {mine:.2f} ml of {label} here and "
                    f"{its:.2f} ml in {other.name}; compare scores of the same references"
                )


def _differences(
    scores: Scores, other: Other, cases: Sequence[str], group: tuple[str, str] | None
) -> list[Difference]:
    found = []
    for label, keys in other.values.items():
        for key, theirs in keys.items():
            ours = scores.values(label, key)
            pairs = [
                (mine, its)
                for case in cases
                if (mine := ours.get(case)) is not None and (its := theirs.get(case)) is not None
            ]
            if not pairs:
                found.append(Difference(label, key, group, None, None, None, None, "no shared case"))
                continue
            means = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
            paired = Paired.of([mine - its for mine, its in pairs])
            found.append(Difference(label, key, group, means[0], means[1], paired, None, ""))
    return found


def _judged(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with p adjusted among them, and verdicts."""
    tested = [one.paired.p for one in differences if one.paired is not None and _can_tell(one.paired)]
    adjusted = holm(tested)
    judged, place = [], 0
    for one in differences:
        if one.paired is None:
            judged.append(one)
        elif _can_tell(one.paired):
            least = 2 * 0.5**one.paired.cases  # the p of differences that all have one sign
            best = holm([*tested[:place], least, *tested[place + 1 :]])[place]
            judged.append(
                replace(one, p=adjusted[place], verdict=_verdict(one.paired, adjusted[place], best))
            )
            place += 1
        else:
            judged.append(replace(one, verdict=TOO_FEW))
    return judged


def _can_tell(paired: Paired) -> bool:
    return paired.cases >= FEWEST_TO_TELL and paired.interval is not None


def _verdict(paired: Paired, p: float, best: float) -> str:
    """Return what p says; `best` is what it would be if all differences had one sign, beside the same other tests."""
    interval = paired.interval
    if interval is not None and p < SIGNIFICANT and not interval[0] <= 0.0 <= interval[1]:
        return "better" if paired.mean > 0 else "worse"
    return TOO_FEW if best >= SIGNIFICANT else "inside the noise"
