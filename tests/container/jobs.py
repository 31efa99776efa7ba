"""A job of the platform as folders, and the ways to run one: in the image, and without an engine."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tests.container.engine import REPOSITORY, Engine, Finished, timed


@dataclass(frozen=True)
class Job:
    """The folders that a job is given; without `model` it has only what the image holds.

    `shipped` is the name of a model that comes with the software, and is asked for.
    """

    folder: Path
    model: Path | None = None
    shipped: str | None = None
    input: Path = field(init=False)
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            object.__setattr__(self, name, self.folder / name)
            (self.folder / name).mkdir(parents=True)
        self.output.chmod(0o777)  # the user of the job is not the one of the test

    def add(self, image: sitk.Image, name: str) -> None:
        """Store a scan under `name` in the input folder, as the platform stores it."""
        path = self.input / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)  # NIfTI's fields, which ITK would warn of one by one
        sitk.WriteImage(image, str(path))

    def results(self) -> list[Path]:
        """Return every file of the output folder that a viewer would open, hidden ones too."""
        return sorted(path for path in self.output.rglob("*") if path.is_file() and path.suffix != ".json")

    def files(self) -> list[str]:
        """Return every file of the output folder, relative to it."""
        return sorted(str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file())


class Runner(Protocol):
    """Runs a job to its end."""

    def run(self, job: Job) -> Finished:
        """Return how it ended; what it made lies in `job.output`."""


@dataclass(frozen=True)
class InImage:
    """Runs jobs in a container of `image`."""

    engine: Engine
    image: str

    def run(self, job: Job) -> Finished:
        """Run under the platform's restrictions, as a user id that no one chose."""
        user = 10_000 + secrets.randbelow(50_000) if os.geteuid() == 0 else os.geteuid()
        mounted = {job.input: "/input:ro", job.output: "/output"}
        mounted |= {job.model: "/opt/ml/model:ro"} if job.model else {}
        variables = {"DECATHLON_MODEL": job.shipped} if job.shipped else {}
        return self.engine.run(self.image, mounted, user=f"{user}:{user}", variables=variables)


@dataclass(frozen=True)
class OnHost:
    """Runs jobs by `python -m algorithm` of this environment; with `site`, of the wheel unpacked there."""

    site: Path | None = None

    def run(self, job: Job) -> Finished:
        """Run with the platform's folders given by environment variables."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DECATHLON_")}
        environment |= {"DECATHLON_INPUT": str(job.input), "DECATHLON_OUTPUT": str(job.output)}
        environment["DECATHLON_MODEL"] = str(job.shipped or job.model or job.folder / "no-model")
        folder = REPOSITORY
        if self.site:
            environment |= {"PYTHONPATH": str(self.site), "PYTHONSAFEPATH": "1"}
            folder = self.site
        return timed([sys.executable, "-m", "algorithm"], environment=environment, folder=folder)


def unpack_hospital_wheel(folder: Path) -> Path:
    """Build the wheel that the Dockerfile builds and unpack it into `folder`; return that folder."""
    packages = "--config-settings=wheel.packages=voxelcore;algorithm"
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(REPOSITORY),
        "--no-deps",
        packages,
        "--wheel-dir",
        str(folder),
    ]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    return site


def voxels(path: Path) -> tuple[NDArray[np.generic], sitk.Image]:
    """Return a label map as an array (z, y, x) and as the image that it is."""
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image
