"""Segment an image or a folder of images into a folder, continuing where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib import metadata
from pathlib import Path

from algorithm.bundle import DESCRIPTION, WEIGHTS, read_bundle
from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.images import WRITABLE, case_name, image_suffix, list_images, read_hounsfield, write_labels
from algorithm.segment import Segmenter

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


def predict(source: Path, model: Path, out: Path, *, segmenter: Segmenter | None = None) -> list[Path]:
    """Write one label map a scan of `source` into `out`, named after its scan; return their paths.

    A scan that fails does not keep the others from being done. Results that the same model made from the same
    file are kept, so that the same command continues a run that was stopped.

    Raises:
        InputError: `source` or `model` cannot be used, or scans failed (the first is named).

    """
    inputs = find_inputs(source)
    _refuse_to_overwrite(inputs, out)
    made_by = _identify_model(model)
    record = _read_record(out)
    results, failures = [], []
    for number, image in enumerate(inputs, start=1):
        result = out / _result_name(image)
        made_from = {"version": metadata.version("decathlon-unet"), "model": made_by, **_identify(image)}
        results.append(result)
        if result.is_file() and record.get(result.name) == made_from:
            log.info("%s is there already", result)
            continue
        log.info("%s (%d of %d)", image, number, len(inputs))
        segmenter = segmenter or Segmenter(read_bundle(model))
        try:
            volume, geometry = read_hounsfield(image)
            write_labels(result, segmenter.labels(volume, geometry), geometry)
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


def _identify_model(model: Path) -> str:
    digest = hashlib.sha256()
    files = [model] if model.is_file() else [model / DESCRIPTION, model / WEIGHTS]
    for file in files:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _read_record(out: Path) -> dict[str, dict[str, str | int]]:
    try:
        record = json.loads((out / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
