"""Training cases on the common grid: resampled once, then kept as plain arrays that memory can map."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import voxelcore
from algorithm.errors import InputError
from algorithm.files import replacing
from algorithm.geometry import Geometry, canonical_orientation, same_grid
from algorithm.images import read_labels, read_scan
from algorithm.intensities import Normalisation
from trainer.dataset import Case

log = logging.getLogger(__name__)
FORMAT = 1  # raised when the same settings give other voxels
IMAGE, LABEL, RECORD = "image.npy", "label.npy", "volume.json"
# NumPy parses headers with ast, which fails in threads of Python 3.11: https://github.com/python/cpython/issues/106905
_parsing = threading.Lock()


@dataclass(frozen=True)
class VolumeSettings:
    """What decides the voxels of a prepared case, apart from its files."""

    spacing_zyx_mm: tuple[float, float, float]
    window_hu: tuple[int, int]
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    normalisation: Normalisation = "window"

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        record = {
            "format": FORMAT,
            "spacing_zyx_mm": list(self.spacing_zyx_mm),
            "window_hu": list(self.window_hu),
            "labels": len(self.labels),
            "channels": len(self.channels),
        }
        # Volumes of older releases, which are all of windows, do not say so, and are kept.
        return record if self.normalisation == "window" else {**record, "normalisation": self.normalisation}


@dataclass(frozen=True)
class Volume:
    """One case on the common grid, in canonical orientation.

    Attributes:
        case: its name.
        folder: where its arrays lie.
        shape_zyx: voxels of the resampled grid.
        sha256: of the image file and the label file that it was made from.
        label_slices: voxels of each label in each slice, int64 (labels, z).

    """

    case: str
    folder: Path
    shape_zyx: tuple[int, int, int]
    sha256: str
    label_slices: NDArray[np.int64]

    @property
    def voxels(self) -> int:
        """Voxels of the grid."""
        return int(np.prod(self.shape_zyx, dtype=np.int64))

    def image(self) -> NDArray[np.int16]:
        """Map the image: int16 (c, z, y, x), HU or z-scores, clipped to the window; its last reference unmaps it."""
        return map_array(self.folder / IMAGE)

    def label(self) -> NDArray[np.uint8]:
        """Map the labels: uint8 (z, y, x)."""
        return map_array(self.folder / LABEL)


def map_array(path: Path) -> NDArray[Any]:
    """Map an array of a .npy file, read only; its last reference unmaps it. Any thread may call.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no array.

    """
    with _parsing:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def prepare_volumes(
    cases: Sequence[Case], folder: Path, settings: VolumeSettings, *, threads: int
) -> Iterator[Volume]:
    """Yield a prepared volume for each case, in order; `threads` cases are in hand at a time.

    A case whose settings and files are those of an earlier run is taken as it is. A kill loses the cases in
    hand and no other.

    Raises:
        InputError: a file that cannot be read or has other channels, a label grid that differs from its image's,
            a label value that the data set does not name, or a channel without contrast where z-scores are made.

    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(lambda case: prepare_volume(case, folder / case.name, settings), cases)
    finally:
        pool.shutdown(cancel_futures=True)


def prepare_volume(case: Case, folder: Path, settings: VolumeSettings) -> Volume:
    """Return the volume kept in `folder` if it is of `case` and `settings`, else make it, on one thread."""
    kept = _kept(case, folder, settings)
    if kept is not None:
        return kept
    image, labels = _resampled(case, settings)
    slices = np.stack(
        [np.count_nonzero(labels == value, axis=(1, 2)) for value in range(len(settings.labels))]
    ).astype(np.int64)
    with replacing(folder) as temporary:
        temporary.mkdir()
        np.save(temporary / IMAGE, image)
        np.save(temporary / LABEL, labels)
        _write_record(temporary, case, settings, labels.shape, slices)
    volume = _kept(case, folder, settings)
    if volume is None:
        raise InputError(f"{case.image} or {case.label} changed while it was read: run the command again")
    return volume


def _resampled(case: Case, settings: VolumeSettings) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return image (c, z, y, x) and labels (z, y, x) on the common grid."""
    labels, label_geometry = read_labels(case.label)
    highest = int(labels.max())
    if highest >= len(settings.labels):
        raise InputError(
            f"label values must be 0 to {len(settings.labels) - 1} as dataset.json names them, "
            f"but {highest} is in {case.label}"
        )
    try:
        scan, geometry = read_scan(case.image, settings.channels, settings.normalisation)
    except InputError as error:
        raise error if str(case.image) in str(error) else InputError(f"{case.image}: {error}") from None
    difference = same_grid(label_geometry, geometry)
    if difference is not None:
        raise InputError(
            f"a label map must lie on the grid of its image, but has {difference}: "
            f"{case.label} against {case.image}"
        )
    orientation = canonical_orientation(geometry)
    canonical: Geometry = orientation.canonical(geometry)
    shape_zyx = voxelcore.resampled_shape(
        canonical.shape_zyx, canonical.spacing_zyx_mm, settings.spacing_zyx_mm
    )
    low, high = settings.window_hu
    image = np.empty((len(scan), *shape_zyx), np.int16)
    for channel, out in zip(scan, image, strict=True):
        voxelcore.resample_linear(orientation.to_canonical(channel), shape_zyx, out=out, threads=1)
        voxelcore.clip(out, low, high, out=out, threads=1)
    resampled = voxelcore.resample_labels(
        orientation.to_canonical(labels), shape_zyx, method="linear", threads=1
    )
    return image, resampled


def _write_record(
    folder: Path, case: Case, settings: VolumeSettings, shape_zyx: Sequence[int], slices: NDArray[np.int64]
) -> None:
    record = {
        "settings": settings.record(),
        "image": _identity(case.image),
        "label": _identity(case.label),
        "shape_zyx": list(shape_zyx),
        "label_slices": slices.tolist(),
    }
    (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")


def _kept(case: Case, folder: Path, settings: VolumeSettings) -> Volume | None:
    """Return the volume in `folder`, or None where it is missing, damaged, or made from something else."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        current = record["settings"] == settings.record() and all(
            _same_file(path, record[key]) for key, path in (("image", case.image), ("label", case.label))
        )
        if not current:
            return None
        digests = record["image"]["sha256"] + record["label"]["sha256"]
        z, y, x = record["shape_zyx"]
        volume = Volume(
            case=case.name,
            folder=folder,
            shape_zyx=(z, y, x),
            sha256=hashlib.sha256(digests.encode()).hexdigest(),
            label_slices=np.array(record["label_slices"], dtype=np.int64),
        )
        intact = volume.image().shape == (len(settings.channels), z, y, x) and volume.label().shape == (
            z,
            y,
            x,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return volume if intact else None


def _identity(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": _sha256(path)}


def _same_file(path: Path, identity: dict[str, Any]) -> bool:
    """Compare by size and time; where only the time differs (a copy, a checkout), by content."""
    status = path.stat()
    if status.st_size != identity["size"]:
        return False
    return bool(status.st_mtime_ns == identity["mtime_ns"] or _sha256(path) == identity["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
