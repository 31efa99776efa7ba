"""The scripts beside the Dockerfile with an engine that only notes what it is asked; tests/container has a real one."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

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


def tool(name: str) -> Any:
    """Return a script as a module."""
    specification = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


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
    audit = tool("audit")
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


def problems(folder: Path) -> list[str]:
    root = TOOLS.parent
    found: list[str] = tool("pins").problems(folder, root / "constraints.txt", root / "pyproject.toml")
    return found


def test_what_the_image_installs_is_what_constraints_pin_and_each_wheel_has_its_hash() -> None:
    assert problems(TOOLS.parent / "requirements") == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "sentence"),
    [
        ("image", r"numpy==.*\n", "", "image.txt: numpy is missing"),
        ("image", r"filelock==.*\n", "", "image.txt: filelock is missing"),
        ("alone", r"openvino==.*\n", "", "alone.txt: openvino is missing"),
        ("torch-cuda", r"torch==.*\n", "", "torch-cuda.txt: torch is missing"),
        ("build", r"ninja==.*\n", "", "build.txt: ninja is missing"),
        ("image", r"scipy==\S+", "scipy==1.0.0", "image.txt: scipy must be "),
        ("torch-cpu", r"\+cpu", "", "torch-cpu.txt: torch must be "),
        (
            "torch-cuda",
            r"(nvidia-nvtx==\S+).*",
            r"\1",
            "torch-cuda.txt: a line must be NAME==VERSION --hash=",
        ),
        (
            "image",
            r"(tqdm==\S+ --hash=sha256:).*",
            r"\g<1>abc",
            "image.txt: a line must be NAME==VERSION --hash=",
        ),
        ("image", r"tqdm==", "tqdm>=", "image.txt: a line must be NAME==VERSION --hash="),
        ("image", r"(tqdm)(==.*\n)", r"\1\2click\2", "image.txt: nothing in the image needs click"),
        ("build", r"(ninja)(==.*\n)", r"\1\2left-pad\2", "build.txt: left-pad is not in constraints.txt"),
    ],
)
def test_a_list_that_lacks_something_is_refused(
    file: str, pattern: str, replacement: str, sentence: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(TOOLS.parent / "requirements", tmp_path / "requirements")
    text = (folder / f"{file}.txt").read_text()
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    (folder / f"{file}.txt").write_text(changed)
    assert any(found.startswith(sentence) for found in problems(folder)), problems(folder)


def test_the_image_installs_by_hash_but_for_its_own_wheel_and_another_cuda() -> None:
    text = (TOOLS.parent / "Dockerfile").read_text()
    installs = re.findall(
        r"(?:\$install|pip/bin/pip(?: --python \S+)? install) (?!--only-binary :all:\")(.+)", text
    )
    assert len(installs) == 7
    unhashed = [words for words in installs if "--require-hashes" not in words]
    assert len(unhashed) == 2, unhashed
    assert any("dist/*.whl" in words for words in unhashed)
    assert any("$TORCH_CUDA_INDEX" in words for words in unhashed)


def test_a_wheel_without_a_hash_is_not_written() -> None:
    pins = tool("pins")
    package = {"metadata": {"name": "Torch", "version": "2.0"}}
    listed = package | {"download_info": {"archive_info": {"hashes": {"sha256": "a" * 64}}}}
    assert pins.line_of(listed) == f"torch==2.0 --hash=sha256:{'a' * 64}"
    with pytest.raises(SystemExit, match=r"must give a SHA-256 for torch 2\.0"):
        pins.line_of(package | {"download_info": {"archive_info": {}}})


IMAGE = {"Id": "sha256:" + "a" * 64, "Created": "2026-01-02T03:04:05.123456789Z"}
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u13
Description: GNU C Library
 Version: not a field, but a line of the description

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""


def python_package(name: str, version: str, **fields: object) -> dict[str, object]:
    return {
        "name": name,
        "version": version,
        "expression": None,
        "licence": None,
        "classifiers": [],
        "sboms": [],
    } | fields


def inventory() -> dict[str, object]:
    enclosed = {
        "components": [
            {"name": "scikit_learn", "version": "1.9", "purl": "pkg:pypi/scikit_learn@1.9"},
            {"name": "libgomp", "version": "8.5", "purl": "pkg:rpm/almalinux/libgomp@8.5"},
        ]
    }
    return {
        "system": {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"},
        "release": "12.11",
        "debian": tool("inventory").of_debian(STATUS),
        "python": [
            python_package("decathlon-unet", "0.1.0", expression="Apache-2.0"),
            python_package("Jinja2", "3.1.6", classifiers=["License :: OSI Approved :: BSD License"]),
            python_package(
                "scikit-learn", "1.9", licence="the whole text " * 99, sboms=[json.dumps(enclosed)]
            ),
            python_package("torch", "2.13.0+cpu", licence="BSD-3-Clause"),
        ],
        "pins": [("jinja2", "3.1.6", "b" * 64), ("torch", "2.13.0", "c" * 64)],
    }


def test_the_bill_of_materials_says_what_is_known_and_no_more() -> None:
    sbom = tool("sbom")
    text = sbom.text_of(sbom.document(IMAGE, inventory()))
    assert text == sbom.text_of(sbom.document(IMAGE, inventory()))
    found = json.loads(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["timestamp"].startswith("2026-01-02T03:04:05")
    components = {one["name"]: one for one in found["components"]}
    assert components.keys() == {"debian", "libc6", "decathlon-unet", "Jinja2", "scikit-learn", "torch"}
    assert components["libc6"]["purl"] == (
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12.11&upstream=glibc"
    )
    assert components["Jinja2"]["purl"] == "pkg:pypi/jinja2@3.1.6"
    assert components["Jinja2"]["licenses"][0]["license"]["name"] == "BSD License"
    assert components["Jinja2"]["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    assert components["torch"]["licenses"][0]["license"]["id"] == "BSD-3-Clause"
    assert "hashes" not in components["torch"], "the hash of another build of the same release"
    assert "licenses" not in components["scikit-learn"]
    assert [one["name"] for one in components["scikit-learn"]["components"]] == ["libgomp"]
    (root,) = (one for one in found["dependencies"] if one["ref"] == "image")
    assert len(root["dependsOn"]) == len(components)


def test_an_invalid_bill_of_materials_is_not_written() -> None:
    sbom = tool("sbom")
    listed = inventory() | {"pins": [("jinja2", "3.1.6", "no hash")]}
    with pytest.raises(ValueError, match=r"must be valid CycloneDX 1\.6"):
        sbom.text_of(sbom.document(IMAGE, listed))


def test_a_bill_of_materials_needs_the_library(engine: dict[str, str], tmp_path: Path) -> None:
    done = run(engine | {"PYTHON": "false"}, "sbom.sh", tmp_path / "sbom.json")
    assert done.returncode == 1
    assert done.stderr.startswith("sbom.sh: false has no cyclonedx-python-lib; use make sbom")
    assert not (tmp_path / "sbom.json").exists()
