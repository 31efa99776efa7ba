"""The model bundle that comes with the software: `phantom`, trained on synthetic scans, and no model for patients."""

from __future__ import annotations

from pathlib import Path

PHANTOM = "phantom"
FOLDER = Path(__file__).parent / "bundles" / PHANTOM


def located(name: str | Path) -> Path:
    """Return the path of a bundle: "phantom" is the one that comes with the software, unless it is a path here, too."""
    path = Path(name)
    return FOLDER if str(path) == PHANTOM and FOLDER.is_dir() and not path.exists() else path
