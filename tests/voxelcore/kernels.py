"""Every kernel on one small input, for what must not change its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import voxelcore

rng = np.random.default_rng(0)
SHAPE = (23, 41, 57)
NEW = (29, 70, 50)
WHOLE = rng.integers(-1024, 3072, SHAPE).astype(np.int16)
FLOAT = rng.normal(size=SHAPE).astype(np.float32)
LABELS = rng.integers(0, 3, SHAPE).astype(np.uint8)
MAPS = rng.normal(size=(3, *SHAPE)).astype(np.float32)
STARTS = rng.integers(-5, 20, (11, 3))
TILING = voxelcore.tile(SHAPE, (16, 16, 16), overlap_zyx=(5, 6, 7))
PATCHES = rng.normal(size=(len(TILING), 2, 16, 16, 16)).astype(np.float16)
SAMPLER = voxelcore.PatchSampler(
    [WHOLE[np.newaxis]], [LABELS], (16, 32, 32), batch_size=3, seed=1, label_shares={1: 0.5}
)

Kernel = Callable[[int], npt.NDArray[Any]]


def export(threads: int) -> npt.NDArray[np.uint8]:
    out = np.empty(NEW, np.uint8)
    exporter = voxelcore.LabelExporter(SHAPE, out[::-1], threads=threads)
    for z in range(0, SHAPE[0], 5):
        exporter.add(MAPS[:, z : z + 5])
    return out


KERNELS: dict[str, Kernel] = {
    "linear uint8": lambda n: voxelcore.resample_linear(LABELS, NEW, threads=n),
    "linear int16": lambda n: voxelcore.resample_linear(WHOLE, NEW, threads=n),
    "linear float32": lambda n: voxelcore.resample_linear(FLOAT, NEW, threads=n),
    "linear float16": lambda n: voxelcore.resample_linear(FLOAT.astype(np.float16), NEW, threads=n),
    "linear, a third": lambda n: voxelcore.resample_linear(FLOAT, (7, 13, 19), threads=n),
    "cubic int16": lambda n: voxelcore.resample_cubic(WHOLE, NEW, threads=n),
    "cubic float32": lambda n: voxelcore.resample_cubic(FLOAT, NEW, threads=n),
    "labels linear": lambda n: voxelcore.resample_labels(LABELS, NEW, threads=n),
    "labels nearest": lambda n: voxelcore.resample_labels(LABELS, NEW, method="nearest", threads=n),
    "class maps float32": lambda n: voxelcore.class_maps_to_labels(MAPS, NEW, threads=n),
    "class maps float16": lambda n: voxelcore.class_maps_to_labels(MAPS.astype(np.float16), NEW, threads=n),
    "export": export,
    "preprocess float32": lambda n: voxelcore.preprocess(
        WHOLE, NEW, window_hu=(-100, 200), mean=50.3, std=71.9, threads=n
    ),
    "preprocess float16": lambda n: voxelcore.preprocess(
        WHOLE, NEW, window_hu=(-100, 200), mean=50.3, std=71.9, dtype=np.float16, threads=n
    ),
    "clip uint8": lambda n: voxelcore.clip(LABELS, 1, 1, threads=n),
    "clip int16": lambda n: voxelcore.clip(WHOLE, -100, 200, threads=n),
    "clip float16": lambda n: voxelcore.clip(FLOAT.astype(np.float16), -0.5, 0.5, threads=n),
    "clip float32": lambda n: voxelcore.clip(FLOAT, -0.5, 0.5, threads=n),
    "patches": lambda n: voxelcore.extract_patches(WHOLE, STARTS, (9, 21, 30), threads=n),
    "batch": lambda n: SAMPLER.batch(5, threads=n).images,
    "centre float16": lambda n: voxelcore.stitch(PATCHES, TILING, blend="centre", threads=n),
    "gaussian float16": lambda n: voxelcore.stitch(PATCHES, TILING, blend="gaussian", threads=n),
    "gaussian float32": lambda n: voxelcore.stitch(
        PATCHES.astype(np.float32), TILING, blend="gaussian", threads=n
    ),
}
