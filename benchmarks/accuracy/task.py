"""What every system is given, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from algorithm.errors import InputError
from algorithm.images import read_geometry, write_labels, write_shares
from algorithm.probabilities import STEPS, map_path

BUDGETS = Path(__file__).with_name("budgets")
LABELS = ("background", "pancreas", "cancer")
LESION = 2


@dataclass(frozen=True)
class Budget:
    """What all systems have alike: the grid, the patches, and the optimisation steps.

    Attributes:
        name: of the file in budgets/.
        spacing_zyx_mm: grid that scans are resampled to.
        patch_shape_zyx, batch_size: of a step; nnU-Net's planner chooses its own patch, within its memory target, and
            a system of ours may have its own batch, which the table names.
        steps: of the optimiser.
        epoch_steps: systems keep a checkpoint after so many steps, and the presets draw new patches.
        nnunet_memory_gb: the planner's memory target, which decides its patch.
        prepared_patches: of presets that train on a file of patches, as the paper does.
        val_patches: that such presets are validated on after each epoch.
        presets: the shipped preset that a system is, where it has another name, and whose patch it takes.
        settings: changes to a preset's [train] table, by system.

    """

    name: str
    spacing_zyx_mm: tuple[float, float, float]
    patch_shape_zyx: tuple[int, int, int]
    batch_size: int
    steps: int
    epoch_steps: int
    nnunet_memory_gb: float
    prepared_patches: int
    val_patches: int
    presets: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def shared(self) -> dict[str, Any]:
        """What all systems have alike, as JSON; scores of runs that had other things do not compare."""
        return {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "spacing_zyx_mm": list(self.spacing_zyx_mm),
        }

    @classmethod
    def read(cls, name: str) -> Budget:
        path = BUDGETS / f"{name}.toml"
        if not path.is_file():
            budgets = ", ".join(sorted(one.stem for one in BUDGETS.glob("*.toml")))
            raise InputError(f"a budget must be one of {budgets}, got {name}")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        known = {one.name: one.default_factory is MISSING for one in fields(cls) if one.name != "name"}
        if unknown := set(table) - set(known):
            raise InputError(f"{path} has the unknown settings {', '.join(sorted(unknown))}: drop them")
        if absent := {one for one, needed in known.items() if needed} - set(table):
            raise InputError(f"{path} lacks the settings {', '.join(sorted(absent))}: add them")
        return cls(
            name=name, **{key: tuple(one) if isinstance(one, list) else one for key, one in table.items()}
        )


@dataclass(frozen=True)
class Task:
    """One system's job.

    Attributes:
        data: folder with training and validation cases in Decathlon layout.
        split: JSON with the names of both sides.
        work: the system's own folder; what a killed run left there is continued.
        budget: what all have alike.
        steps: of the optimiser, those of the budget or what the same wall time allows.
        device: "cpu" or "cuda".
        seed: of weights, patches and augmentation.

    """

    data: Path
    split: Path
    work: Path
    budget: Budget
    steps: int
    device: str
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What a system says of its training.

    Attributes:
        steps: optimisation steps that were taken.
        batch_size: patches of a step.
        seconds: wall time of training with its own validation, without preparation, over all restarts.
        prepare_seconds: of the attempt that ended.
        parameters: weights of the network.
        about: network and patches in words.

    """

    steps: int
    batch_size: int
    seconds: float
    prepare_seconds: float
    parameters: int
    about: str


class System(Protocol):
    """A segmentation system: what trains on a task, and what segments a folder with it."""

    def train(self, task: Task) -> Trained:
        """Train, or continue, or find it done."""

    def predict(self, task: Task, images: Path, out: Path) -> None:
        """Write a label map and the lesion's probability of every image that has none yet."""

    def digest(self, budget: Budget, steps: int) -> str:
        """Return a hash of all that decides the weights and the predictions, apart from the cases."""


def digest_of(told: Any) -> str:
    """Return the SHA-256 of what can be written as JSON."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def name_of(system: str) -> str:
    """Return the name of a peer, of a shipped preset or of a preset's .toml file."""
    return Path(system).stem if system.endswith(".toml") else system


def threads() -> int:
    """Return how many threads a system may use: OMP_NUM_THREADS, or one a core."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def missing(images: Path, out: Path) -> list[Path]:
    """Return the images without a prediction."""
    return [path for path in sorted(images.glob("*.nii.gz")) if not is_predicted(out / path.name)]


def is_predicted(result: Path) -> bool:
    return result.is_file() and map_path(result, LABELS[LESION]).is_file()


def keep_prediction(image: Path, out: Path, probabilities: NDArray[np.float32]) -> None:
    """Write the label map and the lesion's probability of a scan.

    Args:
        image: the scan, whose grid they lie on.
        out: the folder.
        probabilities: float32 (K, z, y, x) in the scan's stored orientation.

    """
    geometry = read_geometry(image)
    result = out / image.name
    shares = np.rint(np.clip(probabilities[LESION], 0.0, 1.0) * STEPS).astype(np.uint8)
    write_shares(map_path(result, LABELS[LESION]), shares, geometry)
    write_labels(result, probabilities.argmax(axis=0).astype(np.uint8), geometry)


def parameters_of(network: torch.nn.Module) -> int:
    """Return how many weights a network has."""
    return sum(weight.numel() for weight in network.parameters())
