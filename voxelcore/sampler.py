"""Batches of image and label patches, drawn from whole volumes and read ahead by threads."""

from __future__ import annotations

import math
import operator
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxelcore import _core
from voxelcore.sampling import STREAMS, draw_starts, draw_volumes

LABEL_STREAM = STREAMS + 2**30  # of random numbers: which label a patch must hold
VOXEL_STREAM = STREAMS + 2**30 + 1  # which of its voxels
DTYPES = (np.uint8, np.int16, np.float16, np.float32)
PLANES_AT_A_TIME = 64  # of a label map that is not in memory

Allocate = Callable[[tuple[int, ...], np.dtype[Any]], npt.NDArray[Any]]


class Volume(Protocol):
    """A NumPy array, a memory map, an h5py data set: anything with a shape, a dtype and slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def dtype(self) -> Any:
        """Type of the voxels."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a box of voxels."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches and where they are from.

    Attributes:
        images: (n, c, pz, py, px) in the dtype of the images.
        labels: uint8 (n, pz, py, px).
        volume: int64 (n,), index of the volume.
        start_zyx: int64 (n, 3), first voxel of the patch; negative where the volume is thinner.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.uint8]
    volume: npt.NDArray[np.int64]
    start_zyx: npt.NDArray[np.int64]


