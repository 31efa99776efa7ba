"""Line charts as SVG that take the colours of their page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 26, 36
TICKS = 4
FEW_POINTS, MARKED = 12, 8  # from so many points on, about eight of a line are marked
SERIES = 7  # colours in page.css and shapes of marks
# of each series around (0, 0), for whoever sees no colours: a ball, a square, triangles, a diamond, crosses
MARKS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0Z",
    "M-3.2-3.2H3.2V3.2H-3.2Z",
    "M0-4.2L4 3H-4Z",
    "M0-4.6L4.6 0L0 4.6L-4.6 0Z",
    "M0 4.2L4-3H-4Z",
    "M-3.5-3.5L3.5 3.5M-3.5 3.5L3.5-3.5",
    "M-4.5 0H4.5M0-4.5V4.5",
)


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, series from 1 on (colour and mark), points (x, y), and whether it is dotted."""

    name: str
    series: int
    points: Sequence[tuple[float, float]]
    dotted: bool = False

    @property
    def style(self) -> str:
        """Its class in page.css; the colours come round again."""
        return f"series-{(self.series - 1) % SERIES + 1}"

    def mark(self, x: float, y: float) -> str:
        """Return its mark, hollow where the line is dotted."""
        hollow = ' class="hollow"' if self.dotted else ""
        shape = MARKS[(self.series - 1) % SERIES]
        return f'<path{hollow} d="{shape}" transform="translate({x:.1f} {y:.1f})"/>'


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
) -> str:
    """Return a figure with its legend; lines without a point are left out."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    x0, x1 = x_range or _extent([x for line in lines for x, _ in line.points])
    y0, y1 = y_range or _round_extent([0.0, *(y for line in lines for _, y in line.points)])

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<text x="{LEFT}" y="15" font-weight="bold">{escape(title)}</text>']
    for tick in range(TICKS + 1):
        y = y0 + (y1 - y0) * tick / TICKS
        _, down = place(x0, y)
        parts.append(f'<path class="grid-line" d="M{LEFT} {down:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{down + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    for x in (
        _whole_ticks(x0, x1) if x_range is None else (x0 + (x1 - x0) * t / TICKS for t in range(TICKS + 1))
    ):
        over, _ = place(x, y0)
        parts.append(f'<text x="{over:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{x:.6g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(across)}</text>'
    )
    for line in lines:
        points = [place(x, y) for x, y in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        every = 1 if len(points) < FEW_POINTS else len(points) // MARKED
        marks = "".join(line.mark(x, y) for x, y in points[::every])
        parts.append(f'<g class="{line.style}"><path d="M{path}" {_stroke(line)}/>{marks}</g>')
    legend = "".join(
        f'<li><svg viewBox="0 0 32 10" aria-hidden="true"><g class="{line.style}"><path d="M0 5H32" '
        f"{_stroke(line)}/>{line.mark(16, 5)}</g></svg> "
        f"{escape(line.name)}</li>"
        for line in lines
    )
    said = "; ".join(f"{line.name} ends at {line.points[-1][1]:.3g}" for line in lines)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {escape(said)}">'
        f'{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>'
    )


def _stroke(line: Line) -> str:
    dash = ' stroke-dasharray="2 4"' if line.dotted else ""
    return f'fill="none" stroke-width="2" stroke-linejoin="round"{dash}'


def _extent(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _whole_ticks(low: float, high: float) -> list[float]:
    """Return whole numbers at equal steps, such as epochs."""
    first, last = math.ceil(low), math.floor(high)
    return [float(tick) for tick in range(first, last + 1, max(1, math.ceil((last - first) / TICKS)))]


def _round_extent(values: Sequence[float]) -> tuple[float, float]:
    """Return an extent whose ticks are round, where it begins at 0."""
    low, high = _extent(values)
    if low != 0:
        return low, high
    power = 10.0 ** math.floor(math.log10(high / TICKS))
    step = next(step for step in (1, 2, 2.5, 5, 10) if step * power * TICKS >= high * (1 - 1e-9))
    return 0.0, step * power * TICKS
