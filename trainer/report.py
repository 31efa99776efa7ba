"""One HTML page about a training and its scores, which opens without a network."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from algorithm.errors import InputError
from algorithm.files import replacing
from trainer.adapt import is_ct
from trainer.charts import Line, chart
from trainer.compare import caveats, p_text
from trainer.figures import save_overlay_grid
from trainer.overlay import OverlayRow
from trainer.page import Cell, facts, page, table
from trainer.sources import Source, read_sources
from trainer.viewer import Scan, embed, viewer_html

log = logging.getLogger(__name__)

SCORES, COMPARISON, METRICS = "scores.json", "comparison.json", "metrics.csv"
CASES = 4  # in the viewer: a few MB each
TRAINING_SERIES, VALIDATION_SERIES = 6, 7
MODEL, WEIGHTS = "bundle/model.json", "bundle/model.safetensors"
SECTIONS = {
    "scores": "Scores",
    "comparison": "Comparison",
    "cases": "Cases",
    "viewer-section": "Viewer",
    "slices": "Slices",
    "groups": "Groups and lesions",
    "confusion": "Confusion matrix",
    "curves": "Curves",
    "made-by": "Settings, versions, hashes",
}


# What is read of scores.json and comparison.json.
SHOWN: Mapping[str, type] = MappingProxyType(
    {
        "labels": list,
        "cases": list,
        "scans": list,
        "mean": dict,
        "intervals": dict,
        "pooled": dict,
        "batch_averaged": dict,
    }
)
COMPARED: Mapping[str, type] = MappingProxyType(
    {"against": str, "shared": int, "only_ours": int, "only_theirs": int, "overall": list, "grouped": list}
)


@dataclass(frozen=True)
class Evaluated:
    """What SCORES holds, read and found sound."""

    folder: Path
    document: dict[str, Any]
    comparison: dict[str, Any] | None
    versions: dict[str, str]
    sources: list[Source]

    @classmethod
    def read(cls, folder: Path) -> Evaluated:
        """Read SCORES; InputError when it was not written by this release's `decathlon evaluate`."""
        document = _read_json(folder / SCORES, f"run `decathlon evaluate … --out {folder}` first")
        _require(document, SHOWN, folder / SCORES)
        names = set(document["mean"])
        if not document["cases"] or any(not names <= case.keys() for case in document["cases"]):
            raise InputError(
                f"{folder / SCORES} must hold cases with a score of each of {', '.join(document['mean'])}, but does "
                "not; run `decathlon evaluate` again"
            )
        comparison = None
        if (folder / COMPARISON).is_file():
            comparison = _read_json(folder / COMPARISON, "run `decathlon evaluate --against` again")
            _require(comparison, COMPARED, folder / COMPARISON)
        return cls(folder, document, comparison, *read_sources(folder))

    @property
    def labels(self) -> list[str]:
        """Label names by value, the background first."""
        return list(self.document["labels"])

    @property
    def names(self) -> list[str]:
        """What is scored: labels and their union."""
        return list(self.document["mean"])

    def worst_first(self) -> list[dict[str, Any]]:
        """Return the cases by their mean Dice over the labels that the reference has; without any, last."""

        def mean(case: Mapping[str, Any]) -> float:
            dice = [case[name]["dice"] for name in self.labels[1:] if case[name]["dice"] is not None]
            return sum(dice) / len(dice) if dice else math.inf

        return sorted(self.document["cases"], key=lambda case: (mean(case), case["case"]))


