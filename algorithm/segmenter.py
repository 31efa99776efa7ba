"""From one CT to labels on its own grid, a slab at a time: canonical order, resample, network, stitch, and back."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import voxelcore
from algorithm.bundle import Bundle
from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation
from algorithm.images import hounsfield, label_image
from algorithm.network import UNet3D, to_channels_last
from algorithm.precision import has_bfloat16, keep_wrong_in_float32
from algorithm.progress import progress
from algorithm.stages import Stages

log = logging.getLogger(__name__)
ALIKE = (
    "labels",
    "channels",
    "spacing_zyx_mm",
    "window_hu",
    "patch_shape_zyx",
    "stitching",
    "postprocessing",
)
PreparedPlanes = Callable[[int, int], NDArray[np.float32]]


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class _Member:
    """A network, and what makes its own input of one that was normalised for the first member."""

    network: UNet3D
    scale: torch.Tensor
    shift: torch.Tensor

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Return logits of patches (n, c, z, y, x)."""
        logits: torch.Tensor = self.network(patches * self.scale + self.shift)
        return logits


class Segmenter:
    """A model bundle, or an ensemble of them, made ready on a device; one object segments any number of scans.

    The probabilities of an ensemble's members, and of each one's mirrored views, are averaged.

    Args:
        bundles: what `algorithm.bundle.read_bundle` returns, or several that see scans alike, as those of a
            cross-validation do; mean and deviation may differ.
        device: where the networks run; by default the first CUDA device, else the CPU.
        patches_at_once: patches a forward pass.
        mirror_zyx: whether each patch is also seen mirrored along an axis; each axis doubles the time.
        precision: of the convolutions; "auto" takes bfloat16 where the processor computes in it and every bundle says
            that its labels stay the same.

    Raises:
        InputError: bundles that do not see scans alike.

    """

    def __init__(
        self,
        bundles: Bundle | Sequence[Bundle],
        *,
        device: torch.device | None = None,
        patches_at_once: int = 1,
        mirror_zyx: tuple[bool, bool, bool] = (False, False, False),
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        members = [bundles] if isinstance(bundles, Bundle) else list(bundles)
        self.description = members[0].description
        self.device = default_device() if device is None else device
        self.patches_at_once = patches_at_once
        same_labels = has_bfloat16(self.device) and all(bundle.description.bfloat16 for bundle in members)
        self.precision = (
            torch.bfloat16
            if precision == "bfloat16" or (precision == "auto" and same_labels)
            else torch.float32
        )
        self.members = [self._member(bundle) for bundle in members]
        torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, on a GPU too
        mirrored = [axis for axis, mirror in enumerate(mirror_zyx, start=2) if mirror]
        self.views = [
            axes for count in range(len(mirrored) + 1) for axes in itertools.combinations(mirrored, count)
        ]

    def _member(self, bundle: Bundle) -> _Member:
        ours, theirs = self.description, bundle.description
        for name in ALIKE:
            if getattr(ours, name) != getattr(theirs, name):
                raise InputError(
                    f"the bundles of an ensemble must see scans alike, but '{name}' is {getattr(ours, name)} in one "
                    f"and {getattr(theirs, name)} in another; segment with each by itself"
                )
        network = bundle.network.to(self.device).eval()
        if self.device.type == "cpu":
            to_channels_last(network)
            if self.precision == torch.bfloat16:
                batch = (self.patches_at_once, len(theirs.channels), *theirs.patch_shape_zyx)
                keep_wrong_in_float32(network, batch, gradients=False)
        channels = (1, -1, 1, 1, 1)
        mean, std, its_mean, its_std = (
            torch.tensor(values, dtype=torch.float64).view(channels)
            for values in (ours.mean, ours.std, theirs.mean, theirs.std)
        )
        scale, shift = std / its_std, (mean - its_mean) / its_std
        return _Member(network, scale.float().to(self.device), shift.float().to(self.device))

    def segment(self, image: sitk.Image) -> sitk.Image:
        """Return uint8 labels on exactly the grid of `image`, a 3-D scalar CT in HU.

        Raises:
            InputError: the bundle wants other channels than one CT.

        """
        geometry = Geometry.of(image)
        return label_image(self.labels(hounsfield(image), geometry), geometry)

    def labels(
        self, volume: NDArray[np.int16], geometry: Geometry, stages: Stages | None = None
    ) -> NDArray[np.uint8]:
        """Segment an array: int16 HU (z, y, x) on `geometry` in, uint8 labels of the same shape out.

        Neither the volume on the network's grid nor its class maps are ever whole in memory: a slab of them is, as
        deep as a patch, from which labels are made as soon as no later patch can change them.
        """
        description = self.description
        if len(description.channels) != 1:
            raise InputError(
                f"the bundle wants {len(description.channels)} channels "
                f"({', '.join(description.channels)}), got one image"
            )
        stages = Stages() if stages is None else stages
        orientation = canonical_orientation(geometry)
        canonical = orientation.view(volume)
        spacing_zyx_mm = orientation.canonical(geometry).spacing_zyx_mm
        shape_zyx = voxelcore.resampled_shape(canonical.shape, spacing_zyx_mm, description.spacing_zyx_mm)
        preprocess = voxelcore.SlabPreprocessor(
            canonical.shape,
            shape_zyx,
            window_hu=description.window_hu,
            mean=description.mean[0],
            std=description.std[0],
        )

        def prepared(begin: int, end: int) -> NDArray[np.float32]:
            first, stop = preprocess.needs(begin, end)
            return preprocess(np.ascontiguousarray(canonical[first:stop]), first, begin, end)[np.newaxis]

        labels = np.empty(volume.shape, np.uint8)
        exporter = voxelcore.LabelExporter(shape_zyx, orientation.view(labels))
        for planes in self.class_maps(shape_zyx, prepared, stages):
            with stages("export"):
                exporter.add(planes)
        if description.postprocessing:
            with stages("postprocess"):
                description.postprocessing(labels, geometry)
        self._report(labels, geometry, stages)
        return labels

    def class_maps(
        self, shape_zyx: tuple[int, int, int], prepared: PreparedPlanes, stages: Stages | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Yield class probabilities (K, d, y, x) on the network's grid, from the first plane to the last.

        Args:
            shape_zyx: of the whole volume on the network's grid.
            prepared: returns its normalised planes `begin` to `end` as (c, end - begin, y, x), C-contiguous.
            stages: receives the time of each stage.

        Yields:
            Planes that hold until the next ones are asked for; d varies.

        """
        stages = Stages() if stages is None else stages
        description = self.description
        tiling = voxelcore.tile(
            shape_zyx, description.patch_shape_zyx, overlap_zyx=description.stitching.overlap_zyx
        )
        stitcher = voxelcore.SlabStitcher(tiling, len(description.labels), blend=description.stitching.blend)
        nothing = np.empty((0, 0, 0, 0), np.float32)
        begin, slab = -1, nothing
        batches = self._batches(tiling)
        for starts_zyx in progress(batches, total=len(batches), what="segmenting", unit="batches"):
            with stages("prepare"):
                if begin != max(int(starts_zyx[0, 0]), 0):
                    begin = max(int(starts_zyx[0, 0]), 0)
                    slab = nothing  # so that two are never in memory
                    slab = prepared(begin, min(begin + description.patch_shape_zyx[0], shape_zyx[0]))
                patches = self._cut(slab, starts_zyx - np.array([begin, 0, 0]))
            with stages("network"):
                probabilities = self._forward(patches)
            for patch in probabilities:
                with stages("stitch"):
                    planes = stitcher.add(patch)
                if planes.shape[1] > 0:
                    yield planes

    def network_labels(self, prepared: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return labels (z, y, x) on the network's grid for a normalised volume (c, z, y, x) on it."""
        shape_zyx = (prepared.shape[1], prepared.shape[2], prepared.shape[3])
        planes = self.class_maps(shape_zyx, lambda begin, end: np.ascontiguousarray(prepared[:, begin:end]))
        return np.concatenate([maps.argmax(axis=0).astype(np.uint8) for maps in planes])

    def _batches(self, tiling: voxelcore.Tiling) -> list[NDArray[np.int64]]:
        """Return the starts of the patches of each forward pass: neighbours in the tiling's order, of one layer."""
        layers = np.split(tiling.starts_zyx, np.flatnonzero(np.diff(tiling.starts_zyx[:, 0])) + 1)
        step = self.patches_at_once
        return [layer[first : first + step] for layer in layers for first in range(0, len(layer), step)]

    def _cut(self, slab: NDArray[np.float32], starts_zyx: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return patches (n, c, z, y, x); one that hangs over the edge of the volume repeats its edge voxels."""
        shape_zyx = self.description.patch_shape_zyx
        channels = [voxelcore.extract_patches(channel, starts_zyx, shape_zyx, pad="edge") for channel in slab]
        return channels[0][:, np.newaxis] if len(channels) == 1 else np.stack(channels, axis=1)

    @torch.inference_mode()
    def _forward(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities (n, K, z, y, x), the mean over all members and views."""
        on_device = torch.from_numpy(patches).to(self.device)
        total: torch.Tensor | None = None
        for member, axes in itertools.product(self.members, self.views):
            with torch.autocast(
                self.device.type, dtype=self.precision, enabled=self.precision != torch.float32
            ):
                logits = member(on_device.flip(axes) if axes else on_device).float()
            if not bool(logits.isfinite().all()):
                # An argmax over NaN would say "background", which reads as "no tumour".
                raise InputError(
                    "the network's output is not finite, so its weights are unusable; train the model anew"
                )
            probabilities = torch.softmax(logits, dim=1)
            if axes:
                probabilities = probabilities.flip(axes)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        mean: NDArray[np.float32] = (total / (len(self.members) * len(self.views))).cpu().numpy()
        return mean

    def _report(self, labels: NDArray[np.uint8], geometry: Geometry, stages: Stages) -> None:
        # Plane by plane: bincount makes eight bytes of each label first.
        classes = len(self.description.labels)
        counts = np.sum([np.bincount(plane.reshape(-1), minlength=classes) for plane in labels], axis=0)
        volumes = ", ".join(
            f"{name} {count * geometry.voxel_ml:.1f} ml"
            for name, count in list(zip(self.description.labels, counts, strict=True))[1:]
        )
        kind = str(self.precision).removeprefix("torch.")
        log.info("%s; %d voxels on %s, %s, in %s", volumes, labels.size, self.device.type, kind, stages)
