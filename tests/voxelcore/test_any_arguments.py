"""Whatever a binding is given, it answers or refuses: run under the sanitizers, nothing outside an array is touched."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxelcore import _core

DTYPES = ["u1", "i1", "i2", ">i2", "u2", "i4", "i8", "f2", "f4", ">f4", "f8", "?", "O", "c8"]
NUMBERS: list[Any] = [
    *(
        -(2**63),
        -(2**31),
        -2,
        -1,
        0,
        1,
        2,
        3,
        7,
        255,
        256,
        2**20,
        2**31 - 1,
        2**31,
        2**32,
        2**53,
        2**63 - 1,
        2**64,
    ),
    *(0.5, 1e300, float("inf"), float("nan"), True, None, "1", b"1", [], object()),
]
SIZES = [-1, 0, 1, 2, 3, 4, 5, 7, 16, 2**63 - 1, 2**64, 1.0, "2", None]


@st.composite
def arrays(draw: st.DrawFn) -> npt.NDArray[Any]:
    """Small arrays as nobody should pass them: of any type and stride, read-only, not aligned, with empty axes."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=5)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    size = int(np.prod(shape)) * dtype.itemsize
    if dtype.hasobject:
        return np.full(shape, None, dtype)
    offset = draw(st.integers(0, 1))
    values = draw(st.binary(min_size=size, max_size=size)) + b"\0"
    array = np.frombuffer(
        bytearray(values[-1:] * offset + values), dtype, int(np.prod(shape)), offset
    ).reshape(shape)
    if draw(st.booleans()):
        array = array[tuple(slice(None, None, draw(st.sampled_from([1, 1, -1, 2]))) for _ in shape)]
    if draw(st.booleans()):
        array = array.T
    if draw(st.booleans()):
        array = np.broadcast_to(array, (2, *array.shape))
    if draw(st.booleans()) and array.flags.writeable:
        array.flags.writeable = False
    return array


def volume(draw: st.DrawFn, dtypes: list[str], shape: list[int]) -> npt.NDArray[Any]:
    dtype = draw(st.sampled_from(dtypes))
    return np.random.default_rng(draw(st.integers(0, 9))).integers(0, 3, shape).astype(dtype)


def starts(draw: st.DrawFn, n: int, least: int, most: int) -> npt.NDArray[np.int64]:
    wild = draw(st.sampled_from([*[0] * 20, -(2**63), -(2**31), 2**31, 2**62, 2**63 - 1]))
    values = draw(st.lists(st.integers(least, most), min_size=3 * n, max_size=3 * n))
    return np.array([wild or values[0], *values[1:]], np.int64).reshape(n, 3)


