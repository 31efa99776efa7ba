"""Docker or podman: building the image from the unmodified Dockerfile and running it as the platform does."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.container import base_image, mirrors

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_SECONDS, RUN_SECONDS = 1500, 600
# What evalutils' template and the platform restrict a job to; the memory is the smallest that they offer.
RESTRICTIONS = (
    "--network=none",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--security-opt=label=disable",
    "--read-only",
    "--tmpfs=/tmp:rw,nosuid,nodev",
    "--pids-limit=256",
    "--shm-size=64m",
    "--memory=4g",
    "--memory-swap=4g",
)


@dataclass(frozen=True)
class Finished:
    """A job that ended: exit status, what it wrote, wall time, and the most memory its process held."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    peak_mib: float | None = None

    @property
    def last_line(self) -> str:
        """What the platform shows its user of a failed job."""
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class Engine:
    """A container engine that answers."""

    name: str

    @classmethod
    def find(cls) -> Engine | None:
        """Return the engine that ENGINE names ("none": None), else Docker if it answers, else podman."""
        asked = os.environ.get("ENGINE")
        if asked == "none":
            return None
        for name in (asked,) if asked else ("docker", "podman"):
            if (
                shutil.which(name)
                and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0
            ):
                return cls(name)
        if asked:
            raise RuntimeError(f"ENGINE={asked} was asked for and `{asked} info` fails")
        return None

    @property
    def is_podman(self) -> bool:
        """Whether mounts and a runtime can be given to a build."""
        return "podman" in self.name

    def _global(self) -> list[str]:
        # crun, podman's default, needs kernel features that small virtual machines lack; runc does not.
        return [self.name, "--runtime", "runc"] if self.is_podman and shutil.which("runc") else [self.name]

    def build(self, tag: str, **arguments: str) -> None:
        """Build the Dockerfile as it is; `arguments` are its ARGs."""
        self._provide(base_image.base_of(REPOSITORY / "Dockerfile"))
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        with tempfile.TemporaryDirectory() as folder:
            if self.is_podman:
                options += ["--pull=never", "--network=host", *_ulimits(processes=4096)]
                options += [
                    f"--volume={here}:{there}:ro" for here, there in mirrors.mounts(Path(folder)).items()
                ]
            command = [
                *self._global(),
                "build",
                "--platform=linux/amd64",
                f"--tag={tag}",
                *options,
                str(REPOSITORY),
            ]
            subprocess.run(command, check=True, timeout=BUILD_SECONDS)

    def add_bundle(self, image: str, bundle: Path, tag: str) -> None:
        """Make `tag`: `image` with the weights of `bundle` inside, by the script that users run for it."""
        command = [
            str(REPOSITORY / "tools" / "build.sh"),
            "--from",
            image,
            "--bundle",
            str(bundle),
            "--tag",
            tag,
        ]
        environment = os.environ | {"ENGINE": self.name}
        subprocess.run(command, check=True, timeout=BUILD_SECONDS, env=environment)

    def run(
        self,
        image: str,
        mounted: Mapping[Path, str],
        *,
        user: str,
        command: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a job under every restriction; `mounted` is "path in the container:ro" by path here.

        With `command`, that replaces the entry point. `variables` are of its environment.
        """
        name = f"decathlon-unet-test-{uuid.uuid4().hex[:12]}"
        options = [f"--name={name}", f"--user={user}", *RESTRICTIONS, *_ulimits(processes=1024)]
        options += [f"--volume={here}:{there}" for here, there in mounted.items()]
        options += [f"--env={name}={value}" for name, value in (variables or {}).items()]
        options += [f"--entrypoint={command[0]}"] if command else []
        options += ["--userns=keep-id"] if self.is_podman and os.geteuid() != 0 else []
        process = [*self._global(), "run", *options, image, *command[1:]]
        try:
            # podman leaves a file where it was called when a container runs out of memory.
            with tempfile.TemporaryDirectory() as here, _PeakMemory(self.name, name) as peak:
                finished = timed(process, folder=Path(here))
            return replace(finished, peak_mib=peak.mib)
        finally:
            subprocess.run([self.name, "rm", "--force", name], capture_output=True, check=False)

    def inspect(self, image: str) -> dict[str, object]:
        """Return the engine's description of an image."""
        command = [self.name, "image", "inspect", image]
        found: list[dict[str, object]] = json.loads(
            subprocess.run(command, check=True, capture_output=True).stdout
        )
        return found[0]

    def _provide(self, base: str) -> None:
        """Have `base` in local storage: there already, pulled, or (podman) made from Debian's packages."""
        if (
            subprocess.run([self.name, "image", "inspect", base], capture_output=True, check=False).returncode
            == 0
        ):
            return
        source = os.environ.get("DECATHLON_BASE_IMAGE", "")
        if source not in ("", "pull", "bootstrap"):
            raise RuntimeError(f"DECATHLON_BASE_IMAGE must be pull or bootstrap, got {source}")
        if source != "bootstrap" and _succeeds(self.name, "pull", "--platform=linux/amd64", base):
            return
        if source == "pull" or not (self.is_podman and base_image.can_bootstrap(base)):
            raise RuntimeError(
                f"{base} can be neither pulled nor made here; give {self.name} access to its registry, "
                "or run as root with podman and debootstrap"
            )
        base_image.bootstrap(self._global(), base)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _ulimits(*, processes: int) -> list[str]:
    # podman's defaults exceed what it may raise them to inside a virtual machine or another container.
    return ["--ulimit=nofile=1024:1024", f"--ulimit=nproc={processes}:{processes}"]


def timed(
    command: list[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Finished:
    """Run `command` to its end, in `folder`, with `environment` in place of this process's own."""
    started = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env=environment, cwd=folder
    )
    return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


class _PeakMemory:
    """Watches the high-water mark of a container's first process, as the kernel keeps it (VmHWM)."""

    def __init__(self, engine: str, container: str) -> None:
        self.engine, self.container = engine, container
        self.mib: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        process = 0
        while not self._stop.wait(0.2):
            process = process or self._first_process()
            status = Path(f"/proc/{process}/status")
            lines = status.read_text().splitlines() if process and status.exists() else []
            for line in lines:
                if line.startswith("VmHWM:"):
                    self.mib = int(line.split()[1]) / 1024

    def _first_process(self) -> int:
        command = [self.engine, "inspect", "--format", "{{.State.Pid}}", self.container]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return int(answer) if answer.isdigit() and platform.system() == "Linux" else 0
