"""How the scanner sees a patient: field of view, slice profile, kernel, noise, table and padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from trainer.phantom.canvas import Canvas
from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.grid import Box, ScanGrid
from trainer.phantom.scene import Scene
from trainer.phantom.statistics import MATRIX, CaseFacts

Size = Literal["full", "small"]

SUBSLICE_MM = 1.25  # a slice is the mean of planes at most this far apart
BLOCK_VOXELS = 1_200_000  # voxels painted at once, so that the work stays in the cache
LOWEST_HU, HIGHEST_HU = -1024, 3071
SCANNER_PADDING_HU = -3024  # what one maker writes outside the circle of reconstruction
SCANNER_PADDING_SHARE = 0.35


@dataclass(frozen=True)
class Acquisition:
    """One scan's settings.

    Attributes
    ----------
    grid : the canonical grid (x left, y back, z head).
    noise_hu : standard deviation in the middle of the patient; blur_mm : of the kernel in plane.
    noise_cutoff_per_mm : where the kernel ends the noise spectrum.
    circle_mm : radius of the reconstructed circle about the middle of the image; padding_hu : outside it.

    """

    grid: ScanGrid
    noise_hu: float
    blur_mm: float
    noise_cutoff_per_mm: float
    circle_mm: float
    padding_hu: int


def draw_acquisition(
    seed: int, case: int, facts: CaseFacts, size: Size, region: Box, middle_xy_mm: tuple[float, float]
) -> Acquisition:
    """Draw the scan of a case.

    `region` is the box of the pancreas and `middle_xy_mm` the middle of the trunk, both in scan coordinates.
    """
    rng = generator(seed, case, "acquisition")
    thickness, pixel, _ = facts.spacing_zyx_mm
    width, depth, height = rng.uniform((180, 150, 110), (220, 180, 130))
    jitter = rng.normal(0, 1, 3)
    top = rng.uniform(92, 122)
    middle = 0.5 * (region[0] + region[1])
    noise = float(np.clip(rng.lognormal(np.log(12.5), 0.28), 7.0, 22.0)) * (2.5 / thickness) ** 0.25
    blur = float(rng.uniform(0.45, 0.75))
    cutoff = float(rng.uniform(0.38, 0.55))
    padding = SCANNER_PADDING_HU if rng.random() < SCANNER_PADDING_SHARE else LOWEST_HU
    rim = float(rng.uniform(1.05, 1.5))
    if size == "small":
        shape = (round(height / thickness), round(depth / pixel), round(width / pixel))
        centre = middle[::-1] + jitter * (3.0, 5.0, 6.0)
        circle = 0.5 * rim * width
    else:
        shape = (facts.slices, MATRIX, MATRIX)
        extent = facts.slices * thickness
        if extent < region[1][2] - top + 220.0:  # a short scan is centred on what it is made for
            top = max(region[1][2] + 8.0, middle[2] + 0.52 * extent)
        offset = np.array([top - extent / 2, 5.0 * jitter[1], 4.0 * jitter[2]])
        centre = offset + np.array([0.0, middle_xy_mm[1], middle_xy_mm[0]])
        circle = 0.5 * MATRIX * pixel
    spacing = np.array(facts.spacing_zyx_mm)
    start = centre - 0.5 * (np.array(shape) - 1) * spacing
    grid = ScanGrid(shape, facts.spacing_zyx_mm, (float(start[0]), float(start[1]), float(start[2])))
    return Acquisition(grid, noise, blur, cutoff, circle, padding)


def acquire(
    scene: Scene, scan: Acquisition, seed: int, case: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Scan a patient: int16 image in HU and uint8 labels, both (z, y, x) on the grid of `scan`."""
    grid = scan.grid
    slices, rows, columns = grid.shape_zyx
    thickness = grid.spacing_zyx_mm[0]
    planes = max(1, round(thickness / SUBSLICE_MM))
    block = max(1, BLOCK_VOXELS // (planes * rows * columns))
    image = np.empty(grid.shape_zyx, np.int16)
    labels = np.zeros(grid.shape_zyx, np.uint8)
    reader = scene.body.reader(grid)
    outside = outside_circle(scan)
    noise = NoiseFilter(scan)
    offsets = (np.arange(planes) + 0.5) / planes - 0.5
    for first in range(0, slices, block):
        last = min(first + block, slices)
        centres = grid.start_zyx_mm[0] + np.arange(first, last)[:, None] * thickness
        canvas = Canvas(reader.read((centres + offsets * thickness).ravel()), grid.spacing_zyx_mm[2])
        scene.paint(canvas)
        paint_table(canvas, scene.trunk.back_mm * scene.body.pose.scale)
        seen = over_slice(canvas.hu, planes)
        seen = ndimage.gaussian_filter(seen, scan.blur_mm / grid.spacing_zyx_mm[2], axes=(1, 2), truncate=3.0)
        for index in range(first, last):
            rng = generator(seed, case, f"noise {index}")
            seen[index - first] += noise.draw(rng)
        np.rint(np.clip(seen, LOWEST_HU, HIGHEST_HU, out=seen), out=seen)
        seen[:, outside] = scan.padding_hu
        image[first:last] = seen
        if canvas.pancreas is not None and canvas.tumour is not None:
            labels[first:last] = label(over_slice(canvas.pancreas, planes), over_slice(canvas.tumour, planes))
    labels[:, outside] = 0
    return image, labels


def over_slice(values: Floats, planes: int) -> Floats:
    """Return the mean over each slice's planes: (n * planes, y, x) to (n, y, x)."""
    return np.asarray(values.reshape(-1, planes, *values.shape[1:]).mean(axis=1), np.float32)


def label(pancreas: Floats, tumour: Floats) -> NDArray[np.uint8]:
    """Return 2 or 1 where gland and tumour together fill half of the voxel: the larger of both."""
    inside = pancreas + tumour >= np.float32(0.5)
    return np.where(inside, np.where(tumour >= pancreas, 2, 1), 0).astype(np.uint8)


def outside_circle(scan: Acquisition) -> NDArray[np.bool_]:
    """Return the pixels (y, x) outside the reconstructed circle."""
    _, rows, columns = scan.grid.shape_zyx
    _, dy, dx = scan.grid.spacing_zyx_mm
    y = (np.arange(rows) - (rows - 1) / 2) * dy
    x = (np.arange(columns) - (columns - 1) / 2) * dx
    mask: NDArray[np.bool_] = np.hypot(y[:, None], x[None, :]) > scan.circle_mm
    return mask


def paint_table(canvas: Canvas, back_mm: float) -> None:
    """Paint the couch: two thin curved shells with foam between, where there is only air."""
    points = canvas.points
    rows, columns = points.shape[1:]
    y = points.level[0]
    x = points.start_zyx_mm[2] + np.arange(columns) * points.step_zyx_mm[2]
    depth = y - np.float32(back_mm + 1.0) + (x * x / 1300.0).astype(np.float32)
    if float(depth.max()) < -5.0:
        return
    couch = np.full((rows, columns), -1000.0, np.float32)
    couch += np.clip(1.0 - np.abs(depth) / 1.8, 0, 1) * 1150.0
    couch += ((depth > 1.0) & (depth < 24.0)) * np.float32(70.0)
    couch += np.clip(1.0 - np.abs(depth - 24.0) / 2.0, 0, 1) * 1100.0
    couch[np.broadcast_to(np.abs(x) > 235.0, couch.shape)] = -1000.0
    np.maximum(canvas.hu, couch.astype(np.float32), out=canvas.hu)


class NoiseFilter:
    """Noise as filtered back-projection leaves it: power rising with frequency up to the kernel's cut-off.

    The spectrum is that of Riederer, Pelc and Chesler (1978): the ramp times the kernel's window squared.
    """

    def __init__(self, scan: Acquisition):
        _, rows, columns = scan.grid.shape_zyx
        _, dy, dx = scan.grid.spacing_zyx_mm
        self.shape = (rows, columns)
        self.padded = (fft.next_fast_len(rows, real=True), fft.next_fast_len(columns, real=True))
        fy = fft.fftfreq(self.padded[0], dy)[:, None]
        fx = fft.fftfreq(self.padded[1], dx)[None, :]
        frequency = np.hypot(fy, fx)
        gain = np.sqrt(frequency + 0.02) * np.exp(-((frequency / scan.noise_cutoff_per_mm) ** 2))
        gain /= np.sqrt(np.mean(gain**2))
        self.gain = gain[:, : self.padded[1] // 2 + 1].astype(np.float32)
        y = scan.grid.axis_mm(1)[:, None] + 20.0
        x = scan.grid.axis_mm(2)[None, :]
        # rays through the middle of the patient are the weakest
        self.strength = (scan.noise_hu * (0.5 + 0.5 * np.exp(-((x / 150) ** 2) - (y / 115) ** 2))).astype(
            np.float32
        )

    def draw(self, rng: np.random.Generator) -> Floats:
        """Return one slice of noise in HU, (y, x)."""
        white = rng.standard_normal(self.padded, dtype=np.float32)
        spectrum = fft.rfft2(white, workers=1)
        spectrum *= self.gain
        noise = fft.irfft2(spectrum, s=self.padded, workers=1)[: self.shape[0], : self.shape[1]]
        return np.asarray(noise * self.strength, np.float32)
