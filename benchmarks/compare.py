"""Ours, its peers and a memcpy, timed in turn on the same arrays."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLOW_S = 1.0  # a peer that takes longer runs once more, and that time counts
BUDGET_S = 6.0  # for the repetitions of the faster ones
ROUNDS = (3, 15)
APART = (
    1024  # bytes from the place of the source in its page to the target's: in the same place a copy is slower
)

Run = Callable[[], Any]


@dataclass(frozen=True)
class Peer:
    """What a user would call instead.

    Attributes:
        name: as in the table.
        package: that must be installed.
        difference: what it does otherwise than ours, as a sentence.
        make: imports the package, prepares its objects, untimed, and returns what is to be timed.
        check: raises if the results, ours and the peer's, do not agree.
        threaded: whether its time depends on the number of threads; else it is measured once a case.
        before: makes its input anew before each run, untimed, where it is overwritten.
    """

    name: str
    package: str
    difference: str
    make: Callable[[], Run]
    check: Callable[[Any, Any], None]
    threaded: bool = False
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Row:
    """One line of results.json, and what is printed beside it."""

    kernel: str
    case: str
    threads: int
    seconds: float
    memcpy_share: float
    peers: dict[str, float]
    moved_bytes: int
    patches: int | None

    def line(self) -> str:
        parts = [f"{self.kernel}, {self.case}, {self.threads} thread{'s' if self.threads > 1 else ''}:"]
        for name, seconds in {"": self.seconds, **self.peers}.items():
            text = f"{name} {1000 * seconds:.4g} ms".strip()
            if self.patches is not None:
                text += (
                    f", {self.patches / seconds:.4g} patches/s, {self.moved_bytes / seconds / 1e9:.3g} GB/s"
                )
            if name:
                text += f" ({seconds / self.seconds:.3g}x)"
            else:
                text += f", {100 * self.memcpy_share:.0f} % of memcpy"
            parts.append(text)
        return "\n    ".join(parts) if self.patches is not None else f"{parts[0]} " + "; ".join(parts[1:])


class Memcpy:
    """Copies between two arrays whose pages were touched, by as many threads as the kernel has."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="memcpy")
        self.forget()

    def seconds(self, size: int, threads: int) -> float:
        if self._source.size < size:
            self._source = np.ones(size, np.uint8)
            self._target = np.ones(size + APART, np.uint8)[APART:]
        edges = [size * part // threads for part in range(threads + 1)]
        halves = [slice(a, b) for a, b in itertools.pairwise(edges)]
        source, target = self._source, self._target
        started = time.perf_counter()
        if threads == 1:
            np.copyto(target[:size], source[:size])
        else:
            list(self._pool.map(lambda half: np.copyto(target[half], source[half]), halves))
        return time.perf_counter() - started

    def forget(self) -> None:
        """Give the memory back."""
        self._source = self._target = np.empty(0, np.uint8)

    def close(self) -> None:
        self._pool.shutdown()


@dataclass
class Suite:
    """What is measured in one run of pytest.

    Attributes:
        all_peers: a peer that is not installed is an error and not left out.
        rows: one for each benchmark that was timed.
        differences: by kernel and peer.
        notes: by name, what is measured and has no row.
        left_out: packages that are not installed.
    """

    all_peers: bool
    rows: list[Row] = field(default_factory=list)
    differences: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    memcpy: Memcpy = field(default_factory=Memcpy)
    _once: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def compare(
        self,
        benchmark: Any,
        *,
        kernel: str,
        case: str,
        threads: int,
        ours: Run,
        copied_bytes: int,
        peers: Sequence[Peer],
        moved_bytes: int | None = None,
        patches: int | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> Any:
        """Check ours against each peer, time them if benchmarks are on; return the result of ours.

        Args:
            benchmark: the fixture of pytest-benchmark.
            kernel: the first column of the table.
            case: size, dtype and the like.
            threads: of ours, of the memcpy and of those peers that can.
            ours: what is timed.
            copied_bytes: of the memcpy.
            peers: in the order of the table.
            moved_bytes: read and written, for a rate; twice `copied_bytes` unless given.
            patches: of the result, for a rate.
            before: makes the input of `ours` anew before each run, untimed.
        """
        before()
        result = ours()
        times: dict[str, list[float]] = {}
        turns: list[tuple[Peer, Run]] = []
        for peer in self._installed(peers):
            self.differences.setdefault(kernel, {})[peer.name] = peer.difference
            if (kernel, case, peer.name) in self._once:
                times[peer.name] = [self._once[kernel, case, peer.name]]
                continue
            with _threads(threads):
                run = peer.make()
                peer.before()
                started = time.perf_counter()
                theirs = run()
                times[peer.name] = [time.perf_counter() - started]
            peer.check(result, theirs)
            del theirs
            if times[peer.name][0] <= SLOW_S:
                turns.append((peer, run))
            elif benchmark.enabled:
                peer.before()
                with _threads(threads):
                    started = time.perf_counter()
                    run()
                    times[peer.name] = [time.perf_counter() - started]
        if not benchmark.enabled:
            before()
            return benchmark(ours)
        a_round = sum(times[peer.name][0] for peer, _ in turns)
        rounds = int(np.clip(BUDGET_S / max(a_round, 1e-3), *ROUNDS))
        copies: list[float] = []
        for peer, _ in turns:
            times[peer.name].clear()  # the first run met cold caches

        def a_turn() -> None:
            for peer, run in turns:
                peer.before()
                with _threads(threads):
                    started = time.perf_counter()
                    theirs = run()
                    times[peer.name].append(time.perf_counter() - started)
                del theirs
            before()
            copies.append(self.memcpy.seconds(copied_bytes, threads))

        self.memcpy.seconds(copied_bytes, threads)
        result = benchmark.pedantic(ours, setup=a_turn, rounds=rounds, warmup_rounds=0)
        seconds = benchmark.stats.stats.median
        medians = {name: statistics.median(measured) for name, measured in times.items()}
        for peer in peers:
            if peer.name in medians and not peer.threaded:
                self._once[kernel, case, peer.name] = medians[peer.name]
        share = statistics.median(copies) / seconds
        row = Row(kernel, case, threads, seconds, share, medians, moved_bytes or 2 * copied_bytes, patches)
        self.rows.append(row)
        benchmark.extra_info["memcpy_share"] = share
        return result

    def _installed(self, peers: Sequence[Peer]) -> Iterator[Peer]:
        for peer in peers:
            if importlib.util.find_spec(peer.package) is not None:
                yield peer
            elif self.all_peers:
                raise RuntimeError(f"{peer.package} must be installed: make bench does it")
            elif peer.package not in self.left_out:
                self.left_out.add(peer.package)
                sys.stdout.write(f"{peer.package} is not installed, its benchmarks are left out\n")


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    """Let the peers use so many threads, and say what they like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "SimpleITK" in sys.modules:
            sys.modules["SimpleITK"].ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        yield


def same(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Raise unless the arrays are equal."""
    np.testing.assert_array_equal(ours, theirs)
