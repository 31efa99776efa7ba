"""Stomach, duodenum, jejunum and colon: tubes with wall, content and gas."""

from __future__ import annotations

import numpy as np

from trainer.phantom.canvas import Organ
from trainer.phantom.draws import generator
from trainer.phantom.shapes import Shape, Tube, as_path, smooth_path
from trainer.phantom.tissue import Lumen, Palette, Solid
from trainer.phantom.torso import Torso, Within
from trainer.phantom.viscera import Triple, vessel

CONTRAST_SHARE = 0.3  # of patients who drank positive contrast medium


def gas_level(tube: Tube, share: float, scale: float) -> float:
    """Return the height in the scanner that leaves `share` of the lumen's depth to gas."""
    top = float((tube.path[:, 1] - tube.radii).min())
    bottom = float((tube.path[:, 1] + tube.radii).max())
    return scale * (top + share * (bottom - top))


def build_gut(seed: int, case: int, torso: Torso, palette: Palette, scale: float) -> list[Organ]:
    """Return stomach, bowel and mesenteric vessels, which give way to the pancreas, in painting order."""
    rng = generator(seed, case, "gut")
    drank = bool(rng.random() < CONTRAST_SHARE)
    organs = [*colon(rng, torso, palette, scale), *jejunum(rng, torso, palette, drank)]
    for _ in range(14):
        root: Triple = (0.0, -56.0, float(rng.uniform(-80, -20)))
        tip = (float(rng.normal(15, 45)), float(rng.uniform(-95, -50)), root[2] - float(rng.uniform(5, 50)))
        middle = (0.5 * tip[0] + float(rng.normal(0, 8)), -70.0, 0.5 * (root[2] + tip[2]))
        organs.append(
            Organ(
                "mesenteric branch",
                vessel([root, middle, tip], [2.4, 1.9, 1.2], rng, 3.0),
                Solid(palette.portal_vein - 5.0),
            )
        )
    organs.append(stomach(rng, torso, palette, drank, scale))
    return organs


def stomach(rng: np.random.Generator, torso: Torso, palette: Palette, drank: bool, scale: float) -> Organ:
    """Return the stomach: fundus under the left dome, antrum crossing in front of the pancreas."""
    full = float(rng.uniform(0.7, 1.25))
    front = torso.centre_y - torso.half_y
    controls = np.array(
        [
            [54, -22, 68, 30],
            [56, -50, 52, 31],
            [52, front + 34, 28, 27],
            [30, front + 26, 4, 21],
            [2, front + 28, -6, 17],
            [-20, -76, -3, 11],
            [-27, -70, -1, 7],
        ]
    )
    controls[1:-2, :3] += rng.normal(0, 4, (4, 3))
    controls[2:4, 2] += float(rng.normal(0, 10))
    controls[:-1, 3] *= full
    path = smooth_path(controls, 2)
    tube = Tube(path[:, :3], path[:, 3])
    content = float(rng.uniform(180, 330)) if drank else float(rng.choice([8.0, 25.0, 45.0]))
    return Organ(
        "stomach",
        Within(tube, torso, 2.0),
        Lumen(
            palette.bowel_wall,
            content,
            float(rng.uniform(3.0, 5.0)),
            gas_level(tube, float(rng.uniform(0.15, 0.45)), scale),
            folds_mm=2.2,
        ),
    )


def colon(rng: np.random.Generator, torso: Torso, palette: Palette, scale: float) -> list[Organ]:
    """Return ascending, transverse and descending colon with haustra."""
    side = torso.half_x - 27.0
    front = torso.centre_y - torso.half_y
    sag = float(rng.uniform(-70, -25))
    courses: list[list[Triple]] = [
        [(-side + 8, -8, -150), (-side + 2, -4, -100), (-side + 6, -18, -62), (-side + 14, -40, -46)],
        [
            (-side + 14, -46, -48),
            (-60, front + 26, sag + 8),
            (-15, front + 22, sag),
            (35, front + 24, sag + 10),
            (70, -62, -10),
            (side - 6, -40, 18),
        ],
        [
            (side - 4, -34, 16),
            (side + 1, -4, -20),
            (side + 2, 4, -70),
            (side, 2, -120),
            (side - 12, -4, -165),
        ],
    ]
    organs = []
    for number, course in enumerate(courses):
        controls = as_path(course)
        controls[1:-1] += rng.normal(0, 5, controls[1:-1].shape)
        path = smooth_path(controls, 8)
        girth = float(rng.uniform(12, 21)) if number < 2 else float(rng.uniform(9, 15))
        waves = np.sin(np.arange(len(path)) * 1.55 + rng.uniform(0, 6)) * 0.13 + 1.0
        tube = Tube(path, girth * waves)
        kind = float(rng.random())
        gas = gas_level(tube, float(rng.uniform(0.25, 0.7)), scale) if kind < 0.6 else None
        material = Lumen(
            palette.bowel_wall - 8.0, float(rng.uniform(15, 60)), 2.4, gas, stool=float(rng.random())
        )
        organs.append(Organ("colon", Within(tube, torso, 1.0), material))
    return organs


