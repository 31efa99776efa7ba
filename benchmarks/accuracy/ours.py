"""A preset of this project, through the `decathlon` command: prepare, train, predict."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from algorithm.errors import InputError
from algorithm.probabilities import PROBABILITIES, map_names
from benchmarks.accuracy.task import (
    LABELS,
    LESION,
    Budget,
    Task,
    Trained,
    digest_of,
    name_of,
    parameters_of,
    threads,
)
from trainer.presets import read_preset
from trainer.settings import merged

METRICS, TUNED = "metrics.csv", "tuned"
LAST = "bundle-last"  # as the peers: an epoch chosen on validation cases would flatter their scores


@dataclass(frozen=True)
class Preset:
    """A shipped preset, or a .toml file, with the grid, batch and steps of a budget.

    Attributes:
        name: of the preset, or one that the budget has a preset for.
        mirror: axes along which its predictions are mirrored and averaged; None for those of its training.
        changes: to its [train] table, after those of the budget.
        patch_shape_zyx: another patch than the budget's.
        bundles_of: systems of the same column whose bundles are used, several as an ensemble, so that nothing is
            trained.
        tuned: postprocessing is chosen on the validation cases, whose scores flatter after that.
        most_false_positives: where it is tuned, for the fewest misses at so many false positives a scan, and not for
            Dice.

    """

    name: str
    mirror: str | None = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    patch_shape_zyx: tuple[int, int, int] | None = None
    bundles_of: tuple[str, ...] = ()
    tuned: bool = False
    most_false_positives: float | None = None

    def preset(self, budget: Budget) -> str:
        """Return the name of the shipped preset, or the .toml file."""
        return budget.presets.get(self.name, self.name)

    def is_budgets_own(self, budget: Budget) -> bool:
        """Return whether the budget was made with the preset in mind, so that its grid and schedule fit already."""
        return self.preset(budget) in budget.presets.values()

    def shape(self, budget: Budget) -> list[int]:
        """Return the patch: the preset's own where the budget chose the preset, else the budget's."""
        if self.patch_shape_zyx is not None:
            return list(self.patch_shape_zyx)
        own = read_preset(self.preset(budget)).prepare if self.is_budgets_own(budget) else budget
        return list(own.patch_shape_zyx)

    def batch_size(self, budget: Budget) -> int:
        """Return the patches a step: the preset's own where the budget was made for it, else the budget's."""
        if self.is_budgets_own(budget):
            return int(self.table(budget).get("batch_size", budget.batch_size))
        return budget.batch_size

    def settings(self, budget: Budget, steps: int) -> dict[str, Any]:
        """Return what is changed in the preset's [train] table."""
        batch_size = self.batch_size(budget)
        changes: dict[str, Any] = {"batch_size": batch_size, "val_patches": budget.val_patches}
        ours, table = self.changed(budget), self.table(budget)
        if table.get("source", "patches") == "patches":
            epoch_steps = -(-budget.prepared_patches // batch_size)
            if steps < epoch_steps:  # a short training sees the first of them
                epoch_steps = steps
                changes["epoch_patches"] = steps * batch_size
        else:
            epoch_steps = min(budget.epoch_steps, steps)
            changes["epoch_patches"] = epoch_steps * batch_size
        # Every system sees whole epochs: the last may be a few steps more than were asked for.
        changes["epochs"] = -(-steps // epoch_steps)
        # A preset's own number of epochs between whole volumes is of a schedule of another length.
        if "volume_epochs" in table and "volume_epochs" not in ours and not self.is_budgets_own(budget):
            changes["volume_epochs"] = changes["epochs"]
        return {**ours, **changes}

    def changed(self, budget: Budget) -> dict[str, Any]:
        """Return what the budget and this system change in the preset's [train] table."""
        return merged(budget.settings.get(name_of(self.name), {}), self.changes)

    def table(self, budget: Budget) -> dict[str, Any]:
        """Return the [train] table with those changes."""
        return merged(read_preset(self.preset(budget)).train, self.changed(budget))

    def digest(self, budget: Budget, steps: int) -> str:
        """Return a hash of all that decides the weights and the prediction, apart from the cases."""
        own = read_preset(self.preset(budget)).prepare
        prepared = {
            **{one.name: getattr(own, one.name) for one in fields(own)},
            "quotas": dict(own.quotas),
            "from_data_set": sorted(own.from_data_set),
            "spacing_zyx_mm": list(budget.spacing_zyx_mm),
            "patch_shape_zyx": self.shape(budget),
            "train_patches": budget.prepared_patches,
            "val_patches": budget.val_patches,
        }
        trained = merged(self.table(budget), self.settings(budget, steps))
        misses = [] if self.most_false_positives is None else [self.most_false_positives]
        return digest_of([prepared, trained, self.mirror, self.tuned, *misses])

    def trained_mirrored(self, budget: Budget) -> str:
        """Return the axes along which training patches are mirrored, such as "zyx"."""
        shares = self.table(budget).get("augment", {}).get("mirror_zyx", (0, 0, 0))
        return "".join(axis for axis, share in zip("zyx", shares, strict=True) if share > 0)

    def run_folders(self, task: Task) -> list[Path]:
        """Return the folders of the trainings whose bundles are used."""
        column = task.work.parents[1]
        works = [column / system / task.work.name for system in self.bundles_of] or [task.work]
        return [work / "run" for work in works]

    def bundles(self, task: Task) -> list[Path]:
        """Return the folders of the bundles that predict, several as an ensemble."""
        return [task.work / TUNED] if self.tuned else [run / LAST for run in self.run_folders(task)]

    def train(self, task: Task) -> Trained:
        from algorithm.bundle import read_bundle

        budget, began = task.budget, time.monotonic()
        spacing, shape, preset = list(budget.spacing_zyx_mm), self.shape(budget), self.preset(budget)
        changes, runs = self.settings(budget, task.steps), self.run_folders(task)
        prepared = prepared_folder(task, preset, spacing, shape)
        if not self.bundles_of or self.tuned:
            decathlon(
                *("prepare", task.data, "--split", task.split, "--preset", preset, "--out", prepared),
                *("--spacing-zyx-mm", *spacing, "--patch-shape-zyx", *shape),
                *("--train-patches", budget.prepared_patches, "--val-patches", budget.val_patches),
                *("--threads", threads()),
            )
        prepare_seconds = time.monotonic() - began
        if not self.bundles_of:
            link = task.work / "prepared"  # for what wants the run's own
            task.work.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(prepared.resolve())
            decathlon(
                *("train", prepared, "--preset", preset, "--out", runs[0]),
                *("--device", task.device, "--threads", threads()),
                *("--set", *assignments({"seed": task.seed, **changes})),
            )
        began_tuning = time.monotonic()
        if self.tuned:
            misses = self.most_false_positives
            decathlon(
                *("tune", runs[0] / LAST, "--work", prepared, "--out", task.work / TUNED),
                *("--device", task.device, *(() if misses is None else ("--most-false-positives", misses))),
            )
        tuning_seconds = time.monotonic() - began_tuning
        rows = [row for run in runs for row in read_metrics(run)]
        patches = changes.get("epoch_patches", budget.prepared_patches)
        return Trained(
            steps=len(rows) * -(-patches // self.batch_size(budget)),
            batch_size=self.batch_size(budget),
            seconds=sum(float(row["seconds"]) for row in rows) + tuning_seconds,
            prepare_seconds=prepare_seconds,
            parameters=sum(parameters_of(read_bundle(run / LAST).network) for run in runs),
            about=f"preset {preset}, patches {shape}, spacing {spacing}, "
            f"batches of {self.batch_size(budget)}, {changes}"
            + (f", with the weights of {' and '.join(self.bundles_of)}" if self.bundles_of else "")
            + (f", tuned on the validation cases: {told_tuning(task.work / TUNED)}" if self.tuned else ""),
        )

    def predict(self, task: Task, images: Path, out: Path) -> None:
        axes = self.trained_mirrored(task.budget) if self.mirror is None else self.mirror
        mirror = ("--mirror", axes) if axes else ()
        decathlon(
            *("predict", images, "--model", *self.bundles(task), "--out", out),
            *("--device", task.device, "--probabilities", *mirror),
        )
        names = map_names(LABELS)
        unread = [name for value, name in enumerate(names, start=1) if value != LESION]
        for path in (out / PROBABILITIES).glob("*.nii.gz"):
            if path.name.removesuffix(".nii.gz").endswith(tuple(f"_{name}" for name in unread)):
                path.unlink()  # the scorer reads the lesion's alone


def told_tuning(bundle: Path) -> str:
    """Return what `tune` chose, as words."""
    from algorithm.bundle import read_bundle

    description = read_bundle(bundle).description
    return f"{description.postprocessing}, temperature {description.temperature:.2f}"


def read_metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of a training, one an epoch."""
    with (run / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def prepared_folder(task: Task, preset: str, *grid: list[Any]) -> Path:
    """Return the folder of patches, which runs that prepare alike share."""
    wanted = [name_of(preset), task.budget.prepared_patches, task.budget.val_patches, *grid]
    key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]
    return task.data.parents[1] / "prepared" / f"{name_of(preset)}-{key}"


def assignments(settings: dict[str, Any], within: str = "") -> list[str]:
    """Return settings as the words of --set."""
    words: list[str] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            words += assignments(value, f"{within}{name}.")
        else:
            words.append(f"{within}{name}={json.dumps(value)}")
    return words


def decathlon(*words: object) -> None:
    """Run a verb; InputError where it fails, which it has said on stderr."""
    from trainer.cli import main

    if main([str(word) for word in words]):
        raise InputError(f"decathlon {words[0]} failed")
