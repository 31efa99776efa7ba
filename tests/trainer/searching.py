"""Searches for tests: trials whose scores are a formula of their settings, in place of trainings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trainer.search.plan import Plan, read_plan

# Speaks as trainer.search.worker does, and keeps the epochs it has done in the trial's folder, as checkpoints do.
# `dropout` says what befalls it: below 0.1 it dies by a signal, from 0.9 on its loss is not finite.
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
    if settings["dropout"] >= 0.9:
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
