"""When ours and a peer's result count as the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SAMPLED = 20_000  # points at which results on different grids are compared


def assert_close(ours: NDArray[Any], peer: NDArray[Any], *, within: float, border: int = 0) -> None:
    """Every voxel, at least `border` voxels from the edge, differs by at most `within`."""
    assert ours.shape == peer.shape
    inside = tuple(slice(border, n - border) for n in ours.shape)
    worst = float(np.abs(ours[inside].astype(np.float32) - peer[inside]).max())
    assert worst <= within, f"differs by {worst}, {within} is allowed"


def assert_close_in_space(
    ours: NDArray[Any],
    peer: NDArray[Any],
    peer_affine: NDArray[Any],
    *,
    input_shape: Sequence[int],
    input_spacing: Sequence[float],
    within: float,
) -> None:
    """Grids differ: at points of the peer's grid, its value lies within `within` of ours, interpolated there.

    Physical space is millimetres along the axes of the array, 0 at the first voxel centre of the input. Points
    less than two voxels from the edge are left out, and one in a thousand may be a little off, where the curvature
    of the volume between two of our voxels is largest.
    """
    rng = np.random.default_rng(0)
    index = np.stack([rng.integers(2, n - 2, SAMPLED) for n in peer.shape])
    millimetres = np.diag(peer_affine)[:3, np.newaxis] * index + np.asarray(peer_affine)[:3, 3, np.newaxis]
    size_in, size_out = np.array(input_shape), np.array(ours.shape)
    edges = (millimetres / np.array(input_spacing)[:, np.newaxis] + 0.5) / size_in[:, np.newaxis]
    mine = edges * size_out[:, np.newaxis] - 0.5
    assert (
        (mine >= 0) & (mine <= size_out[:, np.newaxis] - 1)
    ).mean() > 0.99  # the grids cover the same body
    values = ours.astype(np.float32, copy=False)
    difference = ndimage.map_coordinates(values, mine, order=1, mode="nearest") - peer[tuple(index)]
    worst = float(np.quantile(np.abs(difference), 0.999))
    assert worst <= within, f"differs by {worst}, {within} is allowed"


def assert_same_argmax(
    ours: NDArray[np.uint8], peer: NDArray[Any], class_maps: NDArray[Any], *, tie: float
) -> None:
    """Labels differ only where the interpolated scores of the two labels are within `tie` of each other.

    Args:
        ours: (z, y, x).
        peer: (z, y, x).
        class_maps: what both were made from (c, z, y, x), on another grid with the same edges.
        tie: greatest difference of scores at which either label is right.
    """
    assert ours.shape == peer.shape
    at = np.argwhere(ours != peer)
    assert len(at) <= 0.002 * ours.size, f"{len(at)} of {ours.size} labels differ"
    scale = np.array(class_maps.shape[1:]) / ours.shape
    position = ((at + 0.5) * scale - 0.5).T
    scores = np.stack(
        [ndimage.map_coordinates(each, position, np.float64, order=1, mode="nearest") for each in class_maps]
    )
    one, other = (labels[tuple(at.T)].astype(int) for labels in (ours, peer))
    points = np.arange(len(at))
    gap = float(np.abs(scores[one, points] - scores[other, points]).max(initial=0))
    assert gap <= tie, f"labels differ where scores differ by {gap}, {tie} is allowed"


def nearest_planes(n_in: int, n_out: int) -> NDArray[np.int64]:
    """Return the input plane nearest to each output plane, edges aligned; the later of two as near."""
    return (2 * np.arange(n_out) + 1) * n_in // (2 * n_out)
