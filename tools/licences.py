"""Write a table of every installed package and its licence, as pip-licenses reads them.

python tools/licences.py docs/LICENCES.md
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from algorithm.files import replacing

HEAD = """# Licences of the dependencies

Written by `make licences`, of a development environment, which holds more than users and the container get
(`pyproject.toml` says which extra needs what). Versions are those of `constraints.txt`.

| package | version | licence |
|---|---|---|
"""
# Whose metadata names no licence that pip-licenses finds; read in the package's own files.
NAMED_BY_HAND = {"atheris": "Apache-2.0", "cookiecutter": "BSD-3-Clause"}
OURS = "decathlon-unet"


def main(page: Path) -> int:
    """Write the page; return the exit status."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--with-system"]
    packages = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rows = []
    for package in sorted(packages, key=lambda package: package["Name"].lower()):
        name, licence = package["Name"], package["License"]
        if name == OURS:
            continue
        if licence == "UNKNOWN":
            licence = NAMED_BY_HAND.get(name, licence)
        rows.append(f"| {name} | {package['Version']} | {licence} |\n")
    with replacing(page) as part:
        part.write_text(HEAD + "".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
