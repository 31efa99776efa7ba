"""Segment an image or a folder of images into a folder, continuing where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algorithm.bundle import FILES, read_bundles
from algorithm.engines import EngineName
from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.images import (
    WRITABLE,
    case_name,
    image_suffix,
    list_images,
    read_hounsfield,
    write_labels,
    write_shares,
)
from algorithm.segmenter import Segmenter

log = logging.getLogger(__name__)
RECORD = ".predictions.json"
PROBABILITIES = "probabilities"


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

    Raises:
        InputError: `source` or `models` cannot be used, or scans failed (the first is named).

    """
    inputs = find_inputs(source)
    _refuse_to_overwrite(inputs, out)
    members = [models] if isinstance(models, Path) else list(models)
    made_by = {
        "version": metadata.version("decathlon-unet"),
        "model": _identify_models(members),
        "mirror_zyx": list(mirror_zyx),
        "probabilities": probabilities,
    }
    record = _read_record(out)
    results, failures = [], []
    segmenter: Segmenter | None = None
    for number, image in enumerate(inputs, start=1):
        result = out / _result_name(image)
        made_from = {**made_by, **_identify(image)}
        results.append(result)
        if result.is_file() and record.get(result.name) == made_from:
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
        try:
            _predict_one(image, segmenter, result, with_probabilities=probabilities)
        except (InputError, OSError) as error:
            log.error("%s", error)
            failures.append(str(error))
            continue
        record[result.name] = made_from
        with replacing(out / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")
    if failures:
        raise InputError(f"{len(failures)} of {len(inputs)} scans failed, the first: {failures[0]}")
    return results


def _predict_one(image: Path, segmenter: Segmenter, result: Path, *, with_probabilities: bool) -> None:
    volume, geometry = read_hounsfield(image)
    names = segmenter.description.labels
    maps = np.empty((len(names), *volume.shape), np.uint8) if with_probabilities else None
    labels = segmenter.labels(volume, geometry, probabilities=maps)
    for name, shares in zip((*names[1:], "uncertainty"), () if maps is None else maps, strict=False):
        file_name = f"{case_name(result)}_{'_'.join(name.split())}{image_suffix(result)}"
        write_shares(result.parent / PROBABILITIES / file_name, shares, geometry)
    write_labels(result, labels, geometry)


def _refuse_to_overwrite(inputs: list[Path], out: Path) -> None:
    for image in inputs:
        result = out / _result_name(image)
        if result.exists() and result.samefile(image):
            raise InputError(
                f"the result for {image} would overwrite the scan itself; choose another --out than {out}"
            )


def _result_name(image: Path) -> str:
    suffix = image_suffix(image) if image.is_file() else None
    return case_name(image) + (suffix if suffix in WRITABLE else ".nii.gz")


def _identify(image: Path) -> dict[str, str | int]:
    files = [image] if image.is_file() else sorted(path for path in image.rglob("*") if path.is_file())
    stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return {"source": str(image.resolve()), "stamps": hashlib.sha256(repr(stamps).encode()).hexdigest()}


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
