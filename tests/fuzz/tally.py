"""What a campaign has done so far."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from algorithm.files import replacing

if TYPE_CHECKING:
    from tests.fuzz.targets import Judged

TALLY, TARGETS = "tally.json", "targets"  # in a worker's folder


@dataclass
class Tally:
    """What a process, or several, have done.

    Attributes:
        scans: given to the targets.
        accepted: of those, the ones that some target gave a result for.
        slowest_s: the longest that a target took for one.
        most_bytes: the most memory that a target took for one.
        findings: names of the folders with those that went wrong.
        refusals: how often each target refused.

    """

    scans: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    most_bytes: int = 0
    findings: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)

    def add(self, judged: Judged) -> None:
        """Count a scan."""
        self.scans += 1
        self.accepted += any(verdict.accepted for verdict in judged.verdicts)
        self.slowest_s = max(self.slowest_s, judged.seconds)
        self.most_bytes = max(self.most_bytes, judged.memory)
        self.refusals.update(verdict.target for verdict in judged.verdicts if not verdict.accepted)

    def join(self, other: Tally) -> None:
        """Add what another process has done."""
        self.scans += other.scans
        self.accepted += other.accepted
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.most_bytes = max(self.most_bytes, other.most_bytes)
        self.findings += [name for name in other.findings if name not in self.findings]
        self.refusals.update(other.refusals)

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(vars(self)))

    @classmethod
    def read(cls, path: Path) -> Tally:
        """Return what was kept, or nothing done."""
        if not path.is_file():
            return cls()
        kept = json.loads(path.read_text())
        return cls(**{**kept, "refusals": Counter(kept["refusals"])})
