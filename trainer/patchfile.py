"""The HDF5 format of the patches: what is in it, and how it is written whole.

Datasets, one patch a chunk, so that a patch is one read:

    image      int16 (n, c, z, y, x), clipped, not normalised: HU, or z-scores in thousandths
    label      uint8 (n, z, y, x)
    case       int32 (n,), a place in `training_cases` or `validation_cases`
    start_zyx  int32 (n, 3), first voxel in the resampled case; below 0 where the patch is padded

Attributes: `format`, and every field of `PatchMeta`. Chunks are plain HDF5 shuffle + gzip, which every HDF5
library reads. They are compressed here, on all threads, since HDF5 itself compresses under one lock. zlib
runs with its run-length strategy: CT noise has no repeats to find, and on shuffled bytes of clipped CT it was
both the smallest (17 % of the raw size, against 18 % for gzip level 1 and 22 % for lzf) and fast (280 MB/s a
core, against 190 and 310).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from algorithm.files import replacing
from algorithm.intensities import Normalisation

FORMAT = "decathlon-unet patches"
FORMAT_VERSION = 1
DRIVER = {"libver": ("v110", "v110")}  # a fixed version, so that equal content gives equal bytes
CHUNKED, COLUMNS = ("image", "label"), ("case", "start_zyx")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class PatchMeta:
    """Everything about a patch file that is not a patch; inference takes its preprocessing from here.

    Attributes:
        format_version: of the file layout.
        role: "training" or "validation".
        dataset_name: as in dataset.json.
        dataset_hash: of the names and files of all cases in use.
        labels: label names by value.
        channels: channel names.
        spacing_zyx_mm: grid spacing of the patches.
        window_hu: lowest and highest value kept.
        patch_shape_zyx: voxels of a patch.
        patches: how many there are.
        seed: the source of chance.
        training_cases: names, in the order of dataset.json.
        validation_cases: likewise.
        overfit: whether a case may be on both sides.
        quota_labels: label values with a quota.
        quota_shares: the least share of patches that hold each.
        quota_natural: patches of this file that held each by chance.
        quota_held: patches of this file that hold each.
        mean: of all voxels of the training patches, per channel.
        std: likewise, with divisor n.
        class_voxels: voxels of each label in the training patches.
        version: of decathlon-unet that wrote the file.
        normalisation: "window" where images are in HU; else they are z-scores. Older files lack it: "window".

    """

    format_version: int
    role: str
    dataset_name: str
    dataset_hash: str
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    spacing_zyx_mm: tuple[float, float, float]
    window_hu: tuple[int, int]
    patch_shape_zyx: tuple[int, int, int]
    patches: int
    seed: int
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    overfit: bool
    quota_labels: tuple[int, ...]
    quota_shares: tuple[float, ...]
    quota_natural: tuple[int, ...]
    quota_held: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_voxels: tuple[int, ...]
    version: str
    normalisation: Normalisation = "window"

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases that this file's patches are from."""
        return self.training_cases if self.role == "training" else self.validation_cases

    @property
    def digest(self) -> str:
        """SHA-256 over all attributes but the version: equal for equal patches, another for any other."""
        content = {name: value for name, value in dataclasses.asdict(self).items() if name != "version"}
        if self.normalisation == "window":
            del content["normalisation"]  # as in files of older releases, whose trainings can go on
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, attributes: h5py.AttributeManager) -> None:
        """Write every field as an attribute of its own."""
        attributes["format"] = FORMAT
        for field in fields(self):
            attributes[field.name] = getattr(self, field.name)

    @classmethod
    def read(cls, attributes: Mapping[str, Any]) -> PatchMeta:
        """Read the attributes back; KeyError names a missing one."""
        there = [field for field in fields(cls) if field.name in attributes or field.default is MISSING]
        for field in there:
            if field.name not in attributes:
                raise KeyError(field.name)
        return cls(**{field.name: _plain(attributes[field.name]) for field in there})

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """Return a clause for each field that is not as wanted."""
        return [
            f"{name} was {_short(getattr(self, name))}, is {_short(value)}"
            for name, value in wanted.items()
            if getattr(self, name) != value
        ]


@dataclass(frozen=True)
class EncodedPatch:
    """A patch as it lies in the file, with what the statistics need."""

    image: bytes
    label: bytes
    sums: NDArray[np.int64]  # (c,): of the voxels
    squares: NDArray[np.int64]  # (c,): of their squares
    counts: NDArray[np.int64]  # (labels,): voxels of each label


@dataclass(frozen=True)
class Statistics:
    """Exact sums over patches, so that neither order nor interruption changes them."""

    voxels: int
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel."""
        return tuple(int(total) / self.voxels for total in self.sums)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel, divisor n; the subtraction is done in whole numbers."""
        return tuple(
            (self.voxels * int(squares) - int(total) ** 2) ** 0.5 / self.voxels
            for total, squares in zip(self.sums, self.squares, strict=True)
        )


