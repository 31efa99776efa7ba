"""From one CT to labels on its own grid: canonical order, resample, network, stitch, and back."""

from __future__ import annotations

import logging
import time

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import voxelcore
from algorithm.bundle import Bundle
from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation
from algorithm.images import hounsfield, label_image
from algorithm.network import to_channels_last
from algorithm.progress import progress

log = logging.getLogger(__name__)


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Segmenter:
    """A model bundle made ready on a device; one object segments any number of scans.

    Args:
        bundle: what `algorithm.bundle.read_bundle` returns.
        device: where the network runs; by default the first CUDA device, else the CPU.
        patches_at_once: patches a forward pass.

    """

    def __init__(
        self, bundle: Bundle, *, device: torch.device | None = None, patches_at_once: int = 1
    ) -> None:
        self.description = bundle.description
        self.device = default_device() if device is None else device
        self.network = bundle.network.to(self.device).eval()
        if self.device.type == "cpu":
            to_channels_last(self.network)
        torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, on a GPU too
        self.patches_at_once = patches_at_once

    def segment(self, image: sitk.Image) -> sitk.Image:
        """Return uint8 labels on exactly the grid of `image`, a 3-D scalar CT in HU.

        Raises:
            InputError: the bundle wants other channels than one CT.

        """
        geometry = Geometry.of(image)
        return label_image(self.labels(hounsfield(image), geometry), geometry)

    def labels(self, volume: NDArray[np.int16], geometry: Geometry) -> NDArray[np.uint8]:
        """Segment an array: int16 HU (z, y, x) on `geometry` in, uint8 labels of the same shape out."""
        description = self.description
        if len(description.channels) != 1:
            raise InputError(
                f"the bundle wants {len(description.channels)} channels "
                f"({', '.join(description.channels)}), got one image"
            )
        started = time.monotonic()
        orientation = canonical_orientation(geometry)
        canonical = orientation.to_canonical(volume)
        spacing_zyx_mm = orientation.canonical(geometry).spacing_zyx_mm
        shape_zyx = voxelcore.resampled_shape(canonical.shape, spacing_zyx_mm, description.spacing_zyx_mm)
        prepared = voxelcore.preprocess(
            canonical,
            shape_zyx,
            window_hu=description.window_hu,
            mean=description.mean[0],
            std=description.std[0],
        )
        maps = self.class_maps(prepared[np.newaxis])
        labels = orientation.from_canonical(voxelcore.class_maps_to_labels(maps, canonical.shape))
        self._report(labels, geometry, time.monotonic() - started)
        return labels

    def class_maps(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities (K, z, y, x) for a normalised volume on the network's grid (c, z, y, x)."""
        description = self.description
        tiling = voxelcore.tile(
            prepared.shape[1:], description.patch_shape_zyx, overlap_zyx=description.stitching.overlap_zyx
        )
        stitcher = voxelcore.Stitcher(tiling, len(description.labels), blend=description.stitching.blend)
        count = len(tiling.starts_zyx)
        batches = [
            range(first, min(first + self.patches_at_once, count))
            for first in range(0, count, self.patches_at_once)
        ]
        for batch in progress(batches, total=len(batches), what="segmenting", unit="batches"):
            probabilities = self._forward(prepared, tiling.starts_zyx[batch.start : batch.stop])
            for index, patch in zip(batch, probabilities, strict=True):
                stitcher.add(index, patch)
        return stitcher.result()

    @torch.inference_mode()
    def _forward(self, prepared: NDArray[np.float32], starts_zyx: NDArray[np.int64]) -> NDArray[np.float32]:
        channels = [
            voxelcore.extract_patches(channel, starts_zyx, self.description.patch_shape_zyx, pad="edge")
            for channel in prepared
        ]
        patches = torch.from_numpy(np.stack(channels, axis=1)).to(self.device)
        logits = self.network(patches)
        if not bool(logits.isfinite().all()):
            # An argmax over NaN would say "background", which reads as "no tumour".
            raise InputError(
                "the network's output is not finite, so its weights are unusable; train the model anew"
            )
        probabilities: NDArray[np.float32] = torch.softmax(logits, dim=1).cpu().numpy()
        return probabilities

    def _report(self, labels: NDArray[np.uint8], geometry: Geometry, seconds: float) -> None:
        counts = np.bincount(labels.reshape(-1), minlength=len(self.description.labels))
        volumes = ", ".join(
            f"{name} {count * geometry.voxel_ml:.1f} ml"
            for name, count in list(zip(self.description.labels, counts, strict=True))[1:]
        )
        log.info("%s; %d voxels in %.1f s on %s", volumes, labels.size, seconds, self.device.type)
