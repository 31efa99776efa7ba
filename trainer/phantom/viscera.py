"""Liver, gallbladder, spleen, kidneys, adrenals, heart and the great vessels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.phantom.canvas import Organ
from trainer.phantom.draws import generator
from trainer.phantom.shapes import Ellipsoid, Tube, Union, as_path, smooth_path
from trainer.phantom.tissue import Kidney, Palette, Solid
from trainer.phantom.torso import Torso, Within

Triple = tuple[float, float, float]

CONFLUENCE: Triple = (-9.0, -51.0, -2.0)  # where splenic and superior mesenteric vein become the portal vein


def near(rng: np.random.Generator, point: Triple, deviation_mm: float) -> Triple:
    """Return a point beside `point`, at most two deviations away on each axis."""
    moved = np.array(point) + deviation_mm * np.clip(rng.normal(size=3), -2, 2)
    return float(moved[0]), float(moved[1]), float(moved[2])


def vessel(points: list[Triple], radii: list[float], rng: np.random.Generator, wobble_mm: float) -> Tube:
    """Return a smooth tube; its inner control points wander by `wobble_mm`."""
    controls = np.column_stack([as_path(points), radii])
    controls[1:-1, :3] += wobble_mm * rng.normal(size=(len(points) - 2, 3))
    path = smooth_path(controls, 4)
    return Tube(path[:, :3], np.maximum(path[:, 3], 0.5), margin_mm=3.0)


def liver_vessels(rng: np.random.Generator) -> list[Tube]:
    """Return the portal branches and hepatic veins."""
    tubes = []
    portal: list[list[Triple]] = [
        [(-40, -52, 32), (-62, -44, 38), (-82, -34, 30), (-104, -28, 22)],
        [(-62, -44, 38), (-80, -20, 50), (-100, -8, 56)],
        [(-62, -44, 38), (-84, -58, 48), (-102, -62, 58)],
        [(-82, -34, 30), (-94, -50, 8), (-100, -56, -12)],
        [(-40, -52, 32), (-36, -66, 44), (-18, -78, 50), (4, -84, 54)],
    ]
    veins: list[list[Triple]] = [
        [(-28, -28, 74), (-58, -18, 66), (-86, -12, 52), (-106, -14, 34)],
        [(-28, -30, 74), (-50, -52, 66), (-68, -72, 48), (-80, -84, 28)],
        [(-27, -32, 74), (-22, -56, 70), (-8, -76, 64)],
    ]
    for branch in portal + veins:
        start, stop = (5.5, 2.0) if branch[0][0] > -45 else (3.6, 1.4)
        tubes.append(vessel(branch, list(np.linspace(start, stop, len(branch))), rng, 3.0))
        for _ in range(3):
            root = np.array(branch[int(rng.integers(1, len(branch)))])
            tip = root + rng.normal(0, 17, 3)
            middle = (root + tip) / 2 + rng.normal(0, 3, 3)
            twig: list[Triple] = [(float(p[0]), float(p[1]), float(p[2])) for p in (root, middle, tip)]
            tubes.append(vessel(twig, [2.2, 1.6, 1.0], rng, 0.5))
    return tubes


def build_soft_organs(seed: int, case: int, torso: Torso, palette: Palette) -> list[Organ]:
    """Return the organs that give way to the pancreas, in painting order."""
    rng = generator(seed, case, "viscera")
    wide = torso.half_x / 128.0
    organs = [
        Organ(
            "heart",
            Ellipsoid.at(near(rng, (20, -66, 112), 5), (62, 46, 42)),
            Solid(0.5 * (palette.aorta + palette.cava), 5.0),
        ),
    ]
    right = Ellipsoid.at(
        near(rng, (-78 * wide, -36, 32), 4), (56 * wide, 70, 74 + 5 * float(rng.normal())), (0, 0, -8), 18.0
    )
    left = Ellipsoid.at(
        near(rng, (-22, -80, 48), 6), (66 + 9 * float(rng.normal()), 34, 34), (0, 10, 8), 18.0
    )
    tip = Ellipsoid.at(near(rng, (-92 * wide, -38, -28), 5), (38, 52, 50), (0, -12, 0), 18.0)
    liver = Within(Union((right, left, tip), 18.0), torso, 2.5)
    organs.append(Organ("liver", liver, Solid(palette.liver, 4.0)))
    organs.append(
        Organ(
            "fissure",
            Within(Ellipsoid.at(near(rng, (-32, -94, 22), 3), (3.0, 22, 26), (0, 0, 12)), torso, 6.0),
            Solid(palette.fat + 25.0, 8.0, soft_mm=2.5),
        )
    )
    organs += [
        Organ(
            "liver vessels", Within(tube, torso, 12.0), Solid(palette.portal_vein, soft_mm=1.8, opacity=0.85)
        )
        for tube in liver_vessels(rng)
    ]
    neck = near(rng, (-50, -70, -2), 3)
    fundus = near(rng, (-66 * wide, -92, -24), 4)
    if rng.random() < 0.85:
        bulk = 12.0 + 6.0 * float(rng.random())
        path = np.array([neck, toward(neck, fundus, 0.45), fundus])
        gallbladder = Tube(smooth_path(path, 3), np.interp(np.arange(7), [0, 2, 6], [4.0, 0.8 * bulk, bulk]))
        organs.append(Organ("gallbladder wall", gallbladder, Solid(palette.bowel_wall - 15.0)))
        inner = Tube(gallbladder.path, gallbladder.radii - 1.8)
        organs.append(Organ("gallbladder", inner, Solid(palette.bile, 2.0)))
    for side in (-1.0, 1.0):
        centre: Triple = (-64.0, 24.0, -24.0) if side < 0 else (68.0, 16.0, -12.0)
        radii: Triple = (33.0, 31.0, 63.0) if side < 0 else (39.0, 36.0, 74.0)
        around = Ellipsoid.at((centre[0] * wide, centre[1], centre[2]), radii, (0, side * -9, 0))
        organs.append(
            Organ("perirenal fat", Within(around, torso, 2.0), Solid(palette.fat, 5.0, soft_mm=3.0))
        )
    return organs


def toward(a: Triple, b: Triple, share: float) -> Triple:
    """Return the point at `share` of the way from a to b."""
    mixed: NDArray[np.float64] = np.array(a) + share * (np.array(b) - np.array(a))
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def build_firm_organs(seed: int, case: int, torso: Torso, palette: Palette) -> list[Organ]:
    """Return the organs around which the pancreas moulds itself."""
    rng = generator(seed, case, "firm")
    wide = torso.half_x / 128.0
    organs = []
    big = float(np.clip(rng.normal(1.0, 0.1), 0.8, 1.3))
    spleen = Union(
        (
            Ellipsoid.at(
                near(rng, (97 * wide, -2, 34), 4), (24 * big, 42 * big, 50 * big), (-22, 0, 24), 14.0
            ),
            Ellipsoid.at(
                near(rng, (84 * wide, 30, 44), 4), (26 * big, 26 * big, 34 * big), (-10, 0, 0), 14.0
            ),
        ),
        14.0,
    )
    organs.append(Organ("spleen", Within(spleen, torso, 2.5), Solid(palette.spleen, 4.0)))
    for side, height in ((-1.0, -20.0), (1.0, -8.0)):
        centre = near(rng, (side * 67 * wide, 14.0, height), 3)
        radii = (26.0 + float(rng.normal()), 24.0 + float(rng.normal()), 53.0 + 3.0 * float(rng.normal()))
        shape = Ellipsoid.at(centre, radii, (8, side * -9, side * 28))
        hilum = (centre[0] - side * 16.0, centre[1] - 9.0, centre[2])
        organs.append(
            Organ(
                "kidney",
                shape,
                Kidney(
                    palette.kidney_cortex,
                    palette.kidney_medulla,
                    palette.fat + 20.0,
                    palette.kidney_medulla * 0.4,
                    hilum,
                    (16.0, 9.0, 25.0),
                ),
            )
        )
        adrenal = as_path([(side * 33, -22, 8), (side * 38, -20, 22), (side * 36, -28, 33)])
        limb = as_path([(side * 38, -20, 22), (side * 46, -14, 10)])
        body = Union((Tube(adrenal, np.array([2.4, 3.0, 2.0]), 0.5), Tube(limb, np.array([2.6, 1.8]), 0.5)))
        organs.append(Organ("adrenal gland", body, Solid(palette.pancreas - 15.0)))
        vein_end = (-20.0, -36.0, -16.0) if side < 0 else (-18.0, -50.0, -20.0)
        vein = [toward(hilum, vein_end, share) for share in (0.0, 0.35, 0.7, 1.0)]
        if side > 0:  # in front of the aorta
            vein = [vein[0], (30.0, -42.0, -16.0), (8.0, -54.0, -19.0), vein_end]
        organs.append(
            Organ("renal vein", vessel(vein, [4.0, 4.5, 4.5, 5.0], rng, 1.0), Solid(palette.cava + 18.0))
        )
        artery = [
            (4.0, -36.0, -14.0),
            (side * 20 + 2, -24.0, -16.0),
            toward(hilum, (0, -20, -14), 0.3),
            hilum,
        ]
        organs.append(
            Organ("renal artery", vessel(artery, [3.2, 2.8, 2.6, 2.4], rng, 0.8), Solid(palette.aorta))
        )
    caliber = float(rng.uniform(8.5, 11.5))
    aorta = vessel(
        [(10, -32, 260), (9, -32, 120), (7, -34, 40), (5, -34, -20), (3, -36, -80), (1, -38, -112)],
        [caliber + 2, caliber + 2, caliber + 1, caliber, caliber - 1.5, caliber - 2],
        rng,
        2.0,
    )
    organs.append(Organ("aorta", aorta, Solid(palette.aorta, 4.0)))
    for side in (-1.0, 1.0):
        iliac: list[Triple] = [
            (1, -38, -108),
            (side * 20, -34, -140),
            (side * 45, -20, -190),
            (side * 60, -62, -260),
        ]
        organs.append(
            Organ("iliac artery", vessel(iliac, [6, 5.5, 4.5, 4.5], rng, 2.0), Solid(palette.aorta))
        )
        vein_path: list[Triple] = [
            (-18, -30, -116),
            (side * 22, -22, -146),
            (side * 48, -12, -192),
            (side * 60, -52, -260),
        ]
        organs.append(Organ("iliac vein", vessel(vein_path, [7, 6.5, 6, 5.5], rng, 2.0), Solid(palette.cava)))
    plaque = float(rng.random())
    if plaque < 0.45:
        for _ in range(int(rng.integers(2, 9))):
            z = float(rng.uniform(-100, 60))
            angle = float(rng.uniform(0, 2 * np.pi))
            at = int(np.argmin(np.abs(aorta.path[:, 2] - z)))
            radius = float(aorta.radii[at]) - 0.6
            spot = (aorta.path[at, 0] + radius * np.cos(angle), aorta.path[at, 1] + radius * np.sin(angle), z)
            organs.append(
                Organ("plaque", Ellipsoid.at(spot, (1.6, 1.6, float(rng.uniform(2, 5)))), Solid(650.0))
            )
    cava = vessel(
        [(-26, -38, 130), (-28, -36, 72), (-27, -38, 20), (-24, -36, -30), (-20, -33, -80), (-17, -31, -120)],
        [12, 12, 11.5, 10, 9.5, 9],
        rng,
        2.0,
    )
    organs.append(Organ("inferior vena cava", cava, Solid(palette.cava, 5.0)))
    return organs
