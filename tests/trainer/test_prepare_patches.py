"""The patch file format, its reader, and batches read ahead."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from algorithm.errors import InputError
from trainer.patches import Batches, PatchFile, PatchMeta
from trainer.patchfile import (
    FORMAT_VERSION,
    EncodedPatch,
    decode_chunk,
    encode_chunk,
    encode_patch,
    merge_shards,
    shard_is_complete,
    shard_statistics,
    write_shard,
)

SHAPE = (4, 6, 5)
LABELS = ("background", "pancreas", "cancer")
Content = tuple[np.ndarray, np.ndarray]


def meta_of(patches: int, channels: int = 1) -> PatchMeta:
    return PatchMeta(
        format_version=FORMAT_VERSION,
        role="validation",
        dataset_name="Pancreas é",
        dataset_hash="ab" * 32,
        labels=LABELS,
        channels=tuple(f"channel {number}" for number in range(channels)),
        spacing_zyx_mm=(2.5, 0.8, 0.1 + 0.2),
        window_hu=(-100, 200),
        patch_shape_zyx=SHAPE,
        patches=patches,
        seed=2**62,
        training_cases=("a", "b"),
        validation_cases=("c",),
        overfit=False,
        quota_labels=(),
        quota_shares=(),
        quota_natural=(),
        quota_held=(),
        mean=(1 / 3,) * channels,
        std=(2 / 3,) * channels,
        class_voxels=(2**40, 5, 0),
        version="0.1.0",
    )


def content_of(patches: int, channels: int = 1) -> Content:
    rng = np.random.default_rng(patches)
    images = rng.integers(-100, 201, (patches, channels, *SHAPE)).astype(np.int16)
    return images, rng.integers(0, 3, (patches, *SHAPE)).astype(np.uint8)


def write_file(path: Path, content: Content, shard: int = 3) -> list[Path]:
    """Write the patch file by way of shards; return the shards."""
    images, labels = content
    shards = []
    for first in range(0, len(images), shard):
        which = slice(first, first + shard)
        patches = [
            encode_patch(*patch, len(LABELS)) for patch in zip(images[which], labels[which], strict=True)
        ]
        shards.append(path.with_name(f"shard_{first:02d}.h5"))
        numbers = np.arange(first, first + len(patches))
        write_shard(shards[-1], patches, numbers * 10, np.stack([numbers, -numbers, numbers], 1), SHAPE)
    merge_shards(shards, path, meta_of(len(images), images.shape[1]))
    return shards


@pytest.fixture
def written(tmp_path: Path) -> tuple[PatchFile, Content]:
    content = content_of(7)
    write_file(tmp_path / "val.h5", content)
    return PatchFile(tmp_path / "val.h5"), content


@pytest.mark.parametrize("channels", [1, 2])
def test_h5py_reads_what_was_written(tmp_path: Path, channels: int) -> None:
    images, labels = content_of(7, channels)
    write_file(tmp_path / "val.h5", (images, labels))
    with h5py.File(tmp_path / "val.h5") as file:
        np.testing.assert_array_equal(file["image"][:], images)
        np.testing.assert_array_equal(file["label"][:], labels)
        assert (file["image"].dtype, file["label"].dtype) == (np.int16, np.uint8)
        assert file["image"].chunks == (1, channels, *SHAPE)
        np.testing.assert_array_equal(file["case"][:], np.arange(7) * 10)
        np.testing.assert_array_equal(file["start_zyx"][:, 1], -np.arange(7))
        assert file.attrs["dataset_name"] == "Pancreas é"


def test_shards_of_any_size_give_the_same_bytes(tmp_path: Path) -> None:
    content = content_of(7)
    for shard in (1, 3, 7):
        (tmp_path / str(shard)).mkdir()
        write_file(tmp_path / str(shard) / "val.h5", content, shard)
    first, *others = [(tmp_path / str(shard) / "val.h5").read_bytes() for shard in (1, 3, 7)]
    assert all(other == first for other in others)


def test_statistics_are_exact(tmp_path: Path) -> None:
    images, labels = content_of(7, 2)
    images[:, 1] += 15_000
    statistics = shard_statistics(write_file(tmp_path / "val.h5", (images, labels)))
    wide = images.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, wide.mean(axis=(0, 2, 3, 4)), rtol=1e-14)
    np.testing.assert_allclose(statistics.std, wide.std(axis=(0, 2, 3, 4)), rtol=1e-12)
    assert statistics.counts.tolist() == np.bincount(labels.ravel()).tolist()
    assert statistics.voxels == labels.size


def test_squares_of_the_widest_values_do_not_overflow() -> None:
    image = np.full((1, 2, 2, 2), -32768, np.int16)
    assert encode_patch(image, np.zeros((2, 2, 2), np.uint8), 1).squares.tolist() == [8 * 2**30]


def test_an_incomplete_shard_is_told_apart(tmp_path: Path) -> None:
    (shard, *_) = write_file(tmp_path / "val.h5", content_of(3))
    assert shard_is_complete(shard, 3)
    assert not shard_is_complete(shard, 4)
    assert not shard_is_complete(tmp_path / "none.h5", 3)
    shard.write_bytes(shard.read_bytes()[:-100])
    assert not shard_is_complete(shard, 3)
    shard.write_bytes(b"")
    assert not shard_is_complete(shard, 3)


def test_attributes_come_back_as_they_were(written: tuple[PatchFile, Content]) -> None:
    file, _ = written
    expected = meta_of(7)
    assert file.meta == expected
    for field in fields(PatchMeta):
        assert type(getattr(file.meta, field.name)) is type(getattr(expected, field.name))
    assert file.meta.cases == ("c",)


def test_differences_say_what_changed() -> None:
    meta = meta_of(7)
    assert meta.differences({"seed": 2**62, "labels": LABELS}) == []
    assert meta.differences({"window_hu": (-50, 50), "patches": 7}) == [
        "window_hu was (-100, 200), is (-50, 50)"
    ]


def test_the_digest_tells_patches_apart(written: tuple[PatchFile, Content]) -> None:
    digest = meta_of(7).digest
    assert written[0].meta.digest == digest
    assert replace(meta_of(7), version="9").digest == digest
    changed = [replace(meta_of(7), seed=1), replace(meta_of(7), mean=(0.5,)), meta_of(8)]
    assert len({digest, *(meta.digest for meta in changed)}) == 4


def test_patches_are_read_in_any_order(written: tuple[PatchFile, Content]) -> None:
    file, (images, labels) = written
    assert len(file) == 7
    for indices in ([3], [6, 0, 6], np.array([2, 1]), []):
        read_images, read_labels = file.read(indices)
        assert (read_images.dtype, read_labels.dtype) == (np.int16, np.uint8)
        np.testing.assert_array_equal(read_images, images[np.asarray(indices, dtype=int)])
        np.testing.assert_array_equal(read_labels, labels[np.asarray(indices, dtype=int)])
    np.testing.assert_array_equal(file.case, np.arange(7) * 10)
    np.testing.assert_array_equal(file.start_zyx[:, 0], np.arange(7))


@pytest.mark.parametrize("index", [-1, 7])
def test_an_index_outside_is_refused(written: tuple[PatchFile, Content], index: int) -> None:
    with pytest.raises(IndexError, match=rf"patch index must be 0 to 6, got {index}"):
        written[0].read([0, index])


def read_in_child(file: PatchFile, answer: multiprocessing.queues.SimpleQueue[int]) -> None:
    images, _ = file.read([5])
    answer.put(int(images.astype(np.int64).sum()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_file_that_was_read_is_read_in_a_child(written: tuple[PatchFile, Content], method: str) -> None:
    file, (images, _) = written
    file.read([0])
    context = multiprocessing.get_context(method)
    answer = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(file, answer))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answer.get() == images[5].astype(np.int64).sum()
    np.testing.assert_array_equal(file.read([5])[0][0], images[5])


def test_a_file_is_pickled_and_closed(written: tuple[PatchFile, Content]) -> None:
    file, (images, _) = written
    with pickle.loads(pickle.dumps(file)) as copy:
        np.testing.assert_array_equal(copy.read([1])[0][0], images[1])
    np.testing.assert_array_equal(copy.read([2])[0][0], images[2])
    copy.close()
    copy.close()


def damage(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def remove(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def replaced(name: str, data: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.__delitem__("mean"), r"the attribute mean is missing in .*val\.h5"),
        (lambda file: file.attrs.__delitem__("format"), r"not one that decathlon prepare wrote"),
        (
            lambda file: file.attrs.modify("format_version", 99),
            r"patch format 99, but 1 is read: run decathlon",
        ),
        (remove("label"), r"the dataset label is missing in .*val\.h5"),
        (remove("start_zyx"), r"the dataset start_zyx is missing"),
        (replaced("case", np.zeros(3)), r"the dataset case must have shape \(7,\), but has \(3,\)"),
        (replaced("label", np.zeros((7, *SHAPE), np.uint8)), r"label must be uint8 in shuffled gzip chunks"),
        (replaced("image", np.zeros((7, 1, *SHAPE))), r"image must be int16 in shuffled gzip chunks"),
    ],
)
def test_a_file_that_lacks_something_is_refused(
    written: tuple[PatchFile, Content], change: Callable[[h5py.File], None], message: str
) -> None:
    path = written[0].path
    damage(path, change)
    with pytest.raises(InputError, match=message):
        PatchFile(path)


def test_a_file_with_a_missing_patch_is_refused(tmp_path: Path) -> None:
    images, labels = content_of(4)
    shards = write_file(tmp_path / "val.h5", (images, labels))
    merge_shards(shards, tmp_path / "more.h5", replace(meta_of(5)))
    with pytest.raises(InputError, match=r"image must hold 5 patches, but is incomplete in .*more\.h5"):
        PatchFile(tmp_path / "more.h5")


def test_foreign_cut_and_absent_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "val.h5"
    with pytest.raises(InputError, match=r"there is no patch file .*val\.h5: run decathlon prepare first"):
        PatchFile(path)
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match=r"val\.h5 is not a readable HDF5 file"):
        PatchFile(path)
    write_file(path, content_of(7))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"val\.h5 is not a readable HDF5 file"):
        PatchFile(path)


def test_a_damaged_chunk_is_named(written: tuple[PatchFile, Content]) -> None:
    file, (images, _) = written
    packed = encode_chunk(images[4])
    content = bytearray(file.path.read_bytes())
    at = content.index(packed)
    content[at + len(packed) // 2] ^= 255
    file.path.write_bytes(content)
    damaged = PatchFile(file.path)
    np.testing.assert_array_equal(damaged.read([3])[0][0], images[3])
    with pytest.raises(InputError, match=r"the image of patch 4 is damaged in .*val\.h5"):
        damaged.read([3, 4])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_chunks_survive_packing(kind: type) -> None:
    array = np.random.default_rng(0).integers(0, 250, (3, 5, 7)).astype(kind)
    out = np.empty_like(array)
    decode_chunk(encode_chunk(array), out)
    np.testing.assert_array_equal(out, array)
    with pytest.raises(ValueError, match=r"a chunk of \d+ bytes was required, got"):
        decode_chunk(encode_chunk(array), np.empty((3, 5, 8), kind))


def test_an_encoded_patch_is_small() -> None:
    shape = (1, 32, 64, 64)
    flat = encode_patch(np.full(shape, -100, np.int16), np.zeros(shape[1:], np.uint8), 2)
    assert isinstance(flat, EncodedPatch)
    assert len(flat.image) + len(flat.label) < 3 * np.prod(shape) / 100


def epoch_of(batches: Batches, epoch: int, first_batch: int = 0) -> list[Content]:
    return list(batches.batches(epoch, first_batch=first_batch))


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("patches")]


def test_an_epoch_holds_every_patch_once_in_an_order_of_its_own(written: tuple[PatchFile, Content]) -> None:
    file, (images, labels) = written
    batches = Batches(file, 2, seed=5)
    assert len(batches) == 4
    orders = [tuple(batches.order(epoch)) for epoch in range(20)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(set(orders)) > 15
    assert orders[3] == tuple(Batches(file, 3, seed=5, threads=1).order(3))
    assert orders[3] != tuple(Batches(file, 2, seed=6).order(3))
    got = epoch_of(batches, 3)
    assert [len(batch) for batch, _ in got] == [2, 2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in got]), images[list(orders[3])])
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in got]), labels[list(orders[3])])


def test_every_place_of_the_order_is_uniform(written: tuple[PatchFile, Content]) -> None:
    batches = Batches(written[0], 1, seed=0)
    first = np.bincount([batches.order(epoch)[0] for epoch in range(1400)], minlength=7)
    assert np.abs(first - 200).max() < 5 * np.sqrt(200)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (2, 4), (4, 9)])
def test_neither_threads_nor_reading_ahead_change_a_batch(
    written: tuple[PatchFile, Content], threads: int, ahead: int
) -> None:
    expected = epoch_of(Batches(written[0], 3, seed=1), 2)
    got = epoch_of(Batches(written[0], 3, seed=1, threads=threads, ahead=ahead), 2)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_an_epoch_is_continued_in_its_middle(written: tuple[PatchFile, Content]) -> None:
    batches = Batches(written[0], 2, seed=1)
    whole, rest = epoch_of(batches, 4), epoch_of(batches, 4, first_batch=2)
    assert len(rest) == 2
    for one, other in zip(rest, whole[2:], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    assert epoch_of(batches, 4, first_batch=4) == []


def test_limit_takes_the_first_patches_and_shuffle_can_be_off(written: tuple[PatchFile, Content]) -> None:
    file, (images, _) = written
    limited = Batches(file, 2, seed=0, limit=3)
    assert sorted(limited.order(0)) == [0, 1, 2]
    assert len(limited) == 2
    got = epoch_of(Batches(file, 3, seed=0, shuffle=False), 9)
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in got]), images)
    with pytest.raises(ValueError, match=r"limit must be 1 to 7, the patches of .*, got 8"):
        Batches(file, 2, seed=0, limit=8)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, got 0"):
        Batches(file, 0, seed=0)


def test_no_thread_is_left_behind(written: tuple[PatchFile, Content]) -> None:
    batches = Batches(written[0], 1, seed=0, threads=3)
    assert reading_threads() == []
    epoch_of(batches, 0)
    assert reading_threads() == []
    for _ in batches.batches(0):
        assert reading_threads() != []
        break
    assert reading_threads() == []
    iterator = batches.batches(1)
    next(iterator)
    iterator.close()
    assert reading_threads() == []


def test_reading_ahead_is_bounded(
    written: tuple[PatchFile, Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = written
    asked: list[int] = []
    read = file.read

    def counted(indices: np.ndarray) -> Content:
        asked.append(len(indices))
        return read(indices)

    monkeypatch.setattr(file, "read", counted)
    iterator = Batches(file, 1, seed=0, threads=1, ahead=2).batches(0)
    for taken in range(1, 5):
        next(iterator)
        assert len(asked) <= taken + 1
    iterator.close()


def test_a_failure_while_reading_ahead_is_raised_and_ends_it(
    written: tuple[PatchFile, Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = written
    order = list(Batches(file, 1, seed=0).order(0))
    read = file.read

    def failing(indices: np.ndarray) -> Content:
        if indices[0] == order[3]:
            raise InputError("patch three is damaged")
        return read(indices)

    monkeypatch.setattr(file, "read", failing)
    iterator = Batches(file, 1, seed=0).batches(0)
    assert len(list(itertools.islice(iterator, 3))) == 3
    with pytest.raises(InputError, match="patch three is damaged"):
        next(iterator)
    assert reading_threads() == []
