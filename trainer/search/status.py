"""How far a search is, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.search.objective import foreground_dice
from trainer.search.plan import Plan
from trainer.search.ranking import FEWEST_SEEDS, best_trials, missing_confirmations, ranking
from trainer.search.store import Kind, Trial


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
    done, confirmed = _ended(trials, "search"), _ended(trials, "confirmation")
    words = [f"{done} of {plan.evaluations} trials done"]
    if confirmed:
        words[0] += f", {confirmed} of {confirmed + _confirmations_left(trials, plan)} confirmations"
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


def doubts(trials: Sequence[Trial], plan: Plan) -> str | None:
    """Return why the best configuration may not be the best, in words that end a sentence; None without a reason."""
    ranked = ranking(trials)
    words = []
    done, confirmed, left = (
        _ended(trials, "search"),
        _ended(trials, "confirmation"),
        _confirmations_left(trials, plan),
    )
    if done < plan.evaluations or left:
        again = f" and {confirmed} of {confirmed + left} confirmations" if confirmed + left else ""
        words.append(
            f"is unfinished ({done} of {plan.evaluations} trials{again} are done; the same command continues it)"
        )
    if ranked and not ranked[0].scores:
        words.append(
            f"has not confirmed its best, trial {ranked[0].trial.number}, with other seeds, and one seed lies (see "
            "--confirm)"
        )
    elif ranked:
        first = best_trials(trials)[0]
        rank = next(one for one in ranked if one.trial is first)
        if len(rank.scores) < min(len(ranked[0].scores), FEWEST_SEEDS):
            words.append(
                f"has a trial {first.number} that scored higher ({first.objective:.3f}) and is not confirmed with "
                "other seeds"
            )
    return ", and ".join(words) or None


def _ended(trials: Sequence[Trial], kind: Kind) -> int:
    return sum(trial.kind == kind and not trial.is_running for trial in trials)


def _confirmations_left(trials: Sequence[Trial], plan: Plan) -> int:
    """Return how many confirmations are still to end, those of configurations that are still to come included."""
    ended = [trial for trial in trials if not trial.is_running]
    left = len(missing_confirmations(ended, plan.confirm))
    if _ended(trials, "search") < plan.evaluations:
        configurations, repetitions = plan.confirm
        left += repetitions * max(0, min(configurations, plan.evaluations) - len(best_trials(ended)))
    return left


def time_left(trials: Sequence[Trial], plan: Plan, jobs: int) -> float | None:
    """Return the seconds that are left by the mean of what ended, confirmations included; None when nothing did.

    What early stopping saved so far it is taken to go on saving.
    """
    ended = [trial.seconds for trial in trials if trial.kind == "search" and not trial.is_running]
    whole = [trial.seconds for trial in trials if trial.state == "finished"]
    if not ended:
        return None
    to_search = max(0, plan.evaluations - len(ended))
    each = float(np.mean(whole)) if whole else float(np.mean(ended))
    return (to_search * float(np.mean(ended)) + _confirmations_left(trials, plan) * each) / jobs


def duration(seconds: float) -> str:
    """Return a time as it is read: 45 s, 12 min, 3.5 h, 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
