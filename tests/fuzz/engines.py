"""The two ways to make hostile scans by the thousand, and what is kept of them.

The tally is written after each scan, so that nothing is lost when a scan ends the process.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType

import hypothesis
from hypothesis import HealthCheck, Phase

from algorithm import dicom, dicom_elements, geometry, images, metaimage, nifti, nrrd, payload
from tests.fuzz.mutations import hostile
from tests.fuzz.seeds import Files, Seed
from tests.fuzz.tally import TALLY, TARGETS, Tally
from tests.fuzz.targets import Targets, Verdict

LARGEST_BYTES = 1 << 17
# What is read in Python, whose branches guide mutations; ITK and GDCM are not instrumented.
READERS = (dicom, dicom_elements, geometry, images, metaimage, nifti, nrrd, payload)


class Run:
    """The targets, the tally and the end of a process's work.

    Args:
        seed: the sound scan.
        folder: for the tally and what the targets need.
        findings: the folder for scans that went wrong.
        count: of scans that differ; the work ends with them.
        until: when it ends at the latest, in seconds since 1970.

    """

    def __init__(self, seed: Seed, folder: Path, findings: Path, count: int, until: float) -> None:
        (folder / TARGETS).mkdir(parents=True, exist_ok=True)
        self.seed, self.folder, self.findings = seed, folder, findings
        self.count, self.until = count, until
        self.targets, self.tally = Targets(folder / TARGETS), Tally()
        self._seen = {_digest(seed.files)}

    @property
    def ended(self) -> bool:
        """Whether all is done, or time is up."""
        return self.tally.scans >= self.count or time.time() >= self.until

    def take(self, files: Files) -> None:
        """Give a scan that is new to the targets, and count and keep what comes of it."""
        digest = _digest(files)
        if self.ended or digest in self._seen:
            return
        self._seen.add(digest)
        judged = self.targets.judge(self.seed, files)
        self.tally.add(judged)
        wrong = [verdict for verdict in judged.verdicts if verdict.wrong]
        if wrong:
            self.tally.findings.append(keep_finding(self.findings, self.seed, files, wrong))
        self.tally.write(self.folder / TALLY)


def _digest(files: Files) -> str:
    """Return what tells scans apart: the sha256 of names and contents."""
    parts = (name.encode() + len(content).to_bytes(8) + content for name, content in sorted(files.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def keep_finding(folder: Path, seed: Seed, files: Files, wrong: list[Verdict]) -> str:
    """Write a scan with what went wrong into a folder of its own; return the folder's name."""
    name = f"{seed.format.replace(', ', '-')}-{_digest(files)[:12]}"
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / name / file).write_bytes(content)
    said = "".join(f"{verdict.target}: {verdict.wrong}\n" for verdict in wrong)
    (folder / f"{name}.txt").write_text(said, errors="backslashreplace")
    return name


def by_hypothesis(run: Run, random_seed: int) -> None:
    """Take scans with header fields and bodies changed by the strategies of `mutations`."""
    while not run.ended:  # many of the scans that are drawn were drawn before
        for files in draw(run.seed, min(1000, 2 * (run.count - run.tally.scans)), random_seed):
            run.take(files)
        random_seed += 1_000_000


def draw(seed: Seed, count: int, random_seed: int) -> list[Files]:
    """Return so many hostile scans, which depend on the seeds alone; some are equal."""
    scans: list[Files] = []

    @hypothesis.seed(random_seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(hostile(seed))
    def keep(files: Files) -> None:
        scans.append(files)

    keep()
    return scans


def by_atheris(run: Run, random_seed: int) -> None:
    """Take scans whose bytes libFuzzer mutates, guided by the branches that the readers take; ends the process."""
    import atheris

    corpus = run.folder / "corpus"
    corpus.mkdir(exist_ok=True)
    mutated = run.seed.headers[len(run.seed.headers) // 2]
    sound = run.seed.files[mutated]
    (corpus / "seed").write_bytes(sound)

    def take(content: bytes) -> None:
        if content == sound:  # whose branches libFuzzer must see, to mutate it and not the empty file
            run.targets.judge(run.seed, run.seed.files)
        run.take({**run.seed.files, mutated: content})
        if run.ended:
            os._exit(0)

    options = [f"-seed={random_seed + 1}", f"-max_len={LARGEST_BYTES}", "-len_control=0"]
    guards = [
        "-timeout=600",
        "-rss_limit_mb=0",
        "-handle_segv=0",
        "-handle_abrt=0",
    ]  # the campaign has its own
    for function in _functions(READERS):
        atheris.instrument_func(function)
    atheris.Setup(
        [sys.argv[0], *options, *guards, "-verbosity=0", f"-artifact_prefix={run.folder}/", str(corpus)], take
    )
    atheris.Fuzz()


def _functions(modules: Sequence[ModuleType]) -> Iterator[FunctionType]:
    """Yield the functions and methods that are written in these modules."""
    for module in modules:
        for value in vars(module).values():
            members = vars(value).values() if inspect.isclass(value) else (value,)
            for member in map(inspect.unwrap, filter(callable, members)):
                if inspect.isfunction(member) and member.__module__ == module.__name__:
                    yield member


def by_both(run: Run, random_seed: int) -> None:
    """Take half of the scans from either, in one process, which starts in less time than two; ends the process."""
    count, run.count = run.count, run.count // 2
    by_hypothesis(run, random_seed)
    run.count = count
    by_atheris(run, random_seed)


ENGINES = {"hypothesis": by_hypothesis, "atheris": by_atheris, "both": by_both}
