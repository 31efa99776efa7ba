"""Examine what a job left in /output, as the platform and whoever opens it will.

The platform checks that each socket folder holds exactly one image it can import (MHA or TIFF), of one channel,
uint8 or int8 and declared values only. It does not check what matters most: that the label map lies on the grid of
its scan. With --input this does.
"""

from __future__ import annotations

import argparse
import json
import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from algorithm.errors import InputError
from algorithm.geometry import Geometry, same_grid
from algorithm.images import image_suffix, read_image
from algorithm.job import plain_name, scans_of_job
from algorithm.metaimage import check_header
from trainer.doctor.finding import Finding, error, note, warning
from trainer.header import read_header

SUMMARY = "the output folder of a job"
EXAMPLE = "decathlon doctor output RESULTS --input SCANS --values 0 1 2"
IMPORTABLE = (".mha", ".tif", ".tiff")
OTHER_IMAGES = (".nii", ".nii.gz", ".mhd", ".nrrd", ".nhdr", ".dcm", ".png", ".jpg", ".jpeg")
LABEL_TYPES = (sitk.sitkUInt8, sitk.sitkInt8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subject."""
    parser.add_argument("path", type=Path, metavar="OUTPUT", help="the folder that was /output")
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FOLDER",
        help="the folder that was /input: grids are compared with its scans",
    )
    parser.add_argument(
        "--input-slug",
        metavar="SLUG",
        help="the input socket that was segmented, where FOLDER has several: what DECATHLON_INPUT_SLUG was",
    )
    parser.add_argument(
        "--values",
        type=int,
        nargs="+",
        metavar="N",
        help="the values that the output socket declares, such as 0 1 2; another one is an error",
    )


def examine(args: argparse.Namespace) -> list[Finding]:
    """Run the examination that the arguments ask for."""
    return check(args.path, args.input, values=args.values, input_slug=args.input_slug)


def check(
    path: Path,
    input_folder: Path | None = None,
    *,
    values: list[int] | None = None,
    input_slug: str | None = None,
) -> list[Finding]:
    """Return what is wrong with an output folder, and what it holds.

    Args:
        path: what was /output: results.json, and images/<name>.mha or images/<slug>/<name>.mha.
        input_folder: what was /input, in either layout of the platform.
        values: the label values that are declared; None accepts all.
        input_slug: the socket of the scan, where the input folder has several.

    Raises:
        InputError: the input folder cannot be read, or it does not say which scan was segmented.

    """
    if not path.is_dir():
        return [error(f"{path} is not a folder; give the one that was mounted as /output")]
    scans = scans_of_job(input_folder, input_slug) if input_folder is not None else ()
    findings, images = _layout(path)
    grids: dict[Path, Geometry] = {}
    for image in images:
        more, grid = _of_image(image, values)
        findings += more
        if grid is not None:
            grids[image] = grid
    findings += _of_results(path, images)
    if input_folder is not None:
        findings += _of_grids(path, input_folder, images, grids, scans)
    return findings


def _layout(path: Path) -> tuple[list[Finding], list[Path]]:
    """Return what is wrong with the folders, and the images that the platform would import."""
    folder = path / "images"
    if not folder.is_dir():
        return [
            error(f"{path} must hold the label map in images/ or images/<slug>/, but has no folder images")
        ], []
    findings = [
        warning(f"{other} is read by nobody; the platform knows results.json and images/ here")
        for other in sorted(path.iterdir())
        if other.name not in ("images", "results.json")
    ]
    sockets = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    found, plain = _files(folder)
    findings += found
    images = list(plain)
    for socket in sockets:
        found, here = _files(socket)
        findings += found
        images += here
        if len(here) != 1:
            names = (
                f" ({', '.join(image.name for image in here[:3])}{', …' if len(here) > 3 else ''})"
                if here
                else ""
            )
            findings.append(
                error(
                    f"{socket} must hold exactly one image, as each socket folder must, but holds {len(here)}{names}"
                )
            )
        findings += [
            error(f"{deeper} is a folder in a socket's folder; its image must lie in {socket} itself")
            for deeper in sorted(socket.iterdir())
            if deeper.is_dir()
        ]
    if plain and sockets:
        findings.append(
            error(f"{folder} holds both {plain[0].name} and the folder {sockets[0].name}; use one layout")
        )
    if len(plain) > 1:
        findings.append(
            warning(
                f"{folder} holds {len(plain)} images; the platform runs one case a job and takes one image"
            )
        )
    if not images and not sockets:
        findings.append(error(f"{folder} holds no image; the job failed, or wrote elsewhere"))
    return findings, images


def _files(folder: Path) -> tuple[list[Finding], list[Path]]:
    """Return what is wrong with the files of a folder, and those that the platform would import."""
    findings, images = [], []
    for file in sorted(folder.iterdir()):
        name = file.name.lower()
        if file.is_symlink():
            findings.append(error(f"{file} is a link, whose target may be elsewhere; write the file itself"))
        elif file.name.startswith("."):
            what = (
                "a job that was killed" if file.name.startswith((".partial", ".tmp-")) else "another program"
            )
            findings.append(warning(f"{file} was left by {what}; remove it"))
        elif file.is_dir():
            continue
        elif name.endswith(IMPORTABLE):
            images.append(file)
        elif name.endswith(OTHER_IMAGES):
            findings.append(
                error(f"{file} cannot be imported by the platform, which takes .mha and .tif; write .mha")
            )
        else:
            findings.append(warning(f"{file} is no image; the platform tries it as one"))
    return findings, images


def _of_image(file: Path, values: list[int] | None) -> tuple[list[Finding], Geometry | None]:
    """Return what is wrong with an image, and its grid where it can be read."""
    if image_suffix(file) is None:
        return [
            error(
                f"{file} does not keep its grid, being a TIFF, so viewers cannot lay it on its scan; write .mha"
            )
        ], None
    try:
        image = read_image(file)
    except InputError as problem:
        return [error(problem)], None
    findings = []
    if image.GetPixelID() not in LABEL_TYPES:
        what = image.GetPixelIDTypeAsString()
        findings.append(error(f"{file} must keep its labels as uint8 or int8, but keeps them as {what}"))
    found = np.unique(sitk.GetArrayViewFromImage(image)).tolist()
    other = next((value for value in found if not math.isfinite(value) or value != int(value)), None)
    if other is not None or len(found) > 256:
        example = found[-1] if other is None else other
        findings.append(
            error(f"{file} must hold labels, but holds {len(found)} different values, such as {example:g}")
        )
    elif values is not None and (others := sorted(set(found) - set(values))):
        findings.append(
            error(
                f"{file} holds the value{'s' if len(others) > 1 else ''} {_list(others)}, "
                f"but the socket declares {_list(values)} only"
            )
        )
    else:
        findings.append(
            note(f"{file}: {'x'.join(map(str, image.GetSize()))} voxels (x, y, z), values {_list(found)}")
        )
    if len(found) == 1 and found[0] != 0:
        findings.append(
            warning(f"{file} holds the one value {found[0]:g} everywhere, which is no segmentation")
        )
    compressed = check_header(file).fields.get("CompressedData", "False").lower()
    if compressed != "true":
        findings.append(warning(f"{file} is not compressed; it is accepted, and larger than it need be"))
    if not file.stat().st_mode & stat.S_IROTH:
        findings.append(
            warning(f"{file} can be read by its owner only; the platform reads it as another user")
        )
    return findings, Geometry.of(image)


def _of_results(path: Path, images: list[Path]) -> list[Finding]:
    """Compare results.json with the images: its shape, the cases that failed, names without a file."""
    file = path / "results.json"
    try:
        document: Any = json.loads(file.read_text(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        return [error(f"{file} is missing; the job ended before it could be written")]
    except (OSError, ValueError, RecursionError) as problem:
        return [error(f"{file} is not valid JSON: {problem}")]
    if not isinstance(document, list) or not document:
        return [error(f"{file} must hold a list with an object for each case")]
    findings: list[Finding] = []
    listed: set[str] = set()
    for number, case in enumerate(document):
        where = f"{file}: case {number}"
        if not isinstance(case, dict) or any(
            not isinstance(case.get(key), list) for key in ("inputs", "outputs", "error_messages")
        ):
            findings.append(error(f"{where} must have the lists inputs, outputs and error_messages"))
            continue
        findings += [error(f"{where} failed: {message}") for message in case["error_messages"]]
        for key in ("inputs", "outputs"):
            for each in case[key]:
                if not isinstance(each, dict) or {"type", "filename"} - each.keys():
                    findings.append(error(f"{where} must give a type and a filename for each of its {key}"))
                elif key == "outputs":
                    listed.add(Path(str(each["filename"])).name)
        if not case["outputs"] and not case["error_messages"]:
            findings.append(error(f"{where} has neither an output nor an error message"))
    there = {image.name for image in images}
    findings += [
        error(f"{file} names the output {name}, which is not there") for name in sorted(listed - there)
    ]
    findings += [
        error(f"{file} does not name {name}, which lies beside it") for name in sorted(there - listed)
    ]
    return findings


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _of_grids(
    path: Path, input_folder: Path, images: list[Path], grids: dict[Path, Geometry], scans: Sequence[Path]
) -> list[Finding]:
    """Compare each label map's grid with its scan's: the one of its name, or the only one."""
    findings: list[Finding] = []
    by_name = {plain_name(scan): scan for scan in scans}
    only = scans[0] if len(scans) == 1 and len(images) == 1 else None
    of: dict[Path, Path] = {}
    for image in images:
        scan = by_name.get(image.name, only)
        if scan is None:
            findings.append(
                error(f"{image} belongs to no scan of {input_folder}; a result has the name of its scan")
            )
        else:
            of[scan] = image
    for scan in scans:
        if scan not in of:
            findings.append(error(f"{scan} has no label map in {path}"))
        elif of[scan] in grids and (different := same_grid(grids[of[scan]], read_header(scan).grid)):
            findings.append(error(f"{of[scan]} must lie on the grid of {scan}, but has {different}"))
    return findings


def _list(values: list[int]) -> str:
    return ", ".join(f"{value:g}" for value in values)
