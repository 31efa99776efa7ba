"""The settings of a training, typed, checked, and read from a preset's [train] table."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from algorithm.errors import InputError


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained; the defaults are the paper's (sections 4 to 4.2).

    Attributes:
        base_filters: feature maps at full resolution.
        dropout: probability of dropping a feature map in a context block.
        activation: of every layer.
        tie_context_convs: as in the re-implementation that the paper names.
        loss: "weighted_ce" is equation (1); "dice_ce" adds the soft Dice loss.
        class_weights: a number for each label, "equal", or "inverse" for inverse class frequency.
        optimiser: "adam" as in the paper, or "adamw".
        learning_rate: at the start.
        weight_decay: decoupled with "adamw", L2 with "adam".
        schedule: "exponential" multiplies by `decay` after each epoch; "cosine" warms up and falls to zero.
        decay: of the exponential schedule.
        warm_up: share of all steps over which "cosine" rises.
        gradient_norm: gradients are scaled down to it; null leaves them alone.
        batch_size: patches a step.
        epochs: passes over the training patches.
        precision: of the convolutions; "auto" takes bfloat16 where it is fast and agrees with float32.
        blend: how the bundle stitches patches.
        overlap_zyx: least overlap of neighbouring patches at inference, as a share of the patch; with half of
            it, blend "centre" keeps the centre of each patch (section 3.3).
        seed: of weights, dropout and the order of patches.
        checkpoint_minutes: an unfinished epoch is saved this often.
        keep_checkpoints: how many of the newest epochs stay in RUN/checkpoints.

    """

    base_filters: int = 8
    dropout: float = 0.6
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    tie_context_convs: bool = False
    loss: Literal["weighted_ce", "dice_ce"] = "weighted_ce"
    class_weights: tuple[float, ...] | Literal["equal", "inverse"] = (1.0, 10.0, 50.0)
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    schedule: Literal["exponential", "cosine"] = "exponential"
    decay: float = 0.985
    warm_up: float = 0.05
    gradient_norm: float | None = None
    batch_size: int = 2
    epochs: int = 22
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    blend: Literal["centre", "gaussian"] = "centre"
    overlap_zyx: tuple[float, float, float] = (0.5, 0.5, 0.5)
    seed: int = 0
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 3

    @classmethod
    def read(cls, table: Mapping[str, Any], source: str) -> TrainSettings:
        """Check a [train] table; `source` is named in messages.

        Raises:
            InputError: an unknown setting (the nearest known one is named), or a value of the wrong type or range.

        """
        hints = get_type_hints(cls)
        values = {}
        for name, value in table.items():
            if name not in hints:
                near = difflib.get_close_matches(name, hints, n=1)
                remedy = (
                    f"did you mean '{near[0]}'?" if near else f"known settings are {', '.join(sorted(hints))}"
                )
                raise InputError(f"{source}: unknown setting '{name}'; {remedy}")
            values[name] = _convert(value, hints[name], name, source)
        settings = replace(cls(), **values)
        settings.check(source)
        return settings

    def check(self, source: str) -> None:
        """Raise InputError where a value is out of range."""
        ranges: dict[str, tuple[bool, str]] = {
            "base_filters": (1 <= self.base_filters <= 512, "from 1 to 512"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "learning_rate": (0 < self.learning_rate <= 1, "in (0, 1]"),
            "weight_decay": (0 <= self.weight_decay <= 1, "in [0, 1]"),
            "decay": (0 < self.decay <= 1, "in (0, 1]"),
            "warm_up": (0 <= self.warm_up < 1, "in [0, 1)"),
            "gradient_norm": (self.gradient_norm is None or 0 < self.gradient_norm < math.inf, "> 0 or null"),
            "batch_size": (1 <= self.batch_size <= 4096, "from 1 to 4096"),
            "epochs": (1 <= self.epochs <= 10**6, "from 1 to 10^6"),
            "overlap_zyx": (all(0 <= share < 1 for share in self.overlap_zyx), "shares in [0, 1)"),
            "class_weights": (
                isinstance(self.class_weights, str)
                or (min(self.class_weights) >= 0 and 0 < sum(self.class_weights) < math.inf),
                "non-negative, finite and not all zero",
            ),
            "seed": (0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
            "checkpoint_minutes": (0 < self.checkpoint_minutes < math.inf, "> 0"),
            "keep_checkpoints": (self.keep_checkpoints >= 1, ">= 1"),
        }
        for name, (right, what) in ranges.items():
            if not right:
                raise InputError(f"{source}: '{name}' must be {what}, got {json.dumps(getattr(self, name))}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `read` takes them back."""
        return asdict(self)


def read_assignments(words: list[str]) -> dict[str, Any]:
    """Parse `name=value` words of a command line; values are JSON, or a bare word for a string."""
    table: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator:
            raise InputError(f"--set takes NAME=VALUE, got '{word}'")
        try:
            table[name] = json.loads(text)
        except json.JSONDecodeError:
            table[name] = text
    return table


def learning_rate(settings: TrainSettings, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of one step; epochs and steps count from 0, `steps` is of one epoch."""
    # 1. The paper's: one rate an epoch, each `decay` times the last.
    if settings.schedule == "exponential":
        return settings.learning_rate * settings.decay**epoch
    done = (epoch * steps + step) / (settings.epochs * steps)
    # 2. Cosine, first part: rise linearly, from above zero.
    if done < settings.warm_up:
        return settings.learning_rate * (done + 1 / (settings.epochs * steps)) / settings.warm_up
    # 3. Cosine, second part: fall to zero at the last step.
    return (
        settings.learning_rate
        * 0.5
        * (1 + math.cos(math.pi * (done - settings.warm_up) / (1 - settings.warm_up)))
    )


def _convert(value: Any, hint: Any, name: str, source: str) -> Any:
    for option in _options(hint):
        converted = _match(value, option)
        if converted is not _NO_MATCH:
            return converted
    raise InputError(f"{source}: '{name}' must be {_say(hint)}, got {json.dumps(value)}")


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


_NO_MATCH = object()


def _match(value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) else _NO_MATCH
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, list | tuple) or not value:
            return _NO_MATCH
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            return _NO_MATCH
        items = tuple(_match(item, kinds[0]) for item in value)
        return _NO_MATCH if any(item is _NO_MATCH for item in items) else items
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        return _NO_MATCH
    return value if isinstance(value, hint) else _NO_MATCH


def _say(hint: Any) -> str:
    if len(_options(hint)) > 1:
        return " or ".join(_say(option) for option in _options(hint))
    if get_origin(hint) is Literal:
        return " or ".join(json.dumps(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return "a list of numbers" if kinds[-1] is Ellipsis else f"a list of {len(kinds)} numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(hint, "null")
