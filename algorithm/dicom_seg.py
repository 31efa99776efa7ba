"""Labels as a DICOM Segmentation: what archives and viewers show on top of the scan.

The only module that needs highdicom (the extra `dicom`), so it is imported where it is asked for.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from algorithm.colours import label_colour
from algorithm.dicom import series_slices
from algorithm.errors import InputError
from algorithm.files import replacing

NAME = "decathlon-unet"
SERIES_NUMBER = 1000  # behind the scanner's own series
LONGEST_TEXT = 64  # of the DICOM type LO
UTF_8 = "ISO_IR 192"
PRIVATE_SCHEME = "99DECATHLON"

IDENTIFIERS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)
SHARED = ("StudyInstanceUID", "FrameOfReferenceUID")
# What DICOM wants in every object but lets be empty; anonymisers take it out.
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
)
REMEDY = (
    "take the slices as the archive stored them (an anonymiser must replace identifiers, not remove them), "
    "or leave out --dicom-seg"
)

FINDINGS = (
    (codes.SCT.Neoplasm, {"cancer", "tumour", "tumor", "neoplasm", "carcinoma"}),
    (codes.SCT.Lesion, {"lesion"}),
)
# Property types by their category (PS3.16, CID 7150)
TYPES = (
    (codes.SCT.AnatomicalStructure, codes.cid7192.concepts),
    (codes.SCT.MorphologicallyAbnormalStructure, codes.cid7194.concepts),
)

logging.getLogger("highdicom").setLevel(logging.WARNING)


def read_source(folder: Path) -> list[Dataset]:
    """Return the headers of the slices that a segmentation will refer to, in the order of `read_series`.

    Raises InputError in one sentence, so that nothing is segmented in vain: as `read_series`, and when a slice lacks
    an identifier, slices are of several studies or frames of reference, two have one identifier, or what the
    headers say about patient and study cannot be repeated.
    """
    slices, geometry = series_slices(folder)
    with _quiet():
        headers: list[Dataset] = [dcmread(one.path, stop_before_pixels=True, force=True) for one in slices]
        _check_identifiers([one.path for one in slices], headers)
        try:
            _complete(headers, step_mm=geometry.spacing_zyx_mm[0])
            plane = np.ones((1, *geometry.shape_zyx[1:]), np.uint8)
            _segmentation(plane, headers[:1], ("background", "trial"), model="none")
        except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"{slices[0].path} says something that a DICOM segmentation cannot repeat: {why}; {REMEDY}"
            ) from None
    return headers


def write_segmentation(
    path: Path, labels: NDArray[np.uint8], source: Sequence[Dataset], names: Sequence[str], *, model: str
) -> None:
    """Write labels as a binary DICOM Segmentation, complete or not at all, with identifiers of its own.

    Each label but the background is a segment, also one that occurs nowhere; frames without a voxel are left out,
    unless nothing at all was found: then all are there, as a segmentation without a frame is not allowed.

    Args:
        path: the file.
        labels: (z, y, x); plane z lies on `source[z]`.
        source: what `read_source` returned.
        names: of the labels by value, background first.
        model: what tells one model from another, at most 64 characters.

    Raises:
        InputError: the file cannot be written.
        ValueError: labels are not uint8, lie on other planes or have no name.
        RuntimeError: the file, read back, does not hold the labels; it is removed then.

    """
    shape = (len(source), source[0].Rows, source[0].Columns)
    if labels.dtype != np.uint8 or labels.shape != shape or labels.max() >= len(names):
        raise ValueError(
            f"labels must be uint8 {shape} (z, y, x) below {len(names)}, got {labels.dtype} {labels.shape} up to "
            f"{labels.max()}"
        )
    with _quiet():
        segmentation = _segmentation(labels, source, names, model=model)
        try:
            with replacing(path) as temporary:
                segmentation.save_as(temporary)
                _check_written(temporary, labels, source)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def segment_codes(name: str) -> tuple[Code, Code]:
    """Return category and type of a label by its name: DICOM's own codes where it has them, else a private one."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    singular = {word.removesuffix("s") for word in words}
    for finding, said in FINDINGS:
        if said & singular:
            return codes.SCT.MorphologicallyAbnormalStructure, finding
    keyword = "".join(word.capitalize() for word in words)
    for category, types in TYPES:
        if keyword in types:
            return category, types[keyword]
    return codes.SCT.Tissue, Code(_text(name), PRIVATE_SCHEME, _text(name))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's warnings about the scanner's entries off stderr; what cannot be used is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_identifiers(paths: Sequence[Path], headers: Sequence[Dataset]) -> None:
    """Raise InputError unless every slice has identifiers, its own and those that a series shares."""
    owner: dict[str, Path] = {}
    for path, header in zip(paths, headers, strict=True):
        if missing := [keyword for keyword in IDENTIFIERS if not header.get(keyword)]:
            raise InputError(
                f"{path} does not state its {', '.join(missing)}, to which a DICOM segmentation must refer; {REMEDY}"
            )
        for keyword in SHARED:
            if header[keyword].value != headers[0][keyword].value:
                raise InputError(
                    f"{paths[0]} and {path} are of one series, but differ in their {keyword}; {REMEDY}"
                )
        if (other := owner.setdefault(header.SOPInstanceUID, path)) != path:
            raise InputError(
                f"{other} and {path} have one SOPInstanceUID, so that a DICOM segmentation cannot tell them apart; "
                f"{REMEDY}"
            )


