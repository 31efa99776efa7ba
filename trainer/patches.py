"""Patches for training, read from the files that `decathlon prepare` writes."""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

import voxelcore
from algorithm.errors import InputError
from trainer.patchfile import CHUNKED, FORMAT, FORMAT_VERSION, PatchMeta, decode_chunk

__all__ = ["Batches", "PatchFile", "PatchMeta"]

Images = NDArray[np.int16]
Labels = NDArray[np.uint8]
SHUFFLE = 1  # stream of random numbers for the order of an epoch


class PatchFile:
    """One patch file, open for reading by any number of threads.

    HDF5 is opened once, to learn where each chunk lies, and closed again. Chunks are then read with `pread`
    and unpacked in the calling thread: no HDF5 lock keeps threads waiting for each other, and no HDF5 handle
    is ever carried across a fork or a pickle.

    Attributes:
        path: the file.
        meta: its attributes.

    Raises:
        InputError: no such file, not a patch file, or a damaged one.

    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"there is no patch file {self.path}: run decathlon prepare first")
        self._size = self.path.stat().st_size
        try:
            with h5py.File(self.path, "r") as file:
                self.meta = _read_meta(file, self.path)
                self._chunks = {name: _chunk_table(file, name, self.meta, self.path) for name in CHUNKED}
                self.case: NDArray[np.int32] = _column(file, "case", (self.meta.patches,), self.path)
                self.start_zyx: NDArray[np.int32] = _column(
                    file, "start_zyx", (self.meta.patches, 3), self.path
                )
        except OSError as error:
            raise InputError(f"{self.path} is not a readable HDF5 file: {error}") from error
        self._opened: tuple[int, int] | None = None  # process and descriptor
        self._opening = threading.Lock()

    def __len__(self) -> int:
        return self.meta.patches

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[Images, Labels]:
        """Return images int16 (n, c, z, y, x) and labels uint8 (n, z, y, x) of the patches `indices`.

        Raises:
            IndexError: an index outside 0 … len(self) - 1.
            InputError: a chunk that cannot be unpacked.

        """
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"patch index must be 0 to {len(self) - 1}, got {index}")
        shape = self.meta.patch_shape_zyx
        images = np.empty((len(indices), len(self.meta.channels), *shape), dtype=np.int16)
        labels = np.empty((len(indices), *shape), dtype=np.uint8)
        descriptor = self._descriptor()
        for place, index in enumerate(indices):
            for name, out in (("image", images[place]), ("label", labels[place])):
                offset, size = self._chunks[name][index]
                try:
                    decode_chunk(os.pread(descriptor, size, offset), out)
                except (zlib.error, ValueError) as error:
                    raise InputError(
                        f"the {name} of patch {index} is damaged in {self.path}: {error}; "
                        "delete the file and run decathlon prepare again"
                    ) from error
        return images, labels

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        with self._opening:
            if self._opened is not None and self._opened[0] == os.getpid():
                os.close(self._opened[1])
            self._opened = None

    def __enter__(self) -> PatchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_opened", None) is not None:
            self.close()

    def _descriptor(self) -> int:
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
            return self._opened[1]


class Batches:
    """Epochs of batches from a patch file, in an order that only (seed, epoch) decide, read ahead by threads.

    Args:
        file: the patches.
        batch_size: patches of a batch; the last batch of an epoch may hold fewer.
        seed: of the order.
        shuffle: False keeps the order of the file.
        limit: use only this many patches, the first of the file: they are as good a sample as any other.
        part: (which, of how many) processes that share each step. Every one gets its own batch; patches that do not
            make a batch for each are left out of the epoch.
        threads: batches that are unpacked at a time.
        ahead: batches that may be ready before they are asked for; memory is bounded by it.

    """

    def __init__(
        self,
        file: PatchFile,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        limit: int | None = None,
        part: tuple[int, int] = (0, 1),
        threads: int = 2,
        ahead: int = 4,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("threads", threads), ("ahead", ahead)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if limit is not None and not 1 <= limit <= len(file):
            raise ValueError(f"limit must be 1 to {len(file)}, the patches of {file.path}, got {limit}")
        self.file = file
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.patches = len(file) if limit is None else limit
        self.part = part
        self.threads = threads
        self.ahead = ahead

    def __len__(self) -> int:
        """Batches of an epoch."""
        _, parts = self.part
        return (
            -(-self.patches // self.batch_size) if parts == 1 else self.patches // (self.batch_size * parts)
        )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the patch indices of an epoch in their order, int64 (patches,)."""
        counters = np.arange(self.patches, dtype=np.int64)
        if not self.shuffle:
            return counters
        rank = voxelcore.uniform(counters, seed=self.seed, epoch=epoch, stream=SHUFFLE)
        return np.argsort(rank, kind="stable").astype(np.int64)

    def batches(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Images, Labels]]:
        """Yield (images int16 (n, c, z, y, x), labels uint8 (n, z, y, x)) from batch `first_batch` on.

        Reading ahead ends, and its threads are gone, when the iterator is exhausted, closed or dropped, and
        when reading fails: the failure is raised here.
        """
        order = self.order(epoch)
        waiting = deque(
            order[first : first + self.batch_size]
            for first in (
                (batch * self.part[1] + self.part[0]) * self.batch_size
                for batch in range(first_batch, len(self))
            )
        )
        ready: deque[Future[tuple[Images, Labels]]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="patches")
        try:
            while waiting or ready:
                while waiting and len(ready) < self.ahead:
                    ready.append(pool.submit(self.file.read, waiting.popleft()))
                yield ready.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read_meta(file: h5py.File, path: Path) -> PatchMeta:
    if file.attrs.get("format") != FORMAT:
        raise InputError(f"{path} is an HDF5 file, but not one that decathlon prepare wrote")
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has patch format {version}, but {FORMAT_VERSION} is read: run decathlon prepare again"
        )
    try:
        return PatchMeta.read(file.attrs)
    except KeyError as error:
        raise InputError(f"the attribute {error.args[0]} is missing in {path}") from error


