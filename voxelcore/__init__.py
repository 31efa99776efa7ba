"""Fast kernels over CT volumes as pure functions on NumPy arrays."""

from voxelcore.exporting import LabelExporter
from voxelcore.intensity import SlabPreprocessor, clip, preprocess
from voxelcore.isa import get_isa, get_isas, set_isa
from voxelcore.patches import extract_patches
from voxelcore.resampling import (
    class_maps_to_labels,
    resample_cubic,
    resample_labels,
    resample_linear,
    resampled_shape,
)
from voxelcore.sampler import Batch, PatchSampler
from voxelcore.sampling import draw_starts, draw_volumes, uniform
from voxelcore.stitching import SlabStitcher, Stitcher, stitch
from voxelcore.threads import get_threads, set_threads
from voxelcore.tiling import Tiling, tile

__all__ = [
    "Batch",
    "LabelExporter",
    "PatchSampler",
    "SlabPreprocessor",
    "SlabStitcher",
    "Stitcher",
    "Tiling",
    "class_maps_to_labels",
    "clip",
    "draw_starts",
    "draw_volumes",
    "extract_patches",
    "get_isa",
    "get_isas",
    "get_threads",
    "preprocess",
    "resample_cubic",
    "resample_labels",
    "resample_linear",
    "resampled_shape",
    "set_isa",
    "set_threads",
    "stitch",
    "tile",
    "uniform",
]
