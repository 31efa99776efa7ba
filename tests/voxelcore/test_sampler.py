from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

import voxelcore
from voxelcore import PatchSampler

PATCH = (8, 16, 16)


def volumes(count: int = 3, channels: int = 1) -> tuple[list[Any], list[Any]]:
    """Return volumes of several shapes, one thinner than the patch, whose voxels say where they are from."""
    images, labels = [], []
    for number, shape in enumerate([(12, 40, 33), (5, 50, 20), (30, 17, 64)][:count]):
        flat = np.arange(int(np.prod(shape)), dtype=np.int16).reshape(shape)
        images.append(np.stack([flat + 3 * number + channel for channel in range(channels)]))
        label = np.zeros(shape, np.uint8)
        label[2:4, 5:9, 6:12] = 1
        label[3, 7, 8] = 2
        labels.append(label)
    return images, labels


def sampler(**options: Any) -> PatchSampler:
    images, labels = volumes()
    settings = {"batch_size": 4, "seed": 7, "label_shares": {1: 0.3, 2: 0.3}} | options
    return PatchSampler(images, labels, PATCH, **settings)


def padded(volume: npt.NDArray[Any], start: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the patch at `start`, edge voxels repeated, by NumPy."""
    for axis, (first, size) in enumerate(zip(start, PATCH, strict=True)):
        at = np.clip(np.arange(first, first + size), 0, volume.shape[axis] - 1)
        volume = volume.take(at, axis)
    return volume


def test_patches_are_those_of_the_volumes() -> None:
    images, labels = volumes(channels=2)
    made = PatchSampler(images, labels, PATCH, batch_size=5, seed=1, label_shares={1: 0.5})
    for index in range(4):
        batch = made.batch(index, epoch=3)
        assert batch.images.shape == (5, 2, *PATCH)
        assert batch.images.dtype == np.int16
        for i, number in enumerate(batch.volume):
            np.testing.assert_array_equal(batch.labels[i], padded(labels[number], batch.start_zyx[i]))
            for channel in range(2):
                expected = padded(images[number][channel], batch.start_zyx[i])
                np.testing.assert_array_equal(batch.images[i, channel], expected)


def test_label_shares_are_kept_and_every_voxel_of_a_label_has_its_turn() -> None:
    label = np.zeros((12, 40, 40), np.uint8)
    label[3, 20, 20:24] = 1
    label[9, 5, 30] = 1
    made = PatchSampler(
        [np.zeros((1, *label.shape), np.int16)],
        [label],
        (1, 1, 1),
        batch_size=4000,
        seed=0,
        label_shares={1: 0.25},
    )
    _, start = made.draw(0)
    drawn = label[tuple(start.T)] == 1
    assert drawn.mean() == pytest.approx(0.25, abs=0.03)  # 4.4 standard deviations
    places, counts = np.unique(start[drawn], axis=0, return_counts=True)
    assert len(places) == 5
    assert counts.min() > 140  # 200 expected
    free = start[~drawn]
    assert free.min() == 0
    assert free.max(axis=0).tolist() == [11, 39, 39]


def test_every_patch_holds_its_label_where_the_share_is_one() -> None:
    batch = sampler(label_shares={2: 1.0}, batch_size=64).batch(0)
    assert np.all((batch.labels == 2).any(axis=(1, 2, 3)))
    assert set(batch.volume) == {0, 1, 2}


def test_the_share_of_a_label_that_a_volume_lacks_goes_to_free_starts() -> None:
    image, label = np.zeros((1, 20, 20, 20), np.int16), np.zeros((20, 20, 20), np.uint8)
    made = PatchSampler([image], [label], (4, 4, 4), batch_size=200, seed=0, label_shares={3: 1.0})
    _, start = made.draw(0)
    assert start.min() == 0
    assert start.max() == 16


def test_volume_weights_decide_which_volume() -> None:
    volume, _ = sampler(volume_weights=[0, 3, 1], batch_size=4000).draw(0)
    assert np.bincount(volume, minlength=3)[0] == 0
    assert (volume == 1).mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
@pytest.mark.parametrize("ahead", [1, 3])
def test_the_same_batches_for_any_number_of_threads(threads: int, ahead: int) -> None:
    made = sampler()
    expected = [made.batch(index, epoch=2) for index in range(9)]
    seen = 0
    for batch, alone in zip(
        made.batches(range(9), epoch=2, threads=threads, ahead=ahead), expected, strict=True
    ):
        np.testing.assert_array_equal(batch.images, alone.images)
        np.testing.assert_array_equal(batch.labels, alone.labels)
        np.testing.assert_array_equal(batch.start_zyx, alone.start_zyx)
        seen += 1
    assert seen == 9


def test_an_epoch_goes_on_where_it_stopped_and_differs_from_the_next() -> None:
    made = sampler()
    whole = [batch.images.copy() for batch in made.batches(range(5), epoch=1)]
    rest = [batch.images.copy() for batch in made.batches(range(3, 5), epoch=1)]
    np.testing.assert_array_equal(whole[3:], rest)
    assert not np.array_equal(whole[0], made.batch(0, epoch=2).images)
    assert list(made.batches([])) == []
    other = [batch.images.copy() for batch in made.batches(range(1, 5, 2), epoch=1)]
    np.testing.assert_array_equal(whole[1::2], other)


def test_a_batch_stays_until_the_one_after_the_next_is_asked_for() -> None:
    made = sampler()
    stream = made.batches(range(6), ahead=1, threads=1)
    first = next(stream)
    kept = first.images.copy()
    next(stream)
    np.testing.assert_array_equal(first.images, kept)
    arrays = {id(first.images)} | {id(batch.images) for batch in stream}
    assert len(arrays) <= 3


def test_buffers_come_from_the_caller() -> None:
    shapes = []

    def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        shapes.append((shape, dtype))
        return np.empty(shape, dtype)

    assert len(list(sampler().batches(range(20), ahead=2, empty=empty))) == 20
    assert len(shapes) == 2 * 4
    assert shapes[0] == ((4, 1, *PATCH), np.int16)
    assert shapes[1] == ((4, *PATCH), np.uint8)


def test_hdf5_and_memory_maps_give_what_memory_gives(tmp_path: Path) -> None:
    images, labels = volumes(channels=2)
    with h5py.File(tmp_path / "volumes.h5", "w") as file:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file.create_dataset(f"image{number}", data=image, chunks=(1, 4, 8, 8), compression="lzf")
            file.create_dataset(f"label{number}", data=label, chunks=(4, 8, 8))
            np.save(tmp_path / f"image{number}.npy", image)
            np.save(tmp_path / f"label{number}.npy", label)
    options: dict[str, Any] = {"batch_size": 6, "seed": 5, "label_shares": {1: 0.4, 2: 0.4}}
    expected = [
        batch.images.copy() for batch in PatchSampler(images, labels, PATCH, **options).batches(range(4))
    ]
    with h5py.File(tmp_path / "volumes.h5") as file:
        stored = PatchSampler(
            [file[f"image{n}"] for n in range(3)], [file[f"label{n}"] for n in range(3)], PATCH, **options
        )
        for batch, images_alone in zip(stored.batches(range(4), threads=3), expected, strict=True):
            np.testing.assert_array_equal(batch.images, images_alone)
    mapped = [
        [np.load(tmp_path / f"{kind}{n}.npy", mmap_mode="r") for n in range(3)] for kind in ("image", "label")
    ]
    for batch, images_alone in zip(
        PatchSampler(*mapped, PATCH, **options).batches(range(4), threads=3), expected, strict=True
    ):
        np.testing.assert_array_equal(batch.images, images_alone)


def test_labels_across_slabs_of_a_stored_map_are_found_once() -> None:
    class Stored:
        """A label map that only gives slices."""

        def __init__(self, array: npt.NDArray[np.uint8]) -> None:
            self.array, self.shape, self.dtype = array, array.shape, array.dtype
            self.read = 0

        def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
            self.read += self.array[key].size
            return self.array[key]

    label = (np.random.default_rng(0).random((150, 9, 7)) < 0.1).astype(np.uint8)
    label[60:70] = 1
    image = np.zeros((1, *label.shape), np.float32)
    options: dict[str, Any] = {"batch_size": 50, "seed": 5, "label_shares": {0: 0.1, 1: 0.9}}
    volume = Stored(label)
    stored = PatchSampler([image], [volume], (1, 1, 1), **options).draw(0)[1]
    assert volume.read == label.size
    np.testing.assert_array_equal(stored, PatchSampler([image], [label], (1, 1, 1), **options).draw(0)[1])


def test_threads_are_gone_when_the_iterator_is() -> None:
    stream = sampler().batches(range(50), threads=3)
    next(stream)
    assert any("voxelcore-sampler" in thread.name for thread in threading.enumerate())
    stream.close()  # type: ignore[attr-defined]
    assert not any("voxelcore-sampler" in thread.name for thread in threading.enumerate())


def test_a_failure_in_a_thread_is_raised_where_batches_are_asked_for() -> None:
    class Broken:
        shape, dtype = (1, 20, 20, 20), np.dtype(np.int16)

        def __getitem__(self, key: Any) -> Any:
            raise OSError("the disk is gone")

    made = PatchSampler([Broken()], [np.zeros((20, 20, 20), np.uint8)], (4, 4, 4), batch_size=2, seed=0)
    with pytest.raises(OSError, match="the disk is gone"):
        list(made.batches(range(3)))
    assert not any("voxelcore-sampler" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"label_shares": {1: 0.7, 2: 0.4}}, "sum is at most 1"),
        ({"label_shares": {1: -0.1}}, "sum is at most 1"),
        ({"label_shares": {300: 0.1}}, "labels 0 to 255"),
        ({"volume_weights": [1, 2]}, "volume_weights must be 3 numbers"),
        ({"volume_weights": [0, 0, 0]}, "weights"),
        ({"seed": -1}, "seed must be 0 to"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**options)


def test_volumes_that_do_not_belong_together_are_refused() -> None:
    image, label = np.zeros((1, 9, 9, 9), np.int16), np.zeros((9, 9, 9), np.uint8)
    options: dict[str, Any] = {"batch_size": 1, "seed": 0}
    with pytest.raises(ValueError, match="as many, and some, got 1 and 2"):
        PatchSampler([image], [label, label], PATCH, **options)
    with pytest.raises(TypeError, match=r"images must all be uint8, .*, got float32, int16"):
        PatchSampler([image, image.astype(np.float32)], [label, label], PATCH, **options)
    for kind in (np.float64, ">i2"):
        with pytest.raises(TypeError, match="images must all be uint8, int16"):
            PatchSampler([image.astype(kind)], [label], PATCH, **options)
    with pytest.raises(ValueError, match="must be C-contiguous"):
        PatchSampler([np.asfortranarray(image)], [label], PATCH, **options)
    with pytest.raises(ValueError, match="images must all be"):
        PatchSampler([image[:0]], [label], PATCH, **options)
    for index in (-1, 2**63):
        with pytest.raises(ValueError, match=f"index must be 0 to .*, got {index}"):
            PatchSampler([image], [label], PATCH, **options).batch(index)
    with pytest.raises(ValueError, match="images must all be"):
        PatchSampler([image[0]], [label], PATCH, **options)
    with pytest.raises(TypeError, match="labels must have dtype uint8, got int16 for volume 0"):
        PatchSampler([image], [label.astype(np.int16)], PATCH, **options)
    with pytest.raises(
        ValueError, match=r"grid of their image, got \(9, 9, 8\) for \(1, 9, 9, 9\), volume 0"
    ):
        PatchSampler([image], [label[:, :, :8]], PATCH, **options)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        PatchSampler([image], [label], PATCH, **options).batches([0], threads=0)


def test_the_draws_are_those_of_voxelcore() -> None:
    made = sampler(label_shares=None)
    volume, start = made.draw(3, epoch=2)
    counters = np.arange(12, 16)
    np.testing.assert_array_equal(volume, voxelcore.draw_volumes([1, 1, 1], counters, seed=7, epoch=2))
    shape = volumes()[1][volume[1]].shape
    expected = voxelcore.draw_starts(shape, PATCH, counters[1:2], seed=7, epoch=2)
    np.testing.assert_array_equal(start[1:2], expected)