def _complete(headers: Sequence[Dataset], *, step_mm: float) -> None:
    """Make headers what highdicom takes them for: of one orientation to the last digit, with nothing left out."""
    first = headers[0]
    first.decode()
    first.SpecificCharacterSet = UTF_8  # which holds what the slices and the names of labels hold
    for keyword in MAY_BE_EMPTY:
        if keyword not in first:
            setattr(first, keyword, "")
    step = f"{step_mm:.10g}"  # a DS has room for 16 characters
    first.SpacingBetweenSlices = step
    if not first.get("SliceThickness"):
        first.SliceThickness = step
    for header in headers:
        header.ImageOrientationPatient = first.ImageOrientationPatient


def _segmentation(
    labels: NDArray[np.uint8], source: Sequence[Dataset], names: Sequence[str], *, model: str
) -> Segmentation:
    version = metadata.version("decathlon-unet")
    of = source[0].get("SeriesDescription", "")
    return Segmentation(
        source_images=source,
        pixel_array=labels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=_segments(names, version, model),
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=version,
        device_serial_number=model,
        omit_empty_frames=bool(labels.any()),
        content_label="SEGMENTATION",
        content_creator_name="",  # no person, and DICOM wants to be told so
        content_description="Research use; not a medical device",
        series_description=_text(f"Segmentation of {of}" if of else "Segmentation"),
    )


def _segments(names: Sequence[str], version: str, model: str) -> list[SegmentDescription]:
    algorithm = AlgorithmIdentificationSequence(
        name=NAME,
        family=codes.cid7162.ArtificialIntelligence,
        version=version,
        parameters={"model": model},
    )
    coded = [segment_codes(name) for name in names[1:]]
    organs = [kind for category, kind in coded if category == codes.SCT.AnatomicalStructure]
    return [
        SegmentDescription(
            segment_number=value,
            segment_label=_text(names[value]),
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            anatomic_regions=organs
            if len(organs) == 1 and category == codes.SCT.MorphologicallyAbnormalStructure
            else None,
            display_color=CIELabColor.from_string(label_colour(value)),
        )
        for value, (category, kind) in enumerate(coded, start=1)
    ]


def _text(text: str) -> str:
    """Return text that fits an LO: one line, without the backslash that separates values."""
    return " ".join(str(text).replace("\\", "/").split())[:LONGEST_TEXT] or "unnamed"


def _check_written(path: Path, labels: NDArray[np.uint8], source: Sequence[Dataset]) -> None:
    """Raise RuntimeError unless the frames of a file hold the labels of the slices to which they refer."""
    written = dcmread(path)
    shared = written.SharedFunctionalGroupsSequence[0]
    planes = {header.SOPInstanceUID: plane for header, plane in zip(source, labels, strict=True)}
    found = 0
    for frame, group in zip(_frames(written), written.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.get("SegmentIdentificationSequence", shared.get("SegmentIdentificationSequence"))[0]
        refers_to = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        if not np.array_equal(frame, planes[refers_to] == segment.ReferencedSegmentNumber):
            raise RuntimeError(f"{path} was written with other labels on slice {refers_to}")
        found += int(np.count_nonzero(frame))
    if found != np.count_nonzero(labels):
        raise RuntimeError(f"{path} was written with {found} of {np.count_nonzero(labels)} labelled voxels")


def _frames(segmentation: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Yield each frame (y, x) of a binary segmentation; pixels are bits, and a frame may begin within a byte."""
    packed = np.frombuffer(segmentation.PixelData, np.uint8)
    rows, columns = segmentation.Rows, segmentation.Columns
    for first in range(0, segmentation.NumberOfFrames * rows * columns, rows * columns):
        last = first + rows * columns
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield bits[first % 8 :][: rows * columns].reshape(rows, columns)
