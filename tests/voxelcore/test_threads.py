"""The number of threads changes nothing but the time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import voxelcore

rng = np.random.default_rng(0)
SHAPE = (23, 41, 57)
NEW = (29, 70, 50)
WHOLE = rng.integers(-1024, 3072, SHAPE).astype(np.int16)
FLOAT = rng.normal(size=SHAPE).astype(np.float32)
LABELS = rng.integers(0, 3, SHAPE).astype(np.uint8)
MAPS = rng.normal(size=(3, *SHAPE)).astype(np.float32)
STARTS = rng.integers(-5, 20, (11, 3))
TILING = voxelcore.tile(SHAPE, (16, 16, 16), overlap_zyx=(5, 6, 7))
PATCHES = rng.normal(size=(len(TILING), 2, 16, 16, 16)).astype(np.float16)

Kernel = Callable[[int], npt.NDArray[Any]]
KERNELS: dict[str, Kernel] = {
    "linear int16": lambda n: voxelcore.resample_linear(WHOLE, NEW, threads=n),
    "linear float32": lambda n: voxelcore.resample_linear(FLOAT, NEW, threads=n),
    "linear float16": lambda n: voxelcore.resample_linear(FLOAT.astype(np.float16), NEW, threads=n),
    "cubic int16": lambda n: voxelcore.resample_cubic(WHOLE, NEW, threads=n),
    "cubic float32": lambda n: voxelcore.resample_cubic(FLOAT, NEW, threads=n),
    "labels linear": lambda n: voxelcore.resample_labels(LABELS, NEW, threads=n),
    "labels nearest": lambda n: voxelcore.resample_labels(LABELS, NEW, method="nearest", threads=n),
    "class maps": lambda n: voxelcore.class_maps_to_labels(MAPS, NEW, threads=n),
    "preprocess": lambda n: voxelcore.preprocess(
        WHOLE, NEW, window_hu=(-100, 200), mean=50.3, std=71.9, threads=n
    ),
    "clip": lambda n: voxelcore.clip(FLOAT, -0.5, 0.5, threads=n),
    "patches": lambda n: voxelcore.extract_patches(WHOLE, STARTS, (9, 21, 30), threads=n),
    "centre": lambda n: voxelcore.stitch(PATCHES, TILING, blend="centre", threads=n),
    "gaussian": lambda n: voxelcore.stitch(PATCHES, TILING, blend="gaussian", threads=n),
}


@pytest.mark.parametrize("threads", [2, 4, 7])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_the_same_bits_for_any_number_of_threads(kernel: Kernel, threads: int) -> None:
    assert kernel(threads).tobytes() == kernel(1).tobytes()


def test_the_default_is_set_and_read() -> None:
    before = voxelcore.get_threads()
    assert before >= 1
    try:
        voxelcore.set_threads(3)
        assert voxelcore.get_threads() == 3
        expected = voxelcore.resample_linear(FLOAT, NEW, threads=1)
        np.testing.assert_array_equal(voxelcore.resample_linear(FLOAT, NEW), expected)
    finally:
        voxelcore.set_threads(before)


@pytest.mark.parametrize("n", [0, -1, 1025])
def test_a_senseless_number_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n must be 1 to 1024, got {n}"):
        voxelcore.set_threads(n)
    with pytest.raises(ValueError, match=f"threads must be 1 to 1024, got {n}"):
        voxelcore.resample_linear(FLOAT, NEW, threads=n)
    with pytest.raises(TypeError, match=r"threads must be a whole number, got 1\.5"):
        voxelcore.resample_linear(FLOAT, NEW, threads=1.5)  # type: ignore[arg-type]


def test_other_python_threads_run_during_a_kernel() -> None:
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            time.sleep(0.001)
            ticks += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    out = np.ones((160, 256, 256), np.float32)
    before = ticks
    voxelcore.resample_cubic(FLOAT, out.shape, out=out, threads=1)
    during = ticks - before
    done.set()
    ticker.join()
    assert during >= 5


def test_kernels_called_from_many_python_threads_at_once() -> None:
    expected = KERNELS["linear int16"](1).tobytes()
    results: list[bytes] = []
    callers = [
        threading.Thread(target=lambda: results.append(KERNELS["linear int16"](3).tobytes()))
        for _ in range(6)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == [expected] * 6


OUT_OF_MEMORY = """
import resource, numpy, voxelcore
volume = numpy.zeros((64, 1, 2**18), numpy.int16)
out = numpy.empty((64, 1, 8), numpy.int16)
pages = int(open("/proc/self/statm").read().split()[0])
coefficients, panel = 64 * 2**20, 64 * 2**20
limit = pages * resource.getpagesize() + coefficients + panel // 2
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    voxelcore.resample_cubic(volume, out.shape, out=out, threads=2)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits the address space")
def test_an_exception_in_a_thread_reaches_the_caller() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.strip() == "MemoryError", ran.stderr
    assert ran.returncode == 0
