"""Every trial of a search in one SQLite file, which a kill at any moment leaves whole.

One process writes, the search's own. Each change is one transaction with a rollback journal and full
synchronisation: after a kill or a power cut the file holds the state before it or after it. (A write-ahead log would be
no safer, and needs shared memory, which a network file system lacks.)
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from algorithm.errors import InputError
from trainer.search.space import Parameters

FORMAT_VERSION = 1
Kind = Literal["search", "confirmation"]
Origin = Literal["start", "random", "tpe", "confirmation"]
State = Literal["running", "finished", "stopped", "failed"]
DAMAGED = "{} is not a readable store of a search: {}; put a copy back in its place, or begin anew with another --out"
NOT_BEGUN = "the search in {} was ended before it began, and nothing is stored yet; run it again"
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('search', 'confirmation')),
    origin TEXT NOT NULL CHECK (origin IN ('start', 'random', 'tpe', 'confirmation')),
    repeats INTEGER REFERENCES trials (number),  -- a confirmation has the parameters of this trial
    parameters TEXT NOT NULL,
    seed INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'finished', 'stopped', 'failed')),
    objective REAL,
    error TEXT,
    device TEXT,
    began TEXT NOT NULL,
    ended TEXT,
    seconds REAL NOT NULL DEFAULT 0,  -- at work, over all starts
    starts INTEGER NOT NULL DEFAULT 0,
    UNIQUE (repeats, seed)
);
CREATE TABLE curve (
    trial INTEGER NOT NULL REFERENCES trials (number),
    epoch INTEGER NOT NULL,
    scores TEXT NOT NULL,
    PRIMARY KEY (trial, epoch)
);
"""


@dataclass(frozen=True)
class Trial:
    """One configuration that was, or is being, trained.

    Attributes:
        number: from 1 on, also the name of its folder.
        kind: "search", or "confirmation" for a repetition with another seed.
        origin: where the parameters are from.
        repeats: the number of the trial that a confirmation repeats.
        parameters: values by name.
        seed: of its training.
        state: "running" also while nobody works at it: it will be continued.
        objective: of the best epoch so far; None before the first.
        error: why it failed; where it was tried again, also why it failed before, whatever has come of it.
        device: what it was trained on.
        began: UTC, ISO 8601.
        ended: likewise; None while it runs.
        seconds: at work, over all starts.
        starts: how often it was begun or continued.
        curve: the rows of `trainer.history.History`, a missing number being None.

    """

    number: int
    kind: Kind
    origin: Origin
    repeats: int | None
    parameters: Parameters
    seed: int
    state: State
    objective: float | None
    error: str | None
    device: str | None
    began: str
    ended: str | None
    seconds: float
    starts: int
    curve: tuple[dict[str, float | None], ...]

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"

    @property
    def folder(self) -> str:
        """Name of its folder in SEARCH/trials."""
        return f"{self.number:04d}"


