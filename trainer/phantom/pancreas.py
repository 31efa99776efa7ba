"""The pancreas, its vessels, its duct and its tumour, sized to the volumes that the case has to have."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.phantom.canvas import Canvas, Organ, coverage
from trainer.phantom.difficulty import Difficulty, Hardship, Spot, draw_hardship
from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.grid import Body, Box, Points, ScanGrid
from trainer.phantom.shapes import Ellipsoid, Shape, Tube, Union, smooth_path
from trainer.phantom.statistics import CaseFacts
from trainer.phantom.tissue import Palette, Solid
from trainer.phantom.viscera import CONFLUENCE, Triple, vessel

MEASURE_MM = 2.0  # pitch of the grid on which volumes are measured
TYPICAL_ML = 88.0  # gland and tumour of the centreline below with its own radii

# x, y, z, radius in mm: head, neck over the mesenteric vein, body over the spine, tail at the splenic hilum.
CENTRELINE = np.array(
    [
        [-31, -51, -36, 8.0],
        [-32, -53, -22, 13.0],
        [-27, -57, -8, 13.5],
        [-11, -65, -1, 9.5],
        [8, -67, 6, 10.0],
        [28, -59, 10, 11.0],
        [48, -44, 14, 11.5],
        [66, -27, 18, 11.0],
        [80, -15, 22, 8.5],
    ]
)
UNCINATE = np.array([[-30, -47, -30, 8.5], [-18, -45, -32, 7.5], [-8, -46, -30, 5.0]])


@dataclass(frozen=True)
class Gland:
    """A pancreas with its tumour; distances are measured before the levels that give the right volumes.

    Attributes
    ----------
    shape : outline before lobulation.
    level_mm, tumour_level_mm : the outline is where the lobulated distance equals this.
    tumour : the tumour before its ragged edge.
    duct : the dilated main duct upstream of the tumour, None when it is not dilated.
    infiltration : 0 (lean) to 1 (fatty); sheath_mm : mean thickness of the fat around it.
    hardship : what the case has of a difficulty, None in a plain phantom.

    """

    shape: Shape
    tumour: Ellipsoid
    duct: Tube | None
    bile_duct: Tube | None
    infiltration: float
    sheath_mm: float
    lobes_mm: float
    ragged: float
    soft_mm: float
    core_hu: float
    level_mm: float = 0.0
    tumour_level_mm: float = 0.0
    hardship: Hardship | None = None

    def box(self) -> Box:
        """Return the box of gland and sheath."""
        low, high = self.shape.box()
        return low - 4.0, high + 4.0

    def core_box(self) -> Box:
        """Return the box of the centreline, widened by the middle of the gland's radii."""
        low, high = self.shape.box()
        return low + 16.0, high - 16.0

    def gland_distance(self, points: Points) -> Floats:
        """Return the lobulated distance, before the level."""
        distance = self.shape.distance(points)
        distance += points.fine * np.float32(0.8 * self.lobes_mm)
        distance += points.coarse * np.float32(1.1 * self.lobes_mm)
        return distance

    def tumour_box(self) -> Box:
        """Return the box of the tumour with its soft border."""
        low, high = self.tumour.box()
        pad = max(0.0, self.tumour_level_mm) + 6.0
        return low - pad, high + pad

    def tumour_distance(self, points: Points) -> Floats:
        """Return the ragged distance, before the level."""
        radius = float(self.tumour.radii.mean())
        distance = self.tumour.distance(points)
        distance += points.coarse * np.float32(self.ragged * radius)
        distance += points.fine * np.float32(0.3 * self.ragged * min(radius, 12.0))
        return distance