def write_report(run: Path, scores: Path, out: Path, *, cases: int = CASES, channel: int = 0) -> None:
    """Write the page.

    Args:
        run: the folder of `decathlon train`.
        scores: the folder of `decathlon evaluate`.
        out: the HTML file.
        cases: how many scans the viewer holds: the worst ones, and the best for comparison.
        channel: which one of scans with several is shown, from 0 on.

    Raises:
        InputError: a folder lacks what it must hold, or the model has no such channel.

    """
    metrics = _read_metrics(run)
    model = _read_json(run / MODEL, "give the RUN of `decathlon train`")
    evaluated = Evaluated.read(scores)
    if (labels := model.get("labels")) != evaluated.labels:
        raise InputError(
            f"RUN and SCORES must have the same labels, but {run / MODEL} has {labels} and {scores / SCORES} "
            f"{evaluated.labels}; give the RUN whose predictions were scored"
        )
    ranked = evaluated.worst_first()
    chosen = _read_scans(evaluated, ranked, cases, _Shown.of(model, channel, run / MODEL))
    described, elements, slices = [], [], []
    for number, (source, scan) in enumerate(chosen):
        description, data = embed(scan, number, evaluated.labels)
        described.append(description)
        elements.append(data)
        slices.append(_slice(scan, evaluated.labels))
        log.info("%s is in the viewer", source.case)
    parts = {
        "scores": _scores(evaluated),
        "comparison": _comparison(evaluated.comparison),
        "cases": _cases(evaluated, ranked, [source.case for source, _ in chosen]),
        "viewer-section": _viewer(evaluated, described),
        "slices": "\n".join(slices),
        "groups": _groups(evaluated),
        "confusion": _confusion(evaluated),
        "curves": _curves(metrics, evaluated.labels),
        "made-by": _made_by(run, model, evaluated),
    }
    data_set = _part(_part(model, "provenance"), "data_set").get("name", "")
    title = f"decathlon-unet: {data_set or run.name}, {len(ranked)} cases"
    links = "".join(f'<li><a href="#{key}">{SECTIONS[key]}</a></li>' for key, html in parts.items() if html)
    sections = "\n".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{SECTIONS[key]}</h2>\n{html}</section>'
        for key, html in parts.items()
        if html
    )
    body = (
        f'<a class="skip" href="#scores">Skip to the scores</a>\n<header><h1>{escape(title)}</h1>\n'
        '<p class="quiet">Research use; not a medical device. This page holds slices of scans: '
        "treat it as you treat them.</p>"
        f'</header>\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>{sections}</main>\n'
        + "\n".join(elements)
    )
    with replacing(out) as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")


@dataclass(frozen=True)
class _Shown:
    """Which channel of the model's is shown, and whether it is in HU."""

    channels: tuple[str, ...]
    channel: int
    in_hu: bool

    @classmethod
    def of(cls, model: Mapping[str, Any], channel: int, file: Path) -> _Shown:
        """Read it from model.json; InputError where there is no such channel."""
        channels = model.get("channels")
        if not isinstance(channels, list) or not channels or not all(isinstance(c, str) for c in channels):
            raise InputError(f"{file} must name the channels of the model; give the RUN of `decathlon train`")
        if channel >= len(channels):
            named = ", ".join(f"{number} {name}" for number, name in enumerate(channels))
            raise InputError(f"--channel must be one of the model's ({named}), got {channel}")
        in_hu = model.get("normalisation", "window") == "window" and is_ct(channels)
        return cls(tuple(channels), channel, in_hu)


def _read_scans(
    evaluated: Evaluated, ranked: Sequence[Mapping[str, Any]], most: int, shown: _Shown
) -> list[tuple[Source, Scan]]:
    """Return the scans that are shown; one that cannot be read is said, and another takes its place."""
    scans: dict[str, Scan] = {}
    sources = {source.case: source for source in evaluated.sources}
    while True:
        chosen = choose([case["case"] for case in ranked], list(sources.values()), most)
        unread = next((source for source in chosen if source.case not in scans), None)
        if unread is None:
            return [(source, scans[source.case]) for source in chosen]
        title = _title(evaluated, next(case for case in ranked if case["case"] == unread.case))
        assert unread.image is not None
        try:
            scans[unread.case] = Scan.read(
                title,
                unread.image,
                unread.reference,
                unread.prediction,
                channels=shown.channels,
                channel=shown.channel,
                in_hu=shown.in_hu,
            )
        except InputError as error:
            log.warning("%s is not shown: %s", unread.case, error)
            del sources[unread.case]


def choose(ranked: Sequence[str], sources: Sequence[Source], most: int) -> list[Source]:
    """Return whose scans are shown, worst first: the worst cases, and the best one where there is room for it."""
    files = {source.case: source for source in sources}
    shown = []
    for case in ranked:
        source = files.get(case)
        if source is None or source.image is None:
            continue
        gone = [path for path in (source.image, source.reference, source.prediction) if not path.exists()]
        if gone:
            log.warning("%s is not shown: %s is gone", case, gone[0])
            continue
        if changed := source.changed():
            log.warning(
                "%s is not shown: %s is no longer what was scored; run decathlon evaluate again",
                case,
                changed,
            )
            continue
        shown.append(source)
    if len(shown) <= most:
        return shown
    return [*shown[: most - 1], shown[-1]] if most > 1 else shown[:most]


def _read_json(file: Path, remedy: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{file} is missing or cannot be read; {remedy}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file} is not valid JSON; {remedy}") from None
    if not isinstance(document, dict):
        raise InputError(f"{file} must hold a JSON object; {remedy}")
    return document


