"""One HTML page that needs nothing from anywhere: its style and script are in it, and its policy allows no more."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

EMPTY_ICON = "data:,"  # else a browser asks for favicon.ico


def asset(name: str) -> str:
    """Return a file of trainer/assets."""
    return resources.files("trainer").joinpath("assets", name).read_text(encoding="utf-8")


def page(title: str, body: str, *, connect: str = "'none'") -> str:
    """Return a whole page.

    Args:
        title: its title, plain text.
        body: HTML.
        connect: what its script may fetch from, in the words of a content security policy.

    """
    style, script = asset("page.css"), asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{EMPTY_ICON}">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: plain text or HTML, and what it sorts by ("" for what is missing)."""

    html: str
    value: float | str = ""
    style: str = ""

    @classmethod
    def text(cls, text: str, style: str = "text") -> Cell:
        """Return a cell of plain text."""
        return cls(escape(text), text, style)

    @classmethod
    def number(cls, value: float | None, digits: int = 3, *, sign: bool = False) -> Cell:
        """Return a cell of a number, or of a dash."""
        return cls("&ndash;") if value is None else cls(f"{value:{'+' if sign else ''}.{digits}f}", value)


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str, sortable: bool = False
) -> str:
    """Return a table; a sortable one has a button in each head."""
    head = "".join(
        f'<th scope="col">{f"<button type=button>{escape(name)}</button>" if sortable and name else escape(name)}</th>'
        for name in heads
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{cell.style}" data-value="{escape(str(cell.value))}">{cell.html}</td>'
            for cell in row
        )
        + "</tr>"
        for row in rows
    )
    mark = " data-sortable" if sortable else ""
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table{mark}>'
        f"<caption>{escape(caption)}</caption>{top}\n<tbody>\n{body}\n</tbody></table></div>"
    )


def facts(values: Mapping[str, object], *, caption: str) -> str:
    """Return a table of names and values."""
    return table(
        [],
        [[Cell.text(name), Cell.text(str(value))] for name, value in values.items()],
        caption=caption,
    )
