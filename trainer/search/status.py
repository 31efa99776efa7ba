"""How far a search is, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.search.objective import foreground_dice
from trainer.search.plan import Plan
from trainer.search.ranking import best_trials
from trainer.search.store import Trial


def describe_end(trial: Trial, trials: Sequence[Trial], plan: Plan, labels: Sequence[str], jobs: int) -> str:
    """Return one line about a trial that has ended: its score, trials done, the best so far, time left."""
    if trial.state == "failed":
        said = f"failed: {trial.error}"
    else:
        row = max(trial.curve, key=lambda row: foreground_dice(row, labels))
        dice = ", ".join(f"{name} {row[f'val_pooled_{name}'] or 0.0:.3f}" for name in labels[1:])
        ended = f" stopped after {len(trial.curve)} epochs," if trial.state == "stopped" else ""
        said = f"{trial.objective:.3f} ({dice}),{ended} {duration(trial.seconds)}"
    repeated = f", trial {trial.repeats} with seed {trial.seed}" if trial.repeats is not None else ""
    return f"trial {trial.number}{repeated}: {said}; {describe(trials, plan, jobs)}"


def describe(trials: Sequence[Trial], plan: Plan, jobs: int) -> str:
    """Return trials done, the best so far, and the time left."""
    searched = [trial for trial in trials if trial.kind == "search"]
    done = sum(not trial.is_running for trial in searched)
    words = [f"{done} of {plan.evaluations} trials done"]
    confirmed = sum(trial.kind == "confirmation" and not trial.is_running for trial in trials)
    if confirmed:
        words[0] += f", {confirmed} of {plan.confirm[0] * plan.confirm[1]} confirmations"
    for state in ("failed", "stopped"):
        count = sum(trial.state == state for trial in searched)
        words[0] += f", {count} {state}" if count else ""
    best = best_trials(trials)
    if best:
        words.append(f"best {best[0].objective:.3f} by trial {best[0].number}")
    left = time_left(trials, plan, jobs)
    if left is not None:
        words.append(f"{duration(left)} left")
    return "; ".join(words)


def time_left(trials: Sequence[Trial], plan: Plan, jobs: int) -> float | None:
    """Return the seconds that are left by the mean of what ended, confirmations included; None when nothing did.

    What early stopping saved so far it is taken to go on saving.
    """
    ended = [trial.seconds for trial in trials if trial.kind == "search" and not trial.is_running]
    whole = [trial.seconds for trial in trials if trial.state == "finished"]
    if not ended:
        return None
    confirmed = sum(trial.kind == "confirmation" and not trial.is_running for trial in trials)
    to_search = max(0, plan.evaluations - len(ended))
    to_confirm = max(0, plan.confirm[0] * plan.confirm[1] - confirmed)
    each = float(np.mean(whole)) if whole else float(np.mean(ended))
    return (to_search * float(np.mean(ended)) + to_confirm * each) / jobs


def duration(seconds: float) -> str:
    """Return a time as it is read: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
