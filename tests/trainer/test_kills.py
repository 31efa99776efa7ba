"""One kill each of the verbs that have no kill test of their own; `make kills` does 50 of every verb."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_killed_and_continued_they_end_with_the_same_files() -> None:
    verbs = ["predict", "evaluate", "submission"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", "--kills", "2", *verbs],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == verbs
    assert all(int(row[2]) == 2 and int(row[3]) >= 2 and int(row[5]) == 0 for row in rows)
