"""One process of a campaign: so many hostile scans of one format, through all targets.

    python -m tests.fuzz.worker FORMAT ENGINE COUNT SEED FOLDER FINDINGS UNTIL

UNTIL is when to stop, in seconds since 1970. FOLDER gets the tally, and holds the scan that is being tried.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path


def main(
    form: str, engine: str, count: int, random_seed: int, folder: Path, findings: Path, until: float
) -> None:
    """Import what is to be fuzzed, instrumented where branches guide the mutations, and begin."""
    if engine != "hypothesis":
        import atheris

        # What is read in Python; ITK and GDCM are not instrumented.
        instrumented = atheris.instrument_imports(include=["algorithm"])
    else:
        instrumented = nullcontext()
    with instrumented:
        from tests.fuzz.engines import ENGINES, Run
        from tests.fuzz.seeds import make_seed
    ENGINES[engine](Run(make_seed(form), folder, findings, count, until), random_seed)


if __name__ == "__main__":
    form, engine, count, random_seed, folder, findings, until = sys.argv[1:]
    main(form, engine, int(count), int(random_seed), Path(folder), Path(findings), float(until))
