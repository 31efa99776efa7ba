"""Everything that is in one case, in the order in which it is painted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from trainer.phantom.canvas import Canvas, Organ
from trainer.phantom.difficulty import Difficulty
from trainer.phantom.fields import Floats
from trainer.phantom.grid import Body, Box, Points
from trainer.phantom.gut import build_gut, duodenum
from trainer.phantom.pancreas import Gland, draw_gland, fit_levels, paint_gland, peripancreatic_vessels
from trainer.phantom.shapes import FAR_MM, Shape
from trainer.phantom.skeleton import build_skeleton
from trainer.phantom.statistics import CaseFacts
from trainer.phantom.tissue import Palette, Solid, draw_palette
from trainer.phantom.torso import Torso
from trainer.phantom.viscera import build_firm_organs, build_soft_organs

GAP_MM = 0.6  # between the gland and the wall of stomach or bowel


class Trunk(Protocol):
    """The body around the organs."""

    def paint(self, canvas: Canvas, palette: Palette) -> None:
        """Paint skin, fat, wall and chest."""

    @property
    def back_mm(self) -> float:
        """Where the skin of the back is, in mm behind the origin of the body."""

    @property
    def middle_y_mm(self) -> float:
        """Where the middle between belly and back is."""


@dataclass(frozen=True)
class Beside:
    """A soft organ indented by the pancreas, so that its wall follows the gland; `gap_mm` of fat between."""

    shape: Shape
    gap_mm: float

    def box(self) -> Box:
        """Return the box of the organ."""
        return self.shape.box()

    def distance(self, points: Points) -> Floats:
        """Return the distance to what the gland leaves of the organ."""
        distance = self.shape.distance(points)
        if points.gland is None:
            return distance
        return np.asarray(np.maximum(distance, np.float32(self.gap_mm) - points.gland), np.float32)


def beside_gland(organ: Organ) -> Organ:
    """Return the organ, indented by the gland."""
    return replace(organ, shape=Beside(organ.shape, GAP_MM))


def measure_gland(points: Points, gland: Gland) -> None:
    """Measure the distance to the outline of the gland where it is near, once for all who need it."""
    points.gland = np.full(points.shape, FAR_MM, np.float32)
    cut = points.cut(gland.box())
    if cut is not None:
        points.gland[cut] = gland.gland_distance(points.part(cut)) - np.float32(gland.level_mm)


@dataclass(frozen=True)
class Scene:
    """One patient.

    `soft` organs give way to the gland, `firm` ones are painted over it.
    """

    body: Body
    palette: Palette
    trunk: Trunk
    soft: list[Organ]
    gland: Gland
    firm: list[Organ]

    def paint(self, canvas: Canvas) -> None:
        """Paint the whole patient on a canvas."""
        measure_gland(canvas.points, self.gland)
        self.trunk.paint(canvas, self.palette)
        for organ in self.soft:
            canvas.paint(organ)
        paint_gland(canvas, self.gland, self.palette)
        for organ in self.firm:
            canvas.paint(organ)


def build_scene(seed: int, case: int, facts: CaseFacts, difficulty: Difficulty | None = None) -> Scene:
    """Draw the synthetic patient of (seed, case) with the volumes of `facts`."""
    body = Body(seed, case, hard=difficulty is not None)
    palette = draw_palette(seed, case)
    torso = Torso.draw(seed, case, facts.spacing_zyx_mm[2])
    soft = [
        *build_skeleton(seed, case, torso, palette),
        *build_soft_organs(seed, case, torso, palette),
        *(beside_gland(organ) for organ in build_gut(seed, case, torso, palette, body.pose.scale)),
    ]
    firm = [
        duodenum(seed, case, palette, body.pose.scale),
        *build_firm_organs(seed, case, torso, palette),
        *peripancreatic_vessels(seed, case, palette),
    ]
    gland = draw_gland(seed, case, facts, palette, difficulty)
    if gland.hardship is not None:
        soft += [Organ("lymph node", shape, Solid(hu, 4.0)) for shape, hu in gland.hardship.nodes]
    gland = fit_levels(gland, body, facts, [organ.shape for organ in firm])
    return Scene(body, palette, torso, soft, gland, firm)
