"""From one scan to labels on its own grid, a slab at a time: canonical order, resample, network, stitch, and back."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import voxelcore
from algorithm.bundle import Bundle
from algorithm.engines import (
    WORTH_CONVERTING,
    Engine,
    EngineName,
    Member,
    openvino_installed,
    with_openvino,
    with_torch,
)
from algorithm.errors import InputError
from algorithm.faults import broken_gpu, first_line, out_of_memory
from algorithm.findings import Peaks, count_labels, warn_of_missed, warn_of_removed
from algorithm.geometry import Geometry, canonical_orientation
from algorithm.images import label_image, scan_voxels
from algorithm.locate import Region
from algorithm.network import to_channels_last
from algorithm.precision import has_bfloat16, keep_wrong_in_float32
from algorithm.probabilities import ProbabilityExporter
from algorithm.progress import progress
from algorithm.stages import Stages

log = logging.getLogger(__name__)
ALIKE = (
    "labels",
    "channels",
    "spacing_zyx_mm",
    "window_hu",
    "normalisation",
    "patch_shape_zyx",
    "stitching",
    "postprocessing",
    "coarse_to_fine",
)
PreparedPlanes = Callable[[int, int], NDArray[np.float32]]


def default_device() -> torch.device:
    """Return the first CUDA device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _is_gpu(device: torch.device) -> bool:
    return device.type != "cpu"


