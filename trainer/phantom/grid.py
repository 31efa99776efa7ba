"""The grid of a scan, and the position of each of its voxels inside the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats, LatticeField, noise_lattice

Box = tuple[NDArray[np.float64], NDArray[np.float64]]  # lowest and highest corner, (x, y, z) in mm
Cut = tuple[slice, slice, slice]

WARP_STEP_MM = 9.0
WARP_REACH_MM = 8.0  # no displacement along an axis is longer
COARSE_STEP_MM = 5.0
FINE_STEP_MM = 2.2
HARD_NODES = (
    1.2,
    0.7,
)  # smoothing of patchy enhancement and of the error of a reader, in steps of the coarse noise


@dataclass(frozen=True)
class ScanGrid:
    """A canonical grid: x to the left, y to the back, z to the head, in mm from the first lumbar vertebra.

    `start_zyx_mm` is the centre of the first voxel.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    start_zyx_mm: tuple[float, float, float]

    def axis_mm(self, axis: int) -> NDArray[np.float64]:
        """Return the voxel centres along one axis."""
        steps = np.arange(self.shape_zyx[axis], dtype=np.float64)
        return np.asarray(self.start_zyx_mm[axis] + steps * self.spacing_zyx_mm[axis], np.float64)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0

    @classmethod
    def around(cls, box: Box, spacing_zyx_mm: tuple[float, float, float]) -> ScanGrid:
        """Return the grid of this spacing that covers a box."""
        low, high = box[0][::-1], box[1][::-1]
        spacing = np.array(spacing_zyx_mm)
        count = np.maximum(1, np.ceil((high - low) / spacing)).astype(int)
        start = low + spacing / 2
        return cls(
            (int(count[0]), int(count[1]), int(count[2])),
            spacing_zyx_mm,
            (float(start[0]), float(start[1]), float(start[2])),
        )


@dataclass(frozen=True)
class Pose:
    """How the patient lies: body = rotation @ (scan - shift) / scale, before the smooth warp."""

    rotation: NDArray[np.float64]
    scale: float

    def scan_box(self, box: Box) -> Box:
        """Return the scan's box that surely holds a box of the body."""
        low, high = box
        corners = np.array(
            [
                [(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]]
                for i in (0, 1)
                for j in (0, 1)
                for k in (0, 1)
            ]
        )
        placed = corners @ self.rotation * self.scale
        reach = np.abs(self.rotation).sum(0) * WARP_REACH_MM * self.scale
        return placed.min(0) - reach, placed.max(0) + reach


