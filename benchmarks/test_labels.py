"""Resampling a label map to the network's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import voxelcore
from benchmarks import resamplers
from benchmarks.agreement import assert_same_argmax, nearest_planes
from benchmarks.compare import Peer
from benchmarks.volumes import CLASSES, NETWORK_SPACING_ZYX_MM, Shape, Size, labels

TIE = 1e-5  # of scores between 0 and 1, in float32


def one_hot(label_map: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.stack([label_map == label for label in range(CLASSES)]).astype(np.float32)


def nnunet(label_map: Any, size: Size) -> Peer:
    def make() -> Callable[[], Any]:
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

        segmentation = label_map[np.newaxis].astype(np.int8)
        return lambda: resample_data_or_seg_to_shape(
            segmentation,
            size.network_shape_zyx,
            size.spacing_zyx_mm,
            NETWORK_SPACING_ZYX_MM,
            is_seg=True,
            order=1,
            order_z=0,
            force_separate_z=None,
        )

    def check(_ours: Any, theirs: Any) -> None:
        depth, *plane = size.network_shape_zyx
        flat = voxelcore.resample_labels(label_map, (size.shape_zyx[0], *plane))
        chosen = nearest_planes(size.shape_zyx[0], depth)
        planes, first = np.unique(chosen, return_index=True)
        np.testing.assert_array_equal(theirs[0], theirs[0][first[np.searchsorted(planes, chosen)]])
        assert_same_argmax(flat[planes], theirs[0][first], one_hot(label_map[planes]), tie=TIE)

    return Peer(
        "nnU-Net",
        "nnunetv2",
        "`resample_data_or_seg_to_shape` with its default plans, which for such spacings means: linear per class "
        "within each plane, and the nearest plane along z; float64; of equal scores the nearest label wins; one "
        "thread (nnU-Net runs several processes)",
        make,
        check,
    )


def torch_argmax(label_map: Any, shape_zyx: Shape) -> Peer:
    def make() -> Callable[[], Any]:
        import torch

        tensor = torch.from_numpy(label_map)
        classes = torch.arange(CLASSES, dtype=torch.uint8)[:, None, None, None]

        def run() -> Any:
            maps = (tensor == classes)[None].float()
            maps = torch.nn.functional.interpolate(
                maps, size=shape_zyx, mode="trilinear", align_corners=False
            )
            return maps[0].argmax(0).to(torch.uint8)

        return run

    return Peer(
        "torch",
        "torch",
        "one-hot, `interpolate` and `argmax`: float32 maps of all classes, four bytes a voxel and class, on both grids",
        make,
        lambda ours, theirs: assert_same_argmax(ours, theirs.numpy(), one_hot(label_map), tie=TIE),
        threaded=True,
    )


def test_resample_labels_linear(compare: Callable[..., Any], size: Size, threads: int) -> None:
    label_map, shape = labels(size.shape_zyx), size.network_shape_zyx
    assert set(np.unique(label_map)) == {0, 1, 2}
    out = np.ones(shape, np.uint8)
    compare(
        kernel="resample_labels, linear",
        case=size.name,
        threads=threads,
        ours=lambda: voxelcore.resample_labels(label_map, shape, method="linear", out=out, threads=threads),
        copied_bytes=(label_map.nbytes + out.nbytes) // 2,
        peers=[nnunet(label_map, size), torch_argmax(label_map, shape)],
    )


def test_resample_labels_nearest(compare: Callable[..., Any], size: Size, threads: int) -> None:
    label_map, shape = labels(size.shape_zyx), size.network_shape_zyx
    out = np.ones(shape, np.uint8)

    def same_but_halfway(ours: Any, theirs: Any) -> None:
        """Positions halfway between two voxels go to either."""
        sides = []
        for n_in, n_out in zip(size.shape_zyx, shape, strict=True):
            later = nearest_planes(n_in, n_out)
            halfway = (2 * np.arange(n_out) + 1) * n_in % (2 * n_out) == 0
            sides.append((later - halfway, later))
        corners = [
            label_map[np.ix_(sides[0][z], sides[1][y], sides[2][x])]
            for z in (0, 1)
            for y in (0, 1)
            for x in (0, 1)
        ]
        for result in (ours, theirs):
            assert np.any([result == corner for corner in corners], axis=0).all()

    compare(
        kernel="resample_labels, nearest",
        case=size.name,
        threads=threads,
        ours=lambda: voxelcore.resample_labels(label_map, shape, method="nearest", out=out, threads=threads),
        copied_bytes=(label_map.nbytes + out.nbytes) // 2,
        peers=[
            resamplers.simpleitk(
                label_map,
                shape,
                threads,
                order=0,
                check=same_but_halfway,
                difference="allocates; any affine grid; a position halfway between two voxels goes to either",
            ),
            resamplers.scipy(
                label_map,
                shape,
                order=0,
                mode="nearest",
                check=same_but_halfway,
                difference="`ndimage.zoom`: allocates, float64, one thread",
            ),
            torch_nearest(label_map, shape, same_but_halfway),
            resamplers.torchio(
                label_map,
                size,
                check=covers_the_same(size),
                label=True,
                difference="`Resample`: centres a grid of exactly the spacing asked for on the volume; copies the "
                "subject, resamples with SimpleITK",
            ),
        ],
    )


def torch_nearest(label_map: Any, shape_zyx: Shape, check: Callable[[Any, Any], None]) -> Peer:
    def make() -> Callable[[], Any]:
        import torch

        tensor = torch.from_numpy(label_map)[None, None]
        return lambda: torch.nn.functional.interpolate(tensor, size=shape_zyx, mode="nearest-exact")

    return Peer(
        "torch",
        "torch",
        "`interpolate`, nearest-exact: allocates",
        make,
        lambda ours, theirs: check(ours, theirs[0, 0].numpy()),
        threaded=True,
    )


def covers_the_same(size: Size) -> Callable[[Any, Any, Any], None]:
    """Each label fills as many cubic millimetres, around the same centre, on both grids."""

    def check(ours: Any, theirs: Any, affine: Any) -> None:
        field = np.array(size.shape_zyx) * size.spacing_zyx_mm
        spacing, theirs_spacing = field / ours.shape, np.diag(affine)[:3]
        origin = (spacing - size.spacing_zyx_mm) / 2
        for label in range(1, CLASSES):
            mine, other = np.argwhere(ours == label), np.argwhere(theirs == label)
            volumes = len(mine) * spacing.prod(), len(other) * theirs_spacing.prod()
            np.testing.assert_allclose(*volumes, rtol=0.05, atol=30 * spacing.prod())
            centres = mine.mean(0) * spacing + origin, other.mean(0) * theirs_spacing + affine[:3, 3]
            np.testing.assert_allclose(*centres, rtol=0, atol=0.4)  # half a voxel

    return check
