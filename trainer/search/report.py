"""A search's report: SEARCH/report.html, one page with its pictures in it, and SEARCH/trials.csv."""

from __future__ import annotations

import base64
import csv
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from algorithm.files import replacing
from trainer.search import figures
from trainer.search.importance import FEWEST, importances
from trainer.search.plan import Plan
from trainer.search.ranking import Ranked, ranking, seed_deviation
from trainer.search.space import Space, Value
from trainer.search.status import describe, doubts, duration
from trainer.search.store import Store, Trial

MOST_ROWS = 15
COLUMNS = (
    "number",
    "kind",
    "origin",
    "repeats",
    "seed",
    "state",
    "objective",
    "device",
    "began",
    "ended",
    "seconds",
    "starts",
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px }
td, th { padding: 3px 7px; text-align: right; border-bottom: 1px solid #ddd }
td:not(.left) { white-space: nowrap }
th { font-weight: 600 } .left { text-align: left } .note { color: #666; font-size: 14px; max-width: 60em }
.table { overflow-x: auto }
"""


def write_report(search: Path, store: Store) -> None:
    """Write the page and the table of what the store holds, finished or not."""
    about, trials = store.about, store.trials()
    plan, labels = Plan.from_dict(about["plan"]), about["labels"]
    with replacing(search / "trials.csv") as temporary, temporary.open("w", newline="") as file:
        _write_table(file, plan.space, trials, labels)
    with replacing(search / "report.html") as temporary:
        temporary.write_text(_page(search, about["work"], plan, trials, labels), encoding="utf-8")


def _write_table(file: io.TextIOBase, space: Space, trials: Sequence[Trial], labels: Sequence[str]) -> None:
    names = [row.name for row in space.parameters]
    writer = csv.writer(file)
    writer.writerow(
        [*COLUMNS, *names, *(f"best_epoch_pooled_{name}" for name in labels[1:]), "epochs", "error"]
    )
    for trial in trials:
        best = _best_row(trial, labels)
        dice = [best.get(f"val_pooled_{name}") for name in labels[1:]]
        values = [getattr(trial, name) for name in COLUMNS]
        parameters = [trial.parameters[name] for name in names]
        writer.writerow([*values, *parameters, *dice, len(trial.curve), trial.error])


def _page(search: Path, work: str, plan: Plan, trials: Sequence[Trial], labels: Sequence[str]) -> str:
    ranked = ranking(trials)
    best = ranked[0].trial.number if ranked else None
    sections = [
        f"<h1>Search in {html.escape(search.resolve().name)}</h1>",
        f"<p>{html.escape(describe(trials, plan, 1).partition('; best')[0])}. {_summary(plan, work, labels)}</p>",
        "<h2>Best configurations</h2>",
        _ranking_table(plan, ranked, labels),
        _confidence(ranked),
    ]
    if ranked and (why := doubts(trials, plan)):
        sections.append(f'<p class="note"><strong>The search {html.escape(why)}.</strong></p>')
    if any(trial.curve for trial in trials):
        sections += [
            "<h2>Trials</h2>",
            _picture(figures.progress(trials, ranked), "objective by trial"),
            "<h2>Parallel coordinates</h2>",
            _picture(figures.parallel(plan.space, trials), "one line a trial; yellow is best"),
            "<h2>Importance of each parameter</h2>",
            _importance(plan, trials),
            "<h2>Curves</h2>",
            _picture(
                figures.curves(trials, labels, best),
                "pooled Dice on validation patches; in colour the best, dotted what was stopped or failed",
            ),
        ]
    sections += ["<h2>Time</h2>", _time(trials)]
    if trials:
        sections.append(_picture(figures.time_spent(trials), "time at work by trial, over all starts"))
    failed = [trial for trial in trials if trial.error is not None]  # those tried again, too
    if failed:
        rows = [[str(t.number), _configuration(t), t.error or "", t.state] for t in failed]
        sections += [
            "<h2>Failed trials</h2>",
            _table(["trial", "configuration", "reason", "state now"], rows, left=(1, 2, 3)),
        ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Search in {html.escape(search.resolve().name)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _summary(plan: Plan, work: str, labels: Sequence[str]) -> str:
    early = "hopeless ones are stopped early" if plan.early_stopping else "all are trained to the end"
    return html.escape(
        f"Each trains preset {plan.preset} for {plan.epochs} epochs on {plan.train_patches} patches of {work} and "
        f"validates on {plan.val_patches}; {early}. The objective is the mean of the pooled validation Dice of "
        f"{', '.join(labels[1:])} after the best epoch. The first {plan.random_first} configurations are random."
    )


def _ranking_table(plan: Plan, ranked: Sequence[Ranked], labels: Sequence[str]) -> str:
    if not ranked:
        return "<p>No trial has finished.</p>"
    names = [row.name for row in plan.space.parameters]
    head = [
        "trial",
        *names,
        "objective",
        *(f"Dice {name}" for name in labels[1:]),
        "other seeds: mean",
        "95 % interval",
        "n",
    ]
    rows = []
    for one in ranked[:MOST_ROWS]:
        best = _best_row(one.trial, labels)
        dice = [_number(best.get(f"val_pooled_{name}")) for name in labels[1:]]
        interval = "" if math.isnan(one.low) else f"{one.low:.3f} to {one.high:.3f}"
        confirmed = [_number(one.mean), interval, str(len(one.scores) or "")]
        parameters = [_word(one.trial.parameters[name]) for name in names]
        rows.append([str(one.trial.number), *parameters, _number(one.trial.objective), *dice, *confirmed])
    return _table(head, rows)


def _confidence(ranked: Sequence[Ranked]) -> str:
    deviation = seed_deviation(ranked)
    if math.isnan(deviation):
        return (
            '<p class="note">Every score is of one seed, and the best of many is high by chance, too: '
            "--confirm 3x3 trains the best three again with three other seeds.</p>"
        )
    return (
        '<p class="note">Confirmed configurations come first, by the mean over their other seeds; '
        "the score that chose them is no part of it. Interval: Student's t. Between seeds the standard deviation of a "
        f"single score is {deviation:.3f}: what differs by less cannot be told apart by one seed.</p>"
    )


def _importance(plan: Plan, trials: Sequence[Trial]) -> str:
    found = importances(plan.space, trials)
    if not found:
        return f'<p class="note">It takes {FEWEST} trials with a score to say.</p>'
    note = (
        "PED-ANOVA: how much the values of one parameter among the best quarter of the trials differ from those among "
        "all; grey bars are no longer than chance makes them"
    )
    return _picture(figures.importance(found), note)


def _time(trials: Sequence[Trial]) -> str:
    total = sum(trial.seconds for trial in trials)
    lost = sum(trial.seconds for trial in trials if trial.state == "failed")
    again = sum(max(0, trial.starts - 1) for trial in trials)
    return (
        f"<p>{duration(total)} at work in {len(trials)} trials, {duration(lost)} of it in failed ones; "
        f"{again} times a trial was continued after an interruption.</p>"
    )


def _picture(figure: Figure, note: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    said = html.escape(note)
    return f'<img alt="{said}" src="data:image/png;base64,{data}">\n<p class="note">{said}</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = ()) -> str:
    def cell(tag: str, place: int, text: str) -> str:
        kind = ' class="left"' if place in left else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    lines = ["".join(cell("th", place, text) for place, text in enumerate(head))]
    lines += ["".join(cell("td", place, text) for place, text in enumerate(row)) for row in rows]
    return f'<div class="table"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'


def _best_row(trial: Trial, labels: Sequence[str]) -> dict[str, float | None]:
    from trainer.search.objective import foreground_dice

    return max(trial.curve, key=lambda row: foreground_dice(row, labels), default={})


def _configuration(trial: Trial) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in trial.parameters.items())


def _word(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"
