"""Searches for tests: trials whose scores are a formula of their settings, in place of trainings."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.search.plan import Plan, read_plan
from trainer.search.sampler import GAMMA, TpeSampler
from trainer.search.space import Parameters, Space
from trainer.search.store import Trial

# Speaks as trainer.search.worker does, and keeps the epochs it has done in the trial's folder, as checkpoints do.
# `dropout` says what befalls it: below 0.1 it dies by a signal, from 0.9 on its loss is not finite unless
# SEARCH/mended is there.
WORKER = """
import json, os, pathlib, signal, sys, time

def row(epoch, settings):
    weight = settings["class_weights"][1]
    dice = max(0.0, (1 - abs(weight - 83) / 200) * (0.5 + 0.1 * epoch) * (1 - settings["dropout"] / 2))
    cancer = dice / 2 + settings["seed"] / 1000
    scores = {"val_pooled_pancreas": dice, "val_pooled_cancer": cancer, "val_loss": float("nan")}
    return {"epoch": epoch, "seconds": 0.0, **scores}

for line in sys.stdin:
    request = json.loads(line)
    settings, folder = request["settings"], pathlib.Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starts.txt").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while len(list(folder.parent.glob("*/starts.txt"))) < TOGETHER:
        time.sleep(0.05)
    if settings["dropout"] < 0.1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if settings["dropout"] >= 0.9 and not (folder.parent.parent / "mended").exists():
        print(json.dumps({"failed": "the loss was not finite in 11 batches"}), flush=True)
        continue
    done, stopped = folder / "epochs_done", False
    epochs = int(done.read_text()) if done.exists() else 0
    while epochs < settings["epochs"] and not stopped:
        if epochs:
            print(json.dumps({"epoch": [row(n + 1, settings) for n in range(epochs)]}), flush=True)
            stopped = not json.loads(sys.stdin.readline())["goes_on"]
            if stopped:
                break
        time.sleep(SECONDS)
        epochs += 1
        done.write_text(str(epochs))
    print(json.dumps({"done": [row(n + 1, settings) for n in range(epochs)], "stopped": stopped}), flush=True)
"""


def formula_worker(seconds: float = 0.0, together: int = 1) -> tuple[str, ...]:
    """Return a command in place of `trainer.search.slot.WORKER` whose epochs take some seconds.

    Nothing goes on before so many trials have begun.
    """
    code = WORKER.replace("SECONDS", str(seconds)).replace("TOGETHER", str(together))
    return (sys.executable, "-S", "-E", "-c", code)


SPACE: dict[str, list[object]] = {
    "dropout": ["uniform", 0.2, 0.6],
    "activation": ["choice", "relu", "leaky_relu"],
    "class_weights.1": ["uniform", 50, 250],
}


def write_space(folder: Path, space: dict[str, list[object]] = SPACE, **settings: object) -> Path:
    """Write a space file for the smallest of trainings."""
    numbers: dict[str, object] = {
        "evaluations": 6,
        "random_first": 3,
        "epochs": 2,
        "train_patches": 4,
        "val_patches": 2,
        "early_stopping": False,
    }
    words = [f"{name} = {json.dumps(value)}" for name, value in {**numbers, **settings}.items()]
    words += ["[settings]", "base_filters = 2", "checkpoint_minutes = 1e-9"]
    words += ["[space]", *(f"{name} = {json.dumps(row)}" for name, row in space.items())]
    path = folder / "space.toml"
    path.write_text("\n".join(words) + "\n")
    return path


def small_plan(folder: Path, space: dict[str, list[object]] = SPACE, **settings: object) -> Plan:
    """Return the plan of `write_space` without confirmations."""
    return read_plan(str(write_space(folder, space, **settings))).with_changes(confirm=(0, 0))


def a_trial(number: int, parameters: Parameters, value: float | None, **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "number": number,
        "kind": "search",
        "origin": "random",
        "repeats": None,
        "parameters": parameters,
        "seed": 0,
        "state": "finished",
        "objective": value,
        "error": None,
        "device": "cpu",
        "began": "",
        "ended": "",
        "seconds": 1.0,
        "starts": 1,
        "curve": (),
    }
    return Trial(**{**fields, **changes})


@dataclass(frozen=True)
class Known:
    """A function of a space whose best value, 1, is at `top`; it falls with the square of the distance."""

    space: Space
    top: Parameters

    def __call__(self, parameters: Parameters) -> float:
        rows = self.space.parameters
        apart = [row.place(parameters[row.name]) - row.place(self.top[row.name]) for row in rows]
        return 1.0 - sum(distance**2 for distance in apart) / len(apart)


BOWL = Known(  # over the paper's first space, its top where the paper found it
    read_plan("paper-wce").space,
    {"dropout": 0.6, "activation": "leaky_relu", "class_weights.1": 83.0, "class_weights.2": 660.0},
)


def score_after(
    trials: int, known: Known, *, seed: int, random_first: int, gamma: float = GAMMA, noise: float = 0.0
) -> float:
    """Return what the best of so many trials is worth; it is chosen by scores with noise of that deviation."""
    sampler = TpeSampler(known.space, seed=seed, random_first=random_first, gamma=gamma)
    rng = np.random.default_rng((seed, random_first))
    done: list[Trial] = []
    for number in range(1, trials + 1):
        parameters, origin = sampler.suggest(done)
        assert (origin == "random") == (number <= random_first)
        score = known(parameters) + noise * float(rng.normal())
        done.append(a_trial(number, parameters, score, origin=origin))
    return known(max(done, key=lambda trial: trial.objective or 0.0).parameters)
