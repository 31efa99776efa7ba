"""Clipping in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import voxelcore
from benchmarks.compare import Peer, same
from benchmarks.volumes import Size, ct

BOUNDS = {"int16": (-100, 200), "float32": (-100, 200), "uint8": (90, 120)}


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_clip(compare: Callable[..., Any], size: Size, dtype: str, threads: int) -> None:
    original = ct(size.shape_zyx, dtype)
    low, high = BOUNDS[dtype]
    assert ((original < low).any(), (original > high).any()) == (True, True)
    mine, of_numpy, of_torch = (original.copy() for _ in range(3))

    def numpy_clip() -> Callable[[], Any]:
        return lambda: np.clip(of_numpy, low, high, out=of_numpy)

    def torch_clamp() -> Callable[[], Any]:
        import torch

        tensor = torch.from_numpy(of_torch)
        return lambda: tensor.clamp_(low, high)

    compare(
        kernel="clip",
        case=f"{size.name}, {dtype}, in place",
        threads=threads,
        ours=lambda: voxelcore.clip(mine, low, high, out=mine, threads=threads),
        before=lambda: np.copyto(mine, original),
        copied_bytes=original.nbytes,
        peers=[
            Peer(
                "NumPy",
                "numpy",
                "`clip` with out=: one thread",
                numpy_clip,
                same,
                before=lambda: np.copyto(of_numpy, original),
            ),
            Peer(
                "torch",
                "torch",
                "`clamp_`",
                torch_clamp,
                lambda ours, theirs: same(ours, theirs.numpy()),
                threaded=True,
                before=lambda: np.copyto(of_torch, original),
            ),
        ],
    )
