"""The scripts beside the Dockerfile with an engine that only notes what it is asked; tests/container has a real one."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from algorithm.bundle import read_bundles
from tests.bundles import write_random_bundle

TOOLS = Path(__file__).parent.parent / "tools"
ENGINE = """#!/bin/sh
echo "$@" >> "$NOTES/calls"
case "$1" in
    save) echo "an image" > "$3" ;;
    build) for context; do :; done; [ ! -d "$context/bundle" ] || cp -r "$context/bundle" "$NOTES/built" ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "engine").write_text(ENGINE)
    (tmp_path / "engine").chmod(0o755)
    (tmp_path / "notes").mkdir()
    return {**os.environ, "ENGINE": str(tmp_path / "engine"), "NOTES": str(tmp_path / "notes")}


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    for name in ("fold 0", "fold 1"):
        write_random_bundle(tmp_path / "ensemble" / name)
    return tmp_path / "ensemble"


def run(engine: dict[str, str], script: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TOOLS / script), *map(str, words)], env=engine, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("of_one", [True, False])
def test_a_bundle_and_an_ensemble_are_saved_and_built_in(
    engine: dict[str, str], ensemble: Path, tmp_path: Path, of_one: bool
) -> None:
    model = ensemble / "fold 0" if of_one else ensemble
    expected = len(read_bundles([model]))
    for attempt in ("one", "two"):
        done = run(engine, "save.sh", tmp_path / attempt, model)
        assert done.returncode == 0, done.stderr
        assert sorted(file.name for file in (tmp_path / attempt).iterdir()) == [
            "image.tar.gz",
            "model.tar.gz",
        ]
    assert (tmp_path / "one/model.tar.gz").read_bytes() == (tmp_path / "two/model.tar.gz").read_bytes()
    assert (tmp_path / "one/image.tar.gz").read_bytes() == (tmp_path / "two/image.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one" / "model.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert len(read_bundles([tmp_path / "unpacked"])) == expected

    done = run(engine, "build.sh", "--bundle", model, "--from", "an-image")
    assert done.returncode == 0, done.stderr
    assert len(read_bundles([tmp_path / "notes" / "built"])) == expected


@pytest.mark.parametrize("script", ["save.sh", "test-run.sh", "build.sh"])
def test_a_folder_that_is_no_bundle_is_refused(
    engine: dict[str, str], ensemble: Path, tmp_path: Path, script: str
) -> None:
    words = {
        "save.sh": [tmp_path / "upload", ensemble],
        "test-run.sh": [tmp_path, tmp_path / "results", ensemble],
        "build.sh": ["--from", "an-image", "--bundle", ensemble],
    }
    (ensemble / "checkpoints").mkdir()
    done = run(engine, script, *words[script])
    assert done.returncode == 1
    assert "is no model bundle, it has no model.json, and holds not only bundles" in done.stderr
    assert not (tmp_path / "upload").exists()