def _require(document: Mapping[str, Any], keys: Mapping[str, type], file: Path) -> None:
    wrong = next((key for key, kind in keys.items() if not isinstance(document.get(key), kind)), None)
    if wrong is not None:
        raise InputError(
            f"{file} is damaged or of an older release: it lacks {wrong!r} as the report shows it; run "
            "`decathlon evaluate` again"
        )


def _part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object within another one, empty where it is not there."""
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _read_metrics(run: Path) -> list[dict[str, float]]:
    file = run / METRICS
    try:
        with file.open(newline="") as lines:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
        if any("epoch" not in row for row in rows):
            raise ValueError("no column epoch")
        return rows
    except OSError:
        raise InputError(
            f"{file} is missing; RUN must be the folder of `decathlon train`, which writes it"
        ) from None
    except (ValueError, TypeError):
        raise InputError(
            f"{file} must hold a row of numbers an epoch; `decathlon train` writes it anew"
        ) from None


def _title(evaluated: Evaluated, case: Mapping[str, Any]) -> str:
    dice = [f"{name} {case[name]['dice']:.2f}" for name in evaluated.names if case[name]["dice"] is not None]
    return f"{case['case']}: Dice {', '.join(dice)}" if dice else str(case["case"])


def _slice(scan: Scan, labels: Sequence[str]) -> str:
    """Return figure 6 for one scan."""
    row = OverlayRow.of(scan.title, scan.image, scan.reference, scan.prediction, scan.geometry)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "slice.png"
        save_overlay_grid(file, [row], labels=labels, window_hu=scan.stored_window())
        encoded = base64.b64encode(_smaller(file)).decode()
    return (
        f'<figure class="plate"><img alt="{escape(row.title)}: image, reference and prediction" '
        f'src="data:image/png;base64,{encoded}"></figure>'
    )


def _smaller(file: Path) -> bytes:
    """Return the picture with 256 colours, which takes a third of the bytes and looks the same."""
    kept = io.BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
    return kept.getvalue()


def _scores(evaluated: Evaluated) -> str:
    document = evaluated.document
    intervals, batches, count = document["intervals"], document["batch_averaged"], len(document["cases"])

    def with_interval(name: str, key: str, digits: int) -> Cell:
        value, interval = document["mean"][name][key], intervals[name][key]
        cell = Cell.number(value, digits)
        if value is None or interval is None:
            return cell
        low, high = interval
        return Cell(f'{cell.html} <span class="quiet">({low:.{digits}f} to {high:.{digits}f})</span>', value)

    rows, remarks = [], []
    for name in evaluated.names:
        averaged = batches.get(name)
        rows.append(
            [
                Cell.text(name),
                Cell.text(f"{document['mean'][name]['cases']} of {count}", ""),
                with_interval(name, "dice", 3),
                Cell.number(document["pooled"][name]["dice"]),
                Cell.number(None if averaged is None else averaged["dice"]),
                with_interval(name, "nsd", 3),
                with_interval(name, "hd95_mm", 1),
                with_interval(name, "volume_error_ml", 1),
            ]
        )
        if averaged is not None and averaged["absent"]:
            remarks.append(
                f'<p class="remark">{averaged["absent"]} of {count} references lack {escape(name)}. They are missing '
                "from its mean Dice, as on the leaderboard; the paper's average over batches counts each of them as 0, "
                "found or not, and so lies below. The pooled Dice adds up all voxels first, and so counts what was "
                "called in those cases.</p>"
            )
    heads = [
        "label",
        "cases with it",
        "Dice, mean of cases",
        "Dice, all voxels pooled",
        "Dice, absent counts 0",
        f"NSD {document['nsd_tolerance_mm']:g} mm",
        "HD95, mm",
        "volume error, ml",
    ]
    explained = (
        '<p class="quiet">“Dice, absent counts 0” is how the paper averages (section 4.3), each case taken as a batch: '
        "where the reference lacks a label, the case counts 0 whatever was predicted. Where no case lacks the label, "
        "it equals the mean of cases.</p>"
    )
    return (
        table(heads, rows, caption="Means over cases, with 95 % bootstrap intervals")
        + explained
        + "".join(remarks)
    )


def _comparison(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    heads = [
        "score",
        "cases",
        "ours",
        "theirs",
        "difference",
        "verdict",
        "95 %",
        "p",
        "adjusted p",
        "Wilcoxon p",
    ]
    told = caveats(
        comparison["against"],
        [[(one["p"], one["verdict"]) for one in comparison[part]] for part in ("overall", "grouped")],
    )
    remark = f'<p class="remark">{" ".join(f"{escape(_sentence(one))}" for one in told)}</p>' if told else ""
    tables = []
    for part, caption in (("overall", "All shared cases"), ("grouped", "In groups")):
        rows = [_difference(one) for one in comparison[part]]
        if rows:
            tables.append(table(heads, rows, caption=caption))
    return (
        f"<p>Against {escape(comparison['against'])}, case by case: {comparison['shared']} shared cases, "
        f"{comparison['only_ours']} only here, {comparison['only_theirs']} only there. A difference counts where a "
        "sign-flip test of its mean, adjusted for the number of tests in the table (Holm), stays below 5 % and the "
        "bootstrap interval excludes 0; else it is inside the noise.</p>" + remark + "".join(tables)
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _difference(one: Mapping[str, Any]) -> list[Cell]:
    place = "" if one["group"] is None else f", {one['group'][0]} {one['group'][1]}"
    paired = one["paired"]
    name = Cell.text(f"{one['label']} {'Dice' if one['key'] == 'dice' else 'NSD'}{place}")
    if paired is None:
        missing = Cell.number(None)
        return [name, Cell.number(0, 0), *[missing] * 3, Cell.text(one["verdict"], ""), *[missing] * 4]
    interval = paired["interval"]
    return [
        name,
        Cell.number(paired["cases"], 0),
        Cell.number(one["ours"]),
        Cell.number(one["theirs"]),
        Cell.number(paired["mean"], sign=True),
        Cell.text(one["verdict"], one["verdict"] if one["verdict"] in ("better", "worse") else ""),
        Cell.number(None) if interval is None else Cell.text(f"{interval[0]:+.3f} to {interval[1]:+.3f}", ""),
        *(
            Cell.number(None) if p is None else Cell.text(p_text(p), "")
            for p in (paired["p"], one["p"], paired["p_wilcoxon"])
        ),
    ]


def _cases(evaluated: Evaluated, ranked: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> str:
    keys = (
        ("dice", "Dice", 3),
        ("nsd", "NSD", 3),
        ("hd95_mm", "HD95\u00a0mm", 1),
        ("volume_error_ml", "error\u00a0ml", 1),
    )
    heads = ["case", "viewer", *(f"{name} {short}" for name in evaluated.names for _, short, _ in keys)]
    rows = []
    for case in ranked:
        name = str(case["case"])
        show = Cell("")
        if name in shown:
            number = shown.index(name)
            text = (
                f'<button type="button" data-scan="{number}" aria-label="show {escape(name)}">show</button>'
            )
            show = Cell(text, number)
        rows.append(
            [
                Cell.text(name),
                show,
                *(Cell.number(case[one][key], digits) for one in evaluated.names for key, _, digits in keys),
            ]
        )
    return table(heads, rows, caption="Every case, worst first; a head sorts", sortable=True)


def _viewer(evaluated: Evaluated, scans: Sequence[dict[str, Any]]) -> str:
    if not scans:
        return (
            "<p>No scan was at hand when the cases were scored; "
            "<code>decathlon evaluate --images FOLDER</code> names their folder.</p>"
        )
    return viewer_html(evaluated.labels, scans, reference=True)


def _groups(evaluated: Evaluated) -> str:
    document, parts = evaluated.document, []
    for kind, strata in document["strata"].items():
        rows = [
            [
                Cell.text(stratum["name"]),
                Cell.number(stratum["cases"], 0),
                *(Cell.number(stratum[name][key]) for name in evaluated.names for key in ("dice", "nsd")),
            ]
            for stratum in strata
        ]
        heads = [kind, "cases", *(f"{name} {key}" for name in evaluated.names for key in ("Dice", "NSD"))]
        parts.append(table(heads, rows, caption=f"By {kind}"))
    for name, lesions in document["lesions"].items():
        rows = [
            [
                Cell.text(size["name"]),
                Cell.number(size["lesions"], 0),
                Cell.number(size["found"], 0),
                Cell.number(size["sensitivity"]),
                Cell.number(size["false_positives"], 0),
            ]
            for size in [*lesions["sizes"], {"name": "all", **lesions}]
        ]
        heads = ["diameter", "lesions", "found", "sensitivity", "false positives"]
        parts.append(
            table(
                heads,
                rows,
                caption=f"{name}, lesion by lesion: found from an intersection over union of 0.1 on",
            )
        )
        parts.append(_detection(name, evaluated.labels.index(name), document["detection"][name]))
    return "\n".join(parts)


def _detection(name: str, value: int, detection: Mapping[str, Any]) -> str:
    by = {"probability": "its highest probability", "prediction_ml": "its predicted volume"}[
        detection["score"]
    ]
    values = {
        "patients with it": detection["patients_with"],
        "patients without": detection["patients_without"],
        "sensitivity of the labels": _shown(detection["sensitivity"]),
        "specificity of the labels": _shown(detection["specificity"]),
        "ROC AUC": _shown(detection["roc_auc"]),
        "average precision": _shown(detection["average_precision"]),
    }
    html = facts(values, caption=f"{name} in a patient, ranked by {by}")
    if detection["roc"] is None:
        return f"{html}<p>A ROC curve needs patients with and without {escape(name)}.</p>"
    line = Line(f"{name}, ranked by {by}", value, detection["roc"])
    curve = chart(
        "ROC: sensitivity", [line], across="false positive rate", x_range=(0.0, 1.0), y_range=(0.0, 1.0)
    )
    return f'{html}<div class="charts">{curve}</div>'


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _confusion(evaluated: Evaluated) -> str:
    labels, counts = evaluated.labels, np.array(evaluated.document["confusion"], np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        [
            Cell.text(name),
            *(
                Cell(
                    f"{share:.4f}<br><span class=quiet>{count:,}</span>",
                    float(share),
                    f"heat-{round(share * 10)}",
                )
                for count, share in zip(counts[value], shares[value], strict=True)
            ),
        ]
        for value, name in enumerate(labels)
    ]
    return table(
        ["reference \\ prediction", *labels],
        rows,
        caption="Share of the reference label's voxels, and their number, of all cases together",
    )


def _curves(metrics: Sequence[Mapping[str, float]], labels: Sequence[str]) -> str:
    def points(key: str) -> list[tuple[float, float]]:
        return [(row["epoch"], row[key]) for row in metrics if math.isfinite(row.get(key, math.nan))]

    loss = [
        Line("training", TRAINING_SERIES, points("train_loss"), dotted=True),
        Line("validation", VALIDATION_SERIES, points("val_loss")),
    ]
    charts = [chart("Loss, mean over batches", loss, across="epoch")]
    for kind, title in (
        ("dice", "Dice, mean over batches"),
        ("pooled", "Dice, all batches at once"),
        ("volume", "Dice of whole volumes"),
    ):
        lines = [
            Line(
                f"{name}, {said}",
                value,
                points(f"{part}_{kind}_{name}"),
                dotted=part == "train",
            )
            for value, name in enumerate(labels)
            if value
            for part, said in (("train", "training"), ("val", "validation"))
        ]
        charts.append(chart(title, lines, across="epoch", y_range=(0.0, 1.0)))
    return (
        "<p>A batch that lacks a class counts 0 for it in the mean over batches; Dice of all batches at once does "
        f'not suffer from that.</p><div class="charts">{"".join(charts)}</div>'
    )


def _made_by(run: Path, model: Mapping[str, Any], evaluated: Evaluated) -> str:
    provenance = _part(model, "provenance")
    hashes = {
        WEIGHTS: _sha256(run / WEIGHTS),
        MODEL: _sha256(run / MODEL),
        SCORES: _sha256(evaluated.folder / SCORES),
        "data set": _part(provenance, "data_set").get("sha256", "unknown"),
    }
    label_maps = {
        f"{what} of {source.case}": source.states[path].sha256
        for source in evaluated.sources
        for what, path in (("reference", source.reference), ("prediction", source.prediction))
        if path in source.states
    }
    network = {name: value for name, value in model.items() if name != "provenance"}
    return "\n".join(
        [
            facts(hashes, caption="SHA-256"),
            "<details><summary>Label maps that were scored</summary>"
            + facts(label_maps, caption="SHA-256 of label maps")
            + "</details>",
            facts(evaluated.versions, caption="Versions that scored"),
            facts(_flat(_part(provenance, "versions")), caption="Versions that trained"),
            "<details><summary>Settings of the training</summary>"
            + facts(_flat(_part(provenance, "settings")), caption="Settings of the training")
            + "</details>",
            "<details><summary>The model</summary>"
            + facts(_flat(network), caption="The model")
            + "</details>",
        ]
    )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = json.dumps(value, ensure_ascii=False)
    return flat


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    except OSError:
        return "missing"
    return digest.hexdigest()
