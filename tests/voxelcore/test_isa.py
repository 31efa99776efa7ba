"""Each instruction set gives the bits of the baseline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import voxelcore
from tests.voxelcore.kernels import KERNELS, Kernel
from tests.voxelcore.oracles import Shape

FASTER = [isa for isa in voxelcore.get_isas() if isa != "baseline"]
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 70))


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = voxelcore.get_isa()
    yield
    voxelcore.set_isa(before)


def with_isa(isa: Any, kernel: Kernel) -> bytes:
    voxelcore.set_isa(isa)
    assert voxelcore.get_isa() == isa
    return kernel(2).tobytes()


def test_the_best_is_in_use_and_baseline_is_always_there() -> None:
    assert voxelcore.get_isas()[0] == "baseline"
    if "VOXELCORE_ISA" not in os.environ:
        assert voxelcore.get_isa() == voxelcore.get_isas()[-1]


@pytest.mark.skipif(not FASTER, reason="this processor has the baseline only")
@pytest.mark.parametrize("isa", FASTER)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_the_same_bits_on_every_set(kernel: Kernel, isa: str) -> None:
    assert with_isa(isa, kernel) == with_isa("baseline", kernel)


@pytest.mark.parametrize("isa", FASTER)
@given(shape=shapes, new=shapes, seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32])
@settings(max_examples=60, deadline=None)
def test_the_same_bits_for_rows_of_any_length(
    isa: str, dtype: Any, shape: Shape, new: Shape, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    volume = (rng.normal(size=shape) * 90).astype(dtype)
    if np.issubdtype(dtype, np.floating):
        volume.ravel()[rng.integers(0, volume.size, 3)] = [np.nan, np.inf, -0.0]

    def resampled(threads: int) -> Any:
        result = voxelcore.resample_linear(volume, new, threads=threads)
        if np.issubdtype(dtype, np.floating):
            result[np.isnan(result)] = np.nan  # the sign of a NaN is the order of two operands
        return result

    assert with_isa(isa, resampled) == with_isa("baseline", resampled)


@pytest.mark.parametrize("isa", FASTER)
def test_every_float16_widens_to_the_same_bits(isa: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, 1, 1, 1, -1)
    tiling = voxelcore.tile((1, 1, 2**16), (1, 1, 2**16), overlap_zyx=(0, 0, 0))
    baseline = with_isa("baseline", lambda n: voxelcore.stitch(every, tiling, blend="centre", threads=n))
    assert with_isa(isa, lambda n: voxelcore.stitch(every, tiling, blend="centre", threads=n)) == baseline


@pytest.mark.parametrize("isa", FASTER)
def test_every_rounding_to_float16_is_the_same(isa: str) -> None:
    """Voxels as they are, divided by 2**-30 to 2**30: normal, subnormal, overflowing halves and ties."""
    volume = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(1, 64, 1024)
    for exponent in range(-15, 40):

        def narrow(threads: int, std: float = 2.0**exponent) -> Any:
            return voxelcore.preprocess(
                volume,
                volume.shape,
                window_hu=(-40000, 40000),
                mean=0,
                std=std,
                dtype=np.float16,
                threads=threads,
            )

        assert with_isa(isa, narrow) == with_isa("baseline", narrow), exponent


@pytest.mark.parametrize("isa", ["sse2", "AVX2", ""])
def test_an_unknown_set_is_refused(isa: Any) -> None:
    with pytest.raises(ValueError, match=r"name must be one of \('baseline'"):
        voxelcore.set_isa(isa)
    with pytest.raises(TypeError, match="name must be a string, got 2"):
        voxelcore.set_isa(2)  # type: ignore[arg-type]


@pytest.mark.another_python
@pytest.mark.parametrize("isa", voxelcore.get_isas())
def test_the_environment_forces_a_set(isa: str) -> None:
    program = "import voxelcore; print(voxelcore.get_isa())"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"VOXELCORE_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == isa


@pytest.mark.another_python
def test_a_senseless_environment_is_said_at_import() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import voxelcore"],
        env=os.environ | {"VOXELCORE_ISA": "sse9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "VOXELCORE_ISA must be baseline, avx2 or avx512" in ran.stderr
    assert "got sse9" in ran.stderr
