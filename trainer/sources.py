"""Which files scores were made from, kept beside them for the report: SCORES/sources.json."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

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
class State:
    """A file as it was when it was scored."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> State:
        """Read a file; OSError where that fails."""
        state = path.stat()
        with path.open("rb") as file:
            return cls(state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())

    def is_of(self, path: Path) -> bool:
        """Return whether a file is still what it was: its bytes are read only where size and time do not say so."""
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns):
            return True
        return now.st_size == self.size and State.of(path).sha256 == self.sha256


@dataclass(frozen=True)
class Source:
    """The files of a case; `image` is None where the scan was not at hand.

    `states` are those of label maps when they were scored, by path; empty in what an older release wrote.
    """

    case: str
    reference: Path
    prediction: Path
    image: Path | None
    states: Mapping[Path, State] = field(default_factory=dict)

    def changed(self) -> Path | None:
        """Return a label map that is no longer what was scored, or None; OSError where one cannot be read."""
        return next((path for path, state in self.states.items() if not state.is_of(path)), None)


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
                "states": [asdict(State.of(path)) for path in (pair.reference, pair.prediction)],
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
        sources = [_source(case) for case in document["cases"]]
        return {str(name): str(version) for name, version in document["versions"].items()}, sources
    except OSError:
        raise InputError(f"{file} is missing; run `decathlon evaluate` again, which writes it") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{file} is damaged; run `decathlon evaluate` again, which writes it") from None


def _source(case: Mapping[str, Any]) -> Source:
    reference, prediction = Path(case["reference"]), Path(case["prediction"])
    states = [State(**state) for state in case.get("states", [])]
    return Source(
        str(case["case"]),
        reference,
        prediction,
        None if case["image"] is None else Path(case["image"]),
        dict(zip((reference, prediction), states, strict=True)) if states else {},
    )