def encode_patch(image: NDArray[np.int16], label: NDArray[np.uint8], labels: int) -> EncodedPatch:
    """Compress an image (c, z, y, x) and its label map (z, y, x), and sum them up."""
    axes = (1, 2, 3)
    return EncodedPatch(
        image=encode_chunk(image),
        label=encode_chunk(label),
        sums=image.sum(axis=axes, dtype=np.int64),
        squares=np.square(image, dtype=np.int32).sum(axis=axes, dtype=np.int64),
        counts=np.array([np.count_nonzero(label == value) for value in range(labels)], dtype=np.int64),
    )


def encode_chunk(array: NDArray[Any]) -> bytes:
    """Return `array` as HDF5's shuffle and gzip filters leave it."""
    size = array.dtype.itemsize
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    shuffled = raw if size == 1 else np.ascontiguousarray(raw.reshape(-1, size).T)
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return packer.compress(shuffled.data) + packer.flush()


def decode_chunk(data: bytes, out: NDArray[Any]) -> None:
    """Undo `encode_chunk` into a C-contiguous array; ValueError or zlib.error where the data do not fit."""
    raw = np.frombuffer(zlib.decompress(data, bufsize=out.nbytes), dtype=np.uint8)
    if raw.size != out.nbytes:
        raise ValueError(f"a chunk of {out.nbytes} bytes was required, got {raw.size}")
    size = out.dtype.itemsize
    planes = out.reshape(-1).view(np.uint8).reshape(-1, size)
    for byte in range(size):
        planes[:, byte] = raw.reshape(size, -1)[byte]


def write_shard(
    path: Path,
    patches: Sequence[EncodedPatch],
    case: NDArray[np.int64],
    start_zyx: NDArray[np.int64],
    patch_shape_zyx: Shape,
) -> None:
    """Write some patches and their sums to a file of their own, complete or not at all."""
    channels = len(patches[0].sums)
    with replacing(path) as temporary, h5py.File(temporary, "w", **DRIVER) as file:
        datasets = _create(file, len(patches), channels, patch_shape_zyx)
        for number, patch in enumerate(patches):
            for name in CHUNKED:
                _write_chunk(datasets[name], number, getattr(patch, name))
        datasets["case"][:] = case
        datasets["start_zyx"][:] = start_zyx
        for name in ("sums", "squares", "counts"):
            file.attrs[name] = np.sum([getattr(patch, name) for patch in patches], axis=0)


def shard_is_complete(path: Path, patches: int) -> bool:
    """Return whether `path` is a shard of that many patches: a power cut can leave an empty file."""
    try:
        with h5py.File(path, "r") as file:
            return len(file["image"]) == patches and "counts" in file.attrs
    except (OSError, KeyError):
        return False


def shard_statistics(paths: Iterable[Path]) -> Statistics:
    """Add up the sums of all shards."""
    voxels = 0
    sums: list[list[NDArray[np.int64]]] = []
    for path in paths:
        with h5py.File(path, "r") as file:
            voxels += int(np.prod(file["label"].shape, dtype=np.int64))
            sums.append([file.attrs[name] for name in ("sums", "squares", "counts")])
    return Statistics(voxels, *(np.sum(column, axis=0) for column in zip(*sums, strict=True)))


def merge_shards(paths: Sequence[Path], path: Path, meta: PatchMeta) -> None:
    """Copy all shards into one file, chunk by chunk as they are compressed, complete or not at all."""
    with replacing(path) as temporary, h5py.File(temporary, "w", **DRIVER) as file:
        datasets = _create(file, meta.patches, len(meta.channels), meta.patch_shape_zyx)
        meta.write(file.attrs)
        columns: dict[str, list[NDArray[np.int32]]] = {name: [] for name in COLUMNS}
        numbers = itertools.count()
        for shard_path in paths:
            with h5py.File(shard_path, "r") as shard:
                for number in range(len(shard["image"])):
                    target = next(numbers)
                    for name in CHUNKED:
                        _write_chunk(datasets[name], target, _read_chunk(shard[name], number))
                for name in COLUMNS:
                    columns[name].append(shard[name][:])
        for name in COLUMNS:
            column = np.concatenate(columns[name])
            datasets[name][: len(column)] = column


def _create(file: h5py.File, patches: int, channels: int, patch_shape_zyx: Shape) -> dict[str, h5py.Dataset]:
    def chunked(name: str, shape: Shape, kind: str) -> h5py.Dataset:
        return file.create_dataset(
            name,
            (patches, *shape),
            kind,
            chunks=(1, *shape),
            shuffle=True,
            compression="gzip",
            compression_opts=1,
            track_times=False,
        )

    return {
        "image": chunked("image", (channels, *patch_shape_zyx), "<i2"),
        "label": chunked("label", tuple(patch_shape_zyx), "u1"),
        "case": file.create_dataset("case", (patches,), "<i4", track_times=False),
        "start_zyx": file.create_dataset("start_zyx", (patches, 3), "<i4", track_times=False),
    }


def _read_chunk(dataset: h5py.Dataset, number: int) -> bytes:
    _, data = dataset.id.read_direct_chunk((number,) + (0,) * (dataset.ndim - 1))
    return bytes(data)


def _write_chunk(dataset: h5py.Dataset, number: int, data: bytes) -> None:
    dataset.id.write_direct_chunk((number,) + (0,) * (dataset.ndim - 1), data)


def _plain(value: Any) -> Any:
    """Turn what h5py returns for an attribute into the Python value that was written."""
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
