"""What this machine knows of package mirrors, handed to an image build without touching the Dockerfile.

Behind a company's proxy or mirror, pip and apt work because the machine was configured for it; a build in a
clean container knows nothing of that. The configuration is read from pip, apt and the environment and mounted
read-only.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOUNT_POINT = Path("/mnt")
PATH_KEYS = ("cert", "client-cert", "find-links", "index-url", "extra-index-url")
CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
APT_SETTINGS = re.compile(r'^Acquire::(?:https?|Retries|Check-|ForceIPv).* ".+";$')


def pip_settings() -> dict[str, str]:
    """Return pip's settings by key, the environment's before those of its files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    entries = [line.split("=", 1) for line in lines if "=" in line]
    found = {
        name.split(".", 1)[1]: ast.literal_eval(value)
        for name, value in entries
        if name.startswith("global.")
    }
    found |= {
        name.removeprefix(":env:."): ast.literal_eval(value) for name, value in entries if ":env:." in name
    }
    certificate = next((os.environ[name] for name in CERTIFICATE_VARIABLES if os.environ.get(name)), None)
    if certificate and "cert" not in found:
        found["cert"] = certificate
    kept = (*PATH_KEYS, "trusted-host", "proxy", "default-timeout", "timeout", "retries")
    return {key: str(value) for key, value in found.items() if key in kept}


def mounts(folder: Path) -> dict[Path, Path]:
    """Write configuration files into `folder`; return what to mount, as path here by path in the container.

    Files and folders that pip's settings name are mounted below /mnt and the settings point there.
    """
    mounted: dict[Path, Path] = {}
    pip = folder / "pip.conf"
    lines = [f"{key} = {_moved(key, value, mounted)}" for key, value in pip_settings().items()]
    pip.write_text("\n".join(["[global]", *lines, ""]))
    mounted[pip] = Path("/etc/pip.conf")
    return mounted | _apt(folder)


def _moved(key: str, value: str, mounted: dict[Path, Path]) -> str:
    if key not in PATH_KEYS:
        return value
    return " ".join(_moved_word(word, mounted) for word in value.split())


def _moved_word(word: str, mounted: dict[Path, Path]) -> str:
    url = urlsplit(word)
    path = Path(unquote(url.path)) if url.scheme in ("", "file") else None
    if path is None or not path.is_absolute() or not path.exists():
        return word
    # An index of a folder links to its files by relative paths, so its parent is what has to be there.
    root = path.parent if url.scheme == "file" and path.is_dir() else path
    target = mounted.setdefault(
        root.resolve() if root.is_file() else root, MOUNT_POINT / f"{len(mounted)}-{root.name}"
    )
    moved = target / path.relative_to(root)
    return f"file://{moved}" if url.scheme == "file" else str(moved)


def _apt(folder: Path) -> dict[Path, Path]:
    if shutil.which("apt-config") is None or debian_mirror() is None:
        return {}
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    settings = folder / "apt.conf"
    settings.write_text("".join(f"{line}\n" for line in dump.splitlines() if APT_SETTINGS.match(line)))
    sources = folder / "sources.list"
    sources.write_text("".join(f"deb {uri} {suite} main\n" for uri, suite in _repositories("bookworm")))
    replaced = {settings: Path("/etc/apt/apt.conf.d/99-host"), sources: Path("/etc/apt/sources.list")}
    empty = folder / "sources.list.d"
    empty.mkdir()
    return replaced | {empty: Path("/etc/apt/sources.list.d")}


def debian_mirror() -> str | None:
    """Return where apt of this machine finds Debian bookworm, or None when it is another system."""
    found = _repositories("bookworm")
    return found[0][0] if found else None


def _repositories(codename: str) -> list[tuple[str, str]]:
    if shutil.which("apt-get") is None:
        return []
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [line.split() for line in lines if line.endswith(" main")]
    return [(row[0], row[1]) for row in rows if row[1].startswith(codename)]