def draw_gland(
    seed: int,
    case: int,
    facts: CaseFacts,
    palette: Palette | None = None,
    difficulty: Difficulty | None = None,
) -> Gland:
    """Draw gland, ducts and tumour, their levels still at zero; a difficulty needs the palette."""
    rng = generator(seed, case, "pancreas")
    bulk = (facts.pancreas_ml + facts.tumour_ml * 0.5) / TYPICAL_ML
    centreline = CENTRELINE.copy()
    wander = rng.normal(0, 1, (len(centreline), 3)) * np.array([3.0, 2.5, 3.0])
    centreline[:, :3] += wander
    centreline[5:, 2] += float(rng.normal(0, 6)) * np.linspace(0.25, 1, 4)  # the tail rises or hangs
    centreline[:, 3] *= bulk**0.36 * np.exp(0.12 * rng.normal(size=len(centreline)))
    middle = centreline[3, :3].copy()
    centreline[:, :3] = middle + (centreline[:, :3] - middle) * np.clip(bulk, 0.5, 2) ** 0.13
    path = smooth_path(centreline, 3)
    place = facts.tumour_place * (len(path) - 1)
    in_head = facts.tumour_place < 0.3
    dilated = bool(rng.random() < (0.65 if in_head else 0.45))
    if dilated:  # the gland upstream of a blocked duct shrinks
        upstream = np.clip((np.arange(len(path)) - place) / 3.0, 0, 1)
        path[:, 3] *= 1.0 - 0.22 * upstream
    uncinate = smooth_path(UNCINATE + np.append(wander[1], 0.0), 2)
    uncinate[:, 3] *= bulk**0.3
    gland = Union(
        (Tube(path[:, :3], path[:, 3], 0.78, 14.0), Tube(uncinate[:, :3], uncinate[:, 3], 0.8, 14.0)), 5.0
    )
    at = np.array([np.interp(place, np.arange(len(path)), path[:, axis]) for axis in range(4)])
    radius = float(np.cbrt(facts.tumour_ml * 1000.0 * 3 / (4 * np.pi)))
    off = rng.normal(size=3)
    centre = at[:3] + off / np.linalg.norm(off) * float(rng.uniform(0.1, 0.6)) * max(
        at[3] - 0.3 * radius, 2.0
    )
    tumour = tumour_shape(rng, centre, facts.tumour_ml)
    first = int(np.ceil(place))
    duct = None
    if dilated and first < len(path) - 3:
        caliber = float(rng.uniform(1.5, 3.6))
        duct = Tube(path[first:-1, :3], np.linspace(caliber, 0.45 * caliber, len(path) - 1 - first), 1.0, 4.0)
    bile_duct = None
    if in_head and rng.random() < 0.55:
        run: list[Triple] = [
            (-34.0, -48.0, -28.0),
            (-33.0, -49.0, -8.0),
            (-32.0, -56.0, 12.0),
            (-42.0, -55.0, 34.0),
        ]
        wide = float(rng.uniform(4.0, 7.5))
        bile_duct = vessel(run, [wide * 0.7, wide, wide, wide * 0.7], rng, 1.5)
    drawn = drawn_gland(rng, gland, tumour, (duct, bile_duct), sheath_mm=(0.3, 3.5), lobes_mm=(0.9, 1.9))
    if difficulty is None or palette is None:
        return drawn
    return replace(
        drawn, hardship=draw_hardship(seed, case, difficulty, palette, path, tumour_ml=facts.tumour_ml)
    )


def drawn_gland(
    rng: np.random.Generator,
    shape: Shape,
    tumour: Ellipsoid,
    ducts: tuple[Tube | None, Tube | None],
    *,
    sheath_mm: tuple[float, float],
    lobes_mm: tuple[float, float],
) -> Gland:
    """Return a gland with its main and bile duct, its texture drawn; sheath and lobes within these bounds."""
    return Gland(
        shape=shape,
        tumour=tumour,
        duct=ducts[0],
        bile_duct=ducts[1],
        infiltration=float(rng.beta(1.3, 2.2)),
        sheath_mm=float(rng.uniform(*sheath_mm)),
        lobes_mm=float(rng.uniform(*lobes_mm)),
        ragged=float(rng.uniform(0.08, 0.2)),
        soft_mm=float(rng.uniform(2.0, 5.5)),
        core_hu=float(rng.uniform(0.0, 22.0)),
    )


def tumour_shape(rng: np.random.Generator, centre: NDArray[np.float64], volume_ml: float) -> Ellipsoid:
    """Return a randomly turned and stretched ellipsoid of `volume_ml` at `centre`."""
    stretch = np.exp(rng.normal(0, 0.16, 3))
    radii = np.cbrt(volume_ml * 1000.0 * 3 / (4 * np.pi)) * stretch / np.cbrt(stretch.prod())
    turn = rng.uniform(-90, 90, 3)
    return Ellipsoid.at(
        (float(centre[0]), float(centre[1]), float(centre[2])),
        (float(radii[0]), float(radii[1]), float(radii[2])),
        (float(turn[0]), float(turn[1]), float(turn[2])),
    )


