"""libFuzzer on the argument checks of each kernel: `python -m tests.fuzz.kernels` (`make fuzz-kernels`).

Its bytes are what Hypothesis draws arguments from, so that what it learns of one call goes into the next. Each kernel
has a process of its own; one that crashes, or answers with another exception than its checks raise, ends the run with
the bytes that did it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

LARGEST_BYTES = 4096
FOLDER = Path("build/fuzz-kernels")


def fuzz(kernel: str, runs: int) -> None:
    """Call a kernel so many times; ends the process."""
    import atheris
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from tests.voxelcore.test_any_arguments import answers_or_refuses

    for function in (answers_or_refuses,):
        atheris.instrument_func(function)

    @given(data=st.data())
    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    def call(data: st.DataObject) -> None:
        answers_or_refuses(kernel, data)

    corpus = FOLDER / kernel
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-runs={runs}", "-seed=1", f"-max_len={LARGEST_BYTES}", "-len_control=0", "-timeout=60"]
    atheris.Setup(
        [sys.argv[0], *options, "-verbosity=0", f"-artifact_prefix={corpus}-", str(corpus)],
        call.hypothesis.fuzz_one_input,
    )
    atheris.Fuzz()


def main() -> int:
    """Fuzz every kernel, one process after the other; 1 where one went wrong."""
    from tests.voxelcore.test_any_arguments import KERNELS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="calls of each kernel; default: 20000")
    parser.add_argument("--kernel", choices=KERNELS, help="this one alone, in this process")
    args = parser.parse_args()
    if args.kernel:
        fuzz(args.kernel, args.runs)
    wrong = 0
    for kernel in KERNELS:
        command = [sys.executable, "-m", "tests.fuzz.kernels", "--kernel", kernel, "--runs", str(args.runs)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
        wrong += done.returncode != 0
        sys.stdout.write(f"{kernel}: {args.runs} calls, {'sound' if done.returncode == 0 else 'WRONG'}\n")
        if done.returncode:
            sys.stderr.write(done.stderr[-3000:])
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
