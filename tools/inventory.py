"""Run inside the image by tools/sbom.sh: print what is installed there, as JSON. Needs the standard library only."""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

PIN = re.compile(r"([\w.-]+)==(\S+) --hash=sha256:([0-9a-f]{64})")


def of_python(package: Distribution) -> dict[str, Any]:
    """Return a Python package: what it says of its licence, and what its wheel says that it bundles."""
    metadata = package.metadata
    enclosed = [file for file in package.files or () if file.parent.match("*.dist-info/sboms")]
    return {
        "name": package.name,
        "version": package.version,
        "expression": metadata.get("License-Expression"),
        "licence": metadata.get("License"),
        "classifiers": [one for one in metadata.get_all("Classifier") or () if one.startswith("License ::")],
        "sboms": [file.read_text() for file in enclosed if file.suffix == ".json"],
    }


def of_debian(status: str) -> list[dict[str, str]]:
    """Return the packages that are installed according to the text of dpkg's status file."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[\w-]+: ", line))
        if fields.get("Status", "").endswith(" installed"):
            wanted = ("Package", "Version", "Architecture", "Source")
            found.append({name.lower(): fields[name] for name in wanted if name in fields})
    return found


def main() -> None:
    """Print the inventory."""
    pins = [PIN.findall(file.read_text()) for file in Path("/opt/algorithm/requirements").glob("*.txt")]
    found = {
        "system": platform.freedesktop_os_release(),
        "release": Path("/etc/debian_version").read_text().strip(),
        "debian": of_debian(Path("/var/lib/dpkg/status").read_text()),
        "python": [of_python(package) for package in distributions()],
        "pins": [pin for file in pins for pin in file],
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
