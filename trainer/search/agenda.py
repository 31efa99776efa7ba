"""What a search has left to do: trials that were interrupted, new ones, then repetitions of the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from algorithm.errors import InputError
from trainer.search import halving
from trainer.search.objective import objective
from trainer.search.plan import Plan
from trainer.search.ranking import missing_confirmations
from trainer.search.sampler import Sampler
from trainer.search.space import Parameters
from trainer.search.status import describe_end
from trainer.search.store import Kind, State, Store, Trial
from trainer.settings import TrainSettings

log = logging.getLogger(__name__)
HOPELESS = 10  # failed trials, one after the other, that end a search


class Agenda:
    """Hands out trials and keeps what comes of them; engines differ in who trains them.

    Args:
        store: of the search, written by this process alone.
        plan: of the search.
        sampler: suggests new configurations.
        labels: names by value, the background first.
        starts: known good configurations, tried before all others.
        side_by_side: trials that are trained at a time, for the time that is left.
        ended: told of every trial that has ended.

    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        sampler: Sampler,
        labels: Sequence[str],
        *,
        starts: Sequence[Parameters] = (),
        side_by_side: int = 1,
        ended: Callable[[Trial], None] | None = None,
    ) -> None:
        self.store, self.plan, self.sampler, self.labels = store, plan, sampler, tuple(labels)
        self.starts, self.side_by_side = list(starts), side_by_side
        self._ended = ended
        self._at_work: set[int] = set()

    def next(self, kind: Kind, device: str | None = None) -> Trial | None:
        """Return the trial to train now, on `device`, as running; None where there is none of this kind.

        Confirmations are of the best trials of a search, so they wait until all of these have ended.

        Raises:
            InputError: so many trials failed one after the other that it is not the parameters' fault.

        """
        trials = self.store.trials()
        self._check_hope(trials)
        waiting = (t for t in trials if t.kind == kind and t.is_running and t.number not in self._at_work)
        trial = next(waiting, None)
        if trial is None:
            trial = self._new_trial(trials) if kind == "search" else self._new_confirmation(trials)
        if trial is not None:
            self._at_work.add(trial.number)
            self.store.start(trial.number, device)
        return trial

    def trainable(self, kind: Kind, device: str | None = None) -> tuple[Trial, TrainSettings] | None:
        """Return the next trial with its settings, as `next`; one whose parameters do not go together has failed."""
        while trial := self.next(kind, device):
            try:
                return trial, self.settings(trial)
            except InputError as error:
                self.fail(trial, str(error), seconds=0.0)
        return None

    def _check_hope(self, trials: Sequence[Trial]) -> None:
        ended = [trial for trial in trials if not trial.is_running]
        last = ended[-HOPELESS:]
        if len(last) == HOPELESS and all(trial.state == "failed" for trial in last):
            which = f"all of the first {len(ended)}" if len(ended) == HOPELESS else f"the last {HOPELESS}"
            raise InputError(
                f"{which} trials failed, the last one since {ended[-1].error}; mend the cause, and try them again with "
                "--retry-failed"
            )

    def _new_trial(self, trials: Sequence[Trial]) -> Trial | None:
        mine = [trial for trial in trials if trial.kind == "search"]
        if len(mine) >= self.plan.evaluations:
            return None
        tried = [trial.parameters for trial in mine if trial.origin == "start"]
        untried = [point for point in self.starts if point not in tried]
        if untried:
            return self.store.add(untried[0], seed=self.plan.trial_seed(untried[0]), origin="start")
        parameters, origin = self.sampler.suggest(mine)
        return self.store.add(parameters, seed=self.plan.trial_seed(parameters), origin=origin)

    def _new_confirmation(self, trials: Sequence[Trial]) -> Trial | None:
        if any(trial.kind == "search" and trial.is_running for trial in trials):
            return None
        for best, seed in missing_confirmations(trials, self.plan.confirm):
            return self.store.add(
                best.parameters, seed=seed, origin="confirmation", kind="confirmation", repeats=best.number
            )
        return None

    def settings(self, trial: Trial) -> TrainSettings:
        """Return how a trial is trained."""
        parameters = {name: value for name, value in trial.parameters.items() if name != "seed"}
        return self.plan.trial_settings(parameters, trial.seed)

    def record(self, trial: Trial, curve: Sequence[Mapping[str, float]], seconds: float) -> bool:
        """Keep the curve of a running trial so far; return whether it is worth another epoch."""
        self.store.record(trial.number, curve, objective=objective(curve, self.labels), seconds=seconds)
        if not self.plan.early_stopping or trial.kind == "confirmation":
            return True
        trials = self.store.trials()
        (mine,) = (t for t in trials if t.number == trial.number)
        others = [t for t in trials if t.kind == "search"]
        return halving.goes_on(mine, others, self.labels, self.plan.epochs)

    def finish(
        self, trial: Trial, curve: Sequence[Mapping[str, float]], *, seconds: float, stopped: bool
    ) -> None:
        """Keep a trial that was trained to its end, or was given up."""
        state: State = "stopped" if stopped else "finished"
        self._end(trial, state, seconds=seconds, curve=curve, objective=objective(curve, self.labels))

    def fail(self, trial: Trial, reason: str, *, seconds: float) -> None:
        """Keep why a trial failed; the search goes on."""
        self._end(trial, "failed", seconds=seconds, error=" ".join(reason.split()))

    def _end(self, trial: Trial, state: State, **what: object) -> None:
        self.store.end(trial.number, state, **what)  # type: ignore[arg-type]
        self._at_work.discard(trial.number)
        trials = self.store.trials()
        (ended,) = (t for t in trials if t.number == trial.number)
        if self._ended is not None:
            self._ended(ended)
        log.info("%s", describe_end(ended, trials, self.plan, self.labels, self.side_by_side))


def trial_folder(search: Path, trial: Trial) -> Path:
    """Return where a trial is trained."""
    return search / "trials" / trial.folder