class PatchSampler:
    """Draws patches of equal shape from volumes of any shape; batch k of an epoch is a function of (seed, epoch, k).

    For each patch a volume is drawn by `volume_weights`. With probability `label_shares[l]` the patch then holds a
    voxel of label l, drawn uniformly among all of the volume, and its start is uniform over those that keep it
    inside the volume and hold that voxel; with the rest of the probability the start is uniform over all. Where a
    volume lacks the label, its share goes to uniform starts. Volumes thinner than the patch are padded with their
    edge voxels. The draws are `draw_volumes`, `uniform` and `draw_starts` of voxelcore.

    Arrays in memory and memory maps are read in place. Other volumes (h5py data sets) are read box by box, and
    their label maps once, when the sampler is made.

    Args:
        images: (c, z, y, x) each, all of one dtype (uint8, int16, float16 or float32) and as many channels.
        labels: uint8 (z, y, x) each, on the grid of its image.
        patch_shape_zyx: (pz, py, px).
        batch_size: patches of a batch.
        seed: 0 to 2**64 - 1.
        label_shares: probability by label value; their sum is at most 1. {1: 1/3} is nnU-Net's custom.
        volume_weights: None for equal ones; the paper (section 3.1) takes the number of voxels.

    Raises:
        TypeError: for volumes of another dtype, or of several.
        ValueError: for arrays that are not C-contiguous, shapes that do not belong together, or shares and weights
            out of range.
    """

    def __init__(
        self,
        images: Sequence[Volume],
        labels: Sequence[Volume],
        patch_shape_zyx: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        label_shares: Mapping[int, float] | None = None,
        volume_weights: Sequence[float] | None = None,
    ) -> None:
        _check_volumes(images, labels)
        if operator.index(batch_size) < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        shares = dict(label_shares or {})
        if any(not 0 <= share <= 1 for share in shares.values()) or math.fsum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"label_shares must be probabilities whose sum is at most 1, got {shares}")
        if any(not 0 <= operator.index(label) <= 255 for label in shares):
            raise ValueError(f"label_shares must be for labels 0 to 255, got {sorted(shares)}")
        weights = np.ones(len(images)) if volume_weights is None else np.asarray(volume_weights, np.float64)
        if weights.shape != (len(images),):
            raise ValueError(f"volume_weights must be {len(images)} numbers, got shape {weights.shape}")
        self.patch_shape_zyx = tuple(operator.index(size) for size in patch_shape_zyx)
        self.batch_size = batch_size
        self._images = list(images)
        self._labels = list(labels)
        self._seed = seed
        self._weights = weights
        self._shares = [(label, share) for label, share in sorted(shares.items()) if share > 0]
        self._edges = np.cumsum([share for _, share in self._shares])
        self._runs = [_label_runs(each, [label for label, _ in self._shares]) for each in labels]
        self.draw(0)  # refuses a seed, weights or a patch shape out of range now and not in a thread later

    def draw(self, index: int, *, epoch: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return volume int64 (n,) and start int64 (n, 3) of each patch of batch `index` of an epoch.

        Raises:
            ValueError: for an index below 0, or so large that its patches cannot be counted in 64 bits.
        """
        if not 0 <= index < 2**63 // self.batch_size:
            raise ValueError(f"index must be 0 to {2**63 // self.batch_size - 1}, got {index}")
        counters = np.arange(self.batch_size, dtype=np.int64) + index * self.batch_size
        random = {"seed": self._seed, "epoch": epoch}
        volume = draw_volumes(self._weights, counters, **random)
        which = np.searchsorted(
            self._edges, _core.uniform(counters, self._seed, epoch, LABEL_STREAM), side="right"
        )
        fraction = _core.uniform(counters, self._seed, epoch, VOXEL_STREAM)
        start = np.empty((self.batch_size, 3), np.int64)
        for i, number in enumerate(volume):
            around = self._voxel(number, which[i], fraction[i])
            shape = self._labels[number].shape
            start[i] = draw_starts(shape, self.patch_shape_zyx, counters[i : i + 1], around=around, **random)
        return volume, start

    def batch(
        self, index: int, *, epoch: int = 0, out: Batch | None = None, threads: int | None = None
    ) -> Batch:
        """Return batch `index`, >= 0, of an epoch; into the arrays of `out` if given.

        Args:
            index: any number; batches need not be made in order.
            epoch: 0 to 2**32 - 1.
            out: a batch of this sampler, as `allocate` makes it.
            threads: of the copying; the default of `get_threads()` if None.
        """
        batch = self.allocate() if out is None else out
        batch.volume[:], batch.start_zyx[:] = self.draw(index, epoch=epoch)
        images, starts = self._sources(self._images, batch)
        _core.extract_each(images, starts, batch.images, threads)
        labels, starts = self._sources(self._labels, batch)
        _core.extract_each(labels, starts, batch.labels[:, np.newaxis], threads)
        return batch

    def allocate(self, empty: Allocate = np.empty) -> Batch:
        """Return a batch whose arrays `empty(shape, dtype)` makes, such as pinned ones; their content is undefined."""
        shape = self.patch_shape_zyx
        return Batch(
            images=empty(
                (self.batch_size, self._images[0].shape[0], *shape), np.dtype(self._images[0].dtype)
            ),
            labels=empty((self.batch_size, *shape), np.dtype(np.uint8)),
            volume=np.empty(self.batch_size, np.int64),
            start_zyx=np.empty((self.batch_size, 3), np.int64),
        )

    def batches(
        self,
        which: Sequence[int],
        *,
        epoch: int = 0,
        threads: int = 2,
        ahead: int = 2,
        empty: Allocate = np.empty,
    ) -> Iterator[Batch]:
        """Yield the batches `which` of an epoch in that order, made ahead of their use by threads.

        A batch's arrays are used again: they stay as they are until the batch after the next one is asked for, so
        that one batch can be copied to a device while the next is waited for. The threads are gone when the
        iterator is exhausted, closed or dropped, and when one fails; the failure is raised here.

        Args:
            which: their numbers: `range(250)` for an epoch, `range(100, 250)` to go on where one stopped,
                `range(rank, 250, processes)` for one of several processes.
            epoch: 0 to 2**32 - 1.
            threads: batches that are made at a time, >= 1.
            ahead: batches that may be ready before they are asked for, >= 1; `ahead` + 2 are in memory.
            empty: makes the arrays, as for `allocate`.

        Raises:
            ValueError: for threads or ahead below 1.
        """
        for name, value in (("threads", threads), ("ahead", ahead)):
            if operator.index(value) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        return self._batches(list(which), epoch, threads, ahead, empty)

    def _batches(
        self, indices: list[int], epoch: int, threads: int, ahead: int, empty: Allocate
    ) -> Iterator[Batch]:
        free: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for _ in range(min(ahead + 2, len(indices))):
            free.put(self.allocate(empty))
        waiting, ready = iter(indices), queue.SimpleQueue[Future[Batch]]()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="voxelcore-sampler")

        def start_next(into: Batch) -> None:
            index = next(waiting, None)
            if index is not None:
                ready.put(pool.submit(self.batch, index, epoch=epoch, out=into, threads=1))

        given: list[Batch] = []
        try:
            for _ in range(min(ahead, len(indices))):
                start_next(free.get())
            for _ in indices:
                batch = ready.get().result()
                given.append(batch)
                if len(given) > 2:
                    free.put(given.pop(0))
                if not free.empty():
                    start_next(free.get())
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _voxel(self, volume: int, which: int, fraction: float) -> npt.NDArray[np.int64] | None:
        """Return the flat index of a voxel of the drawn label, None where the start is free."""
        if which >= len(self._shares):
            return None
        start, cumulative = self._runs[volume][self._shares[which][0]]
        if not len(cumulative):
            return None
        rank = int(fraction * int(cumulative[-1]))
        run = int(np.searchsorted(cumulative, rank, side="right"))
        before = int(cumulative[run - 1]) if run else 0
        return np.array([int(start[run]) + rank - before], np.int64)

    def _sources(
        self, volumes: Sequence[Volume], batch: Batch
    ) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.int64]]:
        """Return what to cut each patch from, (c, z, y, x), and where; boxes of volumes that are not in memory."""
        sources: list[npt.NDArray[Any]] = []
        starts = batch.start_zyx.copy()
        for i, number in enumerate(batch.volume):
            volume = volumes[number]
            if isinstance(volume, np.ndarray):
                source = volume
            else:
                size = np.array(volume.shape[-3:])
                low = np.clip(starts[i], 0, size - 1)
                high = np.clip(starts[i] + self.patch_shape_zyx, low + 1, size)
                box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
                source = np.ascontiguousarray(volume[(Ellipsis, *box)])
                starts[i] -= low
            sources.append(source if source.ndim == 4 else source[np.newaxis])
        return sources, starts


def _check_volumes(images: Sequence[Volume], labels: Sequence[Volume]) -> None:
    if not images or len(images) != len(labels):
        raise ValueError(f"images and labels must be as many, and some, got {len(images)} and {len(labels)}")
    dtypes = sorted({str(np.dtype(image.dtype)) for image in images})
    if len(dtypes) > 1 or np.dtype(images[0].dtype) not in DTYPES:
        raise TypeError(f"images must all be uint8, int16, float16 or float32, got {', '.join(dtypes)}")
    channels = {image.shape[0] if len(image.shape) == 4 else None for image in images}
    if len(channels) > 1 or not channels - {None, 0}:
        shapes = sorted({tuple(image.shape) for image in images})
        raise ValueError(f"images must all be (c, z, y, x) with the same channels, got shapes {shapes}")
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        if np.dtype(label.dtype) != np.uint8:
            raise TypeError(f"labels must have dtype uint8, got {label.dtype} for volume {number}")
        if tuple(label.shape) != tuple(image.shape[1:]):
            raise ValueError(
                f"labels must lie on the grid of their image, got {label.shape} for {image.shape}, volume {number}"
            )
    for array in (*images, *labels):
        if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
            raise ValueError("images and labels must be C-contiguous; pass numpy.ascontiguousarray of each")


def _label_runs(
    labels: Volume, wanted: Sequence[int]
) -> dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the runs of each label along the flat index: starts, and voxels up to the end of each."""
    if isinstance(labels, np.ndarray):
        return {label: _core.label_runs(labels, label) for label in wanted}
    plane = int(np.prod(labels.shape[1:]))
    starts: dict[int, list[npt.NDArray[np.int64]]] = {label: [np.empty(0, np.int64)] for label in wanted}
    counts: dict[int, list[npt.NDArray[np.int64]]] = {label: [np.empty(0, np.int64)] for label in wanted}
    held = dict.fromkeys(wanted, 0)
    for z in range(0, labels.shape[0] if wanted else 0, PLANES_AT_A_TIME):
        slab = np.ascontiguousarray(labels[z : z + PLANES_AT_A_TIME])
        for label in wanted:
            start, cumulative = _core.label_runs(slab, label)
            starts[label].append(start + z * plane)
            counts[label].append(cumulative + held[label])
            held[label] += int(cumulative[-1]) if len(cumulative) else 0
    return {label: (np.concatenate(starts[label]), np.concatenate(counts[label])) for label in wanted}
