"""Patch files: packing and reading, beside what h5py does by itself. No peer reads this format: no row in the table.

Patches are band-limited noise around soft tissue with air at the sides, clipped to [-100, 200]: they pack
to about the share of a real portal-venous CT. Rates are of raw bytes. h5py's filters hold its global lock, so
threads do not help it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from trainer.patches import Batches, PatchFile
from trainer.patchfile import FORMAT_VERSION, PatchMeta, decode_chunk, encode_patch, merge_shards, write_shard

SHAPE = (64, 128, 128)
PATCHES = 8
RAW_BYTES = PATCHES * 3 * int(np.prod(SHAPE))
Benchmark = Any


@pytest.fixture(scope="module")
def content() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    columns = np.indices(SHAPE)[2]
    images, labels = [], []
    for number in range(PATCHES):
        noise = ndimage.gaussian_filter(rng.normal(0, 60, SHAPE), (0.3, 0.8, 0.8))
        tissue = np.where(columns < 16 * number, -1000, 50)
        images.append(np.clip(np.rint(tissue + noise), -100, 200).astype(np.int16)[np.newaxis])
        labels.append(np.zeros(SHAPE, np.uint8))
        labels[-1][20:40, 40:80, 30:90] = 1
    return np.stack(images), np.stack(labels)


def rate(benchmark: Benchmark, work: Callable[[], Any]) -> Any:
    result = benchmark(work)
    if benchmark.stats is not None:
        benchmark.extra_info["MB/s"] = round(RAW_BYTES / benchmark.stats.stats.median / 1e6)
    return result


@pytest.mark.parametrize("threads", [1, 2])
def test_pack(benchmark: Benchmark, content: tuple[Any, Any], threads: int) -> None:
    images, labels = content
    with ThreadPoolExecutor(threads) as pool:
        packed = rate(
            benchmark,
            lambda: list(pool.map(lambda pair: encode_patch(*pair, 2), zip(images, labels, strict=True))),
        )
    out = np.empty_like(images[3])
    decode_chunk(packed[3].image, out)
    np.testing.assert_array_equal(out, images[3])
    benchmark.extra_info["packed to"] = round(sum(len(p.image) + len(p.label) for p in packed) / RAW_BYTES, 3)


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_pack_h5py(benchmark: Benchmark, content: tuple[Any, Any], compression: str, tmp_path: Path) -> None:
    options = {"shuffle": True, "compression": compression}
    if compression == "gzip":
        options["compression_opts"] = 1

    def write() -> int:
        with h5py.File(tmp_path / "peer.h5", "w") as file:
            for name, data in zip(("image", "label"), content, strict=True):
                file.create_dataset(name, data=data, chunks=(1, *data.shape[1:]), **options)
            return sum(file[name].id.get_storage_size() for name in ("image", "label"))

    size = rate(benchmark, write)
    with h5py.File(tmp_path / "peer.h5") as file:
        np.testing.assert_array_equal(file["image"][3], content[0][3])
    benchmark.extra_info["packed to"] = round(size / RAW_BYTES, 3)


@pytest.fixture
def file(content: tuple[Any, Any], tmp_path: Path) -> PatchFile:
    meta = PatchMeta(
        format_version=FORMAT_VERSION,
        role="training",
        dataset_name="noise",
        dataset_hash="",
        labels=("background", "organ"),
        channels=("CT",),
        spacing_zyx_mm=(2.5, 0.8, 0.8),
        window_hu=(-100, 200),
        patch_shape_zyx=SHAPE,
        patches=PATCHES,
        seed=0,
        training_cases=("a",),
        validation_cases=("b",),
        overfit=False,
        quota_labels=(),
        quota_shares=(),
        quota_natural=(),
        quota_held=(),
        mean=(0.0,),
        std=(1.0,),
        class_voxels=(1, 1),
        version="",
    )
    packed = [encode_patch(*pair, 2) for pair in zip(*content, strict=True)]
    zeros = np.zeros(PATCHES, np.int64)
    write_shard(tmp_path / "shard.h5", packed, zeros, np.stack([zeros] * 3, axis=1), SHAPE)
    merge_shards([tmp_path / "shard.h5"], tmp_path / "train.h5", meta)
    return PatchFile(tmp_path / "train.h5")


@pytest.mark.parametrize("threads", [1, 2])
def test_read_an_epoch(benchmark: Benchmark, content: tuple[Any, Any], file: PatchFile, threads: int) -> None:
    batches = Batches(file, 2, seed=0, threads=threads)
    images = np.concatenate(rate(benchmark, lambda: [images for images, _ in batches.batches(0)]))
    np.testing.assert_array_equal(images, content[0][batches.order(0)])


def test_read_h5py(benchmark: Benchmark, content: tuple[Any, Any], file: PatchFile) -> None:
    def read() -> list[Any]:
        with h5py.File(file.path) as peer:
            return [(peer["image"][number], peer["label"][number]) for number in range(PATCHES)]

    patches = rate(benchmark, read)
    np.testing.assert_array_equal(patches[3][0], content[0][3])
