"""Progress bars on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0


def progress(items: Iterable[T], *, total: int, what: str, unit: str = "it") -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done and how long the rest will take."""
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        yield from tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True)
        return
    started = last = time.monotonic()
    done = 0
    for item in items:
        now = time.monotonic()
        if done and now - last > SECONDS_BETWEEN_LINES:
            left = (now - started) / done * (total - done)
            log.info("%s: %d of %d %s, %.0f s left", what, done, total, unit, left)
            last = now
        yield item
        done += 1
    log.info("%s: %d %s in %.1f s", what, done, unit, time.monotonic() - started)
