"""What the viewer of a page is given: a scan and its labels around what is labelled, in one axis order."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithm.colours import COLOURS
from algorithm.errors import InputError
from algorithm.geometry import Geometry, canonical_orientation, same_grid
from algorithm.images import read_hounsfield, read_labels
from trainer.figures import WINDOW_HU
from trainer.overlay import telling_slice
from trainer.surface import bounding_box

MARGIN_MM = 25.0
MOST_VOXELS = 6_000_000  # of a scan in a report: about 4 MB in the file
AIR_HU = -500  # a CT has voxels below, an MR image has none
LOWEST_HU, STEP_HU = -200.0, 2.0  # of a byte: the windows that show soft tissue lie within
GRAY_LEVELS = 255
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Scan:
    """A scan and its labels, arrays (z, y, x) with x to the patient's left, y to the back, z to the head.

    `reference` is None where there is none.
    """

    title: str
    image: NDArray[np.int16]
    reference: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8]
    geometry: Geometry

    @classmethod
    def read(cls, title: str, image: Path, reference: Path | None, prediction: Path) -> Scan:
        """Read the files; InputError when they do not share one grid."""
        voxels, geometry = read_hounsfield(image)
        orientation = canonical_orientation(geometry)
        labels = []
        for path in (prediction, reference):
            if path is None:
                continue
            array, grid = read_labels(path)
            different = same_grid(grid, geometry)
            if different:
                raise InputError(f"{path} must lie on the grid of {image}, but has {different}")
            labels.append(orientation.to_canonical(array))
        return cls(
            title=title,
            image=orientation.to_canonical(voxels),
            reference=labels[1] if reference is not None else None,
            prediction=labels[0],
            geometry=orientation.canonical(geometry),
        )

    @property
    def labelled(self) -> NDArray[np.uint8]:
        """Reference and prediction together, the higher label of each voxel."""
        return self.prediction if self.reference is None else np.maximum(self.reference, self.prediction)

    def window(self) -> tuple[float, float]:
        """Return the values that are black and white at first: the abdominal window of a CT, else percentiles."""
        if self.image.min() < AIR_HU:
            return WINDOW_HU
        low, high = np.percentile(self.image, PERCENTILES).tolist()
        return low, max(high, low + 1)

    def start_zyx(self, box: Sequence[slice], every: Sequence[int]) -> list[int]:
        """Return where the viewer begins: in the slice that tells most, at the middle of its highest label."""
        z = telling_slice(self.reference, self.prediction)
        plane = self.labelled[z]
        rows, columns = (
            np.nonzero(plane == plane.max()) if plane.any() else np.indices(plane.shape).reshape(2, -1)
        )
        middle = (z, int(np.median(rows)), int(np.median(columns)))
        return [
            min((place - side.start) // step, len(range(side.start, side.stop, step)) - 1)
            for place, side, step in zip(middle, box, every, strict=True)
        ]

    def describe(
        self, labels: Sequence[str], box: Sequence[slice], every: tuple[int, int, int], note: str
    ) -> dict[str, Any]:
        """Return what page.js knows of a scan beside its voxels."""
        is_ct = self.image.min() < AIR_HU
        return {
            "title": self.title,
            "shape": [len(range(side.start, side.stop, step)) for side, step in zip(box, every, strict=True)],
            "spacing": [
                spacing * step for spacing, step in zip(self.geometry.spacing_zyx_mm, every, strict=True)
            ],
            "whole": list(self.geometry.shape_zyx),
            "first": [side.start for side in box],
            "every": list(every),
            "start": self.start_zyx(box, every),
            "window": list(self.window()),
            "unit": "HU" if is_ct else "(image value)",
            "labels": list(labels),
            "colours": [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS],
            "note": note,
        }


def embed(scan: Scan, number: int, labels: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return a scan for a page that holds everything: its description, and elements that hold its voxels.

    What is kept is the box around all labels and 25 mm more; where that is above six million voxels, every second
    (third, …) voxel of a slice. HU become bytes in steps of 2 from -200 on. A note says so.
    """
    box = _box(scan)
    every = 1
    while (kept := _voxels(box, every)) > MOST_VOXELS and kept > _voxels(box, every + 1):
        every += 1
    view = (box[0], slice(box[1].start, box[1].stop, every), slice(box[2].start, box[2].stop, every))
    low, step = LOWEST_HU, STEP_HU
    if scan.image.min() >= AIR_HU:
        bottom, top = scan.window()
        low, step = bottom, (top - bottom) / GRAY_LEVELS
    grey = np.clip(np.rint((scan.image[view].astype(np.float32) - low) / step), 0, GRAY_LEVELS)
    sparse = "" if every == 1 else f"; one voxel of {every} along x and y"
    note = f"Around the labels, in steps of {step:.3g}{sparse}."
    described = scan.describe(labels, box, (1, every, every), note)
    elements = []
    parts = {
        "image": grey.astype(np.uint8),
        "reference": None if scan.reference is None else scan.reference[view],
        "prediction": scan.prediction[view],
    }
    for name, array in parts.items():
        if array is None:
            described[name] = None
            continue
        identity = f"scan-{number}-{name}"
        described[name] = {"type": "uint8", "id": identity, "low": low, "step": step}
        packed = gzip.compress(np.ascontiguousarray(array).tobytes(), compresslevel=9, mtime=0)
        text = base64.b64encode(packed).decode()
        elements.append(f'<script type="application/octet-stream" id="{identity}">{text}</script>')
    return described, "\n".join(elements)


