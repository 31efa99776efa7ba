"""What to try next: at random first, then Hyperopt's Tree-structured Parzen Estimators (Bergstra et al. 2011).

A suggestion depends on nothing but the seed, its place in the search, and the trials before it, so that a search that
was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import hyperopt
import hyperopt.rand
import hyperopt.tpe
import numpy as np

from trainer.search.space import Parameter, Parameters, Space, Value, number_of
from trainer.search.store import Origin, Trial

GAMMA = 0.15  # of TPE; Hyperopt's 0.25 loses to random search more often: docs/BENCHMARKS.md


class Sampler(Protocol):
    """What a search asks for its next configuration."""

    def suggest(self, trials: Sequence[Trial]) -> tuple[Parameters, Origin]:
        """Return parameters and where they are from; `trials` are those of the search, of any state."""


class TpeSampler:
    """Random configurations, then TPE: of 24 candidates that which is likelier among good trials than among the rest.

    A trial that runs or failed counts as worse than any other: the first keeps trials side by side apart, the second
    keeps away from what diverges.

    Args:
        space: what is searched.
        seed: of all suggestions.
        random_first: how many are random; those that a search starts from do not count.
        gamma: of n trials the best ceil(gamma sqrt(n)) are the good ones.

    """

    def __init__(self, space: Space, *, seed: int, random_first: int, gamma: float = GAMMA) -> None:
        self.space, self.seed, self.random_first, self.gamma = space, seed, random_first, gamma
        self._expression = hyperopt_space(space)
        self._domain = hyperopt.Domain(_itself, self._expression)

    def suggest(self, trials: Sequence[Trial]) -> tuple[Parameters, Origin]:
        """See `Sampler`."""
        place = len(trials)
        drawn = place - sum(trial.origin == "start" for trial in trials)
        seed = int(np.random.SeedSequence((self.seed, place)).generate_state(1)[0])
        if drawn < self.random_first or not trials:
            documents = hyperopt.rand.suggest([place], self._domain, hyperopt.Trials(), seed)
            return self._parameters(documents[0]), "random"
        documents = hyperopt.tpe.suggest(
            [place],
            self._domain,
            self._history(trials),
            seed,
            n_startup_jobs=0,
            gamma=self.gamma,
            verbose=False,
        )
        return self._parameters(documents[0]), "tpe"

    def _history(self, trials: Sequence[Trial]) -> Any:
        """Return Hyperopt's view of trials; one without a loss counts as infinitely bad there."""
        history = hyperopt.Trials()
        places = list(range(len(trials)))
        results, miscs = [], []
        for place, trial in zip(places, trials, strict=True):
            values = {
                row.name: [hyperopt_value(row, trial.parameters[row.name])] for row in self.space.parameters
            }
            miscs.append(
                {
                    "tid": place,
                    "cmd": None,
                    "workdir": None,
                    "idxs": {name: [place] for name in values},
                    "vals": values,
                }
            )
            counts = trial.state in ("finished", "stopped") and trial.objective is not None
            results.append(
                {"status": "ok", "loss": -float(trial.objective or 0.0)} if counts else {"status": "new"}
            )
        documents = history.new_trial_docs(places, [None] * len(places), results, miscs)
        for document in documents:
            document["state"] = hyperopt.JOB_STATE_DONE
        history.insert_trial_docs(documents)
        history.refresh()
        return history

    def _parameters(self, document: dict[str, Any]) -> Parameters:
        chosen = {name: values[0] for name, values in document["misc"]["vals"].items()}
        found = hyperopt.space_eval(self._expression, chosen)
        return {row.name: plain_value(row, found[row.name]) for row in self.space.parameters}


def hyperopt_space(space: Space) -> dict[str, Any]:
    """Return the space in Hyperopt's terms."""
    return {row.name: _expression(row) for row in space.parameters}


def plain_value(parameter: Parameter, value: Any) -> Value:
    """Return what Hyperopt drew as Python's own number or word, within its bounds."""
    if parameter.distribution == "choice":
        return parameter.values[int(value)]
    within = min(max(float(value), parameter.low), parameter.high)  # exp(log(x)) may leave them by a digit
    return round(within) if parameter.distribution == "integer" else within


def _expression(row: Parameter) -> Any:
    if row.distribution == "choice":
        # Places, since Hyperopt makes tuples of values that are lists.
        return hyperopt.hp.choice(row.name, list(range(len(row.values))))
    if row.distribution == "integer":
        # Hyperopt's own uniformint draws the ends half as often as what lies between.
        return hyperopt.hp.quniform(row.name, int(row.low) - 0.5, int(row.high) + 0.5, 1)
    if row.distribution == "loguniform":
        return hyperopt.hp.loguniform(row.name, float(np.log(row.low)), float(np.log(row.high)))
    return hyperopt.hp.uniform(row.name, row.low, row.high)


def hyperopt_value(row: Parameter, value: Value) -> float | int:
    """Return what Hyperopt keeps of a value: for a choice its place."""
    return row.values.index(value) if row.distribution == "choice" else number_of(value)


def _itself(point: Any) -> Any:
    return point
