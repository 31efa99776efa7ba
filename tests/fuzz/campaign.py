"""A campaign: hostile scans of every format by both engines, in worker processes that may crash or hang.

A worker that ends by itself before its work is done, or that is at one scan for too long, leaves that scan as a
finding, and another goes on with the rest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.tally import TALLY, TARGETS, Tally

HANG_S = 60.0  # a scan has several targets of SECONDS each
START_S = 120.0  # until a worker has imported all it needs
POLL_S = 0.5
WORKER = (sys.executable, "-m", "tests.fuzz.worker")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Share:
    """What one worker does: scans of a format by an engine."""

    format: str
    engine: str
    count: int
    random_seed: int

    @property
    def name(self) -> str:
        """For a folder."""
        return f"{self.format.replace(', ', '-')}-{self.engine}"


def shares(formats: Sequence[str], engines: Sequence[str], count: int, random_seed: int) -> list[Share]:
    """Part `count` scans evenly among formats and engines, the remainder among the first."""
    pairs = [(form, engine) for form in formats for engine in engines]
    each, over = divmod(count, len(pairs))
    return [
        Share(form, engine, each + (number < over), random_seed * len(pairs) + number)
        for number, (form, engine) in enumerate(pairs)
        if each + (number < over)
    ]


def run(work: Sequence[Share], folder: Path, *, jobs: int, until: float) -> Iterator[tuple[Share, Tally]]:
    """Yield the tally of each share as it ends; findings lie in FOLDER/findings."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(work, pool.map(lambda share: _finish(share, folder, until), work), strict=True)


def _finish(share: Share, folder: Path, until: float) -> Tally:
    """Let workers do a share until it is done, or time is up."""
    done, starts = Tally(), 0
    while done.scans < share.count and time.time() < until:
        place = folder / "workers" / f"{share.name}-{starts}"
        ended = _work(
            share, share.count - done.scans, share.random_seed + 1000 * starts, place, folder, until
        )
        tally = Tally.read(place / TALLY)
        if ended:
            tally.scans += 1
            tally.findings.append(_keep_last(share, place, folder / "findings", ended))
        if not tally.scans:
            raise RuntimeError(
                f"the worker of {share.name} did nothing: {(place / 'log.txt').read_text()[-2000:]}"
            )
        done.join(tally)
        starts += 1
        if not ended:
            break
    return done


def _work(share: Share, count: int, random_seed: int, place: Path, folder: Path, until: float) -> str:
    """Run one worker; return how it ended, "" where it did its work."""
    place.mkdir(parents=True)
    arguments = [share.format, share.engine, count, random_seed, place, folder / "findings", until]
    with (place / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*WORKER, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                if _idle_s(place) > (HANG_S if (place / TALLY).is_file() else START_S):
                    return f"no end after {HANG_S:g} s"
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode == 0:
        return ""
    if process.returncode < 0:
        return f"ended the process with {signal.Signals(-process.returncode).name}"
    return f"ended the process with status {process.returncode}; {(place / 'log.txt').read_text()[-500:]}"


def _idle_s(place: Path) -> float:
    """Return for how long a worker has been at its scan, or at its start."""
    last = place / TALLY if (place / TALLY).is_file() else place
    return time.time() - last.stat().st_mtime


def _keep_last(share: Share, place: Path, findings: Path, ended: str) -> str:
    """Move the scan at which a worker ended to the findings; return the name of its folder."""
    name = f"{place.name}-crash"
    findings.mkdir(parents=True, exist_ok=True)
    (place / TARGETS / "case").rename(findings / name)
    (findings / f"{name}.txt").write_text(f"{share.format}, {share.engine}: {ended}\n")
    return name
