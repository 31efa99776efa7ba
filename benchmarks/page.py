"""The parts of docs/BENCHMARKS.md and docs/RESULTS.md that programs write, each between two markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "BENCHMARKS.md"


def write_part(writer: str, text: str, page: Path = PAGE) -> None:
    """Replace what `writer`, a file of benchmarks/, wrote into a page before."""
    begin, end = (f"<!-- {edge}: written by benchmarks/{writer} -->" for edge in ("begin", "end"))
    before, rest = page.read_text().split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def keep(name: str, content: dict[str, Any], text: str, out: Path | None = None) -> None:
    """Keep what benchmarks/NAME.py measured as NAME.json, and as its part of the page.

    With `out`, the machine is another than the page's: both go into that folder, the part as NAME.md.
    """
    (out or FOLDER).mkdir(parents=True, exist_ok=True)
    ((out or FOLDER) / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if out is None:
        write_part(f"{name}.py", text)
    else:
        (out / f"{name}.md").write_text(text + "\n")