def _chunk_table(file: h5py.File, name: str, meta: PatchMeta, path: Path) -> list[tuple[int, int]]:
    """Return file offset and bytes of every chunk, in the order of the patches."""
    shape = meta.patch_shape_zyx if name == "label" else (len(meta.channels), *meta.patch_shape_zyx)
    kind = np.dtype(np.uint8 if name == "label" else "<i2")
    dataset = _dataset(file, name, (meta.patches, *shape), path)
    if (
        dataset.dtype != kind
        or dataset.chunks != (1, *shape)
        or not dataset.shuffle
        or not dataset.compression
    ):
        raise InputError(
            f"the dataset {name} must be {kind} in shuffled gzip chunks of one patch, but is not in {path}"
        )
    table: dict[int, tuple[int, int]] = {}
    plain = True

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal plain
        plain = plain and chunk.filter_mask == 0
        table[chunk.chunk_offset[0]] = (chunk.byte_offset, chunk.size)

    dataset.id.chunk_iter(note)
    if sorted(table) != list(range(meta.patches)) or not plain:
        raise InputError(f"the dataset {name} must hold {meta.patches} patches, but is incomplete in {path}")
    return [table[index] for index in range(meta.patches)]


def _dataset(file: h5py.File, name: str, shape: tuple[int, ...], path: Path) -> h5py.Dataset:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"the dataset {name} is missing in {path}")
    if dataset.shape != shape:
        raise InputError(f"the dataset {name} must have shape {shape}, but has {dataset.shape} in {path}")
    return dataset


def _column(file: h5py.File, name: str, shape: tuple[int, ...], path: Path) -> NDArray[np.int32]:
    column: NDArray[np.int32] = _dataset(file, name, shape, path)[:]
    return column
