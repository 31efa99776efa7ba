"""The body wall: skin, subcutaneous fat, muscle, the cavity with its fat, diaphragm and lung bases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.phantom.canvas import Canvas, Patch, coverage
from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.grid import Box, Points
from trainer.phantom.shapes import Shape, lateral
from trainer.phantom.tissue import LUNG_HU, Palette

BACK_MM = 80.0  # from the vertebral body to the inside of the back
WALL_MM = 12.0
EVERYWHERE: Box = (np.full(3, -1e4), np.full(3, 1e4))


@dataclass(frozen=True)
class Torso:
    """Sizes of one trunk, in mm of the body; the cavity's section is half_x by half_y around centre_y."""

    half_x: float
    half_y: float
    centre_y: float
    fat_side: float
    fat_front: float
    dome: float

    @classmethod
    def draw(cls, seed: int, case: int, pixel_mm: float) -> Torso:
        """Draw a trunk that fits a field of view of 512 pixels, as radiographers choose it."""
        rng = generator(seed, case, "torso")
        width = float(np.clip(256.0 * pixel_mm * rng.uniform(0.82, 0.97), 145.0, 218.0))
        half_x = 121.0 + 0.42 * (width - 150.0) + float(rng.normal(0, 2.5))
        front = 103.0 + 0.6 * (width - 150.0) + float(rng.normal(0, 4.0))
        side = max(4.0, width - half_x - WALL_MM)
        return cls(
            half_x=half_x,
            half_y=(front + BACK_MM) / 2,
            centre_y=(BACK_MM - front) / 2,
            fat_side=side,
            fat_front=side * float(rng.uniform(0.55, 0.95)) + 2.0,
            dome=float(rng.normal(84.0, 7.0)),
        )

    @property
    def back_mm(self) -> float:
        """Where the skin of the back is, in mm behind the first lumbar vertebra."""
        return self.centre_y + self.half_y + 8.0 + 0.9 * self.fat_front

    @property
    def middle_y_mm(self) -> float:
        """Where the middle between belly and back is."""
        return self.centre_y - 0.1 * self.fat_front

    def wall(self, points: Points) -> Floats:
        """Return the distance to the inside of the wall."""
        return lateral(points, self.centre_y, self.half_x, self.half_y)

    def diaphragm(self, points: Points) -> Floats:
        """Return the distance to the diaphragm: negative below it, positive in the chest."""
        x, y = points.x, points.y
        off = np.sqrt(x * x + np.float32(500.0)) - np.float32(68.0)
        behind = y + np.float32(12.0)
        height = off * off
        height *= np.float32(-0.005)
        height -= np.where(behind > 0, np.float32(0.011), np.float32(0.004)) * behind * behind
        edge = np.maximum(np.abs(x) - np.float32(self.half_x - 34.0), 0)
        height -= np.float32(0.035) * edge * edge
        height += np.float32(self.dome) - np.clip(x, -40, 40) * np.float32(0.1)
        # the surface is steep at the sides: a distance along z would be too long there
        return np.asarray((points.z - height) * np.float32(0.6), np.float32)

    def cavity(self, points: Points) -> Floats:
        """Return the distance to the abdominal cavity."""
        return np.maximum(self.wall(points), self.diaphragm(points))

    def paint(self, canvas: Canvas, palette: Palette) -> None:
        """Paint everything that is not an organ."""
        points = canvas.points
        whole = Patch(points, canvas.hu, None, None, points.z, canvas.width_mm)
        wall = self.wall(points)
        diaphragm = self.diaphragm(points)
        points.cavity = np.maximum(wall, diaphragm)
        skin = lateral(
            points,
            self.centre_y - 0.1 * self.fat_front,
            self.half_x + WALL_MM + self.fat_side,
            self.half_y + 8.0 + self.fat_front,
        )
        paint_layers(whole, skin, wall, WALL_MM, palette)
        if float(points.z.max()) > self.dome - 190.0:
            self.paint_chest(whole, wall, diaphragm, palette)

    def paint_chest(self, whole: Patch, wall: Floats, diaphragm: Floats, palette: Palette) -> None:
        """Paint the lungs and the diaphragm."""
        chest = np.maximum(-diaphragm, wall + np.float32(3.0))
        beside_spine = np.minimum(
            np.float32(60.0) - np.abs(whole.points.x), whole.points.y - np.float32(26.0)
        )
        np.maximum(chest, beside_spine, out=chest)
        if float(chest.min()) > 4.0:
            return
        whole.fill(chest - np.float32(2.2), palette.muscle)
        lung = whole.points.fine * np.float32(22.0)
        vessels = coverage(np.float32(2.1) - np.abs(whole.points.fine), 0.5)
        lung += np.float32(LUNG_HU)
        lung += vessels * np.float32(500.0)
        whole.fill(chest, lung)


def paint_layers(whole: Patch, skin: Floats, wall: Floats, wall_mm: float, palette: Palette) -> None:
    """Paint skin, subcutaneous fat, the muscles of the wall and the fat inside it.

    `skin` and `wall` are the distances to the outline and to the inside of the wall, `wall_mm` thick; `skin`
    is used up.
    """
    points = whole.points
    whole.fill(skin, palette.skin)
    fat = points.coarse * np.float32(3.0)
    fat += np.float32(palette.fat)
    skin += np.float32(2.0)
    septa = np.abs(points.coarse + np.float32(0.7) * points.fine)
    whole.fill(skin, fat)
    whole.blend(coverage(septa - np.float32(0.02), 0.08) * coverage(skin, 1.0), palette.fat + 28.0)
    muscle = points.fine * np.float32(7.0)
    muscle += np.float32(palette.muscle)
    whole.fill(wall - np.float32(wall_mm), muscle)
    for depth in (0.35 * wall_mm, 0.7 * wall_mm):  # fat between the three muscles of the flank
        layer = np.abs(wall - np.float32(depth)) - np.float32(0.5)
        layer += np.maximum(np.float32(70.0) - np.abs(points.x), 0)
        whole.fill(layer, palette.fat + 30.0, opacity=0.6)
    whole.fill(wall, fat)
    # vessels and septa of the mesentery: thin sheets where the coarse noise changes sign
    strands = coverage(np.abs(points.coarse + np.float32(0.25) * points.fine) - np.float32(0.05), 0.25)
    strands *= coverage(wall + np.float32(3.0), 2.0)
    strands *= np.clip(points.fine * np.float32(0.6) + np.float32(0.3), 0, 1)
    whole.blend(strands, palette.fat + 100.0)


@dataclass(frozen=True)
class Within:
    """A shape kept inside the abdominal cavity, `gap_mm` from its wall."""

    shape: Shape
    torso: Torso
    gap_mm: float

    def box(self) -> Box:
        """Return the box of the shape."""
        return self.shape.box()

    def distance(self, points: Points) -> Floats:
        """Return the larger of both distances."""
        if points.cavity is None:
            points.cavity = self.torso.cavity(points)
        inside = points.cavity + np.float32(self.gap_mm)
        return np.asarray(np.maximum(self.shape.distance(points), inside), np.float32)