class Store:
    """The file; see the module.

    Args:
        path: SEARCH/search.sqlite.
        write: make it where it is missing; otherwise it is only read.

    Raises:
        InputError: it is missing and not to be written, is damaged, or is not what this software writes. So say
            all methods whose rows turn out not to be what this software wrote.

    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        if not write and not path.is_file():
            raise InputError(f"there is no search in {path.parent}: {path.name} is missing")
        with self._reading():
            # Reading needs write access too: a journal that a kill left behind is rolled back first.
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and write:
                with self._transaction():
                    for statement in SCHEMA.split(";\n"):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
                version = FORMAT_VERSION
            if version == 0 and not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise InputError(NOT_BEGUN.format(path.parent))
            if version != FORMAT_VERSION:
                raise InputError(f"{path} has store format {version}, this software reads {FORMAT_VERSION}")
            (damage,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if damage != "ok":
                raise InputError(DAMAGED.format(path, damage.splitlines()[-1]))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def about(self) -> dict[str, Any]:
        """What the search is: its plan, its labels and digests of its patches; nothing before `describe`."""
        with self._reading():
            rows = self._connection.execute("SELECT name, value FROM about")
            return {name: json.loads(value) for name, value in rows}

    def describe(self, about: Mapping[str, Any]) -> None:
        """Keep what the search is."""
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                [(name, json.dumps(value)) for name, value in about.items()],
            )

    def trials(self) -> list[Trial]:
        """Return all trials by number."""
        curves: dict[int, list[dict[str, float | None]]] = {}
        with self._reading():
            rows = self._connection.execute("SELECT trial, scores FROM curve ORDER BY trial, epoch")
            for number, scores in rows:
                curves.setdefault(number, []).append(json.loads(scores))
            cursor = self._connection.execute("SELECT * FROM trials ORDER BY number")
            names = [column[0] for column in cursor.description]
            found = []
            for row in cursor:
                values = dict(zip(names, row, strict=True))
                values["parameters"] = json.loads(values["parameters"])
                found.append(Trial(**values, curve=tuple(curves.get(values["number"], ()))))
            return found

    def trial(self, number: int) -> Trial:
        """Return one trial."""
        return next(trial for trial in self.trials() if trial.number == number)

    def add(
        self,
        parameters: Parameters,
        *,
        seed: int,
        origin: Origin,
        kind: Kind = "search",
        repeats: int | None = None,
    ) -> Trial:
        """Add a trial that is about to be trained; return it with its number."""
        with self._transaction():
            number = self._connection.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM trials").fetchone()[0]
            self._connection.execute(
                "INSERT INTO trials (number, kind, origin, repeats, parameters, seed, state, began)"
                " VALUES (?, ?, ?, ?, ?, ?, 'running', ?)",
                (number, kind, origin, repeats, json.dumps(parameters), seed, _now()),
            )
        return self.trial(number)

    def start(self, number: int, device: str | None = None) -> None:
        """Note that a trial is begun or continued, and where."""
        self._change(number, "starts = starts + 1, device = COALESCE(?, device)", device)

    def retry(self) -> list[Trial]:
        """Have trials that failed run once more, as they were at first but for their errors; return them."""
        with self._transaction():
            failed = [trial for trial in self.trials() if trial.state == "failed"]
            for trial in failed:
                self._connection.execute("DELETE FROM curve WHERE trial = ?", (trial.number,))
                self._change(trial.number, "state = 'running', objective = NULL, ended = NULL", inside=True)
        return failed

    def place(self, number: int, device: str) -> None:
        """Note where a trial is trained."""
        self._change(number, "device = ?", device)

    def record(
        self, number: int, curve: Sequence[Mapping[str, float]], *, objective: float, seconds: float
    ) -> None:
        """Keep the curve of a running trial so far, and `seconds` more of work; again does no harm."""
        with self._transaction():
            self._record(number, curve)
            self._change(number, "objective = ?, seconds = seconds + ?", objective, seconds, inside=True)

    def end(
        self,
        number: int,
        state: State,
        *,
        seconds: float = 0.0,
        curve: Sequence[Mapping[str, float]] = (),
        objective: float | None = None,
        error: str | None = None,
    ) -> None:
        """Note how a running trial ended; one that has ended stays as it is.

        What it failed of before, if it is tried again, stays in its `error`.
        """
        with self._transaction():
            trial = self.trial(number)
            if not trial.is_running:
                return
            if error is None:
                error = trial.error
            elif trial.error is not None:
                error = f"{error}; before: {trial.error}"
            self._record(number, curve)
            self._change(
                number,
                "state = ?, error = ?, ended = ?, seconds = seconds + ?, objective = COALESCE(?, objective)",
                *(state, error, _now(), seconds, objective),
                inside=True,
            )

    def _record(self, number: int, curve: Sequence[Mapping[str, float]]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO curve VALUES (?, ?, ?)",
            [(number, int(row["epoch"]), json.dumps(_plain(row))) for row in curve],
        )

    def _change(self, number: int, what: str, *values: object, inside: bool = False) -> None:
        statement = f"UPDATE trials SET {what} WHERE number = ?"
        if inside:
            self._connection.execute(statement, (*values, number))
            return
        with self._transaction():
            self._connection.execute(statement, (*values, number))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say in one sentence what SQLite, JSON or a table of other columns would say in a traceback."""
        try:
            yield
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
                raise InputError(
                    f"{self.path} cannot be read: {error}; see to the file and its folder"
                ) from None
            raise InputError(DAMAGED.format(self.path, error)) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has undone it already
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            remedy = "free some space" if "full" in str(error) else "mend it"
            raise InputError(
                f"{self.path} cannot be written: {error}; {remedy}, and the same command continues"
            ) from None


def _plain(row: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a row without what JSON lacks."""
    return {name: None if value is None or not np.isfinite(value) else value for name, value in row.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
