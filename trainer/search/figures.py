"""Pictures of a search, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from algorithm.colours import line_colour
from trainer.figures import plain
from trainer.search.importance import Importance
from trainer.search.objective import foreground_dice
from trainer.search.ranking import Ranked
from trainer.search.space import Parameter, Space
from trainer.search.store import Trial

COLOURS = {"start": "#009E73", "random": "0.55", "tpe": "#0072B2", "confirmation": "#D55E00"}
NAMES = {"start": "known before", "random": "random", "tpe": "TPE", "confirmation": "confirmation"}
SCALE = matplotlib.colormaps["viridis"]
DPI = 130
PATCH = {
    "facecolor": "white",
    "edgecolor": "none",
    "alpha": 0.75,
    "pad": 1.0,
}  # behind numbers that lines cross


def progress(trials: Sequence[Trial], best: Sequence[Ranked]) -> Figure:
    """Objective by trial, the best so far, and the confirmations of the best."""
    figure, axes = _figure(10, 3.6)
    searched = [t for t in trials if t.kind == "search"]
    so_far = -np.inf
    steps: list[tuple[int, float]] = []
    for trial in searched:
        if trial.state == "finished" and trial.objective is not None:
            so_far = max(so_far, trial.objective)
        if np.isfinite(so_far):
            steps.append((trial.number, so_far))
    for origin in ("random", "start", "tpe"):
        for state, marker in (("finished", "o"), ("stopped", "v")):
            chosen = [
                t for t in searched if (t.origin, t.state) == (origin, state) and t.objective is not None
            ]
            if chosen:
                name = NAMES[origin] + (", stopped early" if state == "stopped" else "")
                face = COLOURS[origin] if state == "finished" else "none"
                axes.scatter(
                    [t.number for t in chosen],
                    [float(t.objective or 0) for t in chosen],
                    s=26,
                    marker=marker,
                    facecolor=face,
                    edgecolor=COLOURS[origin],
                    label=name,
                )
    for one in (ranked for ranked in best if ranked.scores):
        axes.scatter(
            [one.trial.number] * len(one.scores),
            one.scores,
            s=30,
            marker="x",
            color=COLOURS["confirmation"],
            zorder=3,
        )
        if np.isfinite(one.low):
            axes.vlines(one.trial.number, one.low, one.high, color=COLOURS["confirmation"], alpha=0.5)
    if any(ranked.scores for ranked in best):
        axes.plot(
            [], [], "x", color=COLOURS["confirmation"], label="other seeds, 95 % interval of their mean"
        )
    if steps:
        axes.step(*zip(*steps, strict=True), where="post", color="0.2", linewidth=1, label="best so far")
    failed = [t.number for t in searched if t.state == "failed"]
    if failed:
        axes.scatter(
            failed,
            [0] * len(failed),
            s=26,
            marker="X",
            color="#CC0000",
            label="failed",
            clip_on=False,
            zorder=4,
        )
    axes.set_xlabel("trial")
    axes.set_ylabel("objective")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def parallel(space: Space, trials: Sequence[Trial]) -> Figure:
    """One line a trial through its parameters, coloured by its objective, the best on top."""
    scored = sorted(
        (
            t
            for t in trials
            if t.kind == "search" and t.state in ("finished", "stopped") and t.objective is not None
        ),
        key=lambda trial: trial.objective or 0.0,
    )
    count = len(space.parameters)
    figure, axes = _figure(max(6.0, 1.9 * (count + 1)), 4.2)
    values = np.array([trial.objective for trial in scored], dtype=np.float64)
    norm = Normalize(float(values.min()), float(values.max())) if len(values) else Normalize(0, 1)
    rng = np.random.default_rng(0)
    for trial, value in zip(scored, values, strict=True):
        # Lines through the same choice would hide each other.
        places = [
            row.place(trial.parameters[row.name])
            + (rng.uniform(-0.02, 0.02) if row.distribution == "choice" else 0)
            for row in space.parameters
        ]
        end = 0.5 if norm.vmin == norm.vmax else float(norm(value))
        better = 0.25 + 0.75 * end
        axes.plot(range(count + 1), [*places, end], color=SCALE(end), alpha=better, linewidth=0.7 + 1.2 * end)
    for place, row in enumerate(space.parameters):
        axes.axvline(place, color="0.3", linewidth=1)
        for at, text in _ticks(row):
            axes.text(
                place - 0.03, at, text, ha="right", va="center", fontsize=8, color="0.1", zorder=4, bbox=PATCH
            )
    axes.axvline(count, color="0.3", linewidth=1)
    for at in (0.0, 0.5, 1.0):
        low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
        axes.text(
            count + 0.03,
            at,
            f"{low + at * (high - low):.3f}",
            ha="left",
            va="center",
            fontsize=8,
            color="0.2",
        )
    axes.set_xticks(range(count + 1), [*(row.name for row in space.parameters), "objective"], fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(-0.4, count + 0.4)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def importance(found: Sequence[Importance]) -> Figure:
    """Bars of importance, with what chance gives."""
    figure, axes = _figure(7, 0.9 + 0.4 * len(found))
    for place, one in enumerate(reversed(found)):
        axes.barh(place, one.share, color="#0072B2" if one.share > one.chance else "0.75", height=0.6)
        axes.plot([one.chance] * 2, [place - 0.38, place + 0.38], color="0.15", linewidth=1.5)
    axes.plot([], [], color="0.15", linewidth=1.5, label="95 of 100 shuffles stay below")
    axes.set_yticks(range(len(found)), [one.name for one in reversed(found)])
    axes.set_xlabel("share of what the parameters explain, each alone")
    axes.set_xlim(0, None)
    _legend(axes)
    return figure


def curves(trials: Sequence[Trial], labels: Sequence[str], best: int | None) -> Figure:
    """Pooled validation Dice over epochs: their mean, and that of each foreground label."""
    names = ["mean", *labels[1:]]
    figure = Figure(figsize=(3.4 * len(names) + 0.4, 3.2), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for place, (axes, name) in enumerate(
        zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True)
    ):
        colour = "0.2" if place == 0 else line_colour(place)
        for trial in (t for t in trials if t.kind == "search" and t.curve):
            rows = trial.curve
            scores = [
                foreground_dice(row, labels) if place == 0 else row[f"val_pooled_{name}"] or 0.0
                for row in rows
            ]
            chosen = trial.number == best
            axes.plot(
                [row["epoch"] or 0 for row in rows],
                scores,
                color=colour if chosen else "0.7",
                linewidth=2 if chosen else 0.8,
                zorder=3 if chosen else 2,
                marker="o" if len(rows) == 1 or chosen else None,
                markersize=3,
                linestyle=":" if trial.state in ("stopped", "failed") else "-",
            )
        axes.set_title(plain(name) if place else "mean of the foreground labels", fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    return figure


def time_spent(trials: Sequence[Trial]) -> Figure:
    """Minutes of each trial."""
    figure, axes = _figure(10, 2.4)
    for origin, name in NAMES.items():
        chosen = [t for t in trials if t.origin == origin]
        if chosen:
            axes.bar(
                [t.number for t in chosen],
                [t.seconds / 60 for t in chosen],
                color=COLOURS[origin],
                label=name,
                width=0.8,
            )
    axes.set_xlabel("trial")
    axes.set_ylabel("minutes")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def _ticks(row: Parameter) -> list[tuple[float, str]]:
    if row.distribution == "choice":
        return [(row.place(value), str(value)) for value in row.values]
    is_log = row.distribution == "loguniform"
    between = (row.low * row.high) ** 0.5 if is_log else (row.low + row.high) / 2
    return [(row.place(at), f"{at:.3g}") for at in (row.low, between, row.high)]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