def _voxels(box: Sequence[slice], every: int) -> int:
    sides: list[int] = [side.stop - side.start for side in box]
    return sides[0] * -(-sides[1] // every) * -(-sides[2] // every)


def _box(scan: Scan) -> tuple[slice, slice, slice]:
    """Return the box of everything labelled and a margin; the whole scan where nothing is."""
    tight = bounding_box(scan.labelled)
    if tight is None:
        return tuple(slice(0, size) for size in scan.geometry.shape_zyx)  # type: ignore[return-value]
    sides = []
    for side, size, spacing in zip(tight, scan.geometry.shape_zyx, scan.geometry.spacing_zyx_mm, strict=True):
        margin = round(MARGIN_MM / spacing)
        sides.append(slice(max(0, side.start - margin), min(size, side.stop + margin)))
    return sides[0], sides[1], sides[2]


def viewer_html(labels: Sequence[str], scans: Sequence[dict[str, Any]], *, reference: bool) -> str:
    """Return the viewer's part of a page; `scans` are descriptions, whose voxels page.js finds by id or URL."""
    planes = "\n".join(
        f'<div class="plane" data-part="{name}"><canvas tabindex="0" role="img" '
        f'aria-label="{name} slice; arrow keys, page up and page down change it"></canvas>'
        f'<input type="range" min="0" value="0" aria-label="{name} slice"><span class="name quiet"></span></div>'
        for name in ("axial", "coronal", "sagittal")
    )
    legend = "".join(f"<li>{swatch(value)} {escape(name)}</li>" for value, name in enumerate(labels) if value)
    told = "Reference: solid line. " if reference else ""
    off = "" if reference else " disabled"
    data = json.dumps(scans, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f"""<div class="viewer" id="viewer" data-state="loading">
<div class="controls">
<label>case <select data-part="case"></select></label>
<label><input type="checkbox" data-part="reference" checked{off}> reference <kbd>R</kbd></label>
<label><input type="checkbox" data-part="prediction" checked> prediction <kbd>P</kbd></label>
<label>tint <input type="range" data-part="opacity" min="0" max="100" value="40"></label>
<label>level <input type="number" data-part="level" step="10"></label>
<label>width <input type="number" data-part="width" step="10" min="1"></label>
</div>
<div class="planes">
{planes}
</div>
<p class="readout" data-part="readout" role="status"></p>
<ul class="legend">{legend}<li>{told}Prediction: tint and dashed line.</li></ul>
<p class="quiet"><span data-part="note"></span> Click or drag in a plane to move the cross; the wheel, the slider, or
<kbd>↑</kbd> <kbd>↓</kbd> <kbd>Page up</kbd> <kbd>Page down</kbd> <kbd>Home</kbd> <kbd>End</kbd> on a plane
scroll it.</p>
</div>
<script type="application/json" id="scans">{data}</script>"""


def swatch(value: int) -> str:
    """Return a small sample of a label's colour."""
    colour = COLOURS[(value - 1) % len(COLOURS)]
    return (
        f'<svg viewBox="0 0 20 8" aria-hidden="true"><rect x="1" y="1" width="18" height="6" fill="{colour}" '
        f'fill-opacity="0.5" stroke="{colour}" stroke-width="2"/></svg>'
    )
