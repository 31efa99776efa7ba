"""Where log lines of a command go: stderr, as it is at the time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from algorithm.errors import printable


class OneLine(logging.Formatter):
    """Writes a message on one line, whatever the names in it hold; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # of the base class
        """Return the message with line breaks and control characters escaped."""
        return printable(record.message)


class StderrHandler(logging.Handler):
    """Writes plain messages to the current `sys.stderr`, which tests and callers may replace."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(OneLine())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(f"{self.format(record)}\n")


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show messages from INFO on; afterwards the logging of the process is as it was before."""
    root, handler = logging.getLogger(), StderrHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
