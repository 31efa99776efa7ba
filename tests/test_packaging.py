"""What is shipped: the source distribution, the wheel built from it, and who may import what."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.timeout(600)
BUILD_BACKEND = ("scikit_build_core", "pybind11")
HOSPITAL = {
    "SimpleITK",
    "algorithm",
    "cc3d",
    "evalutils",
    "numpy",
    "safetensors",
    "torch",
    "tqdm",
    "voxelcore",
}
DICOM = {"highdicom", "pydicom"}
ONNX = {"onnx", "onnxruntime"}
ALLOWED = {
    "voxelcore": {"numpy", "voxelcore"},
    "algorithm": HOSPITAL | DICOM | {"openvino"},
    "trainer": (HOSPITAL - {"evalutils"})
    | {"PIL", "h5py", "hyperopt", "matplotlib", "scipy", "surface_distance", "trainer"}
    | ONNX
    | {"ray"},
}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; rooms are named in full"
            assert node.module is not None
            yield node.module


@pytest.mark.parametrize("room", ALLOWED)
def test_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((REPOSITORY / room).rglob("*.py"))
    assert files
    known = ALLOWED[room] | sys.stdlib_module_names
    foreign = {
        (str(file), name) for file in files for name in imports(file) if name.split(".")[0] not in known
    }
    assert foreign == set()


@pytest.mark.parametrize(
    ("packages", "module"),
    [
        ({"evalutils"}, "algorithm/entry.py"),
        (DICOM, "algorithm/dicom_seg.py"),
        ({"openvino"}, "algorithm/engines.py"),
        (ONNX, "trainer/onnx_export.py"),
        ({"ray"}, "trainer/search/ray_engine.py"),
        ({"hyperopt"}, "trainer/search/sampler.py"),
    ],
    ids=["evalutils", "dicom", "openvino", "onnx", "ray", "hyperopt"],
)
def test_some_packages_are_imported_in_one_module(packages: set[str], module: str) -> None:
    files = [file for room in ALLOWED for file in (REPOSITORY / room).rglob("*.py")]
    users = [file for file in files if {name.split(".")[0] for name in imports(file)} & packages]
    assert users == [REPOSITORY / module]


def test_kernels_know_nothing_of_python() -> None:
    headers = ("<pybind11", "<Python.h", '"bind.hpp"', '"arguments.hpp"')
    files = sorted((REPOSITORY / "csrc").glob("*.[ch]pp"))
    users = {file for file in files if any(f"#include {header}" in file.read_text() for header in headers)}
    assert users
    assert {file.name for file in users if not file.name.startswith(("bind", "module", "arguments"))} == set()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    run("-m", "build", "--sdist", *isolation("--no-isolation"), "--outdir", str(folder), str(REPOSITORY))
    (archive,) = folder.glob("decathlon_unet-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that pip builds from the source distribution, not from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    # Optimised kernels take minutes to compile and hold nothing else.
    quick = "--config-settings=cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0"
    options = ("--no-deps", *isolation("--no-build-isolation"), quick, "--wheel-dir", str(folder))
    run("-m", "pip", "wheel", "--quiet", *options, str(source))
    (found,) = folder.glob("decathlon_unet-*.whl")
    return found


def isolation(option: str) -> list[str]:
    """Build with the backend of this environment where it has one, which saves fetching it again."""
    return [option] if all(importlib.util.find_spec(name) for name in BUILD_BACKEND) else []


def run(*arguments: str, python: Path | str = sys.executable) -> str:
    """Run Python away from the checkout, with the tools of this environment first; return its stdout."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "PYTHONSAFEPATH": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), *arguments], env=environment, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_source_distribution_builds_without_the_checkout(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "csrc/module.cpp"} <= names
    assert not [
        name for name in names if name.endswith((".so", ".pyc", ".h5")) or name.startswith((".ci", "demo/"))
    ]


def test_wheel_holds_the_rooms_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(ALLOWED)
    data = {
        path.relative_to(REPOSITORY).as_posix()
        for suffix in ("toml", "css", "js", "csv")
        for path in (REPOSITORY / "trainer").rglob(f"*.{suffix}")
    }
    assert {
        "trainer/presets/paper.toml",
        "trainer/assets/page.js",
        "trainer/published/task07_nnunet.csv",
    } <= data
    assert data <= set(names)
    bundle = REPOSITORY / "algorithm" / "bundles" / "phantom"
    weights = {path.relative_to(REPOSITORY).as_posix() for path in bundle.iterdir()}
    assert "algorithm/bundles/phantom/model.safetensors" in weights
    assert weights <= set(names)
    assert {f"{room}/py.typed" for room in ALLOWED} <= set(names)
    library = f"voxelcore/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    assert [name for name in names if name.endswith(".so")] == [library]
    assert not [name for name in names if name.endswith((".cpp", ".hpp", ".a", ".h"))]


def test_console_command_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        text = archive.read(name).decode()
    declared = configparser.ConfigParser()
    declared.read_string(text)
    assert dict(declared["console_scripts"]) == {"decathlon": "trainer.cli:main"}


def test_core_needs_numpy_only(wheel: Path, tmp_path: Path) -> None:
    run("-m", "venv", "--without-pip", str(tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", python=python).strip())
    installed = Path(np.__file__).resolve().parent
    for folder in (installed, installed.with_name("numpy.libs")):
        if folder.is_dir():
            (site / folder.name).symlink_to(folder)
    run("-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel))
    code = (
        "import sys, numpy, voxelcore, voxelcore._core;"
        "volume = numpy.arange(8, dtype=numpy.int16).reshape(2, 2, 2);"
        "same = voxelcore.resample_linear(volume, (2, 2, 2));"
        "assert (same == volume).all();"
        "others = {name.split('.')[0] for name, module in sys.modules.items()"
        " if 'site-packages' in (getattr(module, '__file__', None) or '')};"
        "print(sorted(others))"
    )
    assert ast.literal_eval(run("-W", "error", "-c", code, python=python)) == ["numpy", "voxelcore"]