def peripancreatic_vessels(seed: int, case: int, palette: Palette) -> list[Organ]:
    """Return portal, splenic and mesenteric veins, mesenteric artery and coeliac trunk."""
    rng = generator(seed, case, "vessels")
    cx, cy, cz = CONFLUENCE
    vein = Solid(palette.portal_vein, 4.0)
    artery = Solid(palette.aorta, 4.0)
    splenic = CENTRELINE[4:, :3] + np.array([0.0, 10.0, 3.0])
    splenic_run: list[Triple] = [(cx, cy, cz), (4.0, -55.0, 6.0)]
    splenic_run += [(float(p[0]), float(p[1]), float(p[2])) for p in splenic[1:]] + [(88.0, -6.0, 33.0)]
    collar: list[Triple] = [(3, -52, -14), (2, -57, -34), (1, -58, -90)]
    return [
        Organ(
            "fat around the mesenteric artery",
            vessel(collar, [6.5, 7.0, 7.0], rng, 0.5),
            Solid(palette.fat + 5.0, 5.0, soft_mm=2.5),
        ),
        Organ(
            "superior mesenteric artery",
            vessel(
                [(5, -40, -4), (4, -48, -10), (3, -55, -24), (2, -58, -60), (1, -58, -110)],
                [4, 3.8, 3.6, 3.3, 2.6],
                rng,
                0.8,
            ),
            artery,
        ),
        Organ(
            "superior mesenteric vein",
            vessel(
                [
                    (cx, cy, cz),
                    (cx - 1, cy - 4, cz - 18),
                    (cx - 2, cy - 7, cz - 50),
                    (cx + 2, cy - 8, cz - 105),
                ],
                [7.0, 6.4, 5.8, 4.5],
                rng,
                1.0,
            ),
            vein,
        ),
        Organ("splenic vein", vessel(splenic_run, [5.4, 5.0, 4.6, 4.4, 4.2, 4.0, 3.4], rng, 1.5), vein),
        Organ(
            "portal vein",
            vessel(
                [(cx, cy, cz), (-18, -49, 12), (-30, -50, 25), (-42, -52, 33)], [7.4, 7.2, 7.0, 6.0], rng, 1.0
            ),
            vein,
        ),
        Organ(
            "coeliac trunk",
            vessel([(6, -40, 14), (6, -52, 17), (4, -58, 20)], [3.4, 3.2, 3.0], rng, 0.5),
            artery,
        ),
        Organ(
            "hepatic artery",
            vessel([(4, -58, 20), (-14, -62, 18), (-34, -60, 28)], [2.6, 2.4, 1.8], rng, 1.5),
            artery,
        ),
        Organ(
            "splenic artery",
            vessel(
                [(4, -58, 20), (26, -52, 25), (52, -32, 28), (82, -8, 38)], [2.8, 2.5, 2.3, 1.8], rng, 3.0
            ),
            artery,
        ),
    ]


def fit_levels(gland: Gland, body: Body, facts: CaseFacts, obstacles: list[Shape]) -> Gland:
    """Return the gland with the levels that give both labels their volumes.

    Volume is counted on a 2 mm grid over the points that `obstacles` (painted after the gland) leave free.
    """
    pad = 0.45 * float(np.cbrt(facts.tumour_ml * 1000.0))
    low, high = gland.box()
    tumour_low, tumour_high = gland.tumour_box()
    box = body.pose.scan_box((np.minimum(low, tumour_low - pad), np.maximum(high, tumour_high + pad)))
    grid = ScanGrid.around(box, (MEASURE_MM,) * 3)
    points = body.reader(grid).read(grid.axis_mm(0))
    free = np.ones(points.shape, bool)
    for shape in obstacles:
        cut = points.cut(shape.box())
        if cut is not None:
            free[cut] &= shape.distance(points.part(cut)) > 0
    tumour_level = level_of(gland.tumour_distance(points)[free], facts.tumour_ml / grid.voxel_ml)
    free &= gland.tumour_distance(points) > tumour_level
    level = level_of(gland.gland_distance(points)[free], facts.pancreas_ml / grid.voxel_ml)
    return replace(gland, level_mm=level, tumour_level_mm=tumour_level)


def level_of(distances: Floats, voxels: float) -> float:
    """Return the level below which `voxels` of the distances lie."""
    count = int(np.clip(round(voxels), 1, distances.size - 1))
    lowest: NDArray[np.float32] = np.partition(distances, (count - 1, count))
    return 0.5 * (float(lowest[count - 1]) + float(lowest[count]))


def paint_gland(canvas: Canvas, gland: Gland, palette: Palette) -> None:
    """Paint sheath, gland, fatty clefts, duct and tumour, and start the labels."""
    canvas.start_labels()
    paint_parenchyma(canvas, gland, palette)
    paint_tumour(canvas, gland, palette)


