"""Where a Grand Challenge job finds its images, its model, and the places for its results."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from algorithm.errors import InputError
from algorithm.images import case_name, image_suffix, list_images, voxel_file
from algorithm.shipped import PHANTOM, located

DEFAULT_OUTPUT_SLUG = "pancreas-tumour-segmentation"
PLATFORM_SUFFIX = ".mha"
TIFF_SUFFIXES = (".tif", ".tiff")  # the platform imports them, but they do not keep the grid of a scan
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MODEL_FOLDERS = ("/opt/ml/model", "/opt/algorithm/bundle")


@dataclass(frozen=True)
class Job:
    """The folders of one job.

    Attributes:
        images: the scans, in order of path.
        model: the bundle's folder.
        output_folder: where label maps go.
        results_file: results.json.
        output_name: the file name of the label map; None: that of its scan.

    """

    images: tuple[Path, ...]
    model: Path
    output_folder: Path
    results_file: Path
    output_name: str | None = None

    def name_of_result(self, image: Path) -> str:
        """Return the file name of a scan's label map."""
        return self.output_name or plain_name(image)


def refuse_links_out(image: Path, root: Path) -> None:
    """Raise InputError where a scan of a job, or the file with its voxels, is a link out of the input folder.

    A folder of scans may itself be a link, which whoever starts the job has set; a file in it is the scan's sender's.
    """
    allowed = (root.resolve(), image.parent.resolve())
    files = [image]
    with suppress(InputError):  # what cannot be read is said where it is read
        files.append(voxel_file(image))
    for file in files:
        # One to nowhere is said to be that where it is read.
        if file.exists() and not any(map(file.resolve().is_relative_to, allowed)):
            raise InputError(
                f"{file} is a link to {file.readlink()}, which lies outside the input folder; put the file itself there"
            )


def plain_name(image: Path) -> str:
    """Return a scan's file name with its suffix in small letters, as image writers want it: "A.MHA" → "A.mha"."""
    return case_name(image) + (image_suffix(image) or "")


def results_file(environment: Mapping[str, str]) -> Path:
    """Return the path of results.json: /output, or DECATHLON_OUTPUT where it is set."""
    return Path(environment.get("DECATHLON_OUTPUT", "/output")) / "results.json"


def find_job(environment: Mapping[str, str]) -> Job:
    """Look for images in both layouts of the platform and for the model.

    Images lie in /input (old layout; results to /output/images, under the name of their scan) or in the folder of
    a socket below /input/images (results to /output/images/<DECATHLON_OUTPUT_SLUG>). A socket's folder is what
    inputs.json says, where it is there, and /input/images/<slug> else; DECATHLON_INPUT_SLUG chooses among several.
    DECATHLON_OUTPUT_NAME is the file name of the one label map. DECATHLON_INPUT, DECATHLON_OUTPUT and
    DECATHLON_MODEL change the roots. The model is /opt/ml/model when something is there, else the bundle inside the
    image. DECATHLON_MODEL=phantom is the one that comes with the software.

    Raises:
        InputError: no images, both layouts at once, images in other folders beside, more than one socket or more than
            one image in it, an output folder that holds images of other jobs, a name or slug that is none, inputs.json
            that cannot be read, or no model.
        OSError: a folder that may not be read.

    """
    root = Path(environment.get("DECATHLON_INPUT", "/input"))
    images, in_a_socket = _find_scans(root, environment.get("DECATHLON_INPUT_SLUG"))
    output = results_file(environment).parent / "images"
    name = _output_name(environment)
    if in_a_socket:
        output /= _output_slug(environment)
        name = name or f"{case_name(images[0])}{PLATFORM_SUFFIX}"
    elif name and len(images) > 1:
        raise InputError(
            f"DECATHLON_OUTPUT_NAME names one label map, but {root} holds {len(images)} scans; leave it out"
        )
    job = Job(images, _find_model(environment), output, results_file(environment), name)
    _refuse_other_images(job)
    return job


def scans_of_job(root: Path, slug: str | None = None) -> tuple[Path, ...]:
    """Return the scans that a job on this input folder segments, in order of path.

    Args:
        root: what is /input in a job, in either layout.
        slug: of the input socket, where there are several.

    Raises:
        InputError: as `find_job` for what concerns its input.
        OSError: a folder that may not be read.

    """
    return _find_scans(root, slug)[0]


def _find_scans(root: Path, slug: str | None) -> tuple[tuple[Path, ...], bool]:
    """Return the scans of an input folder, and whether they lie in a socket's folder."""
    if not root.is_dir():
        raise InputError(f"the input folder {root} does not exist; mount the folder of scans there")
    plain = list_images(root, with_broken=True)
    sockets = _sockets(root)
    if not plain:
        return (_scan_of_a_socket(sockets, slug, root),), True
    if any(list_images(folder, with_broken=True) for folder in sockets.values()):
        raise InputError(f"images lie both in {root} and in {root / 'images'}; use one of the two layouts")
    _refuse_images_below(root)
    return tuple(plain), False


