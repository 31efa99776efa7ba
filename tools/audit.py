"""Look every pinned package up among the known vulnerabilities of PyPI.

    python tools/audit.py constraints.txt

Exits with 1 when one is known. An index that does not answer is said, and is no failure: nothing was found and
nothing was cleared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PIP_AUDIT = ("--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json")
# Versions whose advisory does not concern this project, each with its reason.
ACCEPTED: dict[str, str] = {}


def verdict(report: dict[str, Any]) -> tuple[list[str], int]:
    """Return what to say of pip-audit's JSON, a line each, and the exit status."""
    packages = report["dependencies"]
    unanswered = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {one['id']}, "
        f"mended in {', '.join(one['fix_versions']) or 'no release'}"
        for package in packages
        for one in package.get("vulns", [])
        if one["id"] not in ACCEPTED
    ]
    lines = [*found]
    if unanswered:
        lines.append(
            f"not audited, for the index does not answer for them: {len(unanswered)} of {len(packages)} packages"
        )
    lines.append(f"{len(packages) - len(unanswered)} packages audited, {len(found)} known vulnerabilities")
    return lines, 1 if found else 0


def main(constraints: Path) -> int:
    """Run pip-audit and print its verdict; return the exit status."""
    ran = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", str(constraints), *PIP_AUDIT],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(ran.stdout)
    except json.JSONDecodeError:
        reason = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"audit: nothing was audited, for pip-audit ended with: {reason}")  # noqa: T201
        return 0 if "Connection" in reason or "timed out" in reason else 1
    lines, status = verdict(report)
    print(*(f"audit: {line}" for line in lines), sep="\n")  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
