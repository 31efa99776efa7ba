"""What the measurements were taken on, in words."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("numpy", "scipy", "simpleitk", "torch", "torchio", "monai", "nnunetv2")


def cpu_name() -> str:
    """Return the processor's own name."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return versions of Python and of those packages that are installed."""
    found = {"Python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe_machine(device: torch.device, packages: Sequence[str] = ("torch",)) -> str:
    """Return the machine that a network runs on, and versions, as the beginning of a sentence."""
    texts = [f"{cpu_name()}, {cores()} cores"]
    if device.type == "cuda":
        texts.insert(0, torch.cuda.get_device_name(device))
    texts += [f"{name} {version}" for name, version in versions(packages).items()]
    return ", ".join(texts)
