"""Options, fixtures, and what is printed and written at the end.

Without --benchmark-only or --benchmark-enable each benchmark runs once, untimed, on a small volume: its result is
still compared with every peer that is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import voxelcore
from benchmarks.compare import Suite
from benchmarks.machine import cores, cpu_name, versions
from benchmarks.volumes import FULL, SMALL, Size

SUITE = pytest.StashKey[Suite]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption(
        "--bench-results",
        type=Path,
        metavar="FILE",
        help="write the rows into this JSON file, in place of those of the same kernel, case and threads; "
        "the machine goes to FILE with the suffix .machine.json",
    )
    group.addoption("--bench-all-peers", action="store_true", help="a peer that is not installed is an error")


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its options
def pytest_configure(config: pytest.Config) -> None:
    if not (config.option.benchmark_only or config.option.benchmark_enable):
        config.option.benchmark_disable = True
    config.stash[SUITE] = Suite(all_peers=config.option.bench_all_peers)


@pytest.fixture
def compare(benchmark: Any, pytestconfig: pytest.Config) -> Callable[..., Any]:
    """Return `Suite.compare` for this benchmark."""
    suite = pytestconfig.stash[SUITE]
    return lambda **arguments: suite.compare(benchmark, **arguments)


@pytest.fixture
def notes(pytestconfig: pytest.Config) -> dict[str, str]:
    """Return where to leave what has no row in the table; it is printed, and written below the table."""
    return pytestconfig.stash[SUITE].notes


@pytest.fixture(scope="module", autouse=True)
def _memory(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    pytestconfig.stash[SUITE].memcpy.forget()


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> dict[str, Size]:
    """Return the scans by name: real sizes where benchmarks are timed."""
    return SMALL if pytestconfig.option.benchmark_disable else FULL


@pytest.fixture(params=["full", "thin"])
def size(request: pytest.FixtureRequest, sizes: dict[str, Size]) -> Size:
    return sizes[request.param]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    suite = config.stash[SUITE]
    timed = not config.option.benchmark_disable
    if timed and (suite.rows or suite.notes):
        terminalreporter.section("beside peers and memcpy")
        for line in [*(row.line() for row in suite.rows), *suite.notes.values()]:
            terminalreporter.write_line(line)
    for package in sorted(suite.left_out):
        terminalreporter.write_line(f"{package} is not installed: left out")
    path: Path | None = config.option.bench_results
    if timed and path is not None:
        _write(path, suite)
        terminalreporter.write_line(f"written to {path}")


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[SUITE].memcpy.close()


def _write(path: Path, suite: Suite) -> None:
    keys = ("kernel", "case", "threads", "seconds", "memcpy_share", "peers")
    rows = {_key(row): row for row in (json.loads(path.read_text()) if path.exists() else [])}
    for measured in suite.rows:
        row = {key: getattr(measured, key) for key in keys}
        rows[_key(row)] = row
    path.write_text(json.dumps(_rounded(list(rows.values())), indent=1) + "\n")
    about = path.with_suffix(".machine.json")
    known = json.loads(about.read_text()) if about.exists() else {}
    texts = {key: {**known.get(key, {}), **getattr(suite, key)} for key in ("differences", "notes")}
    about.write_text(json.dumps({**_machine(), **texts}, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    """Keep four digits of every float."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["kernel"], row["case"], row["threads"]


def _machine() -> dict[str, Any]:
    return {"cpu": cpu_name(), "cores": cores(), "isa": voxelcore.get_isa(), "versions": versions()}
