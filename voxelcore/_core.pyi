from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

def set_threads(n: int) -> None: ...
def get_threads() -> int: ...
def resample_linear(
    volume: npt.NDArray[Any], shape_zyx: Sequence[int], out: npt.NDArray[Any] | None, threads: int | None
) -> npt.NDArray[Any]: ...
def resample_cubic(
    volume: npt.NDArray[Any], shape_zyx: Sequence[int], out: npt.NDArray[Any] | None, threads: int | None
) -> npt.NDArray[Any]: ...
def resample_labels(
    labels: npt.NDArray[np.uint8],
    shape_zyx: Sequence[int],
    method: str,
    out: npt.NDArray[np.uint8] | None,
    threads: int | None,
) -> npt.NDArray[np.uint8]: ...
def class_maps_to_labels(
    class_maps: npt.NDArray[Any],
    shape_zyx: Sequence[int],
    out: npt.NDArray[np.uint8] | None,
    threads: int | None,
) -> npt.NDArray[np.uint8]: ...
def preprocess(
    volume: npt.NDArray[np.int16],
    shape_zyx: Sequence[int],
    window_hu: Sequence[float],
    mean: float,
    std: float,
    dtype: np.dtype[Any],
    out: npt.NDArray[Any] | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...
def clip(
    volume: npt.NDArray[Any],
    low: float,
    high: float,
    out: npt.NDArray[Any] | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...
def uniform(
    counters: npt.NDArray[np.int64], seed: int, epoch: int, stream: int
) -> npt.NDArray[np.float64]: ...
def draw_volumes(
    weights: npt.NDArray[np.float64], counters: npt.NDArray[np.int64], seed: int, epoch: int
) -> npt.NDArray[np.int64]: ...
def draw_starts(
    shape_zyx: Sequence[int],
    patch_shape_zyx: Sequence[int],
    counters: npt.NDArray[np.int64],
    seed: int,
    epoch: int,
    around: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]: ...
def extract_patches(
    volume: npt.NDArray[Any],
    starts_zyx: npt.NDArray[np.int64],
    patch_shape_zyx: Sequence[int],
    pad: str,
    out: npt.NDArray[Any] | None,
    threads: int | None,
) -> npt.NDArray[Any]: ...
def stitch(
    patches: npt.NDArray[Any],
    starts_zyx: npt.NDArray[np.int64],
    box_starts_zyx: npt.NDArray[np.int64],
    box_stops_zyx: npt.NDArray[np.int64],
    weights_zyx: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]] | None,
    out: npt.NDArray[np.float32],
    threads: int | None,
) -> None: ...
