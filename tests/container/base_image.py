"""The base image of the Dockerfile, made from Debian's packages where no image registry can be reached."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.container.mirrors import debian_mirror

PUBLIC_MIRROR = "http://deb.debian.org/debian"
# What Debian's own slim image leaves out as well.
LEFT_OUT = (
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
)


def base_of(dockerfile: Path) -> str:
    """Return the one image that `dockerfile` starts from, as written after FROM."""
    text = dockerfile.read_text()
    stages: set[str] = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    bases: set[str] = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
    if len(bases) != 1:
        raise ValueError(f"{dockerfile} must start from exactly one image, got {sorted(bases)}")
    return bases.pop()


def can_bootstrap(base: str) -> bool:
    """Whether this machine can make `base` itself: as root, with debootstrap, for a dated Debian image."""
    return os.geteuid() == 0 and shutil.which("debootstrap") is not None and "/debian:" in base


def bootstrap(podman: list[str], base: str) -> None:
    """Import a minimal Debian as `base` into podman's storage; its archive is kept in the cache."""
    codename = base.rpartition(":")[2].partition("-")[0]
    archive = _cache() / f"{base.rpartition('/')[2].replace(':', '-')}.tar"
    if not archive.is_file():
        _make_archive(codename, archive)
    command = [*podman, "import", "--quiet", "--os", "linux", "--arch", "amd64", "--change", 'CMD ["bash"]']
    subprocess.run([*command, str(archive), base], check=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decathlon-unet"


def _make_archive(codename: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as name:
        root, partial = Path(name) / "root", Path(name) / "root.tar"
        mirror = debian_mirror() or PUBLIC_MIRROR
        subprocess.run(["debootstrap", "--variant=minbase", codename, str(root), mirror], check=True)
        excluded = [f"--exclude=./{pattern}" for pattern in LEFT_OUT]
        everything = ["--numeric-owner", "--xattrs", "-C", str(root), *excluded, "-cf", str(partial), "."]
        subprocess.run(["tar", *everything], check=True)
        partial.replace(archive)
