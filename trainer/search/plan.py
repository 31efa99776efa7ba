"""What a search is: its space, how its trials are trained, how many there are; read from a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from algorithm.errors import InputError
from trainer.presets import read_preset, refuse_unknown
from trainer.search.space import Parameters, Space, parameter_of, with_parameters
from trainer.settings import TrainSettings, merged

FOLDER = Path(__file__).parent.parent / "spaces"
NUMBERS = {  # the default of each setting of a search
    "evaluations": 100,
    "random_first": 15,
    "epochs": 5,
    "train_patches": 100,
    "val_patches": 30,
}
TABLES = ("settings", "space")
# What a search may be continued with another value of: how long it goes on, and for which trials.
MAY_CHANGE = ("evaluations", "early_stopping", "confirm")


@dataclass(frozen=True)
class Plan:
    """Everything that decides what a search tries.

    Attributes:
        space: what is searched.
        preset: the name of the preset that it began from.
        base: training settings before parameters are put in, with all defaults; those of the winner's full training.
        evaluations: configurations that are tried.
        random_first: how many of them are drawn at random before TPE begins.
        epochs: of a trial.
        train_patches: the first so many patches of train.h5, or as many drawn from volumes.
        val_patches: the first so many patches of val.h5.
        early_stopping: whether hopeless trials end early; see `trainer.search.halving`.
        confirm: the best so many configurations are trained again, with so many other seeds.
        seed: of what is suggested.

    """

    space: Space
    preset: str
    base: dict[str, Any]
    evaluations: int
    random_first: int
    epochs: int
    train_patches: int
    val_patches: int
    early_stopping: bool
    confirm: tuple[int, int] = (3, 3)
    seed: int = 0

    def trial_settings(self, parameters: Parameters, seed: int) -> TrainSettings:
        """Return how a trial is trained; `seed` is that of weights, order of patches and augmentation."""
        table = with_parameters(self.base, parameters, "the search")
        table |= {
            "epochs": self.epochs,
            "epoch_patches": self.train_patches,
            "val_patches": self.val_patches,
            "seed": seed,
            "patience": None,  # what stops early is the search's to say
            "volume_epochs": None,
            "keep_checkpoints": 1,
        }
        return TrainSettings.read(table, "the search")

    def trial_seed(self, parameters: Parameters) -> int:
        """Return the training seed of a search's trials: one for all, so that they differ by parameters alone."""
        return int(parameters.get("seed", self.base["seed"]))

    def full_settings(self, parameters: Parameters) -> dict[str, Any]:
        """Return the [train] table of a training in full."""
        return with_parameters(self.base, parameters, "the search")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` takes them back."""
        return asdict(self) | {"space": self.space.as_table(), "confirm": list(self.confirm)}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Plan:
        """Rebuild what a store kept."""
        space = Space.read(table["space"], "the store")
        return cls(**{**table, "space": space, "confirm": tuple(table["confirm"])})

    def with_changes(self, **changes: Any) -> Plan:
        """Return the plan with what is not None changed.

        Raises:
            InputError: a number below 1.

        """
        plan = replace(self, **{name: value for name, value in changes.items() if value is not None})
        for name in ("evaluations", "epochs", "train_patches", "val_patches"):
            if getattr(plan, name) < 1:
                raise InputError(f"{name} of a search must be at least 1, got {getattr(plan, name)}")
        return plan


def space_names() -> list[str]:
    """Return the names of the spaces that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_plan(
    name_or_path: str, *, preset: str | None = None, changes: Mapping[str, Any] | None = None
) -> Plan:
    """Read a shipped space by its name, or any space file by its path.

    `preset` and `changes` replace the preset and single settings of it; what the file has in [settings] comes between.

    Raises:
        InputError: no such space, not TOML, an unknown name (the nearest one is named), a value out of range.

    """
    path = _path(name_or_path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the space {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the space {path} is not valid TOML: {error}") from error
    source = f"the space {path.name}"
    refuse_unknown(document, ("preset", *NUMBERS, "early_stopping", *TABLES), where=source)
    for name in TABLES:
        if not isinstance(document.get(name, {}), dict):
            raise InputError(f"{name} must be a table in {source}")
    numbers = {name: _count(document.get(name, default), name, source) for name, default in NUMBERS.items()}
    early = document.get("early_stopping", True)
    if not isinstance(early, bool):
        raise InputError(f"early_stopping must be true or false, got {early!r} in {source}")
    chosen = preset or document.get("preset", "paper")
    if not isinstance(chosen, str):
        raise InputError(f"preset must be a name, got {chosen!r} in {source}")
    beside = path.parent / chosen  # a file is looked for beside the space first, wherever the command runs
    found = str(beside) if preset is None and beside.suffix == ".toml" and beside.is_file() else chosen
    table = merged(merged(read_preset(found).train, document.get("settings", {})), changes or {})
    base = with_parameters(TrainSettings.read(table, source).as_dict(), {}, source)
    space = Space.read(document.get("space", {}), source)
    space.check(base, source)
    for name in ("epochs", "epoch_patches", "val_patches", "patience", "volume_epochs"):
        if name in space.as_table():
            raise InputError(
                f"{source}: {name} is the same for all trials of a search; take it out of [space]"
            )
    return Plan(
        space=space,
        preset=chosen,
        base=base,
        early_stopping=early,
        evaluations=numbers["evaluations"],
        random_first=numbers["random_first"],
        epochs=numbers["epochs"],
        train_patches=numbers["train_patches"],
        val_patches=numbers["val_patches"],
    )


def start_point(plan: Plan, settings: Mapping[str, Any], source: str) -> Parameters:
    """Return the parameters that the settings of a training have.

    Raises:
        InputError: one of them lies outside the space.

    """
    table = with_parameters(TrainSettings.read(settings, source).as_dict(), {}, source)
    point = {row.name: parameter_of(table, row.name, source) for row in plan.space.parameters}
    plan.space.check_point(point, source)
    return point


def _path(name_or_path: str) -> Path:
    names = space_names()
    if name_or_path in names:
        return FOLDER / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    if path.suffix == ".toml":
        raise InputError(f"there is no space file {path}; check the path, or take one of {', '.join(names)}")
    near = difflib.get_close_matches(name_or_path, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"a space must be one of {', '.join(names)} or a .toml file, got {name_or_path}{hint}")


def _count(value: Any, name: str, source: str) -> int:
    least = 0 if name == "random_first" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number from {least} on, got {value!r} in {source}")
    return value
