"""The scripts beside the Dockerfile with an engine that only notes what it is asked; tests/container has a real one."""

from __future__ import annotations

import importlib.util
import os
import re
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


def test_a_known_vulnerability_fails_the_audit_and_silence_is_said() -> None:
    specification = importlib.util.spec_from_file_location("audit", TOOLS / "audit.py")
    assert specification is not None
    assert specification.loader is not None
    audit = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(audit)
    hole = {"id": "PYSEC-1", "fix_versions": ["2.1"]}
    clean = {"name": "a", "version": "1", "vulns": []}
    unknown = {"name": "b", "skip_reason": "not found"}
    assert audit.verdict({"dependencies": [clean]}) == (["1 packages audited, 0 known vulnerabilities"], 0)
    lines, status = audit.verdict({"dependencies": [clean, unknown]})
    assert status == 0
    assert lines[0] == "not audited, for the index does not answer for them: 1 of 2 packages"
    lines, status = audit.verdict({"dependencies": [clean, {"name": "c", "version": "2.0", "vulns": [hole]}]})
    assert status == 1
    assert lines[0] == "c 2.0: PYSEC-1, mended in 2.1"


def test_every_licence_is_listed_with_the_version_that_is_pinned() -> None:
    page = (TOOLS.parent / "docs" / "LICENCES.md").read_text()
    rows = {
        name.lower().replace("_", "-"): (version, licence)
        for name, version, licence in re.findall(r"\| (\S+) \| (\S+) \| (.+) \|", page)
    }
    pins = dict(
        line.split("==")
        for line in (TOOLS.parent / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    stale = {
        name
        for name, version in pins.items()
        if rows.get(name.lower().replace("_", "-"), (version,))[0].split("+")[0] != version
    }
    assert not stale, "run make licences"
    assert "UNKNOWN" not in page
    assert {"torch", "simpleitk", "evalutils", "hyperopt"} <= rows.keys()
