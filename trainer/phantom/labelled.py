"""A real label map as the patient: the same tissues, scanner and tumour on organs of a real body."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from algorithm.errors import InputError
from trainer.phantom.acquisition import Size, acquire, draw_acquisition
from trainer.phantom.canvas import Canvas, Material, Organ, Patch
from trainer.phantom.case import Volume
from trainer.phantom.draws import generator
from trainer.phantom.fields import Floats
from trainer.phantom.grid import Body, Box, Points
from trainer.phantom.pancreas import Gland, drawn_gland, fit_levels, tumour_shape
from trainer.phantom.scene import Scene
from trainer.phantom.statistics import draw_facts
from trainer.phantom.tissue import LUNG_HU, Bone, Kidney, Lumen, Palette, Solid, draw_palette
from trainer.phantom.torso import paint_layers

log = logging.getLogger(__name__)

PAD_MM = 12.0  # how far outside a label its distance is known
REACH_Z_MM = {"small": 110.0, "full": 420.0}  # up and down from the pancreas: what a scan can show
HULL_STEP_MM = 4.0
WALL_MM = 9.0
TUMOUR_SHARE = 0.4  # of the gland, at most

# Name of a label (the first row whose text it holds) -> tissue. Names are those of TotalSegmentator
# (Wasserthal et al. 2023, doi:10.1148/ryai.230024). Rows are painted in this order.
TISSUES = (
    ("lung", "lung"),
    ("trachea", "air"),
    ("autochthon", "muscle"),
    ("gluteus", "muscle"),
    ("iliopsoas", "muscle"),
    ("costal_cartilages", "cartilage"),
    ("rib_", "bone"),
    ("vertebrae", "bone"),
    ("sacrum", "bone"),
    ("hip", "bone"),
    ("femur", "bone"),
    ("humerus", "bone"),
    ("scapula", "bone"),
    ("clavicula", "bone"),
    ("sternum", "bone"),
    ("skull", "bone"),
    ("spinal_cord", "cord"),
    ("liver", "liver"),
    ("gallbladder", "bile"),
    ("urinary_bladder", "bile"),
    ("cyst", "bile"),
    ("prostate", "muscle"),
    ("brain", "cord"),
    ("thyroid", "spleen"),
    ("small_bowel", "bowel"),
    ("colon", "colon"),
    ("stomach", "stomach"),
    ("esophagus", "gullet"),
    ("heart", "heart"),
    ("atrial", "heart"),
    ("pulmonary_vein", "vein"),
    ("duodenum", "bowel"),
    ("spleen", "spleen"),
    ("kidney", "kidney"),
    ("adrenal", "adrenal"),
    ("vena_cava", "vein"),
    ("iliac_vena", "vein"),
    ("brachiocephalic_vein", "vein"),
    ("aorta", "artery"),
    ("artery", "artery"),
    ("trunk", "artery"),
    ("portal_vein", "portal"),
)
FIRM = {"spleen", "kidney", "adrenal", "vein", "artery", "portal", "cord"}
LIMBS = ("humerus", "scapula", "clavicula", "skull", "femur", "brain", "thyroid")
PANCREAS = "pancreas"


@dataclass(frozen=True)
class SampledShape:
    """A shape given by its signed distance on a grid; `low` is the first sample (x, y, z) in mm."""

    low: NDArray[np.float64]
    step: NDArray[np.float64]
    samples: Floats

    def box(self) -> Box:
        """Return the box of the samples."""
        return self.low, self.low + (np.array(self.samples.shape[::-1]) - 1) * self.step

    def distance(self, points: Points) -> Floats:
        """Return the distance, linear between samples."""
        index = np.stack(
            [
                (points.z - np.float32(self.low[2])) * np.float32(1 / self.step[2]),
                (points.y - np.float32(self.low[1])) * np.float32(1 / self.step[1]),
                (points.x - np.float32(self.low[0])) * np.float32(1 / self.step[0]),
            ]
        )
        return np.asarray(
            ndimage.map_coordinates(self.samples, index, output=np.float32, order=1, mode="nearest"),
            np.float32,
        )


@dataclass(frozen=True)
class LabelMap:
    """A body: its labels' shapes in mm from the middle of its pancreas, and where that is in space."""

    shapes: dict[str, SampledShape]
    hull: SampledShape
    pancreas_ml: float
    direction: NDArray[np.float64]
    middle_xyz_mm: NDArray[np.float64]


