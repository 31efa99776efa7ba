"""Where a Grand Challenge job finds its images, its model, and the places for its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from algorithm.errors import InputError
from algorithm.images import list_images

DEFAULT_OUTPUT_SLUG = "pancreas-tumour-segmentation"
MODEL_FOLDERS = ("/opt/ml/model", "/opt/algorithm/bundle")


@dataclass(frozen=True)
class Job:
    """The folders of one job.

    Attributes:
        images: the scans, in order of path.
        model: the bundle's folder.
        output_folder: where label maps go, under the name of their scan.
        results_file: results.json.

    """

    images: tuple[Path, ...]
    model: Path
    output_folder: Path
    results_file: Path


def results_file(environment: Mapping[str, str]) -> Path:
    """Return the path of results.json: /output, or DECATHLON_OUTPUT where it is set."""
    return Path(environment.get("DECATHLON_OUTPUT", "/output")) / "results.json"


def find_job(environment: Mapping[str, str]) -> Job:
    """Look for images in both layouts of the platform and for the model.

    Images lie in /input (old layout; results to /output/images) or in /input/images/<slug> (sockets; results
    to /output/images/<DECATHLON_OUTPUT_SLUG>). DECATHLON_INPUT, DECATHLON_OUTPUT and DECATHLON_MODEL change the
    roots. The model is /opt/ml/model when something is there, else the bundle inside the image.

    Raises:
        InputError: no images, both layouts at once, two images in one socket or of one name, or no model.

    """
    root = Path(environment.get("DECATHLON_INPUT", "/input"))
    if not root.is_dir():
        raise InputError(f"the input folder {root} does not exist; mount the folder of scans there")
    plain = list_images(root)
    sockets = sorted(folder for folder in (root / "images").glob("*") if folder.is_dir())
    from_sockets = [image for folder in sockets for image in _one_image(folder, root)]
    if plain and from_sockets:
        raise InputError(
            f"images lie both in {root} and in {from_sockets[0].parent}; use one of the two layouts"
        )
    images = plain or from_sockets
    if not images:
        raise InputError(f"no image (.mha) is in {root} or {root / 'images' / '<slug>'}")
    _refuse_same_names(images)
    output = results_file(environment).parent / "images"
    if from_sockets:
        output /= environment.get("DECATHLON_OUTPUT_SLUG", DEFAULT_OUTPUT_SLUG)
    return Job(tuple(images), _find_model(environment), output, results_file(environment))


def _one_image(socket: Path, root: Path) -> list[Path]:
    found = list_images(socket)
    if len(found) > 1:
        raise InputError(
            f"a socket folder must hold one image, but {socket} holds {len(found)} "
            f"({found[0].name}, {found[1].name}, …); run one job for each, or put them all in {root}"
        )
    return found


def _refuse_same_names(images: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(image.name, image)
        if other is not image:
            raise InputError(
                f"two images have one name, so one result would replace the other: {other} and {image}; rename one"
            )


def _find_model(environment: Mapping[str, str]) -> Path:
    asked = environment.get("DECATHLON_MODEL")
    for folder in (asked,) if asked else MODEL_FOLDERS:
        path = Path(folder)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path
    where = asked or " or ".join(MODEL_FOLDERS)
    raise InputError(
        f"no model is in {where}; upload a model tarball, build the image with a bundle, or set DECATHLON_MODEL"
    )