def jejunum(rng: np.random.Generator, torso: Torso, palette: Palette, drank: bool) -> list[Organ]:
    """Return loops of small bowel: wandering tubes; collapsed ones look like pancreas."""
    organs = []
    regions = [
        (48, -45, -28),
        (66, -60, -40),
        (30, -70, -55),
        (72, -34, -66),
        (20, -60, -95),
        (50, -50, -105),
        (-30, -72, -85),
        (-45, -50, -115),
        (10, -80, -130),
        (40, -40, -150),
        (-20, -50, -165),
        (-60, -60, -80),
        (75, -55, -120),
        (-70, -70, -140),
        (-15, -85, -110),
        (60, -75, -160),
        (20, -60, -185),
        (-50, -60, -190),
        (45, -40, -205),
        (-25, -40, -215),
        (5, -75, -155),
        (-40, -85, -165),
        (85, -70, -90),
        (30, -85, -85),
    ]
    for region in regions:
        points = [np.array(region) + rng.normal(0, 7, 3)]
        heading = rng.normal(size=3)
        for _ in range(int(rng.integers(6, 10))):
            heading = 0.55 * heading / np.linalg.norm(heading) + 0.55 * rng.normal(size=3) / np.sqrt(3)
            pull = (np.array(region) - points[-1]) / 60.0
            heading += pull
            points.append(points[-1] + 17.0 * heading / np.linalg.norm(heading))
        path = smooth_path(np.array(points), 2)
        collapsed = bool(rng.random() < 0.6)
        girth = float(rng.uniform(8.0, 10.5)) if collapsed else float(rng.uniform(10.0, 14.5))
        tube = Tube(path, girth * (1 + 0.1 * np.sin(np.arange(len(path)) * 1.1)))
        shape: Shape = Within(tube, torso, 1.0)
        wall = palette.bowel_wall + float(rng.normal(2, 5))
        if collapsed:
            material = Lumen(wall, wall - float(rng.uniform(0, 18)), girth * 0.6, folds_mm=2.0)
        else:
            content = float(rng.uniform(150, 300)) if drank else float(rng.uniform(8, 70))
            gas = gas_level(tube, 0.12, 1.0) if rng.random() < 0.3 else None
            material = Lumen(wall, content, 2.6, gas, folds_mm=1.6)
        organs.append(Organ("jejunum", shape, material))
    return organs


def duodenum(seed: int, case: int, palette: Palette, scale: float) -> Organ:
    """Return the C-loop that embraces the head of the pancreas."""
    rng = generator(seed, case, "duodenum")
    controls = np.array(
        [
            [-27, -72, -1, 9],
            [-40, -70, 5, 12],
            [-51, -58, -4, 12.5],
            [-55, -48, -22, 12.5],
            [-50, -44, -41, 13],
            [-32, -44, -53, 12.5],
            [-8, -52, -56, 10.5],
            [14, -54, -53, 10.5],
            [32, -56, -42, 11.5],
            [38, -62, -28, 11.5],
        ]
    )
    controls[2:, :3] += rng.normal(0, 2.0, (8, 3))
    controls[:, 3] *= float(rng.uniform(0.85, 1.12))
    path = smooth_path(controls, 2)
    tube = Tube(path[:, :3], path[:, 3])
    kind = float(rng.random())
    wall = palette.bowel_wall + 2.0
    if kind < 0.3:  # collapsed: as bright as the gland beside it
        material = Lumen(wall, wall - 12.0, 5.5, None, folds_mm=2.0)
    else:
        content = float(rng.uniform(120, 280)) if kind > 0.85 else float(rng.uniform(5, 55))
        gas = gas_level(tube, float(rng.uniform(0.12, 0.28)), scale) if rng.random() < 0.5 else None
        material = Lumen(wall, content, float(rng.uniform(2.3, 3.4)), gas, folds_mm=1.8)
    return Organ("duodenum", tube, material)
