"""The image under test, built once, and the numbers that its runs gave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import write_random_bundle
from tests.container.engine import Engine
from tests.container.jobs import InImage, Job, OnHost, Runner, unpack_hospital_wheel

IMAGE, BUNDLED = "decathlon-unet:test", "decathlon-unet:test-bundled"
NO_ENGINE = "no container engine answers (docker, podman)"
notes: list[str] = []


@pytest.fixture(scope="session")
def note() -> Callable[[str], None]:
    """Return a function that keeps a line for the end of the report."""
    return notes.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    for line in notes:
        terminalreporter.write_line(f"container: {line}")


@pytest.fixture(scope="session")
def engine() -> Engine | None:
    """Return the engine; None where a user has none; under CI there must be one."""
    found = Engine.find()
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{NO_ENGINE}; under CI the image has to be built")
    return found


@pytest.fixture(scope="session")
def image(engine: Engine | None, note: Callable[[str], None]) -> str:
    """Build the image from the Dockerfile as it is and return its name."""
    if engine is None:
        pytest.skip(NO_ENGINE)
    started = time.monotonic()
    engine.build(IMAGE, TORCH="cpu")
    gigabytes = int(str(engine.inspect(IMAGE)["Size"])) / 1e9
    note(f"image of {gigabytes:.2f} GB, built by {engine.name} in {time.monotonic() - started:.0f} s")
    return IMAGE


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with fixed random weights."""
    return readable(write_random_bundle(tmp_path_factory.mktemp("bundle") / "model"))


def readable(folder: Path) -> Path:
    """Let any user read a folder and its files; return it."""
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def runner(
    engine: Engine | None,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    note: Callable[[str], None],
) -> Runner:
    """Return what runs the jobs: a container, or the image's wheel where no engine is available."""
    if engine is not None:
        return InImage(engine, request.getfixturevalue("image"))
    note(f"{NO_ENGINE}, so the wheel that the image holds was run by plain python -m algorithm instead")
    return OnHost(unpack_hospital_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="session")
def bundled_image(engine: Engine | None, image: str, bundle: Path) -> str:
    """Return the name of an image that holds the weights."""
    assert engine is not None
    engine.add_bundle(image, bundle, BUNDLED)
    return BUNDLED


@pytest.fixture
def new_job(tmp_path: Path) -> Callable[..., Job]:
    """Return a function that makes a job's folders."""
    made: list[Job] = []

    def make(model: Path | None = None, *, shipped: str | None = None) -> Job:
        made.append(Job(tmp_path / f"job-{len(made)}", model, shipped))
        return made[-1]

    return make
