"""The parts of docs/BENCHMARKS.md that programs write, each between two markers."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "BENCHMARKS.md"


def write_part(writer: str, text: str) -> None:
    """Replace what `writer`, a file of benchmarks/, wrote before."""
    begin, end = (f"<!-- {edge}: written by benchmarks/{writer} -->" for edge in ("begin", "end"))
    before, rest = PAGE.read_text().split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")
