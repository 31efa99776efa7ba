"""The colour of each label, the same in pictures and in what viewers are told."""

from __future__ import annotations

# Okabe and Ito's palette, told apart with any colour vision; the first two are the pancreas and its tumour
COLOURS = ("#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#F0E442", "#0072B2", "#D55E00")

# The same as lines on white or a light plate, with a contrast of at least 3.3 (WCAG 2.2, 1.4.11, asks 3).
LINE_COLOURS = ("#448EB8", "#B37C00", "#BA6E98", "#009970", "#908928", "#0072B2", "#D55E00")


def label_colour(value: int) -> str:
    """Return the colour "#RRGGBB" of a label from 1 on; they come round again."""
    return COLOURS[(value - 1) % len(COLOURS)]


def line_colour(value: int) -> str:
    """Return the colour "#RRGGBB" of a label's line on white, from 1 on; they come round again."""
    return LINE_COLOURS[(value - 1) % len(LINE_COLOURS)]
