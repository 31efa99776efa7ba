"""What an examination found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from algorithm.errors import printable

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One sentence: an error is refused or wrong, a warning passes and should be looked at, a note is a fact."""

    severity: Severity
    sentence: str

    def __str__(self) -> str:
        return f"{self.severity}: {printable(self.sentence)}"


def error(sentence: object) -> Finding:
    """Return what would be refused, or would be wrong without being refused."""
    return Finding("error", str(sentence))


def warning(sentence: object) -> Finding:
    """Return what passes and should be looked at."""
    return Finding("warning", str(sentence))


def note(sentence: object) -> Finding:
    """Return a fact that helps to see that the right thing was examined."""
    return Finding("note", str(sentence))
