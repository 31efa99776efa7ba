"""Fast kernels over CT volumes as pure functions on NumPy arrays."""

from voxelcore.intensity import clip, preprocess
from voxelcore.patches import extract_patches
from voxelcore.resampling import (
    class_maps_to_labels,
    resample_cubic,
    resample_labels,
    resample_linear,
    resampled_shape,
)
from voxelcore.sampling import draw_starts, draw_volumes, uniform
from voxelcore.stitching import Stitcher, stitch
from voxelcore.threads import get_threads, set_threads
from voxelcore.tiling import Tiling, tile

__all__ = [
    "Stitcher",
    "Tiling",
    "class_maps_to_labels",
    "clip",
    "draw_starts",
    "draw_volumes",
    "extract_patches",
    "get_threads",
    "preprocess",
    "resample_cubic",
    "resample_labels",
    "resample_linear",
    "resampled_shape",
    "set_threads",
    "stitch",
    "tile",
    "uniform",
]
