"""Drawing 16 class-balanced patches from a scan on the network's grid and making a batch of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import voxelcore
from benchmarks.compare import Peer
from benchmarks.volumes import Shape, Size, ct, labels

PATCHES = 16
SHARES = {1: 1 / 3, 2: 1 / 3}  # the rest anywhere


class Scan:
    """An image and its labels, and whether patches are from it."""

    def __init__(self, size: Size) -> None:
        self.shape = size.network_shape_zyx
        self.patch: Shape = size.patch_shape_zyx
        self.image, self.labels = ct(self.shape, "int16"), labels(self.shape)

    def check(self, images: NDArray[Any], labels: NDArray[Any], starts: NDArray[np.int64]) -> None:
        """Raise unless patches are what lies at their starts, and enough of them hold the pancreas or its tumour."""
        assert images.shape == labels.shape == (PATCHES, *self.patch)
        for image, label, start in zip(images, labels, starts, strict=True):
            box = tuple(slice(int(a), int(a) + n) for a, n in zip(start, self.patch, strict=True))
            np.testing.assert_array_equal(image, self.image[box])
            np.testing.assert_array_equal(label, self.labels[box])
        assert sum(label.any() for label in labels) >= PATCHES / 3


def numpy_copies(scan: Scan, starts: NDArray[np.int64]) -> Peer:
    images = np.ones((PATCHES, *scan.patch), np.int16)
    label_maps = np.ones((PATCHES, *scan.patch), np.uint8)

    def run() -> Any:
        for i, start in enumerate(starts):
            box = tuple(slice(int(a), int(a) + n) for a, n in zip(start, scan.patch, strict=True))
            images[i] = scan.image[box]
            label_maps[i] = scan.labels[box]
        return images, label_maps

    return Peer(
        "NumPy, extraction alone",
        "numpy",
        "slices at starts that are given, into arrays that are there: draws nothing; one thread",
        lambda: run,
        lambda _ours, theirs: scan.check(*theirs, starts),
    )


def monai(scan: Scan, *, cached: bool) -> Peer:
    def make() -> Callable[[], Any]:
        import torch
        from monai.data import MetaTensor, list_data_collate
        from monai.transforms import FgBgToIndicesd, RandCropByPosNegLabeld

        keys = ("image", "label")
        data: dict[str, Any] = {
            "image": MetaTensor(torch.from_numpy(scan.image)[None]),
            "label": MetaTensor(torch.from_numpy(scan.labels)[None]),
        }
        indices = {}
        if cached:
            data = FgBgToIndicesd("label")(data)
            indices = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
        crop = RandCropByPosNegLabeld(keys, "label", scan.patch, pos=2, neg=1, num_samples=PATCHES, **indices)
        crop.set_random_state(0)

        def run() -> Any:
            crops = crop(data)
            starts = [
                np.array(each["image"].meta["crop_center"]) - np.array(scan.patch) // 2 for each in crops
            ]
            batch = list_data_collate([{key: each[key] for key in keys} for each in crops])
            return batch["image"], batch["label"], starts

        return run

    def check(_ours: Any, theirs: Any) -> None:
        images, label_maps, starts = theirs
        scan.check(images[:, 0].numpy(), label_maps[:, 0].numpy(), np.array(starts))

    how = (
        "`FgBgToIndicesd` ran before and its lists of indices are kept, eight bytes a voxel"
        if cached
        else "looks for the foreground anew in each call"
    )
    return Peer(
        "MONAI, indices cached" if cached else "MONAI",
        "monai",
        f"`RandCropByPosNegLabeld` and `list_data_collate`: {how}; foreground or not, no shares of classes; allocates",
        make,
        check,
        threaded=True,
    )


def torchio(scan: Scan) -> Peer:
    def make() -> Callable[[], Any]:
        import torch
        import torchio as tio

        subject = tio.Subject(
            image=tio.ScalarImage(tensor=torch.from_numpy(scan.image)[None]),
            label=tio.LabelMap(tensor=torch.from_numpy(scan.labels)[None]),
        )
        sampler = tio.LabelSampler(scan.patch, "label", {0: 1, 1: 1, 2: 1})

        def run() -> Any:
            patches = list(sampler(subject, PATCHES))
            images, label_maps = (
                torch.stack([each[key].data for each in patches]) for key in ("image", "label")
            )
            return images, label_maps, torch.stack([each[tio.LOCATION] for each in patches])

        return run

    def check(_ours: Any, theirs: Any) -> None:
        images, label_maps, locations = theirs
        scan.check(images[:, 0].numpy(), label_maps[:, 0].numpy(), locations[:, :3].numpy())

    return Peer(
        "TorchIO",
        "torchio",
        "`LabelSampler` and `torch.stack`: the voxel drawn is the patch's centre, so classes near the border are "
        "left out; makes a map of probabilities and its sum in float64 anew for each volume; allocates",
        make,
        check,
        threaded=True,
    )


def test_patches(compare: Callable[..., Any], size: Size, threads: int) -> None:
    scan = Scan(size)
    sampler = voxelcore.PatchSampler(
        [scan.image[np.newaxis]], [scan.labels], scan.patch, batch_size=PATCHES, seed=0, label_shares=SHARES
    )
    out = sampler.allocate(np.ones)
    numbers = itertools.count()
    batch = compare(
        kernel="patches",
        case=f"{size.name}, {PATCHES} of {'x'.join(map(str, scan.patch))}, int16 and uint8",
        threads=threads,
        ours=lambda: sampler.batch(next(numbers), out=out, threads=threads),
        copied_bytes=out.images.nbytes + out.labels.nbytes,
        patches=PATCHES,
        peers=[
            numpy_copies(scan, sampler.draw(0)[1]),
            monai(scan, cached=False),
            monai(scan, cached=True),
            torchio(scan),
        ],
    )
    scan.check(batch.images[:, 0], batch.labels, batch.start_zyx)
