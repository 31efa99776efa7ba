#!/usr/bin/env bash
# Build the kernels with sanitizers and run their tests against that build:
#   tests/sanitize.sh address,undefined
#   tests/sanitize.sh thread
# or call each of them with arguments that libFuzzer makes, so many times:
#   tests/sanitize.sh address,undefined 20000
# The tests that start another Python are left out: they import the installed build. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

sanitizers=${1:?"say which: address,undefined or thread"}
calls=${2:-}
python=${PYTHON:-python}
build=build/sanitize-${sanitizers%%,*}

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Debug -DVOXELCORE_SANITIZE="$sanitizers" -DVOXELCORE_WERROR=ON \
    -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build "$build" --parallel "$(nproc)"

case $sanitizers in
address*) runtime=libasan.so ;;
thread) runtime=libtsan.so ;;
*) echo "unknown sanitizers: $sanitizers; use address,undefined or thread" >&2; exit 2 ;;
esac
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")

# Python itself is not instrumented, hence the preload; it never frees everything at exit, hence no leak check.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
export TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1 OPENBLAS_NUM_THREADS=1
preload="$("$compiler" -print-file-name=$runtime) $("$compiler" -print-file-name=libstdc++.so)"

if [ -n "$calls" ]; then
    exec env LD_PRELOAD="$preload" UBSAN_OPTIONS=halt_on_error=1 \
        "$python" -m tests.fuzz.kernels --runs "$calls" --build "$build"/_core.*.so
fi

env LD_PRELOAD="$preload" "$python" - "$build"/_core.*.so <<'PROGRAM'
import importlib.util
import sys

import pytest

specification = importlib.util.spec_from_file_location("voxelcore._core", sys.argv[1])
module = importlib.util.module_from_spec(specification)
sys.modules["voxelcore._core"] = module
specification.loader.exec_module(module)

from voxelcore import resampling

assert resampling._core is module
options = ["-q", "--capture=no", "-p", "no:cacheprovider", "-m", "not another_python"]
sys.exit(pytest.main([*options, "tests/voxelcore"]))
PROGRAM
