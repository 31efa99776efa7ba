"""A place where one trial at a time is trained: a worker process, its share of threads, and its GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithm.errors import InputError

WORKER = (sys.executable, "-P", "-m", "trainer.search.worker")
ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(eq=False)  # a slot is itself, and a key
class Slot:
    """One place.

    Attributes:
        number: from 1 on.
        log: where what the process itself says goes.
        threads: of a training; None for one a core.
        device: as `decathlon train --device`; None for the first GPU that the process sees, else the CPU.
        gpu: what CUDA_VISIBLE_DEVICES is for the process; None leaves it alone.
        command: starts the process.

    """

    number: int
    log: Path
    threads: int | None
    device: str | None = None
    gpu: str | None = None
    command: Sequence[str] = WORKER

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    @property
    def where(self) -> str:
        """The device in words, for the store."""
        device = self.device or ("cpu" if self.gpu is None else f"cuda ({self.gpu})")
        return f"{device}, {self.threads} threads" if device == "cpu" and self.threads else device

    def begin(self, work: Path, folder: Path, settings: dict[str, Any]) -> None:
        """Begin a trial in `folder`, or continue it, in the worker of the last one where that lives."""
        if self._process is None:
            self._process = self._start()
        request = {
            "work": str(work.resolve()),
            "folder": str(folder.resolve()),
            "settings": settings,
            "device": self.device,
            "threads": self.threads,
        }
        self._send(request)

    def answer(self, *, goes_on: bool) -> None:
        """Let the trial go on after an epoch, or give it up."""
        self._send({"goes_on": goes_on})

    def fileno(self) -> int:
        """Return what is ready to read when `receive` has something; for selectors."""
        if self._process is None or self._process.stdout is None:
            raise ValueError("a slot without a worker has nothing to wait for")
        return self._process.stdout.fileno()

    def receive(self) -> dict[str, Any]:
        """Wait for what the worker says; {"died": why, "signal": number} when it is gone.

        After anything but an epoch or a good end the worker is gone too: the next trial gets a new one.
        """
        process = self._process
        if process is None or process.stdout is None:
            raise ValueError("a slot without a worker has nothing to receive")
        line = process.stdout.readline()
        if line.endswith("\n"):
            message: dict[str, Any] = json.loads(line)
            if not message.keys() & {"epoch", "done"}:
                self.close()
            return message
        status = process.wait()
        self.close()
        return {"died": self._explain(status), "signal": -status if status < 0 else 0}

    def close(self) -> None:
        """End the worker, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was still to be sent to a process that is gone
                    continue

    def _start(self) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpu
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,  # an interrupt is for the search alone, whose end is the worker's
            )

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise ValueError("a slot without a worker can be told nothing")
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it is gone, which `receive` tells

    def _explain(self, status: int) -> str:
        if status < 0:
            name = signal.Signals(-status).name
            why = ", most often by the kernel for want of memory" if -status == signal.SIGKILL else ""
            return f"the process was ended by {name}{why}"
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"the process ended with status {status}: {last}"


def make_slots(
    jobs: int | None,
    folder: Path,
    *,
    device: str | None,
    threads: int | None,
    gpus: Sequence[str],
    cores: int,
) -> list[Slot]:
    """Return the places of one machine: `jobs`, else one a GPU, else one.

    Each has its share of `cores`, unless `threads` says otherwise. `gpus` are the names that CUDA_VISIBLE_DEVICES
    takes; trials go round them unless `device` names one for all.

    Raises:
        InputError: `device` is one GPU, and there are to be more trials than one.

    """
    if device not in (None, "cuda"):
        gpus = ()
        if str(device).startswith("cuda:") and (jobs or 1) > 1:
            raise InputError(
                f"--jobs {jobs} needs the trials' own GPUs, got --device {device} for all; leave it out"
            )
    count = jobs or max(1, len(gpus))
    share = threads if threads is not None else max(1, cores // count)
    return [
        Slot(
            number=number + 1,
            log=folder / f"worker-{number + 1}.log",
            threads=share,
            device=device,
            gpu=gpus[number % len(gpus)] if gpus else None,
        )
        for number in range(count)
    ]


def visible_gpus() -> list[str]:
    """Return the GPUs of this process as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]
