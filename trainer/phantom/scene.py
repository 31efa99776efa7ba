"""Everything that is in one case, in the order in which it is painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trainer.phantom.canvas import Canvas, Organ
from trainer.phantom.grid import Body
from trainer.phantom.gut import build_gut, duodenum
from trainer.phantom.pancreas import Gland, draw_gland, fit_levels, paint_gland, peripancreatic_vessels
from trainer.phantom.skeleton import build_skeleton
from trainer.phantom.statistics import CaseFacts
from trainer.phantom.tissue import Palette, draw_palette
from trainer.phantom.torso import Torso
from trainer.phantom.viscera import build_firm_organs, build_soft_organs


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
        self.trunk.paint(canvas, self.palette)
        for organ in self.soft:
            canvas.paint(organ)
        paint_gland(canvas, self.gland, self.palette)
        for organ in self.firm:
            canvas.paint(organ)


def build_scene(seed: int, case: int, facts: CaseFacts) -> Scene:
    """Draw the synthetic patient of (seed, case) with the volumes of `facts`."""
    body = Body(seed, case)
    palette = draw_palette(seed, case)
    torso = Torso.draw(seed, case, facts.spacing_zyx_mm[2])
    soft = [
        *build_skeleton(seed, case, torso, palette),
        *build_soft_organs(seed, case, torso, palette),
        *build_gut(seed, case, torso, palette, body.pose.scale),
    ]
    firm = [
        duodenum(seed, case, palette, body.pose.scale),
        *build_firm_organs(seed, case, torso, palette),
        *peripancreatic_vessels(seed, case, palette),
    ]
    gland = draw_gland(seed, case, facts)
    gland = fit_levels(gland, body, facts, [organ.shape for organ in firm])
    return Scene(body, palette, torso, soft, gland, firm)
