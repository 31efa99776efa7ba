"""libFuzzer on the argument checks of each kernel: `make fuzz-kernels`, which builds them with sanitizers first.

Its bytes are what Hypothesis draws arguments from. Each kernel has a process of its own; one that crashes, that a
sanitizer ends, or that answers with another exception than its checks raise fails, and the bytes that did it stay in
build/fuzz-kernels.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

LARGEST_BYTES = 4096
FOLDER = Path("build/fuzz-kernels")
SAID = 3000  # characters of a sanitizer's report


def load(build: Path) -> None:
    """Put an extension in the place of the installed one; RuntimeError where that was imported before."""
    if "voxelcore._core" in sys.modules:
        raise RuntimeError("another build of the kernels is imported already")
    specification = importlib.util.spec_from_file_location("voxelcore._core", build)
    if specification is None or specification.loader is None:
        raise RuntimeError(f"{build} is no extension module")
    module = importlib.util.module_from_spec(specification)
    sys.modules["voxelcore._core"] = module
    specification.loader.exec_module(module)


def fuzz(kernel: str, runs: int) -> None:
    """Call a kernel so many times; ends the process."""
    import atheris
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from tests.voxelcore import test_any_arguments

    atheris.instrument_func(test_any_arguments.answers_or_refuses)

    @given(data=st.data())
    @settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
    def call(data: st.DataObject) -> None:
        assert test_any_arguments.answers_or_refuses(kernel, data), "a refusal must say why"

    FOLDER.mkdir(parents=True, exist_ok=True)
    options = [f"-runs={runs}", "-seed=1", f"-max_len={LARGEST_BYTES}", "-len_control=0", "-timeout=60"]
    prefix = f"-artifact_prefix={FOLDER / kernel}-"
    fuzz_one_input = call.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    atheris.Setup([sys.argv[0], *options, prefix, "-rss_limit_mb=0", "-verbosity=0"], fuzz_one_input)
    atheris.Fuzz()


def main() -> int:
    """Fuzz every kernel, one process after the other; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="calls of each kernel; default: 20000")
    parser.add_argument("--build", type=Path, help="the extension, such as one with sanitizers")
    parser.add_argument("--kernel", help="this one alone, in this process")
    args = parser.parse_args()
    if args.build:
        load(args.build)
    if args.kernel:
        fuzz(args.kernel, args.runs)
    from tests.voxelcore.test_any_arguments import KERNELS

    failed = 0
    for kernel in KERNELS:
        build = ["--build", str(args.build)] if args.build else []
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.kernels",
            "--kernel",
            kernel,
            "--runs",
            str(args.runs),
            *build,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        outcome = "sound" if done.returncode == 0 else f"FAILED with status {done.returncode}"
        sys.stdout.write(f"{kernel}: {args.runs} calls, {outcome}\n")
        sys.stdout.flush()
        if done.returncode:
            sys.stderr.write(done.stderr[-SAID:])
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
