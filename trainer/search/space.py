"""What is searched: a small table of names, distributions and bounds, read from a TOML file.

    [space]
    dropout = ["choice", 0.2, 0.4, 0.6]
    class_weights.1 = ["uniform", 50, 250]
    augment.noise_share = ["uniform", 0, 0.5]
    learning_rate = ["loguniform", 1e-4, 1e-2]
    base_filters = ["integer", 4, 16]

A name is that of a training setting; `class_weights.1` is the second number of a list, `augment.noise_share` a
setting within a table. Where a setting is a list, whole lists can be chosen from, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from algorithm.errors import InputError
from trainer.presets import refuse_unknown
from trainer.settings import TrainSettings

Value = float | int | str | bool | list[float | int | str | bool]
Parameters = dict[str, Value]
Distribution = Literal["choice", "uniform", "loguniform", "integer"]
DISTRIBUTIONS: tuple[Distribution, ...] = ("choice", "uniform", "loguniform", "integer")


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: of a training setting, with dots.
        distribution: "choice" takes each value equally often; "uniform", "loguniform" and "integer" lie between
            two bounds, both included.
        values: the choices, or the two bounds.

    """

    name: str
    distribution: Distribution
    values: tuple[Value, ...]

    @property
    def low(self) -> float:
        """Lower bound; only where there are bounds."""
        return number_of(self.values[0])

    @property
    def high(self) -> float:
        """Upper bound; only where there are bounds."""
        return number_of(self.values[1])

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the parameter's range."""
        if self.distribution == "choice":
            return value in self.values
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (
            is_number
            and self.low <= value <= self.high
            and (self.distribution != "integer" or value == int(value))
        )

    def place(self, value: Value) -> float:
        """Return where a value lies, in [0, 1]: its place among the choices, or between the bounds."""
        if self.distribution == "choice":
            return self.values.index(value) / max(1, len(self.values) - 1)
        low, high, at = self.low, self.high, number_of(value)
        if self.distribution == "loguniform":
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def describe(self) -> str:
        """Return the row as it is written in a file, without its name."""
        words = ", ".join(str(value) for value in self.values)
        return f"{self.distribution} {words}"


@dataclass(frozen=True)
class Space:
    """The parameters of a search, in the order of their table."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def read(cls, table: Mapping[str, Any], source: str) -> Space:
        """Read a [space] table; `source` is named in messages.

        Raises:
            InputError: a row that is no list of a distribution and its values, bounds that bound nothing, or two rows
                that change the same setting.

        """
        rows = tuple(_parameter(name, row, source) for name, row in _flatten(table))
        if not rows:
            raise InputError(f"{source}: the table [space] must name at least one setting to search")
        _refuse_overlaps([row.name for row in rows], source)
        return cls(rows)

    def check(self, base: Mapping[str, Any], source: str) -> None:
        """Raise InputError unless every value of every parameter can be put into the settings `base`."""
        for parameter in self.parameters:
            for value in parameter.values:
                TrainSettings.read(with_parameters(base, {parameter.name: value}, source), source)

    def check_point(self, parameters: Mapping[str, Any], source: str) -> None:
        """Raise InputError unless a point lies in the space."""
        for parameter in self.parameters:
            value = parameters[parameter.name]
            if not parameter.holds(value):
                raise InputError(
                    f"{source} has {parameter.name} = {value}, which is not in the space ({parameter.describe()}); "
                    "widen the space or start from another run"
                )

    def as_table(self) -> dict[str, list[Value]]:
        """Return the table, for JSON; `read` takes it back."""
        return {row.name: [row.distribution, *row.values] for row in self.parameters}


def with_parameters(base: Mapping[str, Any], parameters: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return training settings with parameters put in, in tables and lists too.

    Raises:
        InputError: a name that no setting has (the nearest is named), or a number of a list that is none.

    """
    table: dict[str, Any] = _copied(base)
    for name, value in parameters.items():
        owner, last = _find(table, name, source)
        owner[last] = value
    return table