class Points:
    """Body coordinates of a block of voxels, with the noise fields there.

    Attributes
    ----------
    x, y, z : (nz, ny, nx) float32, body coordinates in mm.
    coarse, fine : (nz, ny, nx) float32, noise of unit deviation with details of about 12 and 4 mm.
    level : (1, ny, 1) float32, height in the scanner (positive is down), where gas and fluid part.
    cavity : (nz, ny, nx) float32, distance to the abdominal cavity, once the trunk has measured it.
    gland : (nz, ny, nx) float32, distance to the outline of the pancreas, once the scene has measured it.
    patchy, reader : (nz, ny, nx) float32, noise of unit deviation with details of about 12 and 9 mm, of a hard case.
    """

    cavity: Floats | None = None
    gland: Floats | None = None
    patchy: Floats | None = None
    reader: Floats | None = None

    def __init__(
        self,
        x: Floats,
        y: Floats,
        z: Floats,
        coarse: Floats,
        fine: Floats,
        level: Floats,
        start_zyx_mm: NDArray[np.float64],
        step_zyx_mm: NDArray[np.float64],
        pose: Pose,
    ):
        self.x, self.y, self.z = x, y, z
        self.coarse, self.fine, self.level = coarse, fine, level
        self.start_zyx_mm = start_zyx_mm
        self.step_zyx_mm = step_zyx_mm
        self.pose = pose

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the block."""
        return self.x.shape

    def cut(self, box: Box) -> Cut | None:
        """Return the part of this block that can hold anything of a body box, None when there is none."""
        low, high = self.pose.scan_box(box)
        first = np.ceil((low[::-1] - self.start_zyx_mm) / self.step_zyx_mm).astype(int)
        last = np.floor((high[::-1] - self.start_zyx_mm) / self.step_zyx_mm).astype(int) + 1
        first = np.maximum(first, 0)
        last = np.minimum(last, self.shape)
        if np.any(last <= first):
            return None
        return (slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2]))

    def part(self, cut: Cut) -> Points:
        """Return views of a part of the block."""
        first = np.array([piece.start for piece in cut])
        part = Points(
            self.x[cut],
            self.y[cut],
            self.z[cut],
            self.coarse[cut],
            self.fine[cut],
            self.level[:, cut[1]],
            self.start_zyx_mm + first * self.step_zyx_mm,
            self.step_zyx_mm,
            self.pose,
        )
        part.cavity = None if self.cavity is None else self.cavity[cut]
        part.gland = None if self.gland is None else self.gland[cut]
        part.patchy = None if self.patchy is None else self.patchy[cut]
        part.reader = None if self.reader is None else self.reader[cut]
        return part


class Body:
    """The random pose, warp and noise of one case; reads body coordinates on any scan grid.

    A `hard` case has two more fields of noise (`Difficulty`).
    """

    def __init__(self, seed: int, case: int, *, hard: bool = False):
        rng = generator(seed, case, "pose")
        about_x, about_y, about_z = np.deg2rad(rng.normal(0.0, (1.5, 1.5, 2.5)))
        rotation = np.eye(3)
        for angle, (i, j) in ((about_x, (1, 2)), (about_y, (0, 2)), (about_z, (0, 1))):
            turn = np.eye(3)
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            rotation = turn @ rotation
        self.pose = Pose(rotation, float(np.clip(rng.normal(1.0, 0.04), 0.9, 1.1)))
        fields = generator(seed, case, "fields")
        self.warps = [noise_lattice(fields, [(5.0, 3.2), (2.2, 1.8), (1.1, 1.0)]) for _ in range(3)]
        self.coarse = noise_lattice(fields, [(1.2, 1.0)])
        self.fine = noise_lattice(fields, [(0.95, 1.0)])
        rng = generator(seed, case, "hard fields")
        self.hard = [noise_lattice(rng, [(smooth, 1.0)]) for smooth in HARD_NODES * hard]

    def reader(self, grid: ScanGrid) -> BodyReader:
        """Return the reader of this body on a scan grid."""
        return BodyReader(self, grid)


class BodyReader:
    """Reads blocks of consecutive planes of one body on one scan grid."""

    def __init__(self, body: Body, grid: ScanGrid):
        self.body = body
        self.grid = grid
        self.y_mm, self.x_mm = grid.axis_mm(1), grid.axis_mm(2)
        self.warps = [LatticeField(w, WARP_STEP_MM, self.y_mm, self.x_mm) for w in body.warps]
        self.coarse = LatticeField(body.coarse, COARSE_STEP_MM, self.y_mm, self.x_mm)
        self.fine = LatticeField(body.fine, FINE_STEP_MM, self.y_mm, self.x_mm)
        self.hard = [LatticeField(lattice, COARSE_STEP_MM, self.y_mm, self.x_mm) for lattice in body.hard]

    def read(self, z_mm: NDArray[np.float64]) -> Points:
        """Return the block of the planes at `z_mm` (evenly spaced, ascending)."""
        inverse = self.body.pose.rotation / self.body.pose.scale
        z = z_mm[:, None, None].astype(np.float32)
        y = self.y_mm[None, :, None].astype(np.float32)
        x = self.x_mm[None, None, :].astype(np.float32)
        coordinates = []
        for row, warp in zip(inverse.astype(np.float32), self.warps, strict=True):
            along = warp.read(z_mm)
            bend = along * np.float32(1.0 / WARP_REACH_MM)
            bend *= bend
            bend += np.float32(1.0)
            along /= np.sqrt(bend, out=bend)
            along += row[0] * x
            along += row[1] * y + row[2] * z
            coordinates.append(along)
        step = self.grid.spacing_zyx_mm[0] if z_mm.size == 1 else float(z_mm[1] - z_mm[0])
        points = Points(
            coordinates[0],
            coordinates[1],
            coordinates[2],
            self.coarse.read(z_mm),
            self.fine.read(z_mm),
            y,
            np.array([z_mm[0], self.y_mm[0], self.x_mm[0]]),
            np.array([step, self.grid.spacing_zyx_mm[1], self.grid.spacing_zyx_mm[2]]),
            self.body.pose,
        )
        if self.hard:
            points.patchy, points.reader = (field.read(z_mm) for field in self.hard)
        return points