def _refuse_images_below(root: Path) -> None:
    """Raise InputError where images lie in folders below one of the old layout: they would be passed over."""
    for folder, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = list_images(Path(folder), with_broken=True) if Path(folder) != root else []
        if below:
            raise InputError(
                f"images lie in {root} and in {folder} ({below[0].name}, …); put all of them into one folder"
            )


def _sockets(root: Path) -> dict[str, Path]:
    """Return the folders of image sockets by slug: those that inputs.json names, and /input/images/<slug>."""
    images = root / "images"
    inside = sorted(images.iterdir()) if images.is_dir() else []
    folders = {folder.name: folder for folder in inside if folder.is_dir()}
    file = root / "inputs.json"
    if not file.is_file():
        return folders
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    named: dict[str, Path] = {}
    for value in document if isinstance(document, list) else []:
        # The platform called a socket an interface before.
        socket = (value.get("socket") or value.get("interface")) if isinstance(value, dict) else None
        slug, path = (
            (socket.get("slug"), socket.get("relative_path")) if isinstance(socket, dict) else (None, None)
        )
        if isinstance(slug, str) and isinstance(path, str):
            folder = next(
                (known for known in folders.values() if known == root / posixpath.normpath(path)), None
            )
            if folder is not None:
                named[slug] = folder
    return named | {
        slug: folder for slug, folder in folders.items() if folder not in named.values() and slug not in named
    }


def _scan_of_a_socket(sockets: Mapping[str, Path], slug: str | None, root: Path) -> Path:
    if slug is not None:
        if slug not in sockets:
            raise InputError(
                f"no input socket is called {slug} (DECATHLON_INPUT_SLUG); {root} has {', '.join(sockets) or 'none'}"
            )
        sockets = {slug: sockets[slug]}
    filled = {
        name: found for name, folder in sockets.items() if (found := list_images(folder, with_broken=True))
    }
    if not filled:
        raise InputError(
            f"no image (.mha) is in {root} or {root / 'images' / (slug or '<slug>')}{_tiff(sockets)}"
        )
    if len(filled) > 1:
        raise InputError(
            f"images lie in {len(filled)} input sockets ({', '.join(filled)}), and one label map goes out; "
            "choose one with DECATHLON_INPUT_SLUG"
        )
    ((name, found),) = filled.items()
    if len(found) > 1:
        raise InputError(
            f"a socket folder must hold one image, but {sockets[name]} holds {len(found)} "
            f"({found[0].name}, {found[1].name}, …); run one job for each, or put them all in {root}"
        )
    return found[0]


def _tiff(sockets: Mapping[str, Path]) -> str:
    """Return a clause that names a TIFF, which the platform may give but which does not keep the grid of a scan."""
    files = [file for folder in sockets.values() for file in sorted(folder.iterdir())]
    found = next((file for file in files if file.suffix.lower() in TIFF_SUFFIXES), None)
    return (
        f"; {found} is a TIFF, which does not say where its voxels are: give the scan as .mha"
        if found
        else ""
    )


def _output_name(environment: Mapping[str, str]) -> str | None:
    name = environment.get("DECATHLON_OUTPUT_NAME")
    if name is None:
        return None
    if Path(name).name != name or name.startswith(".") or not name.endswith(PLATFORM_SUFFIX):
        raise InputError(
            f"DECATHLON_OUTPUT_NAME must be a file name that ends in {PLATFORM_SUFFIX}, got {name!r}"
        )
    return name


def _output_slug(environment: Mapping[str, str]) -> str:
    slug = environment.get("DECATHLON_OUTPUT_SLUG", DEFAULT_OUTPUT_SLUG)
    if not SLUG.fullmatch(slug):
        raise InputError(
            "DECATHLON_OUTPUT_SLUG must be the slug of the output socket, letters, digits and hyphens such as "
            f"{DEFAULT_OUTPUT_SLUG}, got {slug!r}"
        )
    return slug


def _refuse_other_images(job: Job) -> None:
    """Raise InputError when the output folder would end with images that are not of this job's scans.

    The platform takes one image of a folder, and whoever opens a second one would take it for a result of this job.
    """
    if not job.output_folder.is_dir():
        return
    names = {job.name_of_result(image) for image in job.images}
    for file in sorted(job.output_folder.iterdir()):
        is_image = image_suffix(file) is not None or file.suffix.lower() in TIFF_SUFFIXES
        if is_image and not file.name.startswith(".") and file.name not in names:
            raise InputError(
                f"{job.output_folder} already holds {file.name}, which is of no scan of this job; empty the output "
                "folder"
            )


def _find_model(environment: Mapping[str, str]) -> Path:
    asked = environment.get("DECATHLON_MODEL")
    for folder in (asked,) if asked else MODEL_FOLDERS:
        path = located(folder)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return path
    where = asked or " or ".join(MODEL_FOLDERS)
    # Never by itself: where an upload's weights are missing, labels of synthetic ones must not pass for theirs.
    raise InputError(
        f"no model is in {where}; upload a model tarball, build the image with a bundle, or set DECATHLON_MODEL: to "
        f"{PHANTOM} for a first try with weights of synthetic scans"
    )
