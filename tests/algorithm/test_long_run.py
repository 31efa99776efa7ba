"""A short one of tests.long_run, and that it notices what grows; `make long-run` does 500 predictions."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

from tests.long_run import in_memory, measure, of_a_folder


def test_handles_and_threads_do_not_grow(tmp_path: Path) -> None:
    for grown, warm_up in ((in_memory(12), 6), (of_a_folder(20, tmp_path), 0)):
        assert grown.handles[-1] <= grown.handles[warm_up]
        assert grown.threads[-1] <= grown.threads[warm_up]


def test_what_grows_is_noticed() -> None:
    held = []

    def leak(_: int) -> None:
        # Pages of the system: a list may be given what earlier tests of this process have freed.
        pages = mmap.mmap(-1, 1_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.write(b"x" * len(pages))
        held.append((pages, tempfile.TemporaryFile()))  # noqa: SIM115 # never closed

    grown = measure(60, leak)
    for pages, file in held:
        pages.close()
        file.close()
    faults = grown.faults(10)
    assert faults[0].startswith("memory grows by ")
    assert faults[1] == f"file handles grow from {grown.handles[10]} to {grown.handles[10] + 49}"


def test_noise_is_no_growth() -> None:
    grown = measure(60, lambda number: bytearray((number * 7919) % 50_000))
    assert grown.faults(10) == []
