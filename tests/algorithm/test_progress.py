"""A bar on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import itertools
import logging
import sys
import time

import pytest

from algorithm.progress import progress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_in_a_log_it_speaks_every_fifteen_seconds(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    with caplog.at_level(logging.INFO):
        for item in progress(range(5), total=5, what="reading", unit="cases"):
            clock.now += 10.0
            assert item in range(5)
    assert [record.getMessage() for record in caplog.records] == [
        "reading: 2 of 5 cases, 30 s left",
        "reading: 4 of 5 cases, 10 s left",
        "reading: 5 cases in 50.0 s",
    ]


@pytest.mark.usefixtures("clock")
def test_a_short_run_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress("abc", total=3, what="reading", unit="cases")) == ["a", "b", "c"]
    assert caplog.messages == ["reading: 3 cases in 0.0 s"]


@pytest.mark.usefixtures("clock")
def test_it_counts_what_came_and_not_what_was_promised(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(progress([1], total=9, what="reading")) == [1]
        assert list(progress([], total=0, what="nothing")) == []
    assert caplog.messages == ["reading: 1 it in 0.0 s", "nothing: 0 it in 0.0 s"]


def test_a_failure_passes_through(caplog: pytest.LogCaptureFixture) -> None:
    def failing() -> object:
        yield 1
        raise RuntimeError("second")

    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="second"):
        list(progress(failing(), total=2, what="reading"))  # type: ignore[arg-type]
    assert caplog.messages == []


def test_a_status_is_part_of_each_line(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    asked: list[float] = []

    def status() -> str:
        asked.append(clock.now)
        return f"loss {len(asked)}"

    with caplog.at_level(logging.INFO):
        for _ in progress(range(3), total=3, what="training", unit="batches", status=status):
            clock.now += 20.0
    assert caplog.messages[:2] == [
        "training: 1 of 3 batches, 40 s left; loss 1",
        "training: 2 of 3 batches, 20 s left; loss 2",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_asks_for_its_status_at_most_once_a_second(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    asked: list[float] = []

    def status() -> str:
        asked.append(clock.now)
        return f"loss {len(asked)}"

    with caplog.at_level(logging.INFO):
        for _ in progress(range(10), total=10, what="training", unit="batches", status=status):
            clock.now += 0.3
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(asked))
    assert len(asked) == 2
    assert "loss 2" in terminal.getvalue()


def test_on_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO):
        assert list(progress(range(3), total=3, what="reading", unit="cases")) == [0, 1, 2]
    assert "reading: 100%" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert caplog.messages == []
