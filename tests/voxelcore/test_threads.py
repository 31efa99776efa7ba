"""The number of threads changes nothing but the time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import voxelcore
from tests.voxelcore.kernels import FLOAT, KERNELS, NEW, Kernel


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


@pytest.mark.another_python
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VOXELCORE_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3"),
        ({"OMP_NUM_THREADS": "5,2"}, "5"),
        ({"VOXELCORE_THREADS": "many", "OMP_NUM_THREADS": "0"}, str(len(os.sched_getaffinity(0)))),
    ],
)
def test_the_default_at_start_follows_the_environment(variables: dict[str, str], expected: str) -> None:
    program = "import voxelcore; print(voxelcore.get_threads())"
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_THREADS")}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) <= int(expected)
    if "many" not in variables.values():  # where a container's quota may be the smaller number
        assert ran.stdout.strip() == expected


@pytest.mark.another_python
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity mask")
def test_the_default_at_start_follows_the_affinity_mask() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); import voxelcore; print(voxelcore.get_threads())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_THREADS")}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "1"


MOST_AT_ONCE = """
import threading, numpy, voxelcore
voxelcore.set_threads(2)
volume = numpy.zeros((64, 256, 256), numpy.int16)
stop = threading.Event()
def work():
    while not stop.is_set():
        voxelcore.resample_cubic(volume, (80, 256, 250))
callers = [threading.Thread(target=work) for _ in range(8)]
for caller in callers:
    caller.start()
most = 0
for _ in range(300):
    most = max(most, int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[17]))
    stop.wait(0.003)
stop.set()
for caller in callers:
    caller.join()
print(most)
"""


@pytest.mark.another_python
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_calls_that_share_the_default_do_not_start_a_crowd() -> None:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", MOST_AT_ONCE], env=environment, capture_output=True, text=True, check=True
    )
    assert 9 <= int(ran.stdout) <= 10  # the eight callers, the main thread, and at most one helper


AFTER_A_FORK = """
import os, threading, numpy, voxelcore
volume = numpy.arange(2**21, dtype=numpy.int16).reshape(32, 256, 256)
expected = voxelcore.resample_cubic(volume, (40, 200, 200)).tobytes()
stop = threading.Event()
def work():
    while not stop.is_set():
        voxelcore.resample_cubic(volume, (40, 200, 200))
caller = threading.Thread(target=work)
caller.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if voxelcore.resample_cubic(volume, (40, 200, 200)).tobytes() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
caller.join()
"""


@pytest.mark.another_python
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_the_middle_of_a_call_leaves_a_child_that_works() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AFTER_A_FORK],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr


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
panel = 4 * 32 * 2**18  # what each thread takes for 32 rows
limit = pages * resource.getpagesize() + panel // 2
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    voxelcore.resample_cubic(volume, out.shape, out=out, threads=2)
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.another_python
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits the address space")
def test_an_exception_in_a_thread_reaches_the_caller() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout.strip() == "MemoryError", ran.stderr
    assert ran.returncode == 0


INTERRUPTED = """
import resource, signal, sys, time, numpy, voxelcore

threads = int(sys.argv[1])
volume = numpy.zeros((8, 256, 256), numpy.int16)
out = numpy.full((600, 512, 512), 1, numpy.int16)  # a second of work, and pages that are there already
worst = 0.0
peaks = []
signal.signal(signal.SIGALRM, signal.default_int_handler)
for _ in range(8):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    begun = time.perf_counter()
    try:
        voxelcore.resample_cubic(volume, out.shape, out=out, threads=threads)
    except KeyboardInterrupt:
        worst = max(worst, time.perf_counter() - begun - 0.05)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
volume[...] = 7
print(len(peaks), worst, (peaks[-1] - peaks[3]) / 1024, (voxelcore.resample_cubic(volume, (8, 64, 64)) == 7).all())
"""


@pytest.mark.another_python
@pytest.mark.parametrize("threads", [1, 3])
def test_an_interrupt_ends_a_call_within_a_second_and_leaks_nothing(threads: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(threads)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    interrupts, worst_s, growth_mib, works = ran.stdout.split()
    assert int(interrupts) == 8
    assert float(worst_s) < 1
    assert float(growth_mib) < 8
    assert works == "True"
