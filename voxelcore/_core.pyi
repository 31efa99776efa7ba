from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Isa = Literal["baseline", "avx2", "avx512"]

def get_isa() -> Isa: ...
def get_isas() -> tuple[Isa, ...]: ...
def set_isa(name: str) -> None: ...
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
def export_planes(
    class_maps: npt.NDArray[Any],
    first_z: int,
    planes: int,
    begin_z: int,
    end_z: int,
    out: npt.NDArray[np.uint8],
    threads: int | None,
) -> None: ...
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
def preprocess_planes(
    slab: npt.NDArray[np.int16],
    first_z: int,
    planes: int,
    shape_zyx: Sequence[int],
    begin_z: int,
    end_z: int,
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
def extract_each(
    volumes: list[npt.NDArray[Any]],
    starts_zyx: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    threads: int | None,
) -> None: ...
def label_runs(
    labels: npt.NDArray[np.uint8], label: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
def stitch(
    patches: npt.NDArray[Any],
    starts_zyx: npt.NDArray[np.int64],
    box_starts_zyx: npt.NDArray[np.int64],
    box_stops_zyx: npt.NDArray[np.int64],
    weights_zyx: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]] | None,
    out: npt.NDArray[np.float32],
    from_zero: bool,
    threads: int | None,
) -> None: ...
