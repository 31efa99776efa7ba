"""Segment an image or a folder of images into a folder, continuing where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algorithm.bundle import FILES, read_bundles
from algorithm.engines import EngineName
from algorithm.errors import InputError
from algorithm.faults import said_of
from algorithm.files import replacing
from algorithm.findings import count_labels
from algorithm.images import (
    WRITABLE,
    case_name,
    image_suffix,
    list_images,
    read_scan,
    write_labels,
    write_shares,
)
from algorithm.lock import alone_in, remove_leftovers
from algorithm.probabilities import PROBABILITIES, map_names, map_path
from algorithm.segmenter import Segmenter
from algorithm.shipped import located
from algorithm.stages import Stages

log = logging.getLogger(__name__)
RECORD = ".predictions.json"


def find_inputs(source: Path) -> list[Path]:
    """Return the images of a folder, or `source` itself when it is an image or a folder of DICOM slices.

    Raises:
        InputError: `source` does not exist.

    """
    if not source.exists():
        raise InputError(
            f"{source} does not exist; give an image, a folder of images or a folder of DICOM slices"
        )
    images = list_images(source) if source.is_dir() else []
    return images or [source]


def predict(
    source: Path,
    models: Path | Sequence[Path],
    out: Path,
    *,
    device: torch.device | None = None,
    patches_at_once: int = 1,
    mirror_zyx: tuple[bool, bool, bool] = (False, False, False),
    engine: EngineName = "auto",
    probabilities: bool = False,
    dicom_seg: bool = False,
    cases: Collection[str] | None = None,
) -> list[Path]:
    """Write one label map a scan of `source` into `out`, named after its scan; return their paths.

    A scan that fails does not keep the others from being done. Results that the same models made from the same
    file in the same way are kept, so that the same command continues a run that was stopped.

    Args:
        source: an image, a folder of images, or a folder of DICOM slices.
        models: a bundle, or those of an ensemble.
        out: the folder for the label maps.
        device: as for `Segmenter`; likewise the others.
        patches_at_once: likewise.
        mirror_zyx: likewise.
        engine: likewise.
        probabilities: also write PROBABILITIES/CASE_LABEL for each label but background and CASE_uncertainty, float32
            from 0 to 1 in steps of 1/255 on the scan's grid.
        dicom_seg: write a DICOM Segmentation that refers to the slices, which `source` must be then.
        cases: names of the scans of a folder that are segmented; None for all of them.

    Raises:
        InputError: `source` or `models` cannot be used, another process is at work in `out`, or scans failed (the first
            is named).

    """
    inputs = find_inputs(source)
    if cases is not None:
        inputs = _chosen(inputs, cases, source)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and label maps go into a folder; choose another --out")
    _refuse_to_overwrite(inputs, out)
    if dicom_seg:
        _check_dicom_seg(source, inputs, out)
    members = [located(model) for model in ([models] if isinstance(models, Path) else models)]
    made_by = {
        "version": metadata.version("decathlon-unet"),
        "model": _identify_models(members),
        "mirror_zyx": list(mirror_zyx),
        "probabilities": probabilities,
        "engine": engine,
    }
    with alone_in(out, "decathlon predict"):
        remove_leftovers(out, out / PROBABILITIES)
        record = _read_record(out)
        results, failures = [], []
        segmenter: Segmenter | None = None
        for number, image in enumerate(inputs, start=1):
            result = out / (f"{case_name(image)}.dcm" if dicom_seg else _result_name(image))
            made_from = {**made_by, **_identify(image)}
            results.append(result)
            if _is_done(result, record, made_from):
                log.info("%s is there already", result)
                continue
            log.info("%s (%d of %d)", image, number, len(inputs))
            segmenter = segmenter or Segmenter(
                read_bundles(members),
                device=device,
                patches_at_once=patches_at_once,
                mirror_zyx=mirror_zyx,
                engine=engine,
            )
            if dicom_seg and segmenter.notices:
                raise InputError(
                    "a DICOM Segmentation may end up in a patient's record, but of this model's labels is to be said: "
                    f"{segmenter.notices[0]}; take another bundle, or leave out --dicom-seg"
                )
            try:
                written = _segment(
                    segmenter, image, result, probabilities=probabilities, model=str(made_by["model"])
                )
            except Exception as error:
                failures.append(said_of(error, image))
                log.error("%s", failures[-1])
                continue
            files = [path.relative_to(out).as_posix() for path in written]
            record[result.name] = {"made_from": made_from, "files": files}
            with replacing(out / RECORD) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n")
    if failures:
        raise InputError(f"{len(failures)} of {len(inputs)} scans failed, the first: {failures[0]}")
    return results


def _segment(
    segmenter: Segmenter, image: Path, result: Path, *, probabilities: bool, model: str
) -> list[Path]:
    """Segment one scan into `result`, a DICOM Segmentation where it ends in .dcm; return the files written."""
    names, slices, stages = segmenter.description.labels, None, Stages()
    with stages("read"):
        description = segmenter.description
        volume, geometry = read_scan(image, description.channels, description.normalisation)
        if result.suffix == ".dcm":
            from algorithm.dicom_seg import read_source, write_segmentation

            slices = read_source(image)
    maps = np.empty((len(names), *geometry.shape_zyx), np.uint8) if probabilities else None
    labels = segmenter.labels(volume, geometry, stages, probabilities=maps)
    counts = count_labels(labels, len(names))
    del volume  # a large scan's memory is wanted for maps of 4 bytes a voxel
    written = [result]
    with stages("write"):
        if slices:
            write_segmentation(result, labels, slices, names, model=model)
        else:
            write_labels(result, labels, geometry)
        del labels
        for name, shares in zip(map_names(names), maps, strict=True) if maps is not None else ():
            written.append(map_path(result, name))
            write_shares(written[-1], shares, geometry)
    segmenter.report(counts, geometry, stages)
    return written


def _is_done(result: Path, record: dict[str, dict[str, Any]], made_from: dict[str, Any]) -> bool:
    """Return whether every file that belongs to a result is there and was made in this way."""
    entry = record.get(result.name)
    if not isinstance(entry, dict) or entry.get("made_from") != made_from:
        return False
    files = entry.get("files")
    return isinstance(files, list) and all((result.parent / str(name)).is_file() for name in files)


def _refuse_to_overwrite(inputs: list[Path], out: Path) -> None:
    for image in inputs:
        result = out / _result_name(image)
        if result.exists() and result.samefile(image):
            raise InputError(
                f"the result for {image} would overwrite the scan itself; choose another --out than {out}"
            )


def _check_dicom_seg(source: Path, inputs: list[Path], out: Path) -> None:
    """Raise InputError where a DICOM Segmentation cannot be made or would get among the slices."""
    if inputs != [source] or not source.is_dir():
        what = "a folder of images" if source.is_dir() else "a file"
        raise InputError(
            f"--dicom-seg needs a folder that holds the DICOM slices of one scan, but {source} is {what}; "
            "give such a folder, or leave out --dicom-seg"
        )
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"the result would lie among the slices in {source}; choose another --out than {out}"
        )
    if find_spec("highdicom") is None:
        raise InputError(
            "--dicom-seg needs highdicom, which is not installed; pip install 'decathlon-unet[dicom]'"
        )


def _result_name(image: Path) -> str:
    suffix = image_suffix(image) if image.is_file() else None
    return case_name(image) + (suffix if suffix in WRITABLE else ".nii.gz")


def _identify(image: Path) -> dict[str, str | int]:
    files = [image] if image.is_file() else sorted(path for path in image.rglob("*") if path.is_file())
    stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return {"source": str(image.resolve()), "stamps": hashlib.sha256(repr(stamps).encode()).hexdigest()}


def _chosen(inputs: Sequence[Path], cases: Collection[str], source: Path) -> list[Path]:
    """Return the scans of these names; InputError where one is not there."""
    found = {case_name(path): path for path in inputs}
    missing = sorted(set(cases) - found.keys())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{source} must hold the scan {missing[0]}{more}, but does not; give the folder that has it"
        )
    return [path for name, path in found.items() if name in cases]


def _identify_models(models: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for model in models:
        files = [model] if model.is_file() else sorted(path for name in FILES for path in model.rglob(name))
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_record(out: Path) -> dict[str, dict[str, Any]]:
    try:
        record = json.loads((out / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
