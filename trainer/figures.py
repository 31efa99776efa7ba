"""Pictures of results as PNG: overlays (the paper's figure 6), curves (3 and 4), confusion matrix (5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from algorithm.colours import label_colour, line_colour
from algorithm.files import replacing
from algorithm.intensities import STEPS, Normalisation
from trainer.metrics import Counts
from trainer.overlay import OverlayRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINING, VALIDATION = "#0072B2", "#D55E00"
WINDOW_HU = (-160.0, 240.0)  # the radiologist's abdominal window
WINDOW_ZSCORE = (
    -2.0 * STEPS,
    3.0 * STEPS,
)  # most of what an MR scan has, in thousandths of a standard deviation
OPACITY = 0.35
MOST_CELLS_WITH_TEXT = 12
MARKERS = ("o", "s", "^", "D", "v", "X", "P")  # of each label, for whoever sees no colours
FEW_POINTS, MARKED = 12, 8  # from so many points on, about eight of a line are marked
DPI = 130

Row = Mapping[str, float | None]


def plain(text: str) -> str:
    """Return a name for Matplotlib to draw as it is: two dollars would begin and end a formula."""
    return text.replace("$", r"\$")


def display_window(
    normalisation: Normalisation, window_hu: tuple[float, float] = WINDOW_HU
) -> tuple[float, float]:
    """Return the values that are drawn black and white."""
    return (float(window_hu[0]), float(window_hu[1])) if normalisation == "window" else WINDOW_ZSCORE


def save_overlay_grid(
    path: Path,
    rows: Sequence[OverlayRow],
    *,
    labels: Sequence[str],
    window_hu: tuple[float, float] = WINDOW_HU,
) -> None:
    """Draw image, reference and prediction side by side, a case a row, in physical proportions.

    Args:
        path: the PNG.
        rows: at least one case.
        labels: names by value, the background first.
        window_hu: the values that are drawn black and white.

    """
    if not rows:
        raise ValueError("rows must hold at least one case")
    heights = [row.image.shape[0] * row.spacing_yx_mm[0] for row in rows]
    widths = [row.image.shape[1] * row.spacing_yx_mm[1] for row in rows]
    panel = 3.2
    inches = [panel * height / max(widths) for height in heights]
    head, foot, gap = 0.32, 0.45, 0.30
    figure = _figure(3 * panel + 0.2, sum(inches) + len(rows) * gap + head + foot)
    total = figure.get_figheight()
    top = total - head
    for number, (row, height) in enumerate(zip(rows, inches, strict=True)):
        top -= gap
        figure.text(0.012, (top + 0.09) / total, plain(row.title), fontsize=9, va="bottom", color="0.25")
        for column, name in enumerate(("image", "reference", "prediction")):
            left = (0.1 + column * panel) / figure.get_figwidth()
            axes = figure.add_axes(
                (left, (top - height) / total, (panel - 0.05) / figure.get_figwidth(), height / total)
            )
            axes.set_axis_off()
            _draw_slice(axes, row, name, len(labels), window_hu)
            if number == 0:
                middle = left + panel / 2 / figure.get_figwidth()
                height_of_names = (total - head + 0.04) / total
                figure.text(middle, height_of_names, name, fontsize=11, ha="center", weight="bold")
        top -= height
    handles = [
        Patch(facecolor=label_colour(value), edgecolor="0.35", linewidth=0.8, label=plain(name))
        for value, name in enumerate(labels)
        if value
    ]
    figure.legend(handles=handles, loc="lower center", ncols=min(6, len(handles)), frameon=False, fontsize=10)
    _save(figure, path)


def save_confusion(path: Path, confusion: Counts, *, labels: Sequence[str]) -> None:
    """Draw a confusion matrix (K, K), rows = reference, as the paper's figure 5.

    A cell shows its share of the row, since the size of the background would hide the rest, and its count.
    """
    sums = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(sums, 1)
    size = 1.15 * min(len(labels), MOST_CELLS_WITH_TEXT)
    left, right, foot, head = 0.85, 0.85, 0.75, 0.45
    width, height = left + size + right, foot + size + head
    figure = _figure(width, height)
    axes = figure.add_axes((left / width, foot / height, size / width, size / height))
    picture = axes.imshow(shares, cmap=matplotlib.colormaps["Blues"], vmin=0.0, vmax=1.0, aspect="auto")
    if len(labels) <= MOST_CELLS_WITH_TEXT:
        _write_cells(axes, confusion, shares)
    points, names = min(10.0, 9.0 * size / len(labels) / 0.15), [plain(name) for name in labels]
    axes.set_xticks(range(len(labels)), names, rotation=0 if len(labels) <= 4 else 90, fontsize=points)
    axes.set_yticks(
        range(len(labels)), names, rotation=90 if len(labels) <= 4 else 0, va="center", fontsize=points
    )
    axes.tick_params(length=0)
    axes.set_xlabel("prediction", weight="bold")
    axes.set_ylabel("reference", weight="bold")
    axes.set_title("share of the reference label's voxels, and their number", fontsize=9, color="0.25")
    beside = figure.add_axes(((left + size + 0.15) / width, foot / height, 0.15 / width, size / height))
    figure.colorbar(picture, cax=beside).outline.set_visible(False)
    _save(figure, path, tight=True)


def save_curves(path: Path, history: Sequence[Row], *, labels: Sequence[str]) -> None:
    """Draw loss and Dice over the epochs: the paper's figures 3 and 4, and figure 4 again with pooled Dice.

    Args:
        path: the PNG.
        history: one row an epoch, as in metrics.csv: "epoch", "train_loss", "val_loss", and for each
            foreground label NAME "train_dice_NAME" and "val_dice_NAME" (mean over batches, an absent class
            counts 0), "train_pooled_NAME" and "val_pooled_NAME" (all batches at once). What is absent is not
            drawn.
        labels: names by value, the background first; the background is not drawn, being near 1 throughout.

    """
    head, plot, foot = 0.35, 3.0, 0.65 + 0.2 * len(labels)
    height = head + plot + foot
    figure = _figure(13.5, height)
    loss, mean, pooled = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.045, right=0.99, top=1 - head / height, bottom=foot / height, wspace=0.16)
    loss.set_title("Loss, mean over batches", fontsize=11)
    for key, name, colour, style, marker in (
        ("train_loss", "training", TRAINING, ":", "o"),
        ("val_loss", "validation", VALIDATION, "-", "s"),
    ):
        _curve(loss, history, key, name, colour, style, marker)
    for axes, kind, title in ((mean, "dice", "mean over batches"), (pooled, "pooled", "all batches at once")):
        axes.set_title(f"Dice, {title}", fontsize=11)
        axes.set_ylim(0.0, 1.0)
        for value, name in enumerate(labels[1:], start=1):
            drawn = line_colour(value), MARKERS[(value - 1) % len(MARKERS)]
            for part, said, style in (("train", "training", ":"), ("val", "validation", "-")):
                key = f"{part}_{kind}_{name}"
                _curve(axes, history, key, f"{name}, {said}", drawn[0], style, drawn[1])
    for axes in (loss, mean, pooled):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(
                handles=axes.lines,
                fontsize=9,
                frameon=False,
                loc="upper center",
                bbox_to_anchor=(0.5, -0.15),
                ncols=2,
            )
    _save(figure, path)


def save_histogram(
    path: Path,
    counts: Sequence[Sequence[int]],
    *,
    edges_hu: Sequence[float],
    labels: Sequence[str],
    window_hu: tuple[float, float],
) -> None:
    """Draw how often a CT has each value: all of it, and each label within the window (the paper's figure 1).

    Args:
        path: the PNG.
        counts: (K, bins), voxels of each label in each bin.
        edges_hu: (bins + 1,) where bins begin and end.
        labels: names by value, the background first.
        window_hu: what lies outside is shaded on the left and left out on the right.

    """
    table, edges = np.array(counts, np.float64), np.array(edges_hu, np.float64)
    middles, (low, high) = (edges[1:] + edges[:-1]) / 2, window_hu
    figure = _figure(11.0, 3.8)
    whole, inside = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.9, bottom=0.15, wspace=0.2)
    whole.set_title("all values", fontsize=11)
    voxels = table.sum(axis=0)
    whole.stairs(np.where(voxels > 0, voxels, np.nan), edges, color="0.25", baseline=None)
    whole.set_yscale("log")
    whole.set_ylabel("voxels")
    for start, stop in ((edges[0], low), (high, edges[-1])):
        whole.axvspan(start, stop, color="0.85", zorder=0)
    inside.set_title(f"from {low:g} to {high:g} HU, as a share of each label", fontsize=11)
    chosen = (middles >= low) & (middles <= high)
    for value, name in enumerate(labels):
        total = table[value].sum()
        if total:
            colour = line_colour(value) if value else "0.4"
            style = ("-", "--", ":", "-.")[value % 4]
            inside.plot(middles[chosen], table[value][chosen] / total, style, color=colour, label=plain(name))
    inside.set_ylabel("share in a bin")
    for axes in (whole, inside):
        axes.set_xlabel("HU")
        axes.spines[["top", "right"]].set_visible(False)
    if inside.lines:
        inside.legend(handles=inside.lines, frameon=False, fontsize=9)
    _save(figure, path)


def _write_cells(axes: Axes, confusion: Counts, shares: npt.NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        share = shares[row, column]
        text = f"{share:.4f}\n{count:,}" if confusion[row].any() else "none"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.55 else "0.15")


def _curve(
    axes: Axes, history: Sequence[Row], key: str, label: str, colour: str, style: str, marker: str
) -> None:
    points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
    if points:
        epochs, values = zip(*points, strict=True)
        every = 1 if len(points) < FEW_POINTS else len(points) // MARKED
        axes.plot(
            epochs,
            values,
            style,
            color=colour,
            label=plain(label),
            linewidth=1.6,
            marker=marker,
            markersize=4.5,
            markevery=every,
            markerfacecolor="white" if style == ":" else colour,
        )
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)


def _draw_slice(axes: Axes, row: OverlayRow, name: str, classes: int, window_hu: tuple[float, float]) -> None:
    low, high = window_hu
    grey = np.clip((row.image.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
    labels = {"image": None, "reference": row.reference, "prediction": row.prediction}[name]
    height, width = row.image.shape
    extent = (0.0, width * row.spacing_yx_mm[1], height * row.spacing_yx_mm[0], 0.0)
    if name != "image" and labels is None:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color="0.5")
        return
    if labels is not None:
        picture = _painted(picture, labels)
    axes.imshow(picture, extent=extent, aspect="equal", interpolation="nearest")
    for value in range(1, classes):
        mask = None if labels is None else labels == value
        if mask is not None and mask.any() and min(mask.shape) > 1:
            _outline(axes, mask, row.spacing_yx_mm, label_colour(value))
    # the outlines may have widened the limits, which would shrink this panel beside the plain image
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])


def _painted(picture: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Lay the colour of each label over a picture (y, x, 3) in [0, 1]."""
    table = np.array(
        [to_rgb(label_colour(value)) for value in range(int(labels.max()) + 1)], dtype=np.float32
    )
    mixed = (1.0 - OPACITY) * picture + OPACITY * table[labels]
    return np.where((labels > 0)[..., np.newaxis], mixed, picture).astype(np.float32)


def _outline(
    axes: Axes, mask: npt.NDArray[np.bool_], spacing_yx_mm: tuple[float, float], colour: str
) -> None:
    y, x = ((np.arange(-1, n + 1) + 0.5) * s for n, s in zip(mask.shape, spacing_yx_mm, strict=True))
    axes.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.1)


def _figure(width: float, height: float) -> Figure:
    """Return a figure in inches that is bound to no window and to no state of pyplot."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path, *, tight: bool = False) -> None:
    with replacing(path) as temporary:
        figure.savefig(
            temporary, format="png", metadata={"Software": None}, bbox_inches="tight" if tight else None
        )