class Segmenter:
    """A model bundle, or an ensemble of them, made ready on a device; one object segments any number of scans.

    The probabilities of an ensemble's members, and of each one's mirrored views, are averaged.

    Where a GPU's memory runs out, fewer patches go at once from then on; where one is too many, the CPU goes on with
    the scan, and the next begins on the GPU again. A GPU that fails ends the scan with its error; if it does not work
    any more, the CPU segments the scans that follow. The log says each. The CPU can do so where `bundles` have their
    networks on it, as `read_bundle` leaves them: the GPU gets copies. Of others only the number of patches falls.

    Args:
        bundles: what `algorithm.bundle.read_bundle` returns, or several that see scans alike, as those of a
            cross-validation do; mean and deviation may differ.
        device: where the networks run; by default the first CUDA device, else the CPU.
        patches_at_once: patches a forward pass.
        mirror_zyx: whether each patch is also seen mirrored along an axis; each axis doubles the time.
        precision: of the convolutions; "auto" takes bfloat16 where the processor computes in it and every bundle says
            that its labels stay the same.
        engine: what runs the networks; "auto" takes OpenVINO on a CPU, where it is installed and a scan is large
            enough to make good the seconds that converting the network takes.

    Raises:
        InputError: bundles that do not see scans alike; OpenVINO asked for where it is not installed, or for a GPU.

    """

    def __init__(
        self,
        bundles: Bundle | Sequence[Bundle],
        *,
        device: torch.device | None = None,
        patches_at_once: int = 1,
        mirror_zyx: tuple[bool, bool, bool] = (False, False, False),
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        engine: EngineName = "auto",
    ) -> None:
        members = [bundles] if isinstance(bundles, Bundle) else list(bundles)
        self.description = members[0].description
        self.device = default_device() if device is None else device
        self._spare: list[Bundle] = []  # of a GPU's networks, for the CPU
        self.notices = list(dict.fromkeys(notice for one in members for notice in one.notices))
        members = self._copied_to_gpu(members)
        self.patches_at_once = patches_at_once
        self._at_once = patches_at_once  # falls where memory runs out
        self._on_cpu = self._gpu_lost = False
        self._in_place: Segmenter | None = None
        self.temperature = math.prod(bundle.description.temperature for bundle in members) ** (
            1 / len(members)
        )
        same_labels = has_bfloat16(self.device) and all(bundle.description.bfloat16 for bundle in members)
        self.precision = (
            torch.bfloat16
            if precision == "bfloat16" or (precision == "auto" and same_labels)
            else torch.float32
        )
        coarse = members[0].coarse
        self.coarse = (
            None
            if coarse is None
            else Segmenter(coarse, device=self.device, precision=precision, engine=engine)
        )
        self.members = [self._member(bundle) for bundle in members]
        self.engines = [with_torch(member, self.device, self.precision) for member in self.members]
        self._engine = engine
        self._converted: list[Engine] = []
        if engine == "openvino":
            if self.device.type != "cpu":
                raise InputError(
                    f"OpenVINO runs on the CPU, got the device {self.device}; take --engine torch"
                )
            self._convert()
        torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32, on a GPU too
        self.mirror_zyx = mirror_zyx
        mirrored = [axis for axis, mirror in enumerate(mirror_zyx, start=2) if mirror]
        self.views = [
            axes for count in range(len(mirrored) + 1) for axes in itertools.combinations(mirrored, count)
        ]

    def _copied_to_gpu(self, bundles: list[Bundle]) -> list[Bundle]:
        """Return bundles with copies of their networks on the GPU; themselves where that is not where they go."""
        weights = itertools.chain.from_iterable(bundle.network.parameters() for bundle in bundles)
        if not _is_gpu(self.device) or any(weight.device.type != "cpu" for weight in weights):
            return bundles
        try:
            copies = [
                dataclasses.replace(bundle, network=copy.deepcopy(bundle.network).to(self.device))
                for bundle in bundles
            ]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            log.warning(
                "the model does not fit into the free memory of %s (%s): the CPU segments, which takes minutes a scan",
                *(self.device, first_line(error)),
            )
            self.device = torch.device("cpu")
            return bundles
        self._spare = bundles
        return copies

    def _member(self, bundle: Bundle) -> Member:
        ours, theirs = self.description, bundle.description
        for name in ALIKE:
            if getattr(ours, name) != getattr(theirs, name):
                raise InputError(
                    f"the bundles of an ensemble must see scans alike, but '{name}' is {getattr(ours, name)} in one "
                    f"and {getattr(theirs, name)} in another; segment with each by itself"
                )
        member = Member(bundle.network, ours, theirs).to(self.device).eval()
        if self.device.type == "cpu":
            to_channels_last(bundle.network)
            if self.precision == torch.bfloat16:
                keep_wrong_in_float32(bundle.network, self._batch_shape, gradients=False)
        return member

    @property
    def _batch_shape(self) -> tuple[int, ...]:
        description = self.description
        return (self.patches_at_once, len(description.channels), *description.patch_shape_zyx)

    def _convert(self) -> None:
        if not self._converted:
            self._converted = [
                with_openvino(member, self._batch_shape, self.precision, engine)
                for member, engine in zip(self.members, self.engines, strict=True)
            ]

    def _engines_for(self, patches: int) -> list[Engine]:
        """Return what runs the members on a scan of so many patches; the same scan always gets the same."""
        voxels = patches * len(self.views) * math.prod(self.description.patch_shape_zyx)
        worth = self.device.type == "cpu" and voxels >= WORTH_CONVERTING and openvino_installed()
        if self._engine == "openvino" or (self._engine == "auto" and worth):
            self._convert()
            return self._converted
        return self.engines

    def segment(self, image: sitk.Image) -> sitk.Image:
        """Return uint8 labels on exactly the grid of `image`: a 3-D scalar CT in HU, or what `voxels` takes.

        Raises:
            InputError: the bundle wants other channels, or one cannot be used.

        """
        geometry = Geometry.of(image)
        return label_image(self.labels(self.voxels(image), geometry), geometry)

    def voxels(self, image: sitk.Image) -> NDArray[np.int16]:
        """Return the voxels of an image as `labels` takes them, int16 (c, z, y, x).

        Args:
            image: 3-D with one number per voxel where the bundle has one channel; else 4-D or of vectors, with its
                channels in their order.

        Raises:
            InputError: the bundle wants other channels, or one cannot be used.

        """
        channels, dimensions = self.description.channels, image.GetDimension()
        found = image.GetNumberOfComponentsPerPixel() * (image.GetSize()[3] if dimensions == 4 else 1)
        refuse_other_channels(channels, found)
        return scan_voxels(image, channels, self.description.normalisation)

    def labels(
        self,
        volume: NDArray[np.int16],
        geometry: Geometry,
        stages: Stages | None = None,
        *,
        probabilities: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Segment an array: int16 (c, z, y, x) on `geometry` in, uint8 labels (z, y, x) out.

        Neither the volume on the network's grid nor its class maps are ever whole in memory: a slab of them is, as
        deep as a patch, from which labels are made as soon as no later patch can change them.

        Args:
            volume: int16 (c, z, y, x), or (z, y, x) where there is one channel: HU, or z-scores as
                `algorithm.intensities` makes them, whichever the bundle's normalisation says.
            geometry: where it lies in the patient.
            stages: receives the time of each stage. Who gives it calls `report` when the scan is done with.
            probabilities: uint8 (K, z, y, x) to be filled as `ProbabilityExporter` says: labels 1 to K-1, then the
                uncertainty. Outside the box of a coarse-to-fine bundle all are 0.

        Raises:
            InputError: the bundle wants another number of channels, or its weights are unusable.
            ValueError: the volume has not the shape of its geometry, or `probabilities` does not fit.

        """
        description = self.description
        if volume.ndim == 3:
            volume = volume[np.newaxis]
        if volume.shape[1:] != geometry.shape_zyx:
            raise ValueError(
                f"a volume on this geometry must have shape {geometry.shape_zyx}, got {volume.shape[1:]}"
            )
        refuse_other_channels(description.channels, len(volume))
        wanted = (len(description.labels), *geometry.shape_zyx)
        if probabilities is not None and (probabilities.dtype != np.uint8 or probabilities.shape != wanted):
            got = f"{probabilities.dtype} {probabilities.shape}"
            raise ValueError(f"probabilities must be uint8 {wanted} (K, z, y, x), got {got}")
        given, stages = stages, Stages() if stages is None else stages
        orientation = canonical_orientation(geometry)
        canonical, grid = orientation.view(volume), orientation.canonical(geometry)
        labels = np.zeros(geometry.shape_zyx, np.uint8)
        box = self._box(canonical, grid, stages)
        part, part_grid = canonical[(slice(None), *box)], grid.cropped(box)
        shape_zyx = voxelcore.resampled_shape(
            part_grid.shape_zyx, grid.spacing_zyx_mm, description.spacing_zyx_mm
        )
        exporter = voxelcore.LabelExporter(shape_zyx, orientation.view(labels)[box])
        peaks = Peaks(len(description.labels), self.temperature)
        weigh = description.postprocessing.weigh
        takers: list[Callable[[NDArray[np.float32]], object]] = [
            lambda planes: exporter.add(weigh(planes)),
            peaks.add,
        ]
        if probabilities is not None:
            probabilities[:] = 0
            out = orientation.view(probabilities)[(slice(None), *box)]
            takers.append(ProbabilityExporter(shape_zyx, out, temperature=self.temperature).add)
        for planes in self.class_maps(shape_zyx, self._prepared(part, shape_zyx), stages):
            with stages("export"):
                for take in takers:
                    take(planes)
        if exporter.done != part_grid.shape_zyx[0]:
            raise RuntimeError(f"{exporter.done} of {part_grid.shape_zyx[0]} planes were labelled")
        before = counts = count_labels(labels, len(description.labels))
        if description.postprocessing:
            with stages("postprocess"):
                description.postprocessing(labels, geometry)
            counts = count_labels(labels, len(description.labels))
        warn_of_removed(description.labels, before, counts, geometry.voxel_ml)
        warn_of_missed(description.labels, before, peaks, part_grid.resampled(shape_zyx).point_mm)
        if given is None:
            self.report(counts, geometry, stages)
        return labels

    def _prepared(self, canonical: NDArray[np.int16], shape_zyx: tuple[int, int, int]) -> PreparedPlanes:
        """Return what gives `class_maps` the normalised planes of a volume (c, z, y, x) in canonical order."""
        description = self.description
        preprocessors = [
            voxelcore.SlabPreprocessor(
                channel.shape, shape_zyx, window_hu=description.window_hu, mean=mean, std=std
            )
            for channel, mean, std in zip(canonical, description.mean, description.std, strict=True)
        ]

        def prepared(begin: int, end: int) -> NDArray[np.float32]:
            result = np.empty((len(canonical), end - begin, *shape_zyx[1:]), np.float32)
            for channel, preprocess, out in zip(canonical, preprocessors, result, strict=True):
                first, stop = preprocess.needs(begin, end)
                preprocess(np.ascontiguousarray(channel[first:stop]), first, begin, end, out=out)
            return result

        return prepared

    def _box(self, canonical: NDArray[np.int16], grid: Geometry, stages: Stages) -> Region:
        """Return the voxels that full resolution is for: all, or those that the coarse pass chooses."""
        description = self.description
        whole = (slice(0, grid.shape_zyx[0]), slice(0, grid.shape_zyx[1]), slice(0, grid.shape_zyx[2]))
        if self.coarse is None or description.coarse_to_fine is None:
            return whole
        with stages("locate"):
            spacing = grid.spacing_zyx_mm
            coarse = self.coarse
            shape_zyx = voxelcore.resampled_shape(grid.shape_zyx, spacing, coarse.description.spacing_zyx_mm)
            planes = coarse.class_maps(shape_zyx, coarse._prepared(canonical, shape_zyx), what="locating")
            found = _most_probable(planes)
            z, y, x = np.multiply(description.patch_shape_zyx, description.spacing_zyx_mm).tolist()
            box = description.coarse_to_fine.region(found, grid.shape_zyx, spacing, (z, y, x))
        if isinstance(box, str):
            log.info("the coarse pass is unsure (%s), so the whole scan is segmented", box)
            return whole
        log.info(
            "the coarse pass chose %s of %s mm (z, y, x)", *(_millimetres(b, spacing) for b in (box, whole))
        )
        return box

    def class_maps(
        self,
        shape_zyx: tuple[int, int, int],
        prepared: PreparedPlanes,
        stages: Stages | None = None,
        *,
        what: str = "segmenting",
    ) -> Iterator[NDArray[np.float32]]:
        """Yield class probabilities (K, d, y, x) on the network's grid, from the first plane to the last.

        Args:
            shape_zyx: of the whole volume on the network's grid.
            prepared: returns its normalised planes `begin` to `end` as (c, end - begin, y, x), C-contiguous.
            stages: receives the time of each stage.
            what: the word for it in the progress bar.

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
        self._on_cpu = self._gpu_lost
        batches = self._batches(tiling)
        with stages("load"):
            engines = self._engines_for(len(tiling.starts_zyx))
        for starts_zyx in progress(batches, total=len(batches), what=what, unit="batches"):
            with stages("prepare"):
                if begin != max(int(starts_zyx[0, 0]), 0):
                    begin = max(int(starts_zyx[0, 0]), 0)
                    slab = nothing  # so that two are never in memory
                    slab = prepared(begin, min(begin + description.patch_shape_zyx[0], shape_zyx[0]))
                patches = self._cut(slab, starts_zyx - np.array([begin, 0, 0]))
            with stages("network"):
                probabilities = self._forward(patches, engines)
            for patch in probabilities:
                with stages("stitch"):
                    planes = stitcher.add(patch)
                if planes.shape[1] > 0:
                    yield planes

    def network_labels(self, prepared: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return labels (z, y, x) on the network's grid for a normalised volume (c, z, y, x) on it."""
        shape_zyx = (prepared.shape[1], prepared.shape[2], prepared.shape[3])
        planes = self.class_maps(shape_zyx, lambda begin, end: np.ascontiguousarray(prepared[:, begin:end]))
        return _most_probable(map(self.description.postprocessing.weigh, planes))

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

    def _forward(self, patches: NDArray[np.float32], engines: Sequence[Engine]) -> NDArray[np.float32]:
        """Return class probabilities (n, K, z, y, x), the mean over all members and views.

        Where memory runs out, they are computed in smaller batches, and at last on the CPU.
        """
        while not self._on_cpu:
            step = self._at_once
            try:
                parts = [
                    self._mean(patches[first : first + step], engines)
                    for first in range(0, len(patches), step)
                ]
            except Exception as error:
                if broken_gpu(error):
                    self._look_after_gpu()
                    raise
                count = min(step, len(patches))
                if not out_of_memory(error) or (count == 1 and not self._spare):
                    raise
                why = first_line(error)
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)
            # only here is what the error held on to free again
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._on_cpu = count == 1
            self._at_once = max(1, count // 2)
            then = "the CPU goes on with this scan, which takes minutes"
            if count > 1:
                then = f"from now on {self._at_once}"
            many = f"{count} patches at once need" if count > 1 else "a patch needs"
            log.warning("%s more memory than %s has (%s): %s", many, self.device, why, then)
        in_place = self._cpu_in_place()
        return np.concatenate([in_place._mean(patch[np.newaxis], in_place.engines) for patch in patches])

    def _cpu_in_place(self) -> Segmenter:
        """Return what computes the same on the CPU."""
        if self._in_place is None:
            self._in_place = Segmenter(self._spare, device=torch.device("cpu"), engine="torch")
            self._in_place.views = self.views
        return self._in_place

    def _look_after_gpu(self) -> None:
        """Find out whether the GPU still works after an error, which most often ends its use by this process."""
        try:
            torch.ones(1, device=self.device).add_(1).item()
        except RuntimeError:
            if self._spare and not self._gpu_lost:
                self._gpu_lost = True
                log.warning(
                    "%s does not work any more in this process: the CPU segments the scans that follow, which takes "
                    "minutes each",
                    self.device,
                )

    @torch.inference_mode()
    def _mean(self, patches: NDArray[np.float32], engines: Sequence[Engine]) -> NDArray[np.float32]:
        """Return class probabilities (n, K, z, y, x), the mean over all members and views."""
        on_device = torch.from_numpy(patches).to(self.device)
        total: torch.Tensor | None = None
        for engine, axes in itertools.product(engines, self.views):
            probabilities = engine(on_device.flip(axes) if axes else on_device)
            if axes:
                probabilities = probabilities.flip(axes)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        if not bool(total.isfinite().all()):
            # An argmax over NaN would say "background", which reads as "no tumour".
            raise InputError(
                "the network's output is not finite, so its weights are unusable; train the model anew"
            )
        summands = len(engines) * len(self.views)
        mean: NDArray[np.float32] = (total if summands == 1 else total.div_(summands)).cpu().numpy()
        return mean

    def report(self, counts: NDArray[np.int64], geometry: Geometry, stages: Stages) -> None:
        """Log a line about a scan: volumes of the labels, of which `counts` voxels were found, device and times.

        The notices of the bundles follow as warnings.
        """
        volumes = ", ".join(
            f"{name} {count * geometry.voxel_ml:.1f} ml"
            for name, count in list(zip(self.description.labels, counts, strict=True))[1:]
        )
        kind = str(self.precision).removeprefix("torch.")
        voxels = math.prod(geometry.shape_zyx)
        where = self.device.type
        if self._on_cpu:
            where, kind = "cpu, in place of " + where, "float32"
        log.info("%s; %d voxels on %s, %s, in %s", volumes, voxels, where, kind, stages)
        for notice in self.notices:
            log.warning("%s", notice)


def refuse_other_channels(channels: Sequence[str], found: int) -> None:
    """Raise InputError unless a scan has as many channels as a bundle names."""
    if found != len(channels):
        wanted = f"{len(channels)} channels ({', '.join(channels)})" if len(channels) > 1 else "one channel"
        got = "one image" if found == 1 else f"an image of {found} channels"
        raise InputError(f"the bundle wants {wanted}, got {got}")


def _most_probable(planes: Iterator[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return labels (z, y, x) of class maps that come as planes (K, d, y, x)."""
    return np.concatenate([maps.argmax(axis=0).astype(np.uint8) for maps in planes])


def _millimetres(box: Region, spacing_zyx_mm: Sequence[float]) -> str:
    sides = (side.stop - side.start for side in box)
    return " x ".join(f"{size * spacing:.0f}" for size, spacing in zip(sides, spacing_zyx_mm, strict=True))
