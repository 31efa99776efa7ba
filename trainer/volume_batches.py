"""Batches drawn on the fly from resampled volumes, by the sampler of voxelcore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import voxelcore
from algorithm.errors import InputError
from trainer.volumes import IMAGE, LABEL, map_array


class Source(Protocol):
    """What the training loop takes batches from; `trainer.patches.Batches` is one, too."""

    def __len__(self) -> int:
        """Batches of an epoch."""

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield (images int16 (n, c, z, y, x), labels uint8 (n, z, y, x)), NumPy arrays or tensors."""


class VolumeBatches:
    """Epochs of patches from whole volumes, memory-mapped and read ahead by threads of this process.

    A patch is a function of (seed, epoch, its place in the epoch): see `voxelcore.PatchSampler`. Volumes are drawn in
    proportion to their voxels (paper, section 3.1).

    Args:
        volumes: image int16 (c, z, y, x) and label uint8 (z, y, x) of each case.
        patch_shape_zyx: voxels of a patch.
        batch_size: patches of a batch.
        patches: of an epoch, rounded up to whole batches.
        label_shares: for each label the share of patches that are to hold it.
        seed: of all draws.
        part: (which, of how many) processes that share each step.
        threads: batches that are made at a time.
        ahead: batches that may be ready before they are asked for.
        pinned: keep batches in memory from which a GPU copies by itself.

    """

    def __init__(
        self,
        volumes: Sequence[tuple[NDArray[np.int16], NDArray[np.uint8]]],
        patch_shape_zyx: Sequence[int],
        batch_size: int,
        *,
        patches: int,
        label_shares: Sequence[float],
        seed: int,
        part: tuple[int, int] = (0, 1),
        threads: int = 2,
        ahead: int = 4,
        pinned: bool = False,
    ) -> None:
        images, labels = [image for image, _ in volumes], [label for _, label in volumes]
        self.sampler = voxelcore.PatchSampler(
            images,
            labels,
            patch_shape_zyx,
            batch_size=batch_size,
            seed=seed,
            label_shares={label: share for label, share in enumerate(label_shares) if share > 0},
            volume_weights=[label.size for label in labels],
        )
        self._part = part
        self._count = -(-patches // (batch_size * part[1]))
        self._options: dict[str, Any] = {"threads": threads, "ahead": ahead}
        if pinned:
            self._options["empty"] = _pinned

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self._count

    def batches(
        self, epoch: int, first_batch: int = 0
    ) -> Iterator[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
        """Yield batches from `first_batch` on; an array is used again two batches later."""
        which = [self.place(number) for number in range(first_batch, self._count)]
        for batch in self.sampler.batches(which, epoch=epoch, **self._options):
            yield batch.images, batch.labels

    def place(self, batch: int) -> int:
        """Return which batch of the sampler is this process's part of the step `batch`."""
        return batch * self._part[1] + self._part[0]


class DeviceVolumeBatches:
    """The same patches as `VolumeBatches`, cut on the device that holds all volumes: nothing is copied to it.

    281 scans of Task07 at 2.5 x 0.8 x 0.8 mm take 22 GB, image and label.

    Args:
        host: draws the patches.
        volumes: as for `host`.
        device: that holds them.

    """

    def __init__(
        self,
        host: VolumeBatches,
        volumes: Sequence[tuple[NDArray[np.int16], NDArray[np.uint8]]],
        device: torch.device,
    ) -> None:
        self._host = host
        self._volumes = [
            (torch.from_numpy(np.array(image)).to(device), torch.from_numpy(np.array(label)).to(device))
            for image, label in volumes
        ]
        self._device = device

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._host)

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches from `first_batch` on, on the device."""
        for index in range(first_batch, len(self)):
            volume, start_zyx = self._host.sampler.draw(self._host.place(index), epoch=epoch)
            cut = [self._cut(int(number), start) for number, start in zip(volume, start_zyx, strict=True)]
            yield torch.stack([image for image, _ in cut]), torch.stack([label for _, label in cut])

    def _cut(self, number: int, start_zyx: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        image, label = self._volumes[number]
        patch = self._host.sampler.patch_shape_zyx
        stop_zyx = start_zyx + patch
        if np.all(start_zyx >= 0) and np.all(stop_zyx <= label.shape):
            box = tuple(slice(int(first), int(stop)) for first, stop in zip(start_zyx, stop_zyx, strict=True))
            return image[:, box[0], box[1], box[2]], label[box]
        # One that leaves the volume repeats its edge voxels; fetching voxels one by one is slower.
        z, y, x = (
            torch.arange(first, first + size, device=self._device).clamp(0, n - 1)
            for first, size, n in zip(start_zyx, patch, label.shape, strict=True)
        )
        place = (z[:, None, None], y[None, :, None], x[None, None, :])
        return image[:, place[0], place[1], place[2]], label[place]


def open_volumes(
    work: Path, names: Sequence[str], needed_by: str = "source", otherwise: str = "set source=patches"
) -> list[tuple[NDArray[np.int16], NDArray[np.uint8]]]:
    """Map the volumes that `decathlon prepare` left in WORK/volumes.

    `needed_by` is the setting that asks for them, and `otherwise` how to do without, for the message.

    Raises:
        InputError: one is missing.

    """
    volumes = []
    for name in names:
        try:
            image, label = (map_array(work / "volumes" / name / part) for part in (IMAGE, LABEL))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{needed_by} needs the volume {work / 'volumes' / name}, which cannot be read ({error}); "
                f"run decathlon prepare again, or {otherwise}"
            ) from None
        volumes.append((image, label))
    return volumes


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    kind = {"int16": torch.int16, "uint8": torch.uint8}[dtype.name]
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()