def parameter_of(base: Mapping[str, Any], name: str, source: str) -> Any:
    """Return the value that settings have for a name with dots; see `with_parameters`."""
    owner, last = _find(_copied(base), name, source)
    return owner[last]


def _find(table: dict[str, Any], name: str, source: str) -> tuple[Any, Any]:
    place: Any = table
    words = name.split(".")
    for depth, word in enumerate(words):
        if isinstance(place, dict):
            refuse_unknown([".".join([*words[:depth], word])], _names(place, words[:depth]), where=source)
            key: Any = word
        elif isinstance(place, list):
            # Written in one way alone, or class_weights.01 and class_weights.1 would pass for two.
            if word not in map(str, range(len(place))):
                raise InputError(
                    f"{source}: {name} must be a number of {'.'.join(words[:depth])}, which has 0 to {len(place) - 1}"
                )
            key = int(word)
        else:
            above = ".".join(words[:depth])
            raise InputError(
                f"{source}: {name} is searched, but {above} is {place!r}, not a list; give it one in [settings], as in "
                f"{above} = [1, 1, 1]"
            )
        if depth == len(words) - 1:
            return place, key
        place = place[key]
    raise AssertionError("a name has at least one word")


def _names(table: Mapping[str, Any], within: list[str]) -> list[str]:
    return [".".join([*within, name]) for name in table]


def _copied(value: Any) -> Any:
    """Return tables and lists anew, tuples as lists."""
    if isinstance(value, Mapping):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list | tuple) else value


def _flatten(table: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _refuse_overlaps(names: list[str], source: str) -> None:
    """Refuse a name twice, which quotes in TOML allow, and a setting beside a part of it."""
    for place, name in enumerate(names):
        for other in names[:place]:
            outer, inner = sorted((name, other), key=len)
            if outer == inner or inner.startswith(f"{outer}."):
                what = "twice" if outer == inner else f"and {inner}, a part of it"
                raise InputError(f"{source}: [space] has {outer} {what}; search one of them")


def number_of(value: Value) -> float:
    """Return a bound, or what lies between two."""
    if isinstance(value, list):
        raise TypeError(f"a list is no number: {value}")
    return float(value)


def _is_choice(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return all(isinstance(one, str | int | float) for one in inner)


def _parameter(name: str, row: Any, source: str) -> Parameter:
    if not isinstance(row, list) or not row or not isinstance(row[0], str):
        raise InputError(
            f'{source}: {name} must be a distribution and its values, as in ["uniform", 0, 1], got {row!r}'
        )
    distribution, values = row[0], tuple(row[1:])
    refuse_unknown(
        [distribution], DISTRIBUTIONS, where=f"{source}, among the distributions that {name} may have"
    )
    kind = next(known for known in DISTRIBUTIONS if known == distribution)
    if kind == "choice":
        if len(values) < 2 or not all(_is_choice(value) for value in values):
            raise InputError(
                f"{source}: {name} must have two or more words, numbers or lists of them to choose from, got {row}"
            )
        if any(value in values[:place] for place, value in enumerate(values)):
            raise InputError(f"{source}: {name} must have different choices, got {row}")
        return Parameter(name, kind, values)
    numbers = int if kind == "integer" else (int, float)
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, numbers) for v in values):
        what = "two whole numbers" if kind == "integer" else "two numbers"
        raise InputError(f"{source}: {name} must have {what} as bounds, got {row}")
    if not (values[0] < values[1] and math.isfinite(values[0]) and math.isfinite(values[1])):
        raise InputError(f"{source}: {name} must have a lower bound below its upper one, got {row}")
    if kind == "loguniform" and values[0] <= 0:
        raise InputError(f"{source}: {name} must have bounds above 0 for loguniform, got {row}")
    return Parameter(name, kind, values if kind == "integer" else tuple(float(v) for v in values))