def read_names(path: Path) -> dict[int, str]:
    """Read label names from the JSON beside a label map: {"7": "pancreas"} or {"7": {"name": …}}."""
    beside = path.with_name(path.name.removesuffix(".gz").rsplit(".", 1)[0] + ".json")
    if not beside.is_file():
        raise InputError(f"--anatomy needs the names of the labels in {beside}, which is not there.")
    try:
        table = json.loads(beside.read_text(encoding="utf-8"))
        return {int(key): str(row["name"] if isinstance(row, dict) else row) for key, row in table.items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f'{beside} must be an object from label value to name, such as {{"7": "pancreas"}}: {error!r}.'
        ) from error


@lru_cache(maxsize=1)
def read_label_map(path: Path, size: Size) -> LabelMap:
    """Read a label map and measure the distance to each label's surface."""
    names = read_names(path)
    try:
        image = sitk.DICOMOrient(sitk.ReadImage(path), "LPS")
    except RuntimeError as error:
        raise InputError(
            f"{path} cannot be read as a label map: {str(error).splitlines()[-1].strip()}."
        ) from error
    array = sitk.GetArrayFromImage(image)
    wanted = [value for value, name in names.items() if name == PANCREAS]
    if array.ndim != 3 or not wanted or not np.any(array == wanted[0]):
        raise InputError(f"{path} must be a 3-D label map with a label named {PANCREAS}, which it lacks.")
    step = np.array(image.GetSpacing())
    where = np.argwhere(array == wanted[0])
    middle = 0.5 * (where.min(0) + where.max(0))
    first = max(0, int(middle[0] - REACH_Z_MM[size] / step[2]))
    last = min(len(array), int(middle[0] + REACH_Z_MM[size] / step[2]) + 1)
    array = np.ascontiguousarray(array[first:last])
    origin = (np.array([first, 0, 0]) - middle)[::-1] * step  # of the kept part, in mm from the pancreas
    shapes = {}
    for value, cut in enumerate(ndimage.find_objects(array.astype(np.int32)), start=1):
        if cut is not None and value in names:
            shapes[names[value]] = sampled(array, value, cut, origin, step)
    limbs = [value for value, name in names.items() if name.startswith(LIMBS)]
    trunk = (array > 0) & ~np.isin(array, limbs)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return LabelMap(
        shapes=shapes,
        hull=trunk_hull(trunk, origin, step),
        pancreas_ml=float(len(where) * step.prod() / 1000.0),
        direction=direction,
        middle_xyz_mm=np.array(image.GetOrigin()) + direction @ (middle[::-1] * step),
    )


def sampled(
    array: NDArray[np.integer],
    value: int,
    cut: tuple[slice, ...],
    origin: NDArray[np.float64],
    step: NDArray[np.float64],
) -> SampledShape:
    """Return one label's smoothed signed distance on its box and `PAD_MM` around it."""
    pad = np.ceil(PAD_MM / step[::-1]).astype(int)
    inside = np.pad(array[cut] == value, [(int(n), int(n)) for n in pad])
    sampling = step[::-1].tolist()
    outward = ndimage.distance_transform_edt(~inside, sampling=sampling)
    inward = ndimage.distance_transform_edt(inside, sampling=sampling)
    half = 0.5 * float(step.min())  # the surface is half a voxel from the nearest centre
    distance = np.where(inside, half - inward, outward - half)
    smooth = ndimage.gaussian_filter(distance.astype(np.float32), 0.7)
    start = np.array([piece.start for piece in cut]) - pad
    return SampledShape(origin + start[::-1] * step, step, smooth)


