"""Write what pip installs into the image, each package with its version and the SHA-256 of its wheel, or check it.

    python tools/pins.py              ask the indexes and write requirements/*.txt anew
    python tools/pins.py --check      compare them with constraints.txt and pyproject.toml; needs no network

Versions are those of constraints.txt; CUDA's libraries, which a development environment does without, are the newest
that torch admits. Writing downloads about 3 GB where an index keeps no metadata beside its wheels.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from algorithm.files import replacing

REPOSITORY = Path(__file__).resolve().parent.parent
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
BUILD = ("cmake", "ninja", "pybind11", "scikit-build-core")
# Installed without what they declare, and what of it they import all the same: evalutils also declares the packages
# of its project generator (cookiecutter, pip-tools), openvino one that reports its use to its makers.
ALONE: dict[str, tuple[str, ...]] = {
    "evalutils": ("imageio", "pandas", "scikit-learn", "scipy"),
    "openvino": (),
}
LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>\S+) --hash=sha256:[0-9a-f]{64}")
# What only a CUDA build of PyTorch needs; constraints.txt has none of it.
CUDA = re.compile(r"cuda-.+|nvidia-.+|triton")
HEAD = "# {what}.\n# Wheels for CPython 3.11 on Linux x86_64. Written by `make pins`.\n"
FILES = {
    "image": "What the image holds beside PyTorch",
    "alone": "What the image holds without what it declares; tools/pins.py says why",
    "torch-cpu": "PyTorch's CPU build, of " + TORCH_CPU_INDEX,
    "torch-cuda": "PyPI's build of PyTorch, and its CUDA",
    "build": "What builds voxelcore, and is not in the image",
}


def declared(project: Path) -> list[Requirement]:
    """Return what pyproject.toml says that the image needs."""
    table = tomllib.loads(project.read_text())["project"]
    extras = table["optional-dependencies"]
    found = [
        Requirement(line) for line in (*table["dependencies"], *extras["algorithm"], *extras["openvino"])
    ]
    return [requirement for requirement in found if requirement.name != table["name"]]


def pinned(constraints: Path) -> dict[str, str]:
    """Return the version by name of constraints.txt, names as an index spells them."""
    lines = [line for line in constraints.read_text().splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def closure(names: Iterable[str]) -> set[str]:
    """Return the names and all that they need, as declared by what is installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), "") for name in names]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        name, extra = one
        for requirement in map(Requirement, requires(name) or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, each) for each in ("", *requirement.extras)]
    return {name for name, _ in found}


def problems(folder: Path, constraints: Path, project: Path) -> list[str]:
    """Return a sentence for each line of the files in `folder` that is wrong, and each that is missing."""
    versions = pinned(constraints)
    found: list[str] = []
    listed: dict[str, set[str]] = {}
    for stem in FILES:
        file = folder / f"{stem}.txt"
        listed[stem] = set()
        for line in file.read_text().splitlines():
            if line.startswith("#"):
                continue
            match = LINE.fullmatch(line)
            if match is None:
                found.append(
                    f"{file.name}: a line must be NAME==VERSION --hash=sha256:64 DIGITS, got {line!r}"
                )
                continue
            name = canonicalize_name(match["name"])
            listed[stem].add(name)
            expected = versions.get(name)
            if name == "torch" and stem == "torch-cpu":
                expected = f"{expected}+cpu"
            if expected is None and not CUDA.fullmatch(name):
                found.append(f"{file.name}: {name} is not in {constraints.name}")
            elif expected is not None and match["version"] != expected:
                found.append(
                    f"{file.name}: {name} must be {expected} as in {constraints.name}, got {match['version']}"
                )
    roots = {canonicalize_name(requirement.name) for requirement in declared(project)}
    needed = closure({*roots - ALONE.keys(), *(name for names in ALONE.values() for name in names)})
    # What torch's CUDA build and scikit-build-core need is declared in packages that are not installed here: the
    # image's build refuses a list that lacks some of it.
    expected_names = {
        "image": {name for name in needed if name != "torch" and not CUDA.fullmatch(name)},
        "alone": set(ALONE),
        "torch-cpu": {"torch"},
        "torch-cuda": {"torch"} | {name for name in listed["torch-cuda"] if CUDA.fullmatch(name)},
        "build": {*BUILD, *listed["build"]},
    }
    for stem, names in expected_names.items():
        found += [f"{stem}.txt: {name} is missing" for name in sorted(names - listed[stem])]
        found += [f"{stem}.txt: nothing in the image needs {name}" for name in sorted(listed[stem] - names)]
    return found


def resolve(*words: str) -> dict[str, str]:
    """Return, by name, the line of each package that pip would install for `words`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        options = [
            f"--report={report}",
            "--only-binary=:all:",
            f"--constraint={REPOSITORY / 'constraints.txt'}",
        ]
        subprocess.run([*pip, *options, *words], check=True)
        installed = json.loads(report.read_text())["install"]
    return {canonicalize_name(one["metadata"]["name"]): line_of(one) for one in installed}


def line_of(installed: dict[str, Any]) -> str:
    """Return the requirement of one package of pip's report."""
    name, version = canonicalize_name(installed["metadata"]["name"]), installed["metadata"]["version"]
    digest = installed["download_info"]["archive_info"].get("hashes", {}).get("sha256")
    if digest is None:
        raise SystemExit(
            f"pins: the index must give a SHA-256 for {name} {version}, and gives none; ask another"
        )
    return f"{name}=={version} --hash=sha256:{digest}"


def write(folder: Path) -> None:
    """Ask the indexes and write the files."""
    here = (platform.python_implementation(), sys.version_info[:2], platform.system(), platform.machine())
    if here != ("CPython", (3, 11), "Linux", "x86_64"):
        raise SystemExit(
            f"pins: the image has CPython 3.11 on Linux x86_64, and this is {here}; run it on such"
        )
    torch = pinned(REPOSITORY / "constraints.txt")["torch"]
    roots = [str(one) for one in declared(REPOSITORY / "pyproject.toml") if one.name not in ALONE]
    roots += [name for names in ALONE.values() for name in names]
    # "===" asks for PyPI's build, which is that for CUDA, and not for a "+cpu" that an index may have beside it.
    image = resolve(f"torch==={torch}", *roots)
    cuda = {name: image.pop(name) for name in list(image) if name == "torch" or CUDA.fullmatch(name)}
    written = {
        "image": image,
        "alone": resolve("--no-deps", *ALONE),
        "torch-cpu": resolve("--no-deps", "--extra-index-url", TORCH_CPU_INDEX, f"torch=={torch}+cpu"),
        "torch-cuda": cuda,
        "build": resolve(*BUILD),
    }
    for stem, lines in written.items():
        with replacing(folder / f"{stem}.txt") as part:
            part.write_text(
                "".join([HEAD.format(what=FILES[stem]), *(f"{lines[name]}\n" for name in sorted(lines))])
            )


def main(words: list[str]) -> int:
    """Write or check; return the exit status."""
    if words not in ([], ["--check"]):
        raise SystemExit("usage: pins.py [--check]")
    folder = REPOSITORY / "requirements"
    if not words:
        write(folder)
    found = problems(folder, REPOSITORY / "constraints.txt", REPOSITORY / "pyproject.toml")
    if found:
        print(*(f"requirements/{sentence}" for sentence in found), "run make pins", sep="\n", file=sys.stderr)  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
