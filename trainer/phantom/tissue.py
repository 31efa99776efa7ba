"""Hounsfield units of one case, and the materials that organs are filled with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.phantom.canvas import Patch, coverage
from trainer.phantom.draws import generator

LATE_ARTERIAL_SHARE = 0.2
GAS_HU = -960.0
LUNG_HU = -840.0


@dataclass(frozen=True)
class Palette:
    """Hounsfield units of the tissues of one case, which depend on the phase of the contrast medium."""

    phase: str
    fat: float
    muscle: float
    skin: float
    liver: float
    spleen: float
    pancreas: float
    bowel_wall: float
    kidney_cortex: float
    kidney_medulla: float
    aorta: float
    portal_vein: float
    cava: float
    bile: float
    bone_cortex: float
    bone_marrow: float
    tumour_drop: float


# Mean and standard deviation over cases: portal venous phase, then late arterial (pancreatic) phase. A real
# portal-venous CT of the centre that Task07 comes from has liver 118, spleen 106, pancreas 94 and kidney 192.
PALETTE_HU: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "fat": ((-103, 6), (-103, 6)),
    "muscle": ((58, 5), (56, 5)),
    "skin": ((15, 15), (15, 15)),
    "liver": ((106, 11), (90, 10)),
    "spleen": ((119, 9), (130, 10)),
    "pancreas": ((93, 9), (106, 9)),
    "kidney_cortex": ((190, 13), (205, 14)),
    "kidney_medulla": ((170, 13), (112, 13)),
    "aorta": ((150, 13), (270, 28)),
    "portal_vein": ((163, 14), (128, 16)),
    "cava": ((138, 18), (92, 14)),
    "bile": ((9, 5), (9, 5)),
    "bone_cortex": ((480, 60), (480, 60)),
    "bone_marrow": ((185, 35), (185, 35)),
}


def draw_palette(seed: int, case: int) -> Palette:
    """Draw the tissues of a case; the tumour is 8 to 55 HU darker than the gland."""
    rng = generator(seed, case, "palette")
    late = bool(rng.random() < LATE_ARTERIAL_SHARE)
    shared = rng.normal()  # a patient enhances more or less as a whole
    values = {}
    for name, phases in PALETTE_HU.items():
        mean, deviation = phases[int(late)]
        own = rng.normal()
        values[name] = float(mean + deviation * np.clip(0.6 * shared + 0.8 * own, -2.0, 2.0))
    # no threshold parts gland and bowel: their walls are as bright as each other
    values["bowel_wall"] = values["pancreas"] + float(np.clip(rng.normal(-1.0, 5.0), -11.0, 9.0))
    drop = 8.0 + 47.0 * float(rng.beta(2.0, 1.6))
    return Palette(phase="late arterial" if late else "portal venous", tumour_drop=drop, **values)


@dataclass(frozen=True)
class Solid:
    """One tissue with a faint texture; `soft_mm` widens its border."""

    hu: float
    texture_hu: float = 3.0
    soft_mm: float | None = None
    opacity: float = 1.0

    def paint(self, patch: Patch) -> None:
        """Fill the shape."""
        value = patch.points.fine * np.float32(self.texture_hu)
        value += np.float32(self.hu)
        patch.fill(patch.distance, value, width_mm=self.soft_mm, opacity=self.opacity)


@dataclass(frozen=True)
class Bone:
    """A cortical shell around marrow."""

    cortex_hu: float
    marrow_hu: float
    cortex_mm: float = 1.6

    def paint(self, patch: Patch) -> None:
        """Fill the shell, then the marrow with its trabecular texture."""
        patch.fill(patch.distance, self.cortex_hu)
        marrow = patch.points.fine * np.float32(28.0)
        marrow += patch.points.coarse * np.float32(15.0)
        marrow += np.float32(self.marrow_hu)
        patch.fill(patch.distance + np.float32(self.cortex_mm), marrow, width_mm=1.6)


@dataclass(frozen=True)
class Lumen:
    """A wall around content, with gas above a level when there is some.

    Attributes
    ----------
    wall_hu, content_hu : in Hounsfield units.
    wall_mm : thickness; folds thicken it here and there.
    gas_level_mm : height in the scanner (positive is down) above which the lumen holds gas, None for none.
    folds_mm : how much mucosal folds reach into the lumen.
    stool : share of the mottling of solid content, 0 to 1.

    """

    wall_hu: float
    content_hu: float
    wall_mm: float
    gas_level_mm: float | None = None
    folds_mm: float = 0.0
    stool: float = 0.0

    def paint(self, patch: Patch) -> None:
        """Fill wall, content and gas."""
        points = patch.points
        wall = points.fine * np.float32(3.0)
        wall += np.float32(self.wall_hu)
        patch.fill(patch.distance, wall)
        inner = patch.distance + np.float32(self.wall_mm)
        if self.folds_mm:
            inner += np.maximum(points.fine + points.coarse, 0) * np.float32(0.55 * self.folds_mm)
        content = np.full(points.shape, self.content_hu, np.float32)
        if self.stool:
            content += points.fine * np.float32(30.0 * self.stool)
            bubbles = coverage(np.float32(1.5) - points.fine - np.float32(0.3) * points.coarse, 0.8)
            bubbles *= np.float32(self.stool)
            content += bubbles * (np.float32(-700.0) - content)
        if self.gas_level_mm is not None:
            above = coverage(points.level - np.float32(self.gas_level_mm), patch.width_mm)
            content += above * (np.float32(GAS_HU) - content)
        patch.fill(inner, content)


@dataclass(frozen=True)
class Kidney:
    """Cortex, pyramids, sinus fat and pelvis of a kidney.

    `sinus` is the centre (x, y, z) of its fat, `sinus_radii_mm` the radii.
    """

    cortex_hu: float
    medulla_hu: float
    fat_hu: float
    pelvis_hu: float
    sinus: tuple[float, float, float]
    sinus_radii_mm: tuple[float, float, float]

    def paint(self, patch: Patch) -> None:
        """Fill cortex, then pyramids where the coarse noise is high, then the sinus."""
        points = patch.points
        cortex = points.fine * np.float32(4.0)
        cortex += np.float32(self.cortex_hu)
        patch.fill(patch.distance, cortex)
        pyramids = np.maximum(
            patch.distance + np.float32(6.0), np.float32(-3.0) * (points.coarse + np.float32(0.5))
        )
        patch.fill(pyramids, self.medulla_hu, width_mm=2.5)
        cx, cy, cz = (np.float32(value) for value in self.sinus)
        rx, ry, rz = (np.float32(1.0 / value) for value in self.sinus_radii_mm)
        k = np.sqrt(((points.x - cx) * rx) ** 2 + ((points.y - cy) * ry) ** 2 + ((points.z - cz) * rz) ** 2)
        depth = (k - np.float32(1.0)) * np.float32(min(self.sinus_radii_mm))
        depth += points.coarse * np.float32(1.8)
        inside = np.maximum(depth, patch.distance - np.float32(1.0))
        patch.fill(inside, self.fat_hu, width_mm=2.0)
        pelvis = np.maximum(
            inside + np.float32(3.0), np.abs(points.coarse) * np.float32(4.0) - np.float32(2.2)
        )
        patch.fill(pelvis, self.pelvis_hu, width_mm=2.0)