def paint_parenchyma(canvas: Canvas, gland: Gland, palette: Palette) -> None:
    """Paint the gland and what is in it."""
    patch = canvas.patch(GlandShape(gland))
    if patch is None or patch.pancreas is None:
        return
    points = patch.points
    distance = patch.distance
    sheath = distance - np.float32(gland.sheath_mm) - points.coarse * np.float32(1.5)
    fat = points.fine * np.float32(6.0)
    fat += np.float32(palette.fat + 12.0)
    patch.fill(sheath, fat, width_mm=2.0)
    # lobules: fat reaches into the clefts of the outline, the label follows the outline without them
    tissue = points.fine * np.float32(5.0)
    tissue += np.float32(palette.pancreas)
    hardship = gland.hardship
    if hardship is not None and points.patchy is not None:
        tissue += points.patchy * np.float32(hardship.patchy_hu)
    clefts = coverage(points.fine - np.float32(1.9 - 1.9 * gland.infiltration), 1.2)
    clefts = np.subtract(np.float32(1.0), clefts)
    clefts *= np.float32(0.25 + 0.6 * gland.infiltration)
    clefts *= coverage(np.float32(-7.0 * gland.infiltration - 1.0) - distance, 3.0)
    tissue += clefts * (np.float32(palette.fat + 20.0) - tissue)
    patch.fill(distance, tissue)
    for spot in hardship.spots if hardship is not None else ():
        paint_spot(canvas, spot)
    share = coverage(
        as_read(distance, points, 0.0 if hardship is None else hardship.reader_mm), patch.width_mm
    )
    patch.pancreas += share * (np.float32(1.0) - patch.pancreas)
    if gland.duct is not None:
        duct = canvas.patch(gland.duct)
        if duct is not None and duct.pancreas is not None:
            duct.blend(coverage(duct.distance, 1.2) * duct.pancreas, palette.bile + 8.0)
    if gland.bile_duct is not None:
        bile = canvas.patch(gland.bile_duct)
        if bile is not None:
            bile.fill(bile.distance - np.float32(1.2), palette.bowel_wall - 10.0)
            bile.fill(bile.distance, palette.bile)


def paint_spot(canvas: Canvas, spot: Spot) -> None:
    """Paint a dark spot where there is gland."""
    patch = canvas.patch(spot.shape)
    if patch is None or patch.points.gland is None:
        return
    ragged = patch.distance + patch.points.coarse * np.float32(0.8) + patch.points.fine * np.float32(0.4)
    share = coverage(ragged, spot.soft_mm) * np.float32(spot.opacity)
    patch.blend(share * coverage(patch.points.gland, patch.width_mm), spot.hu)


def as_read(distance: Floats, points: Points, reader_mm: float) -> Floats:
    """Return the distance to the outline that a reader draws, who errs by `reader_mm`."""
    if points.reader is None or not reader_mm:
        return distance
    return np.asarray(distance + points.reader * np.float32(reader_mm), np.float32)


@dataclass(frozen=True)
class TumourShape:
    """The tumour of a gland as a shape."""

    gland: Gland

    def box(self) -> Box:
        """Return its box."""
        return self.gland.tumour_box()

    def distance(self, points: Points) -> Floats:
        """Return the distance to its outline."""
        return self.gland.tumour_distance(points) - np.float32(self.gland.tumour_level_mm)


@dataclass(frozen=True)
class GlandShape:
    """The outline of a gland as a shape, where the scene has measured it."""

    gland: Gland

    def box(self) -> Box:
        """Return its box."""
        return self.gland.box()

    def distance(self, points: Points) -> Floats:
        """Return the distance to its outline."""
        if points.gland is None:
            points.gland = self.gland.gland_distance(points) - np.float32(self.gland.level_mm)
        return points.gland


def paint_tumour(canvas: Canvas, gland: Gland, palette: Palette) -> None:
    """Paint the tumour: darker than the gland, darkest in its core, with a border softer than its label."""
    patch = canvas.patch(TumourShape(gland))
    if patch is None or patch.pancreas is None or patch.tumour is None:
        return
    points = patch.points
    radius = float(gland.tumour.radii.mean())
    tissue = points.coarse * np.float32(5.0)
    tissue += points.fine * np.float32(3.0)
    hardship = gland.hardship
    tumour_hu = palette.pancreas - palette.tumour_drop if hardship is None else hardship.tumour_hu
    tissue += np.float32(tumour_hu)
    if hardship is None or hardship.look == "dark":
        core = coverage(patch.distance + np.float32(0.55 * radius) + points.coarse * np.float32(2.0), 4.0)
        core *= np.float32(-gland.core_hu * min(1.0, radius / 14.0))
        tissue += core
    soft_mm = gland.soft_mm if hardship is None or hardship.soft_mm is None else hardship.soft_mm
    patch.blend(coverage(patch.distance - np.float32(0.3 * soft_mm), soft_mm), tissue)
    share = coverage(
        as_read(patch.distance, points, 0.0 if hardship is None else hardship.reader_tumour_mm),
        patch.width_mm,
    )
    patch.pancreas *= np.float32(1.0) - share
    patch.tumour += share * (np.float32(1.0) - patch.tumour)