@st.composite
def good_arguments(draw: st.DrawFn, kernel: str) -> dict[str, Any]:
    """Arguments that the kernel takes, or nearly: numbers may lie beyond an array's ends."""

    def shape() -> list[int]:
        return draw(st.lists(st.integers(1, 9), min_size=3, max_size=3))

    def maybe(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        return array if draw(st.booleans()) else None

    z, y, x = size = shape()
    new = shape()
    n = draw(st.integers(1, 4))
    number = st.integers(-1, 9)
    labels = volume(draw, ["u1"], size)
    scan = volume(draw, ["i2"], size)
    any_volume = volume(draw, ["u1", "i2", "f2", "f4"], size)
    maps = volume(draw, ["f2", "f4"], [n, *size])
    dtype: np.dtype[Any] = draw(st.sampled_from([np.dtype(np.float32), np.dtype(np.float16)]))
    counters = np.arange(n)
    begin, end = sorted(draw(st.tuples(*[st.integers(0, new[0])] * 2)))
    planes = {
        "first_z": 0 if draw(st.booleans()) else draw(number),
        "planes": z + draw(st.sampled_from([0, 0, 0, 1, 3])),
        "begin_z": begin,
        "end_z": end + draw(st.sampled_from([0, 0, 0, -1, 1])),
    }
    normalise = {"window_hu": (-100.0, 200.0), "mean": 0.5, "std": 2.0, "dtype": dtype}
    out = np.zeros(new, any_volume.dtype)
    patch_starts = starts(draw, n, 0, 0) if draw(st.booleans()) else starts(draw, n, -2, 9)
    origins = starts(draw, n, -1, 1)
    boxes = np.maximum(origins, 0)
    threads = {"threads": draw(st.none() | st.integers(1, 3))}
    every: dict[str, dict[str, Any]] = {
        "class_maps_to_labels": {"class_maps": maps, "shape_zyx": new, "out": maybe(np.zeros(new, np.uint8))},
        "clip": {"volume": any_volume, "low": 0, "high": 1, "out": maybe(np.zeros_like(any_volume))},
        "draw_starts": {
            "shape_zyx": size,
            "patch_shape_zyx": new,
            "counters": counters,
            "seed": draw(number),
            "epoch": 0,
            "around": maybe(np.ascontiguousarray(starts(draw, n, 0, 9)[:, 0])),
        },
        "draw_volumes": {"weights": np.ones(n), "counters": counters, "seed": 1, "epoch": draw(number)},
        "export_planes": {"class_maps": maps, **planes, "out": np.zeros(new, np.uint8)},
        "extract_each": {
            "volumes": [any_volume[np.newaxis]] * n,
            "starts_zyx": patch_starts,
            "out": np.zeros((n, 1, *new), any_volume.dtype),
        },
        "extract_patches": {
            "volume": any_volume,
            "starts_zyx": patch_starts,
            "patch_shape_zyx": new,
            "pad": draw(st.sampled_from(["edge", "error"])),
            "out": maybe(np.zeros((n, 1, *new), any_volume.dtype)),
        },
        "label_runs": {"labels": labels, "label": draw(number)},
        "preprocess": {"volume": scan, "shape_zyx": new, **normalise, "out": maybe(np.zeros(new, dtype))},
        "preprocess_planes": {
            "slab": scan,
            **planes,
            "shape_zyx": new,
            **normalise,
            "out": maybe(np.zeros((end - begin, *new[1:]), dtype)),
        },
        "resample_cubic": {"volume": volume(draw, ["i2", "f4"], size), "shape_zyx": new, "out": None},
        "resample_labels": {
            "labels": labels,
            "shape_zyx": new,
            "method": draw(st.sampled_from(["linear", "nearest"])),
            "out": maybe(np.zeros(new, np.uint8)),
        },
        "resample_linear": {"volume": any_volume, "shape_zyx": new, "out": maybe(out)},
        "stitch": {
            "patches": volume(draw, ["f2", "f4"], [n, 2, *size]),
            "starts_zyx": origins,
            "box_starts_zyx": boxes,
            "box_stops_zyx": (
                np.minimum(origins.clip(-9, 9) + size, new) if draw(st.booleans()) else starts(draw, n, 0, 9)
            ),
            "weights_zyx": draw(
                st.sampled_from([None, tuple(np.ones((n, k), np.float32) for k in (z, y, x))])
            ),
            "out": np.zeros((2, *new), np.float32),
            "from_zero": draw(st.booleans()),
        },
        "uniform": {"counters": counters, "seed": draw(number), "epoch": 0, "stream": draw(number)},
    }
    threaded = {} if kernel in ("draw_starts", "draw_volumes", "label_runs", "uniform") else threads
    return every[kernel] | threaded


ANYTHING = (
    arrays()
    | st.sampled_from(NUMBERS)
    | st.lists(st.sampled_from(SIZES), max_size=4).map(tuple)
    | st.lists(arrays(), max_size=3)
    | st.sampled_from([np.dtype(name) for name in DTYPES])
)
# Those that set something for the whole process have tests of their own.
KERNELS = sorted(name for name in dir(_core) if not name.startswith(("_", "get_", "set_")))
EXAMPLES = int(os.environ.get("KERNEL_EXAMPLES", "40"))


def answers_or_refuses(kernel: str, data: st.DataObject) -> str:
    """Call a kernel with arguments that are right, or nearly, up to two of them anything; return what it said."""
    arguments = data.draw(good_arguments(kernel))
    for name in data.draw(st.sets(st.sampled_from(sorted(arguments)), max_size=2)):
        arguments[name] = data.draw(ANYTHING, label=name)
    try:
        getattr(_core, kernel)(**arguments)
    except (ValueError, TypeError, MemoryError) as error:
        return str(error)
    return "answered"


@pytest.mark.parametrize("kernel", KERNELS)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_kernel_answers_or_refuses(kernel: str, data: st.DataObject) -> None:
    assert answers_or_refuses(kernel, data), "a refusal must say why"


@pytest.mark.parametrize("weights", [(), (np.ones((1, 1), np.float32),) * 2, 7, "abc"])
def test_weights_of_a_stitch_are_three(weights: Any) -> None:
    one = np.zeros((1, 3), np.int64)
    with pytest.raises(TypeError, match="weights_zyx must be three arrays or None"):
        _core.stitch(
            np.zeros((1, 1, 1, 1, 1), np.float32),
            one,
            one,
            one + 1,
            weights,
            np.zeros((1, 1, 1, 1), np.float32),
            True,
            1,
        )
