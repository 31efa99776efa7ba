"""Progress bars on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0
SECONDS_BETWEEN_STATUSES = 1.0


def progress(
    items: Iterable[T],
    *,
    total: int,
    what: str,
    unit: str = "it",
    status: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done, how long the rest will take, and `status()`.

    `status` is asked at most once a second, so that it may fetch something from a GPU.
    """
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        with tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True) as bar:
            yield from bar if status is None else _with_status(bar, status)
        return
    started = last = time.monotonic()
    done = 0
    for item in items:
        now = time.monotonic()
        if done and now - last > SECONDS_BETWEEN_LINES:
            left = (now - started) / done * (total - done)
            said = f"; {status()}" if status is not None else ""
            log.info("%s: %d of %d %s, %.0f s left%s", what, done, total, unit, left, said)
            last = now
        yield item
        done += 1
    log.info("%s: %d %s in %.1f s", what, done, unit, time.monotonic() - started)


def _with_status(bar: tqdm[T], status: Callable[[], str]) -> Iterator[T]:
    last = time.monotonic()
    for item in bar:
        if time.monotonic() - last > SECONDS_BETWEEN_STATUSES:
            bar.set_postfix_str(status(), refresh=False)
            last = time.monotonic()
        yield item
