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
from algorithm.images import read_image, read_labels, stated_channels, stored_of, stored_voxels
from algorithm.intensities import Stored, range_of
from trainer.adapt import is_ct
from trainer.figures import WINDOW_HU
from trainer.overlay import telling_slice
from trainer.surface import bounding_box

MARGIN_MM = 25.0
MOST_VOXELS = 6_000_000  # of a scan in a report: about 4 MB in the file
AIR_HU = -500  # a CT has voxels below, an MR image has none
LOWEST_HU, STEP_HU = -200.0, 2.0  # of a byte: the windows that show soft tissue lie within
GRAY_LEVELS = 255
PERCENTILES = (0.5, 99.5)
STRAIGHT_DEGREES = 1.0  # a scan that is turned by less is called straight
LEVELS = 10_000  # of int16 between these percentiles, where values are no HU and rounding would lose them


@dataclass(frozen=True)
class Scan:
    """A scan and its labels, arrays (z, y, x) with x to the patient's left, y to the back, z to the head.

    Attributes:
        title: what the scan is called.
        image: one channel; a voxel of it stands for low + step * itself, in HU where `is_ct`.
        reference: None where there is none.
        prediction: on the same grid.
        geometry: the grid.
        low, step: 0 and 1 of HU and of whole numbers.
        is_ct: whether the values are HU.
        channel: which channel is shown, empty of the only one.

    """

    title: str
    image: NDArray[np.int16]
    reference: NDArray[np.uint8] | None
    prediction: NDArray[np.uint8]
    geometry: Geometry
    low: float = 0.0
    step: float = 1.0
    is_ct: bool = True
    channel: str = ""

    @property
    def turned_degrees(self) -> float:
        """By how much the scan's axes differ from the patient's that they are nearest to, at most."""
        along = np.abs(np.diagonal(np.reshape(self.geometry.direction, (3, 3))))
        return float(np.degrees(np.arccos(np.clip(along, 0, 1))).max())

    @classmethod
    def read(
        cls,
        title: str,
        image: Path,
        reference: Path | None,
        prediction: Path,
        *,
        channels: Sequence[str] = (),
        channel: int = 0,
        in_hu: bool | None = None,
    ) -> Scan:
        """Read the files, of a scan with several channels one.

        Args:
            title: what the scan is called.
            image: an image file or a folder of DICOM slices.
            reference: a label map, if any.
            prediction: another one.
            channels: names, used where the file has as many channels; it says itself how many there are.
            channel: which one is shown, from 0 on.
            in_hu: whether its values are HU; by default what the name says, or whether there is air.

        Raises:
            InputError: the files do not share one grid, or there is no such channel.

        """
        count = stated_channels(image)
        if not 0 <= channel < count:
            has = "one channel, number 0" if count == 1 else f"the channels 0 to {count - 1}"
            raise InputError(f"channel {channel} was asked for, but {image} has {has}")
        names = tuple(channels) if len(channels) == count else ("",) * count
        read = read_image(image, [name or f"channel {number}" for number, name in enumerate(names)])
        geometry = Geometry.of(read)
        stored = stored_of(read, names)
        stored = Stored(stored.channels[channel : channel + 1], names[channel : channel + 1], owner=read)
        if in_hu is None:
            in_hu = is_ct([names[channel]]) if names[channel] else _has_air(stored, count)
        voxels, low, step = _steps(stored, in_hu=in_hu)
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
            low=low,
            step=step,
            is_ct=in_hu,
            channel=f"Channel {channel}{f', {names[channel]},' if names[channel] else ''} of {count}."
            if count > 1
            else "",
        )

    @property
    def labelled(self) -> NDArray[np.uint8]:
        """Reference and prediction together, the higher label of each voxel."""
        return self.prediction if self.reference is None else np.maximum(self.reference, self.prediction)

    @property
    def in_abdominal_window(self) -> bool:
        """Whether the values are HU, with air: those of a CT before its rescale would all be white."""
        return self.is_ct and bool(self.image.min() < AIR_HU)

    def window(self) -> tuple[float, float]:
        """Return the values that are black and white at first: the abdominal window of a CT, else percentiles."""
        if self.in_abdominal_window:
            return WINDOW_HU
        low, high = np.percentile(self.image, PERCENTILES).tolist()
        if high <= low:  # hardly a voxel differs from the others
            low, high = float(self.image.min()), float(self.image.max())
        return self.low + self.step * low, self.low + self.step * max(high, low + 1)

    def stored_window(self) -> tuple[float, float]:
        """Return the window as values of `image`."""
        low, high = self.window()
        return (low - self.low) / self.step, (high - self.low) / self.step

    def start_zyx(self, box: Sequence[slice], every: Sequence[int]) -> list[int]:
        """Return where the viewer begins: in the slice that tells most, at a voxel amid its highest label.

        That is the reference's where it has any.
        """
        z = telling_slice(self.reference, self.prediction)
        plane = (
            self.prediction[z] if self.reference is None or not self.reference.any() else self.reference[z]
        )
        places = np.argwhere(plane == plane.max())
        nearest = np.abs(places - np.median(places, axis=0)).sum(axis=1).argmin()
        middle = (z, *places[nearest].tolist())
        return [
            min((place - side.start) // step, len(range(side.start, side.stop, step)) - 1)
            for place, side, step in zip(middle, box, every, strict=True)
        ]

    def _oblique(self) -> str:
        turned = self.turned_degrees
        if turned < STRAIGHT_DEGREES:
            return ""
        return (
            f"The scan is oblique: its axes are turned by up to {turned:.0f}° against the patient's, and shown as the "
            "nearest ones, so that the letters at the edges are nearly right."
        )

    def describe(
        self, labels: Sequence[str], box: Sequence[slice], every: tuple[int, int, int], note: str
    ) -> dict[str, Any]:
        """Return what page.js knows of a scan beside its voxels."""
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
            "unit": "HU" if self.is_ct else "(image value)",
            "labels": list(labels),
            "colours": [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS],
            "note": " ".join(part for part in (self.channel, self._oblique(), note) if part),
        }


