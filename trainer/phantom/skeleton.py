"""Spine, ribs, pelvis and the muscles along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.phantom.canvas import Organ, Patch, coverage
from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.grid import Box, Points
from trainer.phantom.shapes import Ellipsoid, Tube, as_path
from trainer.phantom.tissue import Bone, Palette, Solid
from trainer.phantom.torso import Torso

LEVEL_MM = 33.0  # from one lumbar vertebra to the next
DISC_MM = 9.0
CANAL_Y = 26.0


@dataclass(frozen=True)
class Column:
    """An upright column with an elliptic section, endless along z."""

    x: float
    y: float
    half_x: float
    half_y: float
    low_z: float = -1e4
    high_z: float = 1e4

    def box(self) -> Box:
        """Return its box."""
        return (
            np.array([self.x - self.half_x - 4, self.y - self.half_y - 4, self.low_z]),
            np.array([self.x + self.half_x + 4, self.y + self.half_y + 4, self.high_z]),
        )

    def distance(self, points: Points) -> Floats:
        """Return the distance to the side, shortened by the smaller half axis."""
        u = (points.x - np.float32(self.x)) * np.float32(1.0 / self.half_x)
        v = (points.y - np.float32(self.y)) * np.float32(1.0 / self.half_y)
        u *= u
        v *= v
        u += v
        np.sqrt(u, out=u)
        u -= np.float32(1.0)
        u *= np.float32(min(self.half_x, self.half_y))
        return u


@dataclass(frozen=True)
class Spine:
    """Vertebral bodies and discs: a column 23 by 17 mm with a waist at each body."""

    cortex_hu: float
    marrow_hu: float
    disc_hu: float

    def box(self) -> Box:
        """Return the box of the column."""
        return np.array([-32.0, -24.0, -155.0]), np.array([32.0, 24.0, 1e4])

    def distance(self, points: Points) -> Floats:
        """Return the distance to the side of the column."""
        phase = points.z * np.float32(2 * np.pi / LEVEL_MM)
        side = Column(0.0, 0.0, 23.5, 17.5).distance(points)
        flat = np.maximum(points.y - np.float32(13.5), np.float32(-30.0))
        side += np.float32(1.3) * np.cos(phase)
        return np.asarray(np.maximum(side, flat), np.float32)

    def paint(self, patch: Patch) -> None:
        """Paint discs, end plates, cortex and marrow."""
        points = patch.points
        away = np.abs(points.z - np.round(points.z * np.float32(1 / LEVEL_MM)) * np.float32(LEVEL_MM))
        plate = away - np.float32((LEVEL_MM - DISC_MM) / 2)
        patch.fill(patch.distance, self.disc_hu)
        Bone(self.cortex_hu, self.marrow_hu, 1.4).paint(
            Patch(
                points,
                patch.hu,
                patch.pancreas,
                patch.tumour,
                np.maximum(patch.distance, plate),
                patch.width_mm,
            )
        )


@dataclass(frozen=True)
class Canal:
    """The spinal canal inside a ring of bone that opens between the arches."""

    bone_hu: float
    cord_hu: float

    def paint(self, patch: Patch) -> None:
        """Paint arch and canal."""
        points = patch.points
        arch = np.cos((points.z + np.float32(9.0)) * np.float32(2 * np.pi / LEVEL_MM))
        patch.blend(
            coverage(patch.distance, 1.5) * np.clip(arch * 2 + np.float32(1.2), 0.15, 1), self.bone_hu
        )
        patch.fill(patch.distance + np.float32(4.0), self.cord_hu)


def rib(side: float, torso: Torso, start_z: float, radius: float, reach: float) -> Tube:
    """Return one rib: from the spine around the flank, falling as it goes forward."""
    angles = np.linspace(0.12, reach, 22) * np.pi
    half_x, half_y = torso.half_x + 4.5, torso.half_y + 3.5
    x = side * half_x * np.sin(angles) ** 0.9
    y = torso.centre_y + half_y * np.cos(angles)
    z = start_z - 85.0 * (1 - np.cos(np.clip(angles, 0, 0.8 * np.pi))) / 2 - 6.0 * np.sin(angles)
    head = np.array([[side * 22.0, 18.0, start_z + 4.0]])
    return Tube(np.concatenate([head, np.stack([x, y, z], axis=1)]), np.full(23, radius), 0.7, 3.0)


def build_skeleton(seed: int, case: int, torso: Torso, palette: Palette) -> list[Organ]:
    """Return muscles and bones in painting order."""
    rng = generator(seed, case, "skeleton")
    bone = Bone(palette.bone_cortex, palette.bone_marrow)
    thin = Bone(palette.bone_cortex, palette.bone_marrow + 120.0, 1.2)
    muscle = Solid(palette.muscle, 7.0)
    organs = []
    for side in (-1.0, 1.0):
        organs += [
            Organ("erector spinae", Column(side * 33.0, 50.0, 29.0, 25.0), muscle),
            Organ("multifidus", Column(side * 13.0, 50.0, 13.0, 17.0), muscle),
            Organ(
                "quadratus lumborum",
                Ellipsoid.at((side * 66, 40, -60), (21, 9, 75), (0, 0, side * 25)),
                muscle,
            ),
            Organ(
                "psoas",
                Tube(
                    as_path(
                        [
                            (side * 27, 2, 5),
                            (side * 31, 2, -40),
                            (side * 40, 0, -90),
                            (side * 50, -14, -150),
                            (side * 62, -45, -260),
                        ]
                    ),
                    np.array([7.0, 13.0, 19.0, 22.0, 18.0]),
                ),
                muscle,
            ),
            Organ(
                "crus of the diaphragm",
                Tube(
                    as_path(
                        [
                            (side * 9, -22, -25),
                            (side * 14, -24, 10),
                            (side * 17, -28, 40),
                            (side * 14, -36, 65),
                        ]
                    ),
                    np.array([3.0, 4.0, 4.5, 4.0]),
                ),
                muscle,
            ),
        ]
        for number, start in enumerate(np.arange(5) * 29.0 + 31.0 + rng.normal(0, 2)):
            reach = (0.42, 0.58, 0.74, 0.8, 0.82)[number]
            organs.append(Organ("rib", rib(side, torso, float(start), 4.3, reach), thin))
        for level in range(-4, 4):
            z = level * LEVEL_MM - 4.0
            tip = (side * 42.0, 26.0, z + 3.0)
            organs.append(
                Organ(
                    "transverse process",
                    Tube(as_path([(side * 15, 22, z + 3), tip]), np.array([4.5, 3.0]), 0.6, 2.0),
                    thin,
                )
            )
            organs.append(
                Organ(
                    "pedicle",
                    Tube(
                        as_path([(side * 12, 10, z + 7), (side * 14, 25, z + 5)]),
                        np.array([5.0, 5.0]),
                        0.7,
                        2.0,
                    ),
                    thin,
                )
            )
        organs.append(
            Organ(
                "iliac wing",
                Ellipsoid.at((side * 98, 18, -200), (9, 52, 66), (0, side * 22, side * 38)),
                bone,
            )
        )
        thigh = as_path([(side * 88, -2, -268), (side * 118, 4, -300), (side * 108, -4, -420)])
        organs += [
            Organ(
                "gluteal muscles",
                Ellipsoid.at((side * 95, 62, -235), (62, 34, 78), (20, 0, side * 30)),
                muscle,
            ),
            Organ("thigh muscles", Ellipsoid.at((side * 95, 0, -380), (62, 66, 110)), muscle),
            Organ("hip joint", Ellipsoid.at((side * 92, 2, -262), (33, 33, 36)), bone),
            Organ("femur", Tube(thigh, np.array([23.0, 19.0, 14.0]), 1.0, 3.0), Bone(900.0, 60.0, 4.0)),
            Organ(
                "pubis",
                Tube(as_path([(side * 72, -28, -268), (side * 10, -50, -285)]), np.array([10.0, 11.0])),
                bone,
            ),
        ]
    organs.append(Organ("bladder", Ellipsoid.at((0, -38, -258), (42, 34, 30)), Solid(palette.bile, 2.0)))
    spine = Spine(palette.bone_cortex, palette.bone_marrow, 88.0)
    organs.append(Organ("spine", spine, spine))
    for level in range(-4, 4):
        z = level * LEVEL_MM - 14.0
        organs.append(
            Organ(
                "spinous process",
                Tube(as_path([(0, 36, z + 6), (0, 62, z - 4)]), np.array([3.6, 3.2]), 0.35, 2.0),
                thin,
            )
        )
    organs.append(
        Organ(
            "spinal canal",
            Column(0.0, CANAL_Y, 15.0, 13.0, low_z=-165.0),
            Canal(palette.bone_cortex * 0.8, 38.0),
        )
    )
    organs.append(Organ("sacrum", Ellipsoid.at((0, 30, -190), (46, 20, 48), (-20, 0, 0)), bone))
    return organs
