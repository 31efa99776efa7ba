"""The two ways to make hostile scans by the thousand, and what is kept of them.

The tally is written after each scan, so that nothing is lost when a scan ends the process.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.fuzz.mutations import hostile
from tests.fuzz.seeds import Files, Seed
from tests.fuzz.tally import TALLY, TARGETS, Tally
from tests.fuzz.targets import Targets, Verdict

LARGEST_BYTES = 1 << 17


class Run:
    """The targets, the tally and the end of a process's work."""

    def __init__(self, seed: Seed, folder: Path, findings: Path, until: float) -> None:
        (folder / TARGETS).mkdir(parents=True, exist_ok=True)
        self.seed, self.folder, self.findings, self.until = seed, folder, findings, until
        self.targets, self.tally = Targets(folder / TARGETS), Tally()

    @property
    def out_of_time(self) -> bool:
        """Whether the campaign ends here."""
        return time.time() >= self.until

    def take(self, files: Files) -> None:
        """Give a scan to the targets, and count and keep what comes of it."""
        if self.out_of_time:
            return
        judged = self.targets.judge(self.seed, files)
        self.tally.add(judged)
        wrong = [verdict for verdict in judged.verdicts if verdict.wrong]
        if wrong:
            self.tally.findings.append(keep_finding(self.findings, self.seed, files, wrong))
        self.tally.write(self.folder / TALLY)


def keep_finding(folder: Path, seed: Seed, files: Files, wrong: list[Verdict]) -> str:
    """Write a scan with what went wrong into a folder of its own; return the folder's name."""
    digest = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()[:12]
    name = f"{seed.format.replace(', ', '-')}-{digest}"
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / name / file).write_bytes(content)
    said = "".join(f"{verdict.target}: {verdict.wrong}\n" for verdict in wrong)
    (folder / f"{name}.txt").write_text(said, errors="backslashreplace")
    return name


def by_hypothesis(run: Run, count: int, random_seed: int) -> None:
    """Take so many scans with header fields and bodies changed by the strategies of `mutations`."""

    @hypothesis.seed(random_seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(hostile(run.seed))
    def take(files: Files) -> None:
        run.take(files)

    take()


def by_atheris(run: Run, count: int, random_seed: int) -> None:
    """Take so many scans whose bytes libFuzzer mutates, guided by the branches that the readers take."""
    import atheris

    corpus = run.folder / "corpus"
    corpus.mkdir(exist_ok=True)
    mutated = run.seed.headers[0] if run.seed.scan else run.seed.headers[len(run.seed.headers) // 2]
    (corpus / "seed").write_bytes(run.seed.files[mutated])

    def take(content: bytes) -> None:
        run.take({**run.seed.files, mutated: content})
        if run.out_of_time:
            os._exit(0)

    options = [f"-runs={count}", f"-seed={random_seed + 1}", f"-max_len={LARGEST_BYTES}", "-timeout=0"]
    quiet = ["-verbosity=0", "-print_final_stats=0", "-rss_limit_mb=0", "-handle_segv=0", "-handle_abrt=0"]
    atheris.Setup([sys.argv[0], *options, *quiet, str(corpus)], take)
    atheris.Fuzz()


ENGINES = {"hypothesis": by_hypothesis, "atheris": by_atheris}
