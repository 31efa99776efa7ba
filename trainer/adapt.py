"""Settings that a preset leaves to the data set: grid, patch, normalisation and window, from its headers and voxels."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import voxelcore
from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation
from algorithm.images import read_geometry, read_image, read_labels, read_scan, stored_of
from algorithm.intensities import STORED_RANGE, Normalisation, background_share
from algorithm.progress import progress
from trainer.dataset import Case, Dataset
from trainer.presets import PreparePreset

log = logging.getLogger(__name__)
Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
T = TypeVar("T")

STEP = 16  # a size of a patch must be a multiple of it: the network halves four times
MOST_READ = 24  # cases whose voxels are looked at
# Of voxels under a label in CT: nnU-Net's window (Isensee et al., Nature Methods 18, 2021, supplementary note 2).
PERCENTILES = (0.5, 99.5)
# From this share of background on, z-scores are of the rest: nnU-Net's rule, by which the rest must be below 3/4.
MUCH_BACKGROUND = 0.25


def is_ct(channels: Sequence[str]) -> bool:
    """Return whether every channel is called CT in dataset.json."""
    return all(re.search(r"\bCT\b", name, re.IGNORECASE) for name in channels)


def adapted(preset: PreparePreset, dataset: Dataset, cases: Sequence[Case], *, threads: int) -> PreparePreset:
    """Return the preset with every setting that it leaves to the data set; a function of files and settings alone.

    Args:
        preset: what it names in `from_data_set` is chosen: "spacing_zyx_mm", the median of the cases on each axis;
            "patch_shape_zyx", the median shape on that grid, cut down to `patch_voxels`; "normalisation", "window" for
            CT, z-scores otherwise, of the foreground where the background is large; "window_hu", percentiles 0.5
            and 99.5 of the voxels under any label.
        dataset: that is prepared.
        cases: those of its training side.
        threads: cases read at a time.

    Raises:
        InputError: a case that cannot be read, or no labelled voxel to take a window from.

    """
    chosen: dict[str, Any] = {}
    wanted = preset.from_data_set
    if not wanted:
        return preset
    sample = [cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, MOST_READ).round().astype(int))]
    if {"spacing_zyx_mm", "patch_shape_zyx"} & wanted:
        grids = _each(
            cases, lambda case: _canonical(read_geometry(case.image, dataset.channels)), threads, "headers"
        )
        spacing = preset.spacing_zyx_mm
        if "spacing_zyx_mm" in wanted:
            spacing = chosen["spacing_zyx_mm"] = _median_spacing(grids)
        if "patch_shape_zyx" in wanted:
            shapes = [voxelcore.resampled_shape(g.shape_zyx, g.spacing_zyx_mm, spacing) for g in grids]
            z, y, x = np.median(shapes, axis=0).tolist()
            chosen["patch_shape_zyx"] = fitting_patch((z, y, x), spacing, preset.patch_voxels)
    normalisation = preset.normalisation
    if "normalisation" in wanted:
        normalisation = chosen["normalisation"] = _normalisation(dataset, sample, threads)
    if normalisation == "window" and "window_hu" in wanted:
        chosen["window_hu"] = _window(dataset, sample, threads)
    log.info("taken from the data set: %s", ", ".join(f"{name} {value}" for name, value in chosen.items()))
    if normalisation != "window":
        chosen["window_hu"] = STORED_RANGE
    return dataclasses.replace(preset, from_data_set=frozenset(), **chosen)


def fitting_patch(shape_zyx: Sequence[float], spacing_zyx_mm: Sequence[float], voxels: int) -> Shape:
    """Return the patch that holds a volume of this shape, or as much of it as `voxels` allow, as cubic as can be.

    Sizes are multiples of 16, one of them at least 32, as the network needs; a volume that is smaller is padded.
    """
    sizes = [max(STEP, math.ceil(size / STEP) * STEP) for size in shape_zyx]
    if max(sizes) == STEP:
        sizes[2] = 2 * STEP
    while math.prod(sizes) > voxels and sum(sizes) > 4 * STEP:
        # What is padding anyway does not count: twenty slices stay together.
        millimetres = [
            min(size, there) * spacing if size > STEP else 0.0
            for size, there, spacing in zip(sizes, shape_zyx, spacing_zyx_mm, strict=True)
        ]
        sizes[int(np.argmax(millimetres))] -= STEP
    return sizes[0], sizes[1], sizes[2]


def _median_spacing(grids: Sequence[Geometry]) -> Triple:
    z, y, x = (round(size, 4) for size in np.median([g.spacing_zyx_mm for g in grids], axis=0).tolist())
    return z, y, x


def _canonical(geometry: Geometry) -> Geometry:
    return canonical_orientation(geometry).canonical(geometry)


def _normalisation(dataset: Dataset, sample: Sequence[Case], threads: int) -> Normalisation:
    if is_ct(dataset.channels):
        return "window"
    channels = dataset.channels

    def share(case: Case) -> float:
        return background_share(stored_of(read_image(case.image, channels), channels))

    shares = _each(sample, share, threads, "backgrounds")
    return "zscore_foreground" if np.median(shares) >= MUCH_BACKGROUND else "zscore"


def _window(dataset: Dataset, sample: Sequence[Case], threads: int) -> tuple[int, int]:
    def histogram(case: Case) -> NDArray[np.int64]:
        image, _ = read_scan(case.image, dataset.channels)
        labels, _ = read_labels(case.label)
        if labels.shape != image.shape[1:]:
            raise InputError(
                f"a label map must lie on the grid of its image: {case.label} against {case.image}"
            )
        return np.bincount(image[:, labels > 0].reshape(-1).astype(np.int64) + 2**15, minlength=2**16)

    counts = np.cumsum(np.sum(_each(sample, histogram, threads, "intensities"), axis=0))
    if counts[-1] == 0:
        raise InputError(
            f"no voxel of the {len(sample)} cases looked at has a label, so no window follows; give --window-hu"
        )
    low, high = (int(np.searchsorted(counts, counts[-1] * share / 100)) - 2**15 for share in PERCENTILES)
    return low, max(high, low + 1)


def _each(cases: Sequence[Case], look: Callable[[Case], T], threads: int, what: str) -> list[T]:
    """Return what each case tells, in their order."""
    with ThreadPoolExecutor(threads) as pool:
        found: Iterator[T] = pool.map(look, cases)
        return list(progress(found, total=len(cases), what=what, unit="cases"))
