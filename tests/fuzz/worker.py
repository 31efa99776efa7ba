"""One process of a campaign: so many hostile scans of one format, through all targets.

    python -m tests.fuzz.worker FORMAT ENGINE COUNT SEED FOLDER FINDINGS UNTIL

UNTIL is when to stop, in seconds since 1970. FOLDER gets the tally, and holds the scan that is being tried.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.engines import ENGINES, Run
from tests.fuzz.seeds import make_seed


def main() -> None:
    """Do what the command line says."""
    form, engine, count, random_seed, folder, findings, until = sys.argv[1:]
    run = Run(make_seed(form), Path(folder), Path(findings), int(count), float(until))
    ENGINES[engine](run, int(random_seed))


if __name__ == "__main__":
    main()
