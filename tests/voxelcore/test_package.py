"""The package as it is installed: its stub, its types, its imports."""

from __future__ import annotations

import ast
import importlib.resources
import inspect
import re
import subprocess
import sys

import pytest

import voxelcore
from voxelcore import _core

STUB = ast.parse((importlib.resources.files("voxelcore") / "_core.pyi").read_text())
SIGNATURES = {
    node.name: [a.arg for a in node.args.args] for node in STUB.body if isinstance(node, ast.FunctionDef)
}


def test_stub_and_module_name_the_same_functions() -> None:
    assert {name for name in vars(_core) if not name.startswith("__")} == set(SIGNATURES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_stub_and_module_agree_on_the_arguments(name: str) -> None:
    signature = (getattr(_core, name).__doc__ or "").splitlines()[0]
    inside = re.fullmatch(rf"{name}\((.*)\) -> .*", signature)
    assert inside is not None
    assert re.findall(r"(\w+): ", inside[1]) == SIGNATURES[name]


def test_the_package_is_typed() -> None:
    assert (importlib.resources.files("voxelcore") / "py.typed").is_file()


@pytest.mark.parametrize("name", voxelcore.__all__)
def test_everything_public_is_documented_and_its_options_are_keywords(name: str) -> None:
    thing = getattr(voxelcore, name)
    assert thing.__doc__
    optional = [p for p in inspect.signature(thing).parameters.values() if p.default is not p.empty]
    assert all(p.kind is p.KEYWORD_ONLY for p in optional)


@pytest.mark.another_python
def test_importing_voxelcore_imports_only_numpy() -> None:
    program = (
        "import sys, numpy; before = set(sys.modules); import voxelcore;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(ran.stdout.split()) - {"numpy"} == {"voxelcore"}