def trunk_hull(
    trunk: NDArray[np.bool_], origin: NDArray[np.float64], step: NDArray[np.float64]
) -> SampledShape:
    """Return the distance to the convex hull of each slice of the labelled trunk."""
    spans = np.arange(0, trunk.shape[0], max(1, round(HULL_STEP_MM / step[2])))
    low = origin[:2] - 60.0
    count = np.ceil((np.array(trunk.shape[:0:-1]) * step[:2] + 120.0) / HULL_STEP_MM).astype(int)
    x = low[0] + np.arange(count[0]) * HULL_STEP_MM
    y = low[1] + np.arange(count[1]) * HULL_STEP_MM
    layers = np.full((spans.size, count[1], count[0]), np.nan, np.float32)
    for index, z in enumerate(spans):
        corners = np.argwhere(trunk[z])[:, ::-1] * step[:2] + origin[:2]
        if len(corners) < 3 or np.any(np.ptp(corners, axis=0) < 20.0):
            continue
        distance = np.full(layers.shape[1:], -np.inf)
        for nx, ny, offset in ConvexHull(corners).equations:
            np.maximum(distance, nx * x[None, :] + ny * y[:, None] + offset, out=distance)
        layers[index] = distance
    known = np.flatnonzero(~np.isnan(layers[:, 0, 0]))
    nearest = known[np.argmin(np.abs(np.arange(spans.size)[:, None] - known[None, :]), axis=1)]
    smooth = ndimage.gaussian_filter(layers[nearest], (4.0, 2.0, 2.0), mode="nearest")
    pitch = np.array([HULL_STEP_MM, HULL_STEP_MM, float(spans[1] - spans[0]) * step[2]])
    return SampledShape(np.array([low[0], low[1], origin[2]]), pitch, smooth)


