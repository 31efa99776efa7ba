"""What is scored: each foreground label, and their union."""

from __future__ import annotations

from collections.abc import Sequence

from algorithm.errors import InputError

MOST_IN_UNION = 4


def structures(labels: Sequence[str]) -> dict[str, list[int]]:
    """Return what is scored: each foreground label, and their union such as "pancreas+cancer".

    The union answers whether the organ was found when its tumour was taken for healthy tissue. More than four
    labels, as in a map of all organs, make no structure together.

    Raises InputError when two structures would have one name, or one the name that scores keep for the case.
    """
    foreground = range(1, len(labels))
    scored = {labels[value]: [value] for value in foreground}
    if 2 <= len(foreground) <= MOST_IN_UNION:
        scored["+".join(labels[1:])] = list(foreground)
    if len(scored) < len(labels) - 1 + (2 <= len(foreground) <= MOST_IN_UNION) or "case" in scored:
        raise InputError(
            f"labels must have names of their own, none of them 'case' or that of all together, got {', '.join(labels)}"
        )
    return scored
