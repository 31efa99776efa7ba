"""Which files scores were made from, kept beside them for the report: SCORES/sources.json."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.images import case_name, list_images
from trainer.evaluate import Pair

FILE_NAME = "sources.json"
PACKAGES = (
    "decathlon-unet",
    "numpy",
    "scipy",
    "SimpleITK",
    "surface-distance",
    "connected-components-3d",
    "torch",
)


@dataclass(frozen=True)
class Source:
    """The files of a case; `image` is None where the scan was not at hand."""

    case: str
    reference: Path
    prediction: Path
    image: Path | None


def versions() -> dict[str, str]:
    """Return the versions that scores depend on."""
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def write_sources(out: Path, pairs: Sequence[Pair], images: Path | None) -> None:
    """Write OUT/sources.json."""
    scans = {} if images is None else {case_name(path): path for path in list_images(images)}
    cases = []
    for pair in pairs:
        image = scans.get(pair.case)
        cases.append(
            {
                "case": pair.case,
                "reference": str(pair.reference.resolve()),
                "prediction": str(pair.prediction.resolve()),
                "image": None if image is None else str(image.resolve()),
            }
        )
    with replacing(out / FILE_NAME) as temporary:
        document = {"versions": versions(), "cases": cases}
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_sources(scores: Path) -> tuple[dict[str, str], list[Source]]:
    """Return the versions and the files of each case; InputError when SCORES/sources.json is not there or damaged."""
    file = scores / FILE_NAME
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        sources = [
            Source(
                str(case["case"]),
                Path(case["reference"]),
                Path(case["prediction"]),
                None if case["image"] is None else Path(case["image"]),
            )
            for case in document["cases"]
        ]
        return {str(name): str(version) for name, version in document["versions"].items()}, sources
    except OSError:
        raise InputError(f"{file} is missing; run `decathlon evaluate` again, which writes it") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{file} is damaged; run `decathlon evaluate` again, which writes it") from None