def _has_air(stored: Stored, channels: int) -> bool:
    """Return whether a scan of which nobody says what it is looks like a CT."""
    return channels == 1 and range_of(stored.planes(0))[0] < AIR_HU


def _steps(stored: Stored, *, in_hu: bool) -> tuple[NDArray[np.int16], float, float]:
    """Return a channel as int16 (z, y, x), and what 0 and a step of it stand for.

    HU are rounded, and whole numbers of int16 kept. Else the steps divide what lies between percentiles, and end at
    three times that; NaN is darkest.
    """
    (values,), bounds = stored.channels, np.iinfo(np.int16)
    low, high = range_of(stored.planes(0))
    whole = values.dtype.kind != "f" and bounds.min <= low and high <= bounds.max
    if in_hu or whole:
        return stored_voxels(stored, "window")[0] if in_hu else values.astype(np.int16), 0.0, 1.0
    finite = values[np.isfinite(values)]
    bottom, top = np.percentile(finite, PERCENTILES).tolist()
    if top <= bottom:  # hardly a voxel differs from the others
        bottom, top = low, high if high > low else low + 1
    step = (top - bottom) / LEVELS
    volume = np.empty(values.shape, np.int16)
    for source, plane in zip(values, volume, strict=True):
        scaled = np.rint((source.astype(np.float64) - bottom) / step)
        known = np.nan_to_num(scaled, nan=bounds.min, neginf=bounds.min, posinf=bounds.max)
        np.clip(known, bounds.min, bounds.max, out=plane, casting="unsafe")
    return volume, bottom, step


def embed(scan: Scan, number: int, labels: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return a scan for a page that holds everything: its description, and elements that hold its voxels.

    What is kept is the box around all labels and 25 mm more; where that is above six million voxels, every second
    (third, …) voxel of a slice. HU become bytes in steps of 2 from -200 on, other values in 255 steps of their window.
    A note says so.
    """
    box = _box(scan)
    every = 1
    while (kept := _voxels(box, every)) > MOST_VOXELS and kept > _voxels(box, every + 1):
        every += 1
    view = (box[0], slice(box[1].start, box[1].stop, every), slice(box[2].start, box[2].stop, every))
    low, step = LOWEST_HU, STEP_HU
    if not scan.in_abdominal_window:
        bottom, top = scan.window()
        low, step = bottom, (top - bottom) / GRAY_LEVELS
    values = scan.low + scan.step * scan.image[view].astype(np.float32)
    grey = np.clip(np.rint((values - low) / step), 0, GRAY_LEVELS)
    sparse = "" if every == 1 else f"; one voxel of {every} along x and y"
    unit = " HU" if scan.is_ct else ""
    note = f"The box around the labels, in steps of {step:.3g}{unit} from {low:.4g} on{sparse}."
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
        f'aria-label="{name} slice; arrow keys, page up and page down change it, '
        'plus and minus zoom, arrows with shift pan"></canvas>'
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
<label><input type="checkbox" data-part="fill" checked> fill it <kbd>F</kbd></label>
<label>tint <input type="range" data-part="opacity" min="0" max="100" value="40"></label>
<label>level <input type="number" data-part="level"></label>
<label>width <input type="number" data-part="width" min="0"></label>
<span class="zoom" role="group" aria-label="zoom">
<button type="button" data-zoom="out" aria-label="zoom out">&minus;</button>
<output data-part="zoom">1&times;</output>
<button type="button" data-zoom="in" aria-label="zoom in">+</button>
<button type="button" data-zoom="all">all</button></span>
</div>
<div class="planes">
{planes}
</div>
<p class="readout" data-part="readout" role="status"></p>
<ul class="legend">{legend}<li>{told}Prediction: dashed line, and tint where filled.</li></ul>
<p class="quiet" data-part="note"></p>
<p class="quiet">Click or drag in a plane to move the cross; the wheel, the slider, or
<kbd>↑</kbd> <kbd>↓</kbd> <kbd>Page up</kbd> <kbd>Page down</kbd> <kbd>Home</kbd> <kbd>End</kbd> on a plane
scroll it. <kbd>+</kbd> <kbd>&minus;</kbd> or the wheel with <kbd>Ctrl</kbd> zoom, <kbd>Shift</kbd> with a drag or with
arrows pans, <kbd>0</kbd> shows all. <kbd>R</kbd> and <kbd>P</kbd> hide a label map, <kbd>F</kbd> leaves the
prediction its outline alone.</p>
</div>
<script type="application/json" id="scans">{data}</script>"""


def swatch(value: int) -> str:
    """Return a small sample of a label's colour on black, as a scan has it."""
    colour = COLOURS[(value - 1) % len(COLOURS)]
    return (
        '<svg viewBox="0 0 22 10" aria-hidden="true"><rect class="around" width="22" height="10"/>'
        f'<rect x="2" y="2" width="18" height="6" fill="{colour}" fill-opacity="0.5" stroke="{colour}" '
        'stroke-width="2"/></svg>'
    )
