from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from algorithm import lock
from algorithm.errors import InputError
from algorithm.lock import alone_in, remove_held, remove_leftovers, remove_leftovers_of

HOLD = """
import sys, time
from pathlib import Path
from algorithm.lock import alone_in
with alone_in(Path(sys.argv[1]), "decathlon predict"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_name_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    process = hold(folder)
    try:
        message = (
            rf"decathlon predict \(process {process.pid} on {re.escape(socket.gethostname())}, since 20.*\) is at work "
            rf"in {re.escape(str(folder))}: wait for it to end"
        )
        with pytest.raises(InputError, match=message), alone_in(folder, "decathlon evaluate"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert "decathlon predict" in (folder / ".lock").read_text()  # stale
        with alone_in(folder, "decathlon evaluate"):
            assert f"decathlon evaluate (process {os.getpid()} on" in (folder / ".lock").read_text()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_who_may_wait_waits(tmp_path: Path) -> None:
    order: list[str] = []

    def wait() -> None:
        with alone_in(tmp_path, "second", wait_s=60):
            order.append("second")

    with alone_in(tmp_path, "first"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_that_was_removed_guards_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    with alone_in(folder, "first"):
        (folder / "a").touch()
        remove_held(folder)
        assert list(tmp_path.iterdir()) == []
        with alone_in(folder, "second"):
            assert (folder / ".lock").exists()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with alone_in(tmp_path, "first"):
        assert f"{tmp_path} cannot be locked here: see to it that nothing else writes to it" in caplog.text


def test_leftovers_go_and_what_looks_a_little_like_them_stays(tmp_path: Path) -> None:
    for name in (".tmp-0123abcd-a.mha", ".tmp-mine", ".tmp-0123abc-x", "a.mha", ".old-0123abcd-a.mha"):
        (tmp_path / name).write_text(name)
    for name in (".tmp-0123abcd-folder", ".old-0123abcd-moved", ".old-0123abcd-there", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_leftovers(tmp_path, tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == {
        ".tmp-0123abc-x",
        ".tmp-mine",
        "a.mha",
        "moved",
        "there",
    }


def test_leftovers_of_one_file(tmp_path: Path) -> None:
    for name in (".tmp-0123abcd-s.zip", ".tmp-0123abcd-other.zip", "s.zip"):
        (tmp_path / name).touch()
    remove_leftovers_of(tmp_path / "s.zip")
    assert {path.name for path in tmp_path.iterdir()} == {".tmp-0123abcd-other.zip", "s.zip"}