@dataclass(frozen=True)
class LabelledTrunk:
    """Skin, fat and wall around the hull of all labels."""

    hull: SampledShape
    fat_mm: float

    @property
    def back_mm(self) -> float:
        """Where the skin of the back is, in mm behind the middle of the pancreas."""
        return self.section()[1][1]

    @property
    def middle_y_mm(self) -> float:
        """Where the middle between belly and back is."""
        (_, front), (_, back) = self.section()
        return 0.5 * (front + back)

    @property
    def middle_x_mm(self) -> float:
        """Where the middle between both sides is."""
        (right, _), (left, _) = self.section()
        return 0.5 * (right + left)

    def section(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the lowest and highest (x, y) of the skin at the height of the pancreas."""
        level = round(float(-self.hull.low[2] / self.hull.step[2]))
        where = np.argwhere(self.hull.samples[level] < self.fat_mm + 3.0)[:, ::-1]
        low = where.min(0) * self.hull.step[:2] + self.hull.low[:2]
        high = where.max(0) * self.hull.step[:2] + self.hull.low[:2]
        return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))

    def paint(self, canvas: Canvas, palette: Palette) -> None:
        """Paint the layers."""
        hull = self.hull.distance(canvas.points)
        whole = Patch(canvas.points, canvas.hu, None, None, hull, canvas.width_mm)
        paint_layers(
            whole, hull - np.float32(self.fat_mm + 3.0), hull + np.float32(WALL_MM - 3.0), WALL_MM, palette
        )


def material(
    tissue: str, shape: SampledShape, palette: Palette, rng: np.random.Generator, scale: float
) -> Material:
    """Return what fills a label of the map."""
    inside = np.argwhere(shape.samples < 0)[:, ::-1] * shape.step + shape.low
    (x, y, z), top, bottom = inside.mean(0), inside[:, 1].min(), inside[:, 1].max()
    gas = scale * float(top + rng.uniform(0.1, 0.4) * (bottom - top))
    wall = palette.bowel_wall
    some: dict[str, Material] = {
        "lung": Solid(LUNG_HU, 22.0),
        "air": Solid(-990.0, 0.0),
        "muscle": Solid(palette.muscle, 7.0),
        "cartilage": Solid(115.0, 12.0),
        "bone": Bone(palette.bone_cortex, palette.bone_marrow, 1.5),
        "cord": Solid(38.0),
        "liver": Solid(palette.liver, 4.0),
        "bile": Solid(palette.bile, 2.0),
        "bowel": Lumen(wall, float(rng.uniform(10, 85)), 2.6, folds_mm=1.6),
        "colon": Lumen(wall - 8.0, float(rng.uniform(15, 60)), 2.4, gas, stool=float(rng.random())),
        "stomach": Lumen(wall, float(rng.uniform(5, 60)), 3.5, gas, folds_mm=1.6),
        "gullet": Lumen(wall - 15.0, 30.0, 4.0),
        "heart": Solid(0.5 * (palette.aorta + palette.cava), 5.0),
        "spleen": Solid(palette.spleen, 4.0),
        "kidney": Kidney(
            palette.kidney_cortex,
            palette.kidney_medulla,
            palette.fat + 20.0,
            palette.kidney_medulla * 0.4,
            (float(x), float(y), float(z)),
            (7.0, 6.0, 14.0),
        ),
        "adrenal": Solid(palette.pancreas - 15.0),
        "vein": Solid(palette.cava, 5.0),
        "artery": Solid(palette.aorta, 4.0),
        "portal": Solid(palette.portal_vein, 4.0),
    }
    return some[tissue]


def tissue_of(name: str) -> tuple[int, str]:
    """Return the row of the table and the tissue of a label's name; unknown ones are muscle, painted first."""
    for row, (text, tissue) in enumerate(TISSUES):
        if text in name:
            return row, tissue
    return -1, "muscle"


def labelled_gland(seed: int, case: int, shape: SampledShape, tumour_ml: float, place: float) -> Gland:
    """Return a gland with the outline of a label and a tumour at `place`, counted from its right end."""
    rng = generator(seed, case, "pancreas")
    voxels = np.argwhere(shape.samples < min(-2.5, 0.5 * float(shape.samples.min())))[:, ::-1]
    ordered = voxels[np.argsort(voxels[:, 0], kind="stable")]
    centre = shape.low + ordered[int(place * (len(ordered) - 1))] * shape.step
    tumour = tumour_shape(rng, centre, tumour_ml)
    return drawn_gland(rng, shape, tumour, (None, None), sheath_mm=(0.0, 1.0), lobes_mm=(0.3, 0.8))


def make_labelled_volume(seed: int, case: int, size: Size, path: Path) -> Volume:
    """Paint the body of a label map: its organs in its own orientation, with the pose and scan of a case.

    The pancreas keeps its own volume; the tumour's is drawn as ever, up to `TUMOUR_SHARE` of the gland.
    """
    body_map = read_label_map(path, size)
    palette = draw_palette(seed, case)
    body = Body(seed, case)
    rng = generator(seed, case, "labelled")
    whole_ml = body_map.pancreas_ml * body.pose.scale**3
    drawn = draw_facts(seed, case)
    tumour_ml = min(drawn.tumour_ml, TUMOUR_SHARE * whole_ml)
    facts = replace(drawn, tumour_ml=tumour_ml, pancreas_ml=whole_ml - 0.5 * tumour_ml)
    organs = []
    for name, shape in body_map.shapes.items():
        if name == PANCREAS:
            continue
        row, tissue = tissue_of(name)
        if row < 0:
            log.info("label %s has no tissue of its own: painted as soft tissue", name)
        organs.append(
            (row, tissue, Organ(name, shape, material(tissue, shape, palette, rng, body.pose.scale)))
        )
    organs.sort(key=lambda entry: (entry[0], entry[2].name))
    firm = [organ for _, tissue, organ in organs if tissue in FIRM]
    gland = labelled_gland(seed, case, body_map.shapes[PANCREAS], tumour_ml, facts.tumour_place)
    gland = fit_levels(gland, body, facts, [organ.shape for organ in firm])
    trunk = LabelledTrunk(body_map.hull, float(rng.uniform(6.0, 26.0)))
    soft = [organ for _, tissue, organ in organs if tissue not in FIRM]
    scene = Scene(body, palette, trunk, soft, gland, firm)
    scale = body.pose.scale
    scan = draw_acquisition(
        seed,
        case,
        facts,
        size,
        body.pose.scan_box(gland.core_box()),
        (trunk.middle_x_mm * scale, trunk.middle_y_mm * scale),
    )
    image, labels = acquire(scene, scan, seed, case)
    start = np.array(scan.grid.start_zyx_mm[::-1])
    origin = body_map.middle_xyz_mm + body_map.direction @ start
    return Volume(image, labels, scan.grid, body_map.direction, np.round(origin, 3))
