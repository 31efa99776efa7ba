"""How long each stage of a piece of work took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Seconds by stage, in the order in which stages were first met."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = self._last = time.monotonic()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time of a with block for the stage `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._add(name, started)

    def since_last(self, name: str) -> None:
        """Count the time since the last stage ended for the stage `name`."""
        self._add(name, self._last)

    def _add(self, name: str, started: float) -> None:
        self._last = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + self._last - started

    def __str__(self) -> str:
        """Return "28.4 s (prepare 0.1, network 28.1, stitch 0.2)"; what belongs to no stage is in the sum alone."""
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"{time.monotonic() - self._started:.1f} s ({parts})"
